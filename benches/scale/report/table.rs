//! The figures as tables, with what was aimed at.

use std::fmt::Write as _;

use crate::figures::{Run, Spread};

/// One figure.
struct Row {
    name: &'static str,
    what: &'static str,
    unit: &'static str,
    /// What was aimed at with 1,000 models and with 10,000: at most this.
    goals: (Option<f64>, Option<f64>),
}

const fn row(name: &'static str, what: &'static str, unit: &'static str) -> Row {
    Row { name, what, unit, goals: (None, None) }
}

const fn goal(
    name: &'static str,
    what: &'static str,
    unit: &'static str,
    goals: (Option<f64>, Option<f64>),
) -> Row {
    Row { name, what, unit, goals }
}

const ROWS: [Row; 45] = [
    row("floor.seconds", "**Floor**: the bare client, all writes", "s"),
    row("floor.cpu", "its own CPU", "s"),
    row("floor.server_cpu", "CPU of the API server", "s"),
    row("start.seconds", "**Start** with all models waiting → all written", "s"),
    goal("start.over_floor", "the same ÷ floor", "", (Some(1.1), Some(1.1))),
    goal("start.cpu", "own CPU", "s", (Some(1.65), None)),
    row("start.server_cpu", "CPU of the API server", "s"),
    row("start.writes_a_model", "writes a model", ""),
    row("start.reads_a_model", "reads a model, watches and lists included", ""),
    row("start.watched_a_model", "sent on watches, a model", "KiB"),
    goal("start.rss_peak", "memory, at most", "MiB", (Some(30.0), Some(60.0))),
    row("profile.seconds", "**Change of the profile** of all models → all written", "s"),
    row("profile.cpu", "own CPU", "s"),
    row("profile.writes_a_model", "writes a model", ""),
    row("profile.reads_a_model", "reads a model", ""),
    row("profile.watched_a_model", "sent on watches, a model", "KiB"),
    row(
        "latency.events_p50",
        "**Change of one model** at rest: event of the ModelServing → event of the ScaledObject, p50",
        "ms",
    ),
    goal("latency.events_p95", "p95", "ms", (Some(15.0), Some(15.0))),
    row("latency.events_p99", "p99", "ms"),
    row("latency.answers_p50", "annotation answered → event of the ScaledObject, p50", "ms"),
    row("latency.answers_p95", "p95", "ms"),
    row("latency.answers_p99", "p99", "ms"),
    goal("restart.seconds", "**Restart** with everything in place → quiet", "s", (None, Some(6.0))),
    goal("restart.cpu", "own CPU", "s", (None, Some(3.0))),
    goal("restart.writes", "writes", "", (Some(0.0), Some(0.0))),
    row("restart.reads", "reads, watches and lists included", ""),
    row("restart.rss_peak", "memory, at most", "MiB"),
    row("rest.rss", "**Rest**: memory", "MiB"),
    goal("rest.writes", "writes", "", (Some(0.0), Some(0.0))),
    row("rest.requests_an_hour", "requests in an hour, watches that begin anew included", ""),
    row("rest.cpu_an_hour", "own CPU in an hour", "s"),
    row("opt_out.seconds", "**Opt-out of all**, one request each → all written", "s"),
    row("opt_out.cpu", "own CPU", "s"),
    row("opt_out.writes_a_model", "writes a model, events included", ""),
    row("opt_out.reads_a_model", "reads a model", ""),
    row("opt_out.watched_a_model", "sent on watches, a model", "KiB"),
    row("shards.seconds", "**Two shards**: start → all written", "s"),
    row("shards.over_floor", "the same ÷ floor", ""),
    row("shards.cpu", "own CPU of the one that needed more", "s"),
    row("shards.server_cpu", "CPU of the API server", "s"),
    row("shards.writes_a_model", "writes a model, of both", ""),
    row("shards.reads_a_model", "reads a model, of both", ""),
    row("shards.watched_a_model", "sent on watches, a model, to both", "KiB"),
    row("shards.rss_peak", "memory of the larger, at most", "MiB"),
    row("floor.rss_peak", "Memory of the bare client, which holds all that it writes", "MiB"),
];

const HEAD: &str = "# What many models cost

Measured on a real API server by `make bench`, which writes this page. `BENCH_MODELS=10000 make bench` takes other numbers of models.

- What is measured is the static binary that the container image holds, with its flags as they are by default.
- **Floor** is a bare client that makes the very writes that the operator makes, eight at a time, with no watching and no thinking. It is bound by the API server, so time beyond it is what the operator takes, and what the API server takes to serve its watches.
- What a start takes beyond it is processor time, of which two cores have no more. With 10,000 models the API server needs an eighth more than for the writes alone. By its own profile that is, in hundredths of what the writes alone take: 2 to 3 to list the models and 3 to 4 to tell the watches of each write, where whole objects become JSON; 2 to collect that garbage; and 4 or 5 that the writes themselves cost more while more processes share the caches. The rest is the operator, whose profile is flat: decoding, allocation and system calls, nothing above 3 %.
- Each contender has an API server of its own, with the same models in it: opted in, all of one profile. Their order changes from round to round. KEDA itself is absent, so that conditions say `Pending`; its definitions are there, and the Prometheus Operator's.
- Sections were measured at different times, and the same machine is now faster and now slower, by half and more. What can be compared is what was measured in one run, such as a start and its floor.
- A figure is the median of all rounds, and their range. A goal is **met** where all rounds are within it, *met within noise* where the median is, *missed within noise* where another round is.
- Who wrote what and when is told by the API server's audit log, what was sent on watches by its metrics, processor time and memory by the kernel.
";

/// The whole page.
pub fn page(runs: &[Run]) -> String {
    let mut page = HEAD.to_owned();
    page.push_str("\n![Time of a start, beside the writes alone](time.svg)\n\n![Memory](memory.svg)\n");
    for run in runs {
        section(&mut page, run);
    }
    page
}

fn section(page: &mut String, run: &Run) {
    let versions: Vec<String> = run.versions.iter().map(|(of, version)| format!("{of} {version}")).collect();
    let _ = write!(
        page,
        "\n## {} models\n\n{}; {} rounds; ModelServings of {:.1} KB. {}. {}. All figures: [{}.json]({}.json).\n\n| | median | range | goal | |\n|---|---:|---:|---:|---|\n",
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
    let _ = writeln!(page, "| {} | {}{unit} | {range} | {goal} | {verdict} |", row.what, short(median));
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
