//! What `explain` has found, and how it is said: as text for people, or as JSON.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::ValueEnum;
use serde::Serialize;

use kthena_keda_core::domain::Status;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
}

/// Everything that is said of one model.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explained {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) status: &'static str,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) links: Vec<LinkReport>,
    pub(super) signals: Vec<Signal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replicas: Option<Replicas>,
    pub(super) warnings: Vec<String>,
    pub(super) not_looked_at: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct LinkReport {
    pub(super) name: &'static str,
    pub(super) state: &'static str,
    pub(super) says: String,
}

#[derive(Serialize)]
pub(super) struct Signal {
    pub(super) name: String,
    pub(super) query: String,
    pub(super) target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<f64>,
    /// How many ServingGroups it asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) wanted: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Replicas {
    pub(super) now: i32,
    pub(super) min: i32,
    pub(super) max: i32,
    /// What the signals ask for, within the bounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) wanted: Option<f64>,
    /// What the HPA says of what it does next.
    pub(super) hpa: Vec<String>,
}

/// Prints one model in full, if it was asked for by name, or a line for each.
pub(super) fn print(all: &[Explained], format: Format, by_name: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let one = if let ([one], true) = (all, by_name) { Some(one) } else { None };
    if format == Format::Json {
        let text = one.map_or_else(|| serde_json::to_string_pretty(all), serde_json::to_string_pretty)?;
        return writeln!(out, "{text}");
    }
    let paint = Paint { on: io::stdout().is_terminal() };
    if let Some(one) = one {
        return print_one(&mut out, one, paint);
    }
    all.iter().try_for_each(|found| {
        let mark = paint.mark(found.status, if found.status == "True" { "✓" } else { "✗" });
        writeln!(
            out,
            "{mark} {}/{}  {}  {}",
            found.namespace,
            found.name,
            found.reason,
            first_sentence(&found.message)
        )
    })
}

fn print_one(out: &mut impl io::Write, found: &Explained, paint: Paint) -> io::Result<()> {
    writeln!(out, "{}/{}: {}", found.namespace, found.name, paint.mark(found.status, found.reason))?;
    for LinkReport { name, state, says } in &found.links {
        let (status, mark) = match *state {
            "holds" => ("True", "✓"),
            "broken" => ("False", "✗"),
            "affected" => ("Unknown", "!"),
            _ => ("Unknown", "?"),
        };
        writeln!(out, "{} {name:<18} {says}", paint.mark(status, mark))?;
    }
    for signal in &found.signals {
        let value = signal.value.map_or_else(
            || signal.problem.clone().unwrap_or_default(),
            |value| format!("{value} for {} each", signal.target),
        );
        let wanted = signal.wanted.map(|wanted| format!(" → {wanted}")).unwrap_or_default();
        writeln!(out, "  {:<18} {value}{wanted}", signal.name)?;
    }
    if let Some(Replicas { now, min, max, wanted, hpa }) = &found.replicas {
        let wanted = wanted.map(|wanted| format!(", {wanted} asked for")).unwrap_or_default();
        writeln!(out, "  {:<18} {now} wanted now{wanted}, from {min} to {max}", "ServingGroups")?;
        hpa.iter().try_for_each(|says| writeln!(out, "  {:<18} {says}", "next"))?;
    }
    found.warnings.iter().try_for_each(|warning| writeln!(out, "! {warning}"))?;
    found.not_looked_at.iter().try_for_each(|missing| writeln!(out, "? {missing}"))
}

/// Colour, only where somebody looks.
#[derive(Clone, Copy)]
struct Paint {
    on: bool,
}

impl Paint {
    fn mark(self, status: &str, text: &str) -> String {
        let colour = match status {
            "True" => 32,
            "False" => 31,
            _ => 33,
        };
        if self.on { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

fn first_sentence(message: &str) -> &str {
    message.split("; ").next().unwrap_or_default()
}

/// The worst first.
pub(super) fn rank(status: &str) -> u8 {
    match status {
        "False" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

/// 0 where every model is well, 3 where one is broken, 4 where nobody can tell yet.
pub(super) fn code(all: &[Explained]) -> ExitCode {
    match all.iter().map(|found| found.status).min_by_key(|status| rank(status)) {
        Some(status) if status == Status::False.as_str() => ExitCode::from(3),
        Some(status) if status == Status::Unknown.as_str() => ExitCode::from(4),
        _ => ExitCode::SUCCESS,
    }
}
