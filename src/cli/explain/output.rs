//! Output of `explain`, as text or JSON. The names of the JSON fields are a promise.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::ValueEnum;
use serde::Serialize;

use super::latency::Latency;
use kthena_keda_core::{
    domain::{Status, printable},
    signals::WINDOWS_MIN,
};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
}

/// Explanation of one model.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explained {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) status: &'static str,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) links: Vec<LinkReport>,
    /// Destinations of the requests for each of its names.
    pub(super) routes: Vec<RouteReport>,
    pub(super) signals: Vec<Signal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replicas: Option<Replicas>,
    /// Source of the address of Prometheus, for one model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prometheus_from: Option<String>,
    pub(super) warnings: Vec<String>,
    /// Checks that were skipped, and why.
    #[serde(rename = "notLookedAt")]
    pub(super) skipped: Vec<String>,
}

/// A link of the chain.
#[derive(Serialize)]
pub(super) struct LinkReport {
    pub(super) name: &'static str,
    pub(super) state: &'static str,
    /// The evidence, or the problem and its remedy.
    #[serde(rename = "says")]
    pub(super) detail: String,
}

/// A destination of the requests for a name.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RouteReport {
    /// Name that clients send.
    pub(super) model: String,
    /// `<namespace>/<name>`.
    pub(super) model_route: String,
    /// `<namespace>/<name>`; absent for a provider outside the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) model_server: Option<String>,
    /// State of the ModelServer: it selects pods of this model, or of others, or it does not exist.
    pub(super) receiver: &'static str,
    /// `receives`, `weight 0`, or `unused` if the router uses other routes for the name.
    pub(super) usage: &'static str,
}

/// A signal at this moment.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Signal {
    pub(super) name: String,
    pub(super) query: String,
    pub(super) target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<f64>,
    /// Number of ServingGroups that the signal requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) wanted: Option<f64>,
    /// Reason for which there is no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
    /// Measurements of a latency signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) latency: Option<Latency>,
    /// Measurements of a signal with a bounded backlog.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backlog: Option<Backlog>,
    /// Seconds that most requests of the last day took, of the signal that counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usual_duration: Option<f64>,
    /// Windows of the last day that count for a service time that is to be measured, and is not yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service_time_windows: Option<f64>,
}

/// Measurements of a signal with a bounded backlog.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Backlog {
    /// Requests in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) in_flight: Option<f64>,
    /// Requests that arrive per second; absent while it cannot be measured, so that all requests in flight count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) arrivals_per_second: Option<f64>,
    /// Time for one request, and its source: an annotation or the profile.
    pub(super) service_time: String,
}

impl Backlog {
    /// Requests in flight that do not count as demand yet.
    fn deferred(&self, counted: f64) -> Option<f64> {
        self.in_flight.map(|in_flight| (in_flight - counted).max(0.0))
    }

    fn describe(&self, counted: f64) -> String {
        let Some((in_flight, deferred)) = self.in_flight.zip(self.deferred(counted)) else {
            return format!("service time {}", self.service_time);
        };
        let arriving = self.arrivals_per_second.map_or_else(
            || "arrivals cannot be measured now, so all count".to_owned(),
            |rate| format!("{rate:.2} arrive per second, {deferred:.1} wait and are left to the drain time"),
        );
        format!("{in_flight} in flight, {arriving}; service time {}", self.service_time)
    }
}

/// Numbers of ServingGroups.
#[derive(Serialize)]
pub(super) struct Replicas {
    /// `spec.replicas`.
    pub(super) now: i32,
    /// Number of available ServingGroups.
    pub(super) available: i32,
    /// Words of the scheduler or the kubelet about a pod that does not start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) waiting: Option<String>,
    /// `None` if roles are scaled, and the number of ServingGroups stays.
    #[serde(flatten)]
    pub(super) bounds: Option<Bounds>,
    /// Number that the signals request, within the bounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) wanted: Option<f64>,
    /// Reasons and messages of the HPA's conditions about its next step.
    pub(super) hpa: Vec<String>,
}

#[derive(Clone, Copy, Serialize)]
pub(super) struct Bounds {
    pub(super) min: i32,
    pub(super) max: i32,
}

/// Prints the one model that was selected by name in full, else one line for each model.
pub(super) fn print(all: &[Explained], format: Format, is_selected_by_name: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let one = if let ([one], true) = (all, is_selected_by_name) { Some(one) } else { None };
    if format == Format::Json {
        let text = one.map_or_else(|| serde_json::to_string_pretty(all), serde_json::to_string_pretty)?;
        return writeln!(out, "{text}");
    }
    let paint = Paint { is_enabled: io::stdout().is_terminal() };
    if let Some(one) = one {
        return print_one(&mut out, one, paint);
    }
    all.iter().try_for_each(|found| {
        let mark = paint.mark(found.status, mark_of(found.status));
        writeln!(
            out,
            "{mark} {}/{}  {}  {}",
            found.namespace,
            found.name,
            found.reason,
            first_clause(&found.message)
        )
    })
}

fn print_one(out: &mut impl io::Write, found: &Explained, paint: Paint) -> io::Result<()> {
    writeln!(out, "{}/{}: {}", found.namespace, found.name, paint.mark(found.status, found.reason))?;
    for LinkReport { name, state, detail } in &found.links {
        let (status, mark) = match *state {
            "holds" => ("True", "✓"),
            "broken" => ("False", "✗"),
            "affected" => ("Unknown", "!"),
            _ => ("Unknown", "?"),
        };
        let detail = if *state == "holds" { detail.clone() } else { one_clause_per_line(detail) };
        writeln!(out, "{} {name:<18} {detail}", paint.mark(status, mark))?;
    }
    for RouteReport { model, model_route, model_server, receiver, usage } in &found.routes {
        let server = model_server.as_deref().map_or(String::new(), |name| format!("ModelServer {name}, "));
        let model = printable(model);
        writeln!(out, "  {model:<18} ModelRoute {model_route} → {server}{receiver} ({usage})")?;
    }
    for signal in &found.signals {
        let value = signal.value.map_or_else(
            || signal.problem.clone().unwrap_or_default(),
            |value| format!("{value}, target {}", signal.target),
        );
        let wanted = signal.wanted.map(|wanted| format!(" → {}", serving_groups(wanted))).unwrap_or_default();
        writeln!(out, "  {:<18} {value}{wanted}", signal.name)?;
        for line in signal.latency.iter().flat_map(Latency::describe) {
            writeln!(out, "  {:<18} {line}", "")?;
        }
        if let (Some(backlog), Some(value)) = (&signal.backlog, signal.value) {
            writeln!(out, "  {:<18} {}", "", backlog.describe(value))?;
        }
        if let Some(windows) = signal.service_time_windows {
            writeln!(
                out,
                "  {:<18} service time not measured yet, so all requests in flight count: {windows} of {WINDOWS_MIN} windows of five minutes had enough traffic and no waiting, see docs/sizing.md",
                ""
            )?;
        }
        if let Some(measured) = signal.usual_duration {
            writeln!(
                out,
                "  {:<18} a request took {measured:.1} s for most of the last day, see docs/sizing.md",
                ""
            )?;
        }
    }
    if let Some(Replicas { now, available, waiting, bounds, wanted, hpa }) = &found.replicas {
        let wanted = wanted.map(|wanted| format!(", signals request {wanted}")).unwrap_or_default();
        let bounds = bounds.map_or_else(
            || "; the number stays, since roles are scaled".to_owned(),
            |Bounds { min, max }| format!(", bounds {min} to {max}"),
        );
        writeln!(
            out,
            "  {:<18} spec.replicas {now}, {available} of {now} available{wanted}{bounds}",
            "ServingGroups"
        )?;
        waiting.iter().try_for_each(|words| writeln!(out, "  {:<18} {words}", "pods"))?;
        hpa.iter().try_for_each(|condition| writeln!(out, "  {:<18} {condition}", "HPA"))?;
    }
    if let Some(source) = &found.prometheus_from {
        writeln!(out, "  {:<18} from {source}", "Prometheus URL")?;
    }
    found.warnings.iter().try_for_each(|warning| writeln!(out, "! {warning}"))?;
    found.skipped.iter().try_for_each(|skipped| writeln!(out, "? {skipped}"))
}

/// Mark of a status: what is not known is no failure.
fn mark_of(status: &str) -> &'static str {
    match status {
        "True" => "✓",
        "False" => "✗",
        _ => "?",
    }
}

/// Colours of marks, on a terminal only.
#[derive(Clone, Copy)]
struct Paint {
    is_enabled: bool,
}

impl Paint {
    fn mark(self, status: &str, text: &str) -> String {
        let colour = match status {
            "True" => 32,
            "False" => 31,
            _ => 33,
        };
        if self.is_enabled { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Problem, effect and remedy below each other, in the column of the details.
fn one_clause_per_line(detail: &str) -> String {
    clauses(detail).join(&format!("\n{:21}", ""))
}

/// The parts of a message between each "; " that is not in parentheses.
fn clauses(message: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0_usize, 0, Vec::new());
    for (at, character) in message.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ';' if depth == 0 && message[at..].starts_with("; ") => {
                found.push(&message[start..at]);
                start = at + 2;
            }
            _ => {}
        }
    }
    found.push(&message[start..]);
    found
}

fn serving_groups(number: f64) -> String {
    let unit = if number <= 1.0 && number > 0.0 { "ServingGroup" } else { "ServingGroups" };
    format!("{number} {unit}")
}

fn first_clause(message: &str) -> &str {
    clauses(message).first().copied().unwrap_or_default()
}

/// Sort rank of a status: broken models first.
pub(super) fn rank(status: &str) -> u8 {
    match status {
        "False" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

/// Exit code: 0 if every model is scaled, 3 if one is not, 4 if one is not known yet.
pub(super) fn code(all: &[Explained]) -> ExitCode {
    match all.iter().map(|found| found.status).min_by_key(|status| rank(status)) {
        Some(status) if status == Status::False.as_str() => ExitCode::from(3),
        Some(status) if status == Status::Unknown.as_str() => ExitCode::from(4),
        _ => ExitCode::SUCCESS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_what_is_not_known_as_no_failure() {
        assert_eq!(["True", "False", "Unknown"].map(mark_of), ["✓", "✗", "?"]);
    }

    #[test]
    fn puts_the_remedy_on_a_line_of_its_own() {
        let found = Explained {
            namespace: "models".to_owned(),
            name: "chat".to_owned(),
            status: "False",
            reason: "ProfileNotFound",
            message: String::new(),
            links: vec![
                LinkReport { name: "annotations", state: "holds", detail: "a (b; c); d".to_owned() },
                LinkReport { name: "profile", state: "broken", detail: "no profile; create it".to_owned() },
            ],
            routes: Vec::new(),
            signals: Vec::new(),
            replicas: None,
            prometheus_from: None,
            warnings: Vec::new(),
            skipped: Vec::new(),
        };
        let mut out = Vec::new();
        print_one(&mut out, &found, Paint { is_enabled: false }).unwrap();
        let expected = "models/chat: ProfileNotFound\n✓ annotations        a (b; c); d\n✗ profile            no profile\n                     create it\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn counts_a_single_serving_group() {
        assert_eq!(
            [0.0, 1.0, 1.5].map(serving_groups),
            ["0 ServingGroups", "1 ServingGroup", "1.5 ServingGroups"]
        );
    }
}
