//! The report as a picture: ServingGroups above, waiting requests below.
//!
//! The colors follow the page or the viewer: light or dark. There is no script and no font in it.

use std::fmt::Write as _;

use k8s_openapi::jiff::Timestamp;

use super::{DATES, Report, RunReport, escape::escaped};
use crate::foresight::history::Grid;

/// Margins of the panels, in pixels.
const LEFT: f64 = 52.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 22.0;
const GAP: f64 = 42.0;
const BOTTOM: f64 = 24.0;
/// Height of each panel, in pixels.
const GROUPS_HEIGHT: f64 = 210.0;
const WAITING_HEIGHT: f64 = 110.0;
/// Height of a line of the legend, in pixels.
const LEGEND_LINE: f64 = 20.0;
/// Width of a column, in pixels: each shows the greatest value of its time.
const COLUMN: f64 = 2.0;
/// Space for the label of a day, and of an hour, in pixels.
const DAY_LABEL: f64 = 56.0;
const HOUR_LABEL: f64 = 96.0;
/// Margin around everything, in pixels.
const MARGIN: f64 = 6.0;
/// Seconds of a day.
const DAY: i64 = 86_400;
/// Runs with a color of their own.
const COLORS: usize = 6;

/// Distances of the marks on the axis of time, in seconds.
const TIMES: [i64; 11] = [60, 300, 900, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800];

/// Styles of the picture. The colors are those of Okabe and Ito, which people with color blindness can tell apart.
pub(super) const STYLE: &str = "
.picture{color:#1f2328;font:12px system-ui,sans-serif}
.picture text{fill:currentColor}
.picture .grid{stroke:currentColor;stroke-opacity:.15}
.picture .need{fill:currentColor;fill-opacity:.14}
.picture path.run{fill:none;stroke-width:1.6}
.c0{stroke:#0072b2}.c1{stroke:#d55e00}.c2{stroke:#009e73}.c3{stroke:#cc79a7}.c4{stroke:#8a6d00}.c5{stroke:#56b4e9}
@media (prefers-color-scheme:dark){
.picture{color:#e6edf3}
.c0{stroke:#58a6ff}.c1{stroke:#ff9554}.c2{stroke:#3fb98f}.c3{stroke:#e79fc4}.c4{stroke:#f0e442}.c5{stroke:#9bd8ff}
}";

/// A rectangle with a scale of its own.
struct Panel {
    title: &'static str,
    y: f64,
    height: f64,
    /// Value at its upper edge.
    top: f64,
}

/// A picture of this width, in pixels.
struct Picture<'a> {
    report: &'a Report,
    width: f64,
    text: String,
}

impl Report {
    /// The report as an SVG file.
    pub fn svg(&self) -> String {
        let picture = self.picture(960);
        let title = format!("<title>Backtest of {}</title><style>{STYLE}</style>", escaped(&self.model));
        picture.replacen('>', &format!(">{title}"), 1)
    }

    /// The picture as an SVG element of this width, without styles.
    pub(super) fn picture(&self, width: u16) -> String {
        let mut picture = Picture { report: self, width: width.into(), text: String::new() };
        picture.draw();
        picture.text
    }
}

impl Picture<'_> {
    fn draw(&mut self) {
        let runs = &self.report.runs;
        let legend = self.legend();
        let y = TOP + legend.lines * LEGEND_LINE;
        let waiting_y = y + GROUPS_HEIGHT + GAP;
        let height = waiting_y + WAITING_HEIGHT + BOTTOM;
        // Writing to a String cannot fail.
        let _ = write!(
            self.text,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"picture\" role=\"img\" aria-label=\"ServingGroups and waiting requests over time\" viewBox=\"{} {} {} {}\">",
            -MARGIN,
            -MARGIN,
            self.width + 2.0 * MARGIN,
            height + 2.0 * MARGIN
        );
        self.text.push_str(&legend.text);
        let need = self.columns(&self.report.need);
        let groups: Vec<Vec<Option<f64>>> =
            runs.iter().map(|run| self.run(run, |step| step.groups.into())).collect();
        let waiting: Vec<Vec<Option<f64>>> =
            runs.iter().map(|run| self.run(run, |step| step.waiting.into())).collect();
        let top = greatest(groups.iter().chain([&need]));
        let panel = Panel { title: "ServingGroups", y, height: GROUPS_HEIGHT, top };
        self.axes(&panel);
        self.area(&panel, &need);
        self.lines(&panel, &groups);
        let top = greatest(waiting.iter());
        let panel = Panel { title: "waiting requests", y: waiting_y, height: WAITING_HEIGHT, top };
        self.axes(&panel);
        self.lines(&panel, &waiting);
        self.text.push_str("</svg>");
    }

    /// Greatest value of each column.
    fn columns(&self, values: &[Option<f64>]) -> Vec<Option<f64>> {
        let count = column_count(self.width).min(values.len());
        let part = |index: usize| {
            let range = index * values.len() / count..(index + 1) * values.len() / count;
            values.get(range)?.iter().flatten().copied().reduce(f64::max)
        };
        (0..count).map(part).collect()
    }

    fn run(&self, run: &RunReport, value: impl Fn(&super::StepState) -> f64) -> Vec<Option<f64>> {
        let values: Vec<Option<f64>> = run.steps.iter().map(|step| Some(value(step))).collect();
        self.columns(&values)
    }

    /// Title, horizontal lines with their values, and marks of the time.
    fn axes(&mut self, panel: &Panel) {
        let (right, bottom) = (self.width - RIGHT, panel.y + panel.height);
        let _ = write!(self.text, "<text x=\"0\" y=\"{:.1}\">{}</text>", panel.y - 8.0, panel.title);
        for value in marks(panel.top) {
            let y = panel.at(value);
            let _ = write!(
                self.text,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                short(value)
            );
        }
        for (x, label) in self.times() {
            let _ = write!(
                self.text,
                "<path class=\"grid\" d=\"M{x:.1} {:.1}V{bottom:.1}\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                panel.y,
                bottom + 16.0
            );
        }
    }

    /// Marks of the time with their labels, all within the picture.
    fn times(&self) -> Vec<(f64, String)> {
        let grid = self.report.grid;
        let (start, end) = (grid.start(), grid.end());
        let is_far_enough = |distance: &&i64| {
            let room = (self.width - LEFT - RIGHT) / label_width(**distance);
            seconds(end - start) / seconds(**distance) <= room.max(1.0)
        };
        let distance = TIMES.iter().find(is_far_enough).copied().unwrap_or(604_800 * 4);
        let first = if start >= DATES { start + (-start).rem_euclid(distance) } else { start };
        let marks = (0..).map(|index| first + index * distance).take_while(|time| *time < end);
        marks
            .map(|time| {
                let share = seconds(time - start) / seconds((end - start).max(1));
                (LEFT + share * (self.width - LEFT - RIGHT), time_label(grid, time, distance))
            })
            .filter(|(x, _)| x + label_width(distance) / 2.0 <= self.width)
            .collect()
    }

    fn area(&mut self, panel: &Panel, values: &[Option<f64>]) {
        let bottom = panel.y + panel.height;
        let _ = write!(self.text, "<path class=\"need\" d=\"M{LEFT} {bottom:.1}");
        for (x, next, value) in self.steps(values) {
            let y = value.map_or(bottom, |value| panel.at(value));
            let _ = write!(self.text, "L{x:.1} {y:.1}H{next:.1}");
        }
        let _ = write!(self.text, "V{bottom:.1}Z\"/>");
    }

    fn lines(&mut self, panel: &Panel, runs: &[Vec<Option<f64>>]) {
        for (index, values) in runs.iter().enumerate() {
            let _ = write!(self.text, "<path class=\"run c{}\" d=\"", index % COLORS);
            let mut last = None;
            for (x, next, value) in self.steps(values) {
                let Some(y) = value.map(|value| panel.at(value)) else {
                    last = None;
                    continue;
                };
                let _ = match last {
                    Some(before) if f64::total_cmp(&before, &y).is_eq() => write!(self.text, "H{next:.1}"),
                    Some(_) => write!(self.text, "V{y:.1}H{next:.1}"),
                    None => write!(self.text, "M{x:.1} {y:.1}H{next:.1}"),
                };
                last = Some(y);
            }
            self.text.push_str("\"/>");
        }
    }

    /// Left and right edge of each column, and its value.
    fn steps<'v>(
        &self,
        values: &'v [Option<f64>],
    ) -> impl Iterator<Item = (f64, f64, Option<f64>)> + use<'v> {
        let width = (self.width - LEFT - RIGHT) / count(values.len().max(1));
        values.iter().enumerate().map(move |(index, value)| {
            let x = LEFT + count(index) * width;
            (x, x + width, *value)
        })
    }

    fn legend(&self) -> Legend {
        let mut legend = Legend { text: String::new(), lines: 1.0, x: 0.0 };
        legend.entry(self.width, "need", |x, y| {
            format!("<path class=\"need\" d=\"M{x:.1} {y:.1}h18v-10h-18Z\"/>")
        });
        for (index, run) in self.report.runs.iter().enumerate() {
            legend.entry(self.width, &run.name, |x, y| {
                format!("<path class=\"run c{}\" d=\"M{x:.1} {:.1}h18\"/>", index % COLORS, y - 4.0)
            });
        }
        legend
    }
}

/// Entries of the legend, in as many lines as they need.
struct Legend {
    text: String,
    lines: f64,
    x: f64,
}

impl Legend {
    fn entry(&mut self, width: f64, name: &str, mark: impl Fn(f64, f64) -> String) {
        // About the width of a letter at 12 pixels.
        let needed = 24.0 + count(name.chars().count()) * 6.6 + 16.0;
        if self.x > 0.0 && self.x + needed > width {
            (self.x, self.lines) = (0.0, self.lines + 1.0);
        }
        let y = self.lines * LEGEND_LINE - 6.0;
        let _ = write!(
            self.text,
            "{}<text x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
            mark(self.x, y),
            self.x + 24.0,
            escaped(name)
        );
        self.x += needed;
    }
}

impl Panel {
    fn at(&self, value: f64) -> f64 {
        self.y + self.height * (1.0 - value / self.top)
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "widths are below 65536")]
fn column_count(width: f64) -> usize {
    ((width - LEFT - RIGHT) / COLUMN) as usize
}

#[allow(clippy::cast_precision_loss, reason = "counts and times are below 2^53")]
const fn count(number: usize) -> f64 {
    number as f64
}

#[allow(clippy::cast_precision_loss, reason = "counts and times are below 2^53")]
const fn seconds(number: i64) -> f64 {
    number as f64
}

const fn label_width(distance: i64) -> f64 {
    if distance >= DAY { DAY_LABEL } else { HOUR_LABEL }
}

/// Greatest value, at least 1.
fn greatest<'a>(series: impl Iterator<Item = &'a Vec<Option<f64>>>) -> f64 {
    series.flatten().flatten().copied().filter(|value| value.is_finite()).fold(1.0, f64::max)
}

/// Up to five round values from 0 on.
fn marks(top: f64) -> Vec<f64> {
    let magnitude = 10_f64.powf((top / 5.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * magnitude);
    let step = steps.into_iter().find(|step| top / step <= 5.0).unwrap_or(top).max(f64::MIN_POSITIVE);
    (0..=5).map(|index| f64::from(index) * step).take_while(|value| *value <= top).collect()
}

/// A value of an axis, in a few characters.
fn short(value: f64) -> String {
    match value {
        value if value >= 10_000.0 => format!("{}k", value / 1000.0),
        value if value.fract() == 0.0 => format!("{value:.0}"),
        value => format!("{value:.1}"),
    }
}

/// Day and month, or the hour; for times that are no dates, the time since the start.
fn time_label(grid: Grid, time: i64, distance: i64) -> String {
    if grid.start() < DATES {
        let since = time - grid.start();
        return match distance {
            DAY.. => format!("{} d", since / DAY),
            3600.. => format!("{} h", since / 3600),
            _ => format!("{} min", since / 60),
        };
    }
    let form = if distance >= DAY { "%m-%d" } else { "%m-%d %H:%M" };
    Timestamp::from_second(time).map(|time| time.strftime(form).to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(1.0, &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0])]
    #[case(12.3, &[0.0, 5.0, 10.0])]
    #[case(40.0, &[0.0, 10.0, 20.0, 30.0, 40.0])]
    #[case(3200.0, &[0.0, 1000.0, 2000.0, 3000.0])]
    fn marks_round_values(#[case] top: f64, #[case] expected: &[f64]) {
        let found: Vec<f64> = marks(top).into_iter().map(|mark| (mark * 1000.0).round() / 1000.0).collect();
        assert_eq!(found, expected);
    }

    #[rstest]
    #[case(0, 172_800, 86_400, "2 d")]
    #[case(0, 7200, 3600, "2 h")]
    #[case(0, 300, 60, "5 min")]
    #[case(1_790_000_000, 1_790_035_200, 86_400, "09-22")]
    #[case(1_790_000_000, 1_790_006_400, 3600, "09-21 16:00")]
    fn labels_times(#[case] start: i64, #[case] time: i64, #[case] distance: i64, #[case] expected: &str) {
        let grid = Grid::new(start, 60, 10_000).unwrap();
        assert_eq!(time_label(grid, time, distance), expected);
    }
}
