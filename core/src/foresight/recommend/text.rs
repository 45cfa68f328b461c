//! The recommendation as text for a terminal.

use std::fmt::Write as _;

use super::{Recommendation, Value};
use crate::{
    domain::printable,
    foresight::report::{Report, aligned},
};

impl Recommendation {
    /// The recommendation as text. `elapsed` is the time that it took, in milliseconds; `None` leaves it out.
    pub fn table(&self, elapsed: Option<u128>) -> String {
        let mut text = String::new();
        let elapsed = elapsed.map(|millis| format!(" in {millis} ms")).unwrap_or_default();
        let _ = writeln!(
            text,
            "{}  recommendation from {} d, {} candidates{elapsed}",
            printable(&self.model),
            self.days,
            self.candidates
        );
        let _ = writeln!(text, "objective: {}\n", self.objective);
        text.push_str(&self.values_table());
        for finding in &self.findings {
            let _ = writeln!(text, "note: {}: {}", finding.reason, printable(&finding.message));
        }
        let _ = writeln!(text, "\n{}\n", self.verdict);
        text.push_str(&self.backtest.table(None));
        for offer in &self.offers {
            let _ = writeln!(text, "\npossible, not applied: {offer}");
        }
        text
    }

    fn values_table(&self) -> String {
        let head = ["", "now", "evident", "interval", "confidence", "evidence"].map(str::to_owned).to_vec();
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(self.values.iter().map(row)).collect();
        aligned(&rows)
    }
}

fn row(value: &Value) -> Vec<String> {
    let interval = value.interval.map(|[low, high]| format!("{low} to {high}")).unwrap_or_default();
    let confidence: &str = value.confidence.map_or("kept", Into::into);
    vec![
        value.name.to_owned(),
        value.now.clone().unwrap_or_default(),
        value.evident.clone().unwrap_or_default(),
        interval,
        confidence.to_owned(),
        printable(&value.evidence).into_owned(),
    ]
}

/// The choice in words. Savings are claimed with the doubt of a short record: by a factor of 1 + 1/days less.
pub(super) fn verdict(backtest: &Report, changes: &[String], days: f64, keeps_objective: bool) -> String {
    if changes.is_empty() {
        let reason = if keeps_objective {
            "no candidate saves more than 1 % without more waiting"
        } else {
            "no candidate lets fewer requests wait"
        };
        return format!("Keep what you have: {reason}.");
    }
    let hours = |name: &str| backtest.runs.iter().find(|run| run.name == name).map(|run| run.group_hours);
    let (Some(before), Some(after)) = (hours("now"), hours("recommended")) else {
        return "Change the settings.".to_owned();
    };
    let doubt = 1.0 + 1.0 / days.max(1.0);
    let percent = (after / before.max(f64::MIN_POSITIVE) - 1.0) * 100.0;
    let cost = if percent <= 0.0 {
        format!(
            "{:.1} % less group-hours, {:.1} % with the doubt of {days:.0} days",
            -percent,
            -percent / doubt
        )
    } else {
        format!("{percent:.1} % more group-hours, {:.1} % with the doubt of {days:.0} days", percent * doubt)
    };
    if after > before {
        format!("Change the settings to let fewer requests wait, for {cost}:\n  {}", changes.join(" "))
    } else {
        format!("Change the settings for {cost}:\n  {}", changes.join(" "))
    }
}
