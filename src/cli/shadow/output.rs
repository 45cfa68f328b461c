//! Output of `shadow`, as a table or JSON. The names of the JSON fields are a promise.

use std::io::{self, Write as _};

use clap::ValueEnum;
use serde::{Serialize, Serializer};

use kthena_keda_core::{foresight::hpa::DecisionReason, observed::ShadowRange};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
}

/// One model in shadow.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) namespace: String,
    pub(super) name: String,
    /// `spec.replicas`.
    pub(super) holds: i32,
    /// ServingGroups that it would hold now; absent if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) would_hold: Option<i32>,
    /// Range since the dry run began, as the condition reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) range: Option<Range>,
    /// Kind and name of each autoscaler that scales it now.
    pub(super) scaled_by: Vec<String>,
    /// Rule that set the last decision, by the names of the HPA.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_name")]
    pub(super) decision: Option<DecisionReason>,
    /// Reason for which the number is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

/// Range of the numbers of ServingGroups.
#[derive(Serialize)]
pub(super) struct Range {
    least: i32,
    greatest: i32,
    /// RFC 3339.
    since: String,
}

impl Range {
    /// A range with the present number, which the condition may report later.
    pub(super) fn of(range: ShadowRange, now: Option<i32>) -> Self {
        let ShadowRange { least, greatest, since } = now.map_or(range, |now| range.with(now));
        Self { least, greatest, since: since.to_string() }
    }
}

const HEADER: [&str; 7] = ["MODEL", "HOLDS", "WOULD HOLD", "RANGE", "SINCE", "SCALED BY", "NEXT DECISION"];

pub(super) fn print(rows: &[Row], format: Format) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(rows)?),
        Format::Text => write!(out, "{}", table(rows)),
    }
}

fn table(rows: &[Row]) -> String {
    let lines: Vec<[String; 7]> =
        std::iter::once(HEADER.map(str::to_owned)).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..HEADER.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in &lines {
        let padded: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn cells(row: &Row) -> [String; 7] {
    let unknown = || "-".to_owned();
    let (range, since) = row.range.as_ref().map_or_else(
        || (unknown(), unknown()),
        |Range { least, greatest, since }| (format!("{least} to {greatest}"), since.clone()),
    );
    [
        format!("{}/{}", row.namespace, row.name),
        row.holds.to_string(),
        row.would_hold.map_or_else(unknown, |replicas| replicas.to_string()),
        range,
        since,
        if row.scaled_by.is_empty() { "nothing".to_owned() } else { row.scaled_by.join(", ") },
        row.problem
            .clone()
            .or_else(|| row.decision.map(|decision| waits_for(decision).to_owned()))
            .unwrap_or_else(unknown),
    ]
}

/// The rule that the next decision waits for.
const fn waits_for(decision: DecisionReason) -> &'static str {
    match decision {
        DecisionReason::Paused => "paused",
        DecisionReason::ScalingDisabled => "at zero, until a signal wakes it",
        DecisionReason::AboveMaxReplicas | DecisionReason::TooManyReplicas => "at the maximum",
        DecisionReason::BelowMinReplicas | DecisionReason::TooFewReplicas => "at the minimum",
        DecisionReason::FailedGetExternalMetric => "holds: a signal has no value",
        DecisionReason::ScaleUpStabilized => "waits for the scale-up window",
        DecisionReason::ScaleDownStabilized => "waits for the scale-down window",
        DecisionReason::ScaleUpLimit => "waits for a scale-up policy",
        DecisionReason::ScaleDownLimit => "waits for a scale-down policy",
        DecisionReason::DesiredWithinRange => "follows the signals",
    }
}

#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn as_name<S: Serializer>(decision: &Option<DecisionReason>, serializer: S) -> Result<S::Ok, S::Error> {
    decision.map(<&str>::from).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str) -> Row {
        Row {
            namespace: "models".to_owned(),
            name: name.to_owned(),
            holds: 2,
            would_hold: None,
            range: None,
            scaled_by: Vec::new(),
            decision: None,
            problem: None,
        }
    }

    #[test]
    fn prints_a_table() {
        let since = "2026-11-26T05:00:00Z".parse().unwrap();
        let observed = Row {
            would_hold: Some(12),
            range: Some(Range::of(ShadowRange::of(3, since), Some(12))),
            scaled_by: vec!["HorizontalPodAutoscaler models/theirs".to_owned()],
            decision: Some(DecisionReason::ScaleDownStabilized),
            ..row("chat")
        };
        let unknown = Row { problem: Some("Prometheus is not reachable".to_owned()), ..row("a-longer-name") };
        insta::assert_snapshot!(table(&[observed, unknown, row("new")]));
    }
}
