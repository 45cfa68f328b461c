//! The report as a table for a terminal.

use std::fmt::Write as _;

use super::{Report, RunReport, Window, sparkline};
use crate::domain::printable;

/// Characters of a sparkline.
const WIDTH: usize = 84;

impl Report {
    /// The report as text. `elapsed` is the time that it took, in milliseconds; `None` leaves it out.
    pub fn table(&self, elapsed: Option<u128>) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "{}", self.head(elapsed));
        if let Some(line) = self.replay_line() {
            let _ = writeln!(text, "{line}");
        }
        if !self.runs.is_empty() {
            let _ = writeln!(text, "{}\n", self.assumptions_line());
            text.push_str(&aligned(&self.rows()));
            let need = sparkline(&self.need, WIDTH);
            if !need.trim().is_empty() {
                let peak = self.need.iter().flatten().copied().fold(0.0, f64::max);
                let _ = writeln!(text, "need  {need}  peak {peak:.1} ServingGroups");
            }
        }
        for finding in &self.findings {
            let _ = writeln!(text, "note: {}: {}", finding.reason, printable(&finding.message));
        }
        if let Some(explained) = &self.explained {
            let _ = write!(text, "\n{}", explained.text());
        }
        text
    }

    fn head(&self, elapsed: Option<u128>) -> String {
        let missing = self.data.missing * 100.0;
        let elapsed = elapsed.map(|millis| format!(", {millis} ms")).unwrap_or_default();
        format!(
            "{}  {}, {} steps of {} s, {missing:.1} % without data{elapsed}",
            printable(&self.model),
            period(&self.window),
            thousands(self.data.steps),
            self.window.step
        )
    }

    fn replay_line(&self) -> Option<String> {
        let fidelity = self.fidelity.as_ref()?;
        let (least, greatest) = fidelity.spread();
        let spread = if greatest - least >= 0.0005 {
            format!(" (worst phase {:.1} %)", least * 100.0)
        } else {
            String::new()
        };
        Some(format!(
            "replay of the settings in force   equal {:.1} % of steps{spread}, no difference longer than {} s",
            fidelity.equal * 100.0,
            fidelity.longest_difference
        ))
    }

    fn assumptions_line(&self) -> String {
        let assumed = &self.assumptions;
        let service_time = assumed.service_time.map(|time| format!(", {time:.1} s each")).unwrap_or_default();
        format!(
            "assumed: a ServingGroup serves {} requests at once{service_time}, and is ready {} s after its start",
            assumed.requests_per_group, assumed.cold_start
        )
    }

    /// Title, extent of the data, agreement of the replay, and assumptions.
    pub(super) fn head_lines(&self) -> Vec<String> {
        let assumptions = (!self.runs.is_empty()).then(|| self.assumptions_line());
        [Some(self.head(None)), self.replay_line(), assumptions].into_iter().flatten().collect()
    }

    /// Cells of the table of runs, with its head.
    pub(super) fn rows(&self) -> Vec<Vec<String>> {
        let has_gpus = self.runs.iter().any(|run| run.gpu_hours.is_some());
        let has_cost = self.runs.iter().any(|run| run.cost.is_some());
        let over = format!("waiting>{}s", self.slo.seconds);
        let mut rows = vec![vec![String::new(), if has_gpus { "GPU-h" } else { "group-h" }.to_owned()]];
        if let Some(head) = rows.first_mut() {
            head.extend(has_cost.then(|| "cost".to_owned()));
            head.extend(["mean", "peak", "changes", &over, "p95 wait", "saturated", ""].map(str::to_owned));
        }
        rows.extend(self.runs.iter().map(|run| self.row(run, has_cost)));
        rows
    }

    fn row(&self, run: &RunReport, has_cost: bool) -> Vec<String> {
        let hours = run.gpu_hours.unwrap_or(run.group_hours);
        let mut row = vec![printable(&run.name).into_owned(), grouped(hours)];
        row.extend(has_cost.then(|| run.cost.map_or(String::new(), grouped)));
        row.extend([
            format!("{:.1}", run.mean),
            run.peak.to_string(),
            run.changes.to_string(),
            format!("{:.2} %", run.waiting.over * 100.0),
            format!("{:.1} s", run.waiting.p95),
            format!("{:.1} %", run.saturated * 100.0),
            self.modelled(run),
        ]);
        row
    }

    /// Note on a run whose values of triggers are not all recorded.
    fn modelled(&self, run: &RunReport) -> String {
        if self.fidelity.is_none() && self.data.phases.len() == 1 || run.settings.is_none() {
            return String::new();
        }
        format!("modelled {:.1} %", run.modelled * 100.0)
    }
}

fn period(window: &Window) -> String {
    let length = match window.seconds {
        seconds if seconds >= 172_800 => format!("{} d", tenths(seconds, 86_400)),
        seconds if seconds >= 7200 => format!("{} h", tenths(seconds, 3600)),
        seconds => format!("{} min", tenths(seconds, 60)),
    };
    match &window.to {
        Some(to) => {
            format!("{length} to {}", to.replace('T', " ").trim_end_matches(":00Z").trim_end_matches('Z'))
        }
        None => length,
    }
}

/// A quotient with a decimal, unless that is 0.
fn tenths(seconds: i64, unit: i64) -> String {
    let tenths = seconds * 10 / unit;
    if tenths % 10 == 0 { (tenths / 10).to_string() } else { format!("{}.{}", tenths / 10, tenths % 10) }
}

/// Whole numbers with separators from 100 on, one decimal below.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and saturates")]
fn grouped(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { thousands(value.round() as usize) }
}

fn thousands(value: usize) -> String {
    let digits = value.to_string();
    let first = digits.len() % 3;
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && index % 3 == first {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Columns aligned to the right, except for the first and the last.
pub(in crate::foresight) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match index {
                0 => drop(write!(line, "{cell:<width$}")),
                _ if index + 1 == columns => drop(write!(line, "  {cell}")),
                _ => drop(write!(line, "  {cell:>width$}")),
            }
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0.04, "0.0")]
    #[case(99.96, "100.0")]
    #[case(100.4, "100")]
    #[case(12_345.6, "12,346")]
    #[case(1_234_567.0, "1,234,567")]
    fn separates_thousands(#[case] value: f64, #[case] expected: &str) {
        assert_eq!(grouped(value), expected);
    }
}
