//! The steps of all runs as CSV.

use std::fmt::Write as _;

use super::Report;

impl Report {
    /// One row for each step: seconds since 1970 or since the start, the ServingGroups that are needed, and for each run
    /// the ServingGroups, those that are ready, and the requests in flight and waiting.
    pub fn csv(&self) -> String {
        let mut text = String::from("time,need");
        for run in &self.runs {
            let name = column(&run.name);
            let _ = write!(text, ",{name}_groups,{name}_ready,{name}_in_flight,{name}_waiting");
        }
        text.push('\n');
        let mut time = self.grid.start();
        for index in 0..self.grid.steps() {
            let _ = write!(text, "{time},");
            if let Some(need) = self.need.get(index).copied().flatten() {
                let _ = write!(text, "{need:.3}");
            }
            for run in &self.runs {
                let step = run.steps.get(index).copied().unwrap_or_default();
                let _ =
                    write!(text, ",{},{},{:.1},{:.1}", step.groups, step.ready, step.in_flight, step.waiting);
            }
            text.push('\n');
            time += i64::from(self.grid.step());
        }
        text
    }
}

/// A name without characters that have a meaning in CSV or in a spreadsheet.
fn column(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect()
}
