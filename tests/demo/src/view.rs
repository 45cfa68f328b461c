//! Live view: a few lines that are redrawn in place, or one line at intervals if the output is not a
//! terminal.

use std::{
    io::{IsTerminal as _, Write as _, stdout},
    time::Duration,
};

use crate::recorder::Sample;

/// Interval of lines if the output is not a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(3);

/// Maximum width of a bar, in characters.
const WIDTH: usize = 50;

/// View of the latest sample.
#[derive(Debug)]
pub struct View {
    terminal: bool,
    drawn: usize,
    printed: Option<Duration>,
}

impl Default for View {
    fn default() -> Self {
        Self { terminal: stdout().is_terminal(), drawn: 0, printed: None }
    }
}

impl View {
    /// Starts a new step below the present output.
    pub fn begin(&mut self, text: &str) {
        self.drawn = 0;
        self.printed = None;
        crate::print_heading(text);
    }

    /// Shows a sample.
    pub fn show(&mut self, sample: &Sample) {
        if self.terminal {
            self.redraw(&lines(sample));
        } else if self.printed.is_none_or(|printed| sample.at >= printed + LINE_INTERVAL) {
            self.printed = Some(sample.at);
            println!("{}", plain(sample));
        }
    }

    fn redraw(&mut self, lines: &[String]) {
        let mut out = stdout().lock();
        if self.drawn > 0 {
            let _ = write!(out, "\x1b[{}A", self.drawn);
        }
        for line in lines {
            let _ = writeln!(out, "\x1b[2K{line}");
        }
        let _ = out.flush();
        self.drawn = lines.len();
    }
}

fn lines(sample: &Sample) -> Vec<String> {
    let groups = usize::try_from(sample.ready).unwrap_or_default();
    vec![
        format!("  load            {:>3}  {}", sample.load, "▪".repeat(sample.load.min(WIDTH))),
        format!("  Prometheus      {}", seen(sample)),
        format!("  KEDA            {}", sample.keda),
        format!("  HPA             {}", sample.hpa),
        format!(
            "  ServingGroups   {:>3} wanted, {} ready  {}",
            sample.wanted,
            sample.ready,
            "■ ".repeat(groups.min(WIDTH))
        ),
    ]
}

fn plain(sample: &Sample) -> String {
    let seconds = sample.at.as_secs();
    format!(
        "{seconds:>4} s  load {:>3}  Prometheus {:<12}  ServingGroups {} wanted, {} ready  KEDA {}  HPA {}",
        sample.load,
        seen(sample),
        sample.wanted,
        sample.ready,
        sample.keda,
        sample.hpa
    )
}

fn seen(sample: &Sample) -> String {
    sample.seen.map_or_else(|| "no response".to_owned(), |value| format!("{value:>3}"))
}
