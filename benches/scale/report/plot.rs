//! Plots over the number of models.

use std::path::Path;

use plotters::prelude::*;

use crate::figures::Run;

const SIZE: (u32, u32) = (720, 360);
const FONT: (&str, u32) = ("sans-serif", 14);

/// A line of a plot: name of the figure, label and colour.
type Line = (&'static str, &'static str, RGBColor);

/// Time of a start divided by the floor's; a ratio, because the speed of a machine varies from run to run.
pub fn time(path: &Path, runs: &[Run]) {
    let lines = [
        ("start.over_floor", "one instance", RGBColor(0, 90, 181)),
        ("shards.over_floor", "two shards", RGBColor(220, 50, 32)),
    ];
    draw(path, runs, "Start time ÷ floor, same round", &lines);
}

/// Peak memory, in MiB.
pub fn memory(path: &Path, runs: &[Run]) {
    let lines = [
        ("start.rss_peak", "first start", RGBColor(0, 90, 181)),
        ("restart.rss_peak", "restart", RGBColor(220, 50, 32)),
    ];
    draw(path, runs, "Peak memory (MiB)", &lines);
}

fn count(run: &Run) -> f64 {
    f64::from(u32::try_from(run.models).unwrap_or(u32::MAX))
}

/// Values of all rounds, over the number of models.
fn rounds(runs: &[Run], name: &str) -> Vec<(f64, f64)> {
    runs.iter().flat_map(|run| run.figures.all(name).iter().map(|value| (count(run), *value))).collect()
}

/// Medians, over the number of models.
fn medians(runs: &[Run], name: &str) -> Vec<(f64, f64)> {
    runs.iter().filter_map(|run| Some((count(run), run.figures.spread(name)?.median))).collect()
}

/// Draws medians as lines and each round as a point.
fn draw(path: &Path, runs: &[Run], title: &str, lines: &[Line]) {
    let top =
        lines.iter().flat_map(|(name, ..)| rounds(runs, name)).map(|(_, y)| y).fold(1.0, f64::max) * 1.25;
    let (left, right) = (runs.first().map_or(100.0, count) * 0.8, runs.last().map_or(10_000.0, count) * 1.25);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).expect("a drawing");
    let mut chart = ChartBuilder::on(&root)
        .caption(title, FONT)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d((left..right).log_scale(), 0.0..top)
        .expect("a chart");
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_desc("models")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .label_style(FONT)
        .draw()
        .expect("a mesh");
    for (name, label, colour) in lines {
        let line =
            chart.draw_series(LineSeries::new(medians(runs, name), colour.stroke_width(2))).expect("a line");
        let colour = *colour;
        line.label(*label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart
            .draw_series(rounds(runs, name).into_iter().map(|at| Circle::new(at, 3, colour.filled())))
            .expect("points");
    }
    // The lower right is free: lines are high on the right, or far from zero everywhere.
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .border_style(BLACK)
        .background_style(WHITE)
        .label_font(FONT)
        .draw()
        .expect("labels");
    root.present().expect("a file");
}
