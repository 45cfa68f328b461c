//! The page with tables of figures and goals.

use std::fmt::Write as _;

use crate::figures::{Run, Spread};

/// A row of a table.
struct Row {
    /// Name of the figure.
    name: &'static str,
    label: &'static str,
    unit: &'static str,
    /// Upper limits for 1,000 and for 10,000 models.
    goals: (Option<f64>, Option<f64>),
}

const fn row(name: &'static str, label: &'static str, unit: &'static str) -> Row {
    Row { name, label, unit, goals: (None, None) }
}

const fn goal(
    name: &'static str,
    label: &'static str,
    unit: &'static str,
    goals: (Option<f64>, Option<f64>),
) -> Row {
    Row { name, label, unit, goals }
}

const ROWS: [Row; 61] = [
    row("floor.seconds", "**Floor**: all writes of the bare client", "s"),
    row("floor.cpu", "CPU time of the client", "s"),
    row("floor.server_cpu", "CPU time of the API server", "s"),
    row("watching.seconds", "**Watching floor**: the same with the list and watch of both kinds", "s"),
    row("watching.over_floor", "watching floor ÷ floor", ""),
    row("watching.cpu", "CPU time of the client", "s"),
    row("watching.server_cpu", "CPU time of the API server", "s"),
    row("watching.watched_a_model", "sent on watches, per model", "KiB"),
    row("start.seconds", "**Start** without generated objects → all written", "s"),
    goal("start.over_watching", "start ÷ watching floor", "", (Some(1.05), Some(1.05))),
    goal("start.over_floor", "start ÷ floor", "", (Some(1.1), Some(1.1))),
    goal("start.cpu", "CPU time of the operator", "s", (Some(1.65), None)),
    row("start.server_cpu", "CPU time of the API server", "s"),
    row("start.writes_a_model", "writes per model", ""),
    row("start.reads_a_model", "reads per model, including watches and lists", ""),
    row("start.watched_a_model", "sent on watches, per model", "KiB"),
    goal("start.rss_peak", "peak memory", "MiB", (Some(30.0), Some(60.0))),
    row("profile.seconds", "**Profile change** for all models → all written", "s"),
    row("profile.cpu", "CPU time of the operator", "s"),
    row("profile.writes_a_model", "writes per model", ""),
    row("profile.reads_a_model", "reads per model", ""),
    row("profile.watched_a_model", "sent on watches, per model", "KiB"),
    row(
        "latency.events_p50",
        "**Model change** at rest: watch event of the ModelServing → watch event of the ScaledObject, p50",
        "ms",
    ),
    goal("latency.events_p95", "p95", "ms", (Some(15.0), Some(15.0))),
    row("latency.events_p99", "p99", "ms"),
    row(
        "latency.answers_p50",
        "response to the annotation change → watch event of the ScaledObject, p50",
        "ms",
    ),
    row("latency.answers_p95", "p95", "ms"),
    row("latency.answers_p99", "p99", "ms"),
    goal("restart.seconds", "**Restart** with all objects in place → idle", "s", (None, Some(6.0))),
    goal("restart.cpu", "CPU time of the operator", "s", (None, Some(3.0))),
    goal("restart.writes", "writes", "", (Some(0.0), Some(0.0))),
    row("restart.reads", "reads, including watches and lists", ""),
    row("restart.rss_peak", "peak memory", "MiB"),
    row("rest.rss", "**At rest**: memory", "MiB"),
    goal("rest.writes", "writes", "", (Some(0.0), Some(0.0))),
    row("rest.requests_an_hour", "requests per hour, including restarted watches", ""),
    row("rest.cpu_an_hour", "CPU time of the operator per hour", "s"),
    row("opt_out.seconds", "**Opt-out** of all models, one request each → all written", "s"),
    row("opt_out.cpu", "CPU time of the operator", "s"),
    row("opt_out.writes_a_model", "writes per model, including events", ""),
    row("opt_out.reads_a_model", "reads per model", ""),
    row("opt_out.watched_a_model", "sent on watches, per model", "KiB"),
    row("shards.seconds", "**Two shards**: start → all written", "s"),
    row("shards.over_floor", "start ÷ floor", ""),
    row("shards.cpu", "CPU time of the busier operator", "s"),
    row("shards.server_cpu", "CPU time of the API server", "s"),
    row("shards.writes_a_model", "writes per model, both operators", ""),
    row("shards.reads_a_model", "reads per model, both operators", ""),
    row("shards.watched_a_model", "sent on watches, per model, both operators", "KiB"),
    row("shards.rss_peak", "peak memory of the larger operator", "MiB"),
    row(
        "tenant.alone_p95",
        "**Hostile tenant**, with up to 1,000 ModelServings in another namespace, each with annotations of 240 KiB and a spec of 40 KB: response to the annotation change → watch event of the ScaledObject, p95 without the tenant",
        "ms",
    ),
    row("tenant.beside_p95", "beside the tenant", "ms"),
    goal("tenant.beside_over_alone", "beside the tenant ÷ without", "", (Some(2.0), Some(2.0))),
    row(
        "tenant.unwatched_p95",
        "while it changes ConfigMaps with the same annotations, which only load the API server",
        "ms",
    ),
    row("tenant.unwatched_over_alone", "while it changes ConfigMaps ÷ without the tenant", ""),
    row("tenant.during_p95", "while it changes its ModelServings one after the other", "ms"),
    row("tenant.during_over_unwatched", "while it changes ModelServings ÷ ConfigMaps", ""),
    goal("tenant.rss_peak", "peak memory", "MiB", (Some(128.0), Some(128.0))),
    goal("tenant.lease_transitions", "changes of the lease's holder", "", (Some(0.0), Some(0.0))),
    row("floor.rss_peak", "Peak memory of the bare client, which holds all writes", "MiB"),
    row("watching.rss_peak", "the same with the list and watch", "MiB"),
];

const HEAD: &str = "# Benchmarks

`make bench` measures the operator on a real API server and writes this page. Choose the number of models with
`BENCH_MODELS=10000 make bench`.

- **Subject**: the static binary of the container image, with default flags.
- **Floor**: a bare client that makes the same writes, eight at a time, without watches or planning. The API server limits it.
- **Watching floor**: the same client lists and watches the two kinds that it writes, as any operator has to, and discards what it
  reads. The time above it is the cost of the operator alone.
- **Setup**: each contender has its own API server with the same opted-in models, which share one profile. The order changes
  from round to round. KEDA is not installed, so conditions are `Pending`; its CRDs and those of the Prometheus Operator are.
- **Figures**: median and range of all rounds. A goal is **met** if all rounds reach it, *met within noise* if the median does,
  *missed within noise* if only another round does, and **missed** otherwise.
- **Sources**: the API server's audit log for writes, its metrics for bytes sent on watches, the kernel for CPU time and memory.
- **Comparison**: sections were measured at different times, and the speed of the machine varies by half and more. Compare only
  figures of the same run, such as a start and its floor.

The time above the floor is CPU time: a start uses both cores fully. With 10,000 models the API server needs an eighth more CPU
time than for the writes alone. Its profile attributes, in percent of the CPU time of the writes: 2 to 3 to listing the models,
3 to 4 to encoding each write as JSON for the watches, 2 to garbage collection of that, and 4 to 5 to more expensive writes,
because more processes share the CPU caches. The rest is the operator, whose profile is flat: decoding, allocation and system
calls, nothing above 3 %.
";

/// The whole page.
pub fn page(runs: &[Run]) -> String {
    let mut page = HEAD.to_owned();
    page.push_str("\n![Start time divided by the floor](time.svg)\n\n![Peak memory](memory.svg)\n");
    for run in runs {
        section(&mut page, run);
    }
    page
}

fn section(page: &mut String, run: &Run) {
    let versions: Vec<String> =
        run.versions.iter().map(|(component, version)| format!("{component} {version}")).collect();
    let _ = write!(
        page,
        "\n## {} models\n\n{}; {} rounds; ModelServings of {:.1} KB. {}. {}. All figures: [{}.json]({}.json).\n\n| figure | median | range | goal | result |\n|---|---:|---:|---:|---|\n",
        run.models,
        run.date,
        run.rounds,
        f64::from(u32::try_from(run.size).unwrap_or_default()) / 1000.0,
        run.machine,
        versions.join(", "),
        run.models,
        run.models
    );
    for row in &ROWS {
        if let Some(spread) = run.figures.spread(row.name) {
            line(page, row, spread, row.goal_of(run.models));
        }
    }
}

impl Row {
    fn goal_of(&self, models: usize) -> Option<f64> {
        match models {
            1_000 => self.goals.0,
            10_000 => self.goals.1,
            _ => None,
        }
    }
}

fn line(page: &mut String, row: &Row, Spread { median, least, most }: Spread, goal: Option<f64>) {
    let verdict = match goal {
        None => "",
        Some(goal) if most <= goal => "**met**",
        Some(goal) if median <= goal => "*met within noise*",
        Some(goal) if least <= goal => "*missed within noise*",
        Some(_) => "**missed**",
    };
    let unit = if row.unit.is_empty() { String::new() } else { format!(" {}", row.unit) };
    let goal = goal.map_or(String::new(), |goal| format!("≤ {}{unit}", short(goal)));
    let range = if least < most { format!("{} – {}", short(least), short(most)) } else { String::new() };
    let _ = writeln!(page, "| {} | {}{unit} | {range} | {goal} | {verdict} |", row.label, short(median));
}

/// Number with three significant digits, or all digits before the point.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
