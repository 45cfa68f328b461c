//! Compares the demand signals in simulations, and writes the tables of `docs/benchmarks/sizing.md`.
//!
//! ```text
//! cargo run --profile sizing -p kthena-keda-core --example sizing -- docs/benchmarks/sizing.md [FOLDER]
//! ```
//!
//! `FOLDER` has recorded loads, one CSV file each; the file name ends with the length of a row, such as `-15s.csv`.
//! A row has the columns `arrivals,input_tokens,output_tokens`, or `t` and columns of rates named `…_rps`. Without a
//! folder the tables of recorded loads stay as they are.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

use std::{
    error::Error,
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use kthena_keda_core::{
    domain::ReplicaBounds,
    foresight::{
        fleet::{Clients, FleetSpec, Queue},
        law::{BoundedBacklog, Law},
        load::{Load, Slice},
        sizing::{Case, Figures, StepLoad},
        time::Time,
    },
    intent::{Policy, PolicyKind, Profile},
};

/// Requests that one ServingGroup serves at once, and the target.
const SLOTS: usize = 10;
const TARGET: f64 = 8.0;
const HEADROOM: f64 = 1.2;
const DRAIN_TIME: f64 = 600.0;
/// Seconds for one output token, by which a recorded load gets its service times.
const TOKEN: f64 = 0.03;
/// Mean requests per second to which recorded rates without tokens are reduced, and their service time.
const REDUCED_RATE: f64 = 3.0;
const REDUCED_SERVICE_TIME: f64 = 10.0;
/// Limit of the decision: waiting by 10 % longer, or so little longer that no client notices.
const TOLERANCE: f64 = 1.1;
const SLACK: f64 = 0.1;

/// Time of a recorded load that is simulated, in seconds: longer ones are cut.
const TRACE_LENGTH: f64 = 172_800.0;

/// Errors of the service time that the bounded backlog is given.
const ERRORS: [(&str, f64); 4] = [("−50 %", 0.5), ("−30 %", 0.7), ("+30 %", 1.3), ("+50 %", 1.5)];

/// A case, and the service times of its load.
struct Subject {
    case: Case,
    /// Service time that is right, and as the operator measures it.
    service_times: [f64; 2],
}

struct Row {
    law: String,
    figures: Figures,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let page = arguments.next().ok_or("usage: sizing PAGE [FOLDER]")?;
    let mut verdicts = Vec::new();
    write_table(&page, "steps", &step_table(&mut verdicts)?)?;
    write_table(&page, "steps-summary", &summary(&verdicts))?;
    if let Some(folder) = arguments.next() {
        let mut verdicts = Vec::new();
        write_table(&page, "traces", &trace_table(&folder, &mut verdicts)?)?;
        write_table(&page, "traces-summary", &summary(&verdicts))?;
    }
    Ok(())
}

/// Speeds of scaling up: the built-in one, and a faster one.
fn speeds() -> Result<[(&'static str, Profile); 2], Box<dyn Error>> {
    let replicas = ReplicaBounds::new(1, 100).ok_or("bounds")?;
    let built_in = Profile { replicas, ..Profile::built_in() };
    let mut fast = built_in.clone();
    fast.behavior.scale_up.policies = vec![Policy { kind: PolicyKind::Pods, value: 8, period: 60 }];
    Ok([("built-in", built_in), ("8 per 60 s", fast)])
}

fn fleet(queue: Queue, loading: u64) -> FleetSpec {
    FleetSpec {
        slots: SLOTS,
        loading: Time::from_seconds(loading),
        queue,
        waiting_limit: None,
        clients: Clients { retry: None, patience: None },
    }
}

/// The router's own limit, and clients that ask again every 5 s for 5 minutes.
fn refusing(loading: u64) -> FleetSpec {
    let clients = Clients { retry: Some(Time::from_seconds(5)), patience: Some(Time::from_seconds(300)) };
    FleetSpec { waiting_limit: Some(10), clients, ..fleet(Queue::Engine, loading) }
}

/// Clients that leave after a minute without an answer.
fn impatient(loading: u64) -> FleetSpec {
    let clients = Clients { retry: None, patience: Some(Time::from_seconds(60)) };
    FleetSpec { clients, ..fleet(Queue::Engine, loading) }
}

fn step_table(verdicts: &mut Vec<Verdict>) -> Result<Vec<String>, Box<dyn Error>> {
    let step =
        |rate, service_time, seconds| StepLoad { quiet: 600.0, seconds, rate, service_time, target: TARGET };
    let usual = step(16.0, 5.0, 3600.0);
    let cases = [
        ("16/s × 5 s, loading 60 s, queue in the engines", usual, fleet(Queue::Engine, 60)),
        ("16/s × 5 s, loading 60 s, queue in the router", usual, fleet(Queue::Router, 60)),
        ("16/s × 5 s, loading 180 s, queue in the engines", usual, fleet(Queue::Engine, 180)),
        ("16/s × 5 s, loading 180 s, queue in the router", usual, fleet(Queue::Router, 180)),
        ("16/s × 5 s, loading 300 s, queue in the engines", usual, fleet(Queue::Engine, 300)),
        ("16/s × 5 s, loading 60 s, router's limit, clients ask again", usual, refusing(60)),
        ("16/s × 5 s, loading 300 s, router's limit, clients ask again", usual, refusing(300)),
        ("16/s × 5 s, loading 60 s, clients leave after 60 s", usual, impatient(60)),
        ("40/s × 2 s, loading 60 s, queue in the engines", step(40.0, 2.0, 3600.0), fleet(Queue::Engine, 60)),
        ("4/s × 20 s, loading 60 s, queue in the engines", step(4.0, 20.0, 3600.0), fleet(Queue::Engine, 60)),
        (
            "0.67/s × 120 s, loading 60 s, queue in the engines",
            step(0.67, 120.0, 5400.0),
            fleet(Queue::Engine, 60),
        ),
        (
            "0.27/s × 300 s, loading 60 s, queue in the engines",
            step(0.27, 300.0, 7200.0),
            fleet(Queue::Engine, 60),
        ),
        (
            "0.09/s × 900 s, loading 60 s, queue in the engines",
            step(0.09, 900.0, 10_800.0),
            fleet(Queue::Engine, 60),
        ),
    ];
    let head = "| signal | peak × need | reach s | clear s | wait mean s | p95 s | late p95 s | group-hours × need | end | cut | refused | lost |";
    let mut lines = Vec::new();
    for (speed, profile) in &speeds()? {
        for (name, step, fleet) in &cases {
            let case = Case::step(step, *fleet, profile)?;
            let name = format!("{name}, {speed}");
            eprintln!("{name}");
            let service_times = [step.service_time, step.service_time];
            let need = case.step.map_or(1.0, |step| f64::from(step.need));
            let rows = compare(&Subject { case, service_times }, 1..=5, verdicts);
            lines.extend([format!("\n**{name}**\n"), head.to_owned(), "|---".repeat(12) + "|"]);
            lines.extend(rows.iter().map(|row| step_row(row, need, need * step.seconds / 3600.0)));
        }
    }
    Ok(lines)
}

fn step_row(row: &Row, need: f64, hours: f64) -> String {
    let it = &row.figures;
    format!(
        "| {} | {:.1} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} | {:.2} | {:.0} | {:.0} | {:.0} | {:.0} |",
        row.law,
        it.peak / need,
        it.reach,
        it.clear,
        it.wait_mean,
        it.wait_p95,
        it.late_p95,
        it.group_hours / hours,
        it.end,
        it.cut,
        it.refused,
        it.lost
    )
}

fn trace_table(folder: &Path, verdicts: &mut Vec<Verdict>) -> Result<Vec<String>, Box<dyn Error>> {
    let head = "| signal | peak | wait mean s | p95 s | group-hours | changes | cut | refused | lost |";
    let [(_, profile), _] = speeds()?;
    let mut lines = Vec::new();
    for (name, load) in loads(folder)? {
        for (kind, fleet) in [
            ("loading 60 s, queue in the engines", fleet(Queue::Engine, 60)),
            ("loading 180 s, router's limit, clients ask again", refusing(180)),
        ] {
            let name = format!("{name}, {kind}");
            eprintln!("{name}");
            let service_times = [load.mean_service_time(), load.measured_service_time()];
            let case = Case::trace(load.clone(), fleet, &profile, TARGET)?;
            // Long loads need no further seeds: they have thousands of bursts.
            let seeds = if load.length() > Time::from_seconds(7200) { 1..=1 } else { 1..=5 };
            let rows = compare(&Subject { case, service_times }, seeds, verdicts);
            lines.extend([
                format!(
                    "\n**{name}**, service time {:.1} s, measured {:.1} s\n",
                    service_times[0], service_times[1]
                ),
                head.to_owned(),
                "|---".repeat(9) + "|",
            ]);
            lines.extend(rows.iter().map(trace_row));
        }
    }
    Ok(lines)
}

fn trace_row(row: &Row) -> String {
    let it = &row.figures;
    format!(
        "| {} | {:.0} | {:.2} | {:.2} | {:.1} | {:.0} | {:.0} | {:.0} | {:.0} |",
        row.law, it.peak, it.wait_mean, it.wait_p95, it.group_hours, it.changes, it.cut, it.refused, it.lost
    )
}

/// Figures of the requests in flight and of each bounded backlog.
fn compare(subject: &Subject, seeds: RangeInclusive<u64>, verdicts: &mut Vec<Verdict>) -> Vec<Row> {
    let off = subject.case.figures(Law::InFlight, seeds.clone());
    let mut rows = Vec::from([Row { law: "in flight".to_owned(), figures: off }]);
    for (law, bounded) in bounded_laws(subject.service_times) {
        let figures = subject.case.figures(Law::BoundedBacklog(bounded), seeds.clone());
        verdicts.push(Verdict::new(law, &off, &figures));
        rows.push(Row { law: format!("bounded, {law}"), figures });
    }
    rows
}

/// Bounded backlogs, with errors of the service time and other settings.
fn bounded_laws([right, measured]: [f64; 2]) -> Vec<(&'static str, BoundedBacklog)> {
    let bounded = |service_time| BoundedBacklog::new(service_time, HEADROOM, DRAIN_TIME);
    let mut laws = vec![("service time right", bounded(right))];
    if (measured - right).abs() > 1e-6 {
        laws.push(("as measured", bounded(measured)));
    }
    laws.extend(ERRORS.map(|(name, factor)| (name, bounded(right * factor))));
    laws.extend([
        ("headroom 1.5", BoundedBacklog::new(right, 1.5, DRAIN_TIME)),
        ("engines' running as floor", bounded(right).map(BoundedBacklog::with_running)),
        ("engines' running as floor, −50 %", bounded(right * 0.5).map(BoundedBacklog::with_running)),
        ("window 60 s", bounded(right).map(|bounded| bounded.with_short_window(60))),
        ("without refusals", bounded(right).map(BoundedBacklog::without_refusals)),
    ]);
    laws.into_iter().filter_map(|(name, law)| Some((name, law?))).collect()
}

/// Comparison of the bounded backlog with the requests in flight in one case.
struct Verdict {
    law: &'static str,
    mean: [f64; 2],
    p95: [f64; 2],
    lost: [f64; 2],
    cut: [f64; 2],
    hours: [f64; 2],
}

impl Verdict {
    fn new(law: &'static str, off: &Figures, bounded: &Figures) -> Self {
        Self {
            law,
            mean: [off.wait_mean, bounded.wait_mean],
            p95: [off.wait_p95.max(off.late_p95), bounded.wait_p95.max(bounded.late_p95)],
            lost: [off.lost, bounded.lost],
            cut: [off.cut, bounded.cut],
            hours: [off.group_hours, bounded.group_hours],
        }
    }

    fn waits_longer(&self) -> bool {
        let is_longer = |[off, bounded]: [f64; 2]| bounded > off * TOLERANCE && bounded > off + SLACK;
        is_longer(self.mean) || is_longer(self.p95) || is_longer(self.lost)
    }

    fn cuts_more(&self) -> bool {
        let [off, bounded] = self.cut;
        bounded > off
    }
}

/// One line per bounded backlog: the number of cases in which it is worse than the requests in flight.
fn summary(verdicts: &[Verdict]) -> Vec<String> {
    let head = "| bounded backlog | cases | longer waiting or more lost | more streams cut | streams cut | group-hours |";
    let mut lines = Vec::from([head.to_owned(), "|---".repeat(6) + "|"]);
    let mut laws: Vec<&str> = Vec::new();
    for verdict in verdicts.iter().filter(|verdict| verdict.law != "as measured") {
        if !laws.contains(&verdict.law) {
            laws.push(verdict.law);
        }
    }
    if verdicts.iter().any(|verdict| verdict.law == "as measured") {
        laws.insert(1, "as measured");
    }
    lines.extend(laws.into_iter().map(|law| summary_row(law, verdicts)));
    lines
}

fn summary_row(law: &str, verdicts: &[Verdict]) -> String {
    let of = || verdicts.iter().filter(|verdict| verdict.law == law);
    let sums = |pair: fn(&Verdict) -> [f64; 2]| {
        of().map(pair).fold([0.0, 0.0], |[off, bounded], [a, b]| [off + a, bounded + b])
    };
    let ([cut_off, cut], [hours_off, hours]) = (sums(|it| it.cut), sums(|it| it.hours));
    format!(
        "| {law} | {} | {} | {} | {cut_off:.0} → {cut:.0} | −{:.0} % |",
        of().count(),
        of().filter(|verdict| verdict.waits_longer()).count(),
        of().filter(|verdict| verdict.cuts_more()).count(),
        100.0 * (1.0 - hours / hours_off),
    )
}

/// Recorded loads of a folder, in the order of their names.
fn loads(folder: &Path) -> Result<Vec<(String, Load)>, Box<dyn Error>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "csv"));
    paths.sort();
    let mut loads = Vec::new();
    for path in paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path)?;
        let rows: Vec<Vec<f64>> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split(',').map(|cell| cell.trim().parse().unwrap_or(f64::NAN)).collect())
            .collect();
        let header: Vec<&str> =
            text.lines().find(|line| !line.starts_with('#')).unwrap_or_default().split(',').collect();
        let seconds = length(&name).ok_or_else(|| format!("{name}: expected a name that ends like -15s"))?;
        if header.first() == Some(&"arrivals") {
            loads.push((name, with_tokens(&rows, seconds)));
        } else {
            let columns = header.iter().enumerate().skip(1);
            loads.extend(
                columns.map(|(index, column)| (format!("{name} {column}"), of_rates(&rows, index, seconds))),
            );
        }
    }
    Ok(loads)
}

/// Length of a row in seconds, by the end of the file's name.
fn length(name: &str) -> Option<f64> {
    let (_, length) = name.rsplit_once('-')?;
    let (number, seconds) = match length.strip_suffix("min") {
        Some(number) => (number, 60.0),
        None => (length.strip_suffix('s')?, 1.0),
    };
    number.parse::<f64>().ok().map(|number| number * seconds)
}

fn with_tokens(rows: &[Vec<f64>], seconds: f64) -> Load {
    let slice = |row: &Vec<f64>| {
        let [arrivals, _, output] = row.get(..3)?.try_into().ok()?;
        let service_time = if arrivals > 0.0 { TOKEN * output / arrivals } else { 0.0 };
        arrivals.is_finite().then_some(Slice { seconds, rate: arrivals / seconds, service_time })
    };
    cut(rows.iter().filter_map(slice))
}

fn cut(slices: impl Iterator<Item = Slice>) -> Load {
    let mut left = TRACE_LENGTH;
    Load::new(slices.take_while(|slice| {
        left -= slice.seconds;
        left >= 0.0
    }))
}

/// A load of rates, reduced in proportion. A rate of 0 is a gap in the recording and keeps the one before.
fn of_rates(rows: &[Vec<f64>], index: usize, seconds: f64) -> Load {
    let mut rates: Vec<f64> =
        rows.iter().filter_map(|row| row.get(index).copied()).filter(|rate| rate.is_finite()).collect();
    let mut before = 0.0;
    for rate in &mut rates {
        *rate = if *rate > 0.0 { *rate } else { before };
        before = *rate;
    }
    #[allow(clippy::cast_precision_loss, reason = "a few thousand rows")]
    let factor = REDUCED_RATE * rates.len() as f64 / rates.iter().sum::<f64>();
    let slice = |rate: f64| Slice { seconds, rate: rate * factor, service_time: REDUCED_SERVICE_TIME };
    cut(rates.into_iter().map(slice))
}

/// Replaces the lines between the marks of a table.
fn write_table(page: &Path, table: &str, lines: &[String]) -> Result<(), Box<dyn Error>> {
    let text = fs::read_to_string(page)?;
    let (start, end) = (format!("<!-- {table}: make sizing -->\n"), "<!-- end -->");
    let (before, rest) =
        text.split_once(&start).ok_or_else(|| format!("{} has no {start}", page.display()))?;
    let (_, after) = rest.split_once(end).ok_or_else(|| format!("{} has no {end}", page.display()))?;
    fs::write(page, format!("{before}{start}{}\n{end}{after}", lines.join("\n")))?;
    Ok(())
}
