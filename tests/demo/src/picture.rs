//! Charts of a recording: requests in flight above, ServingGroups below.

use std::{fs, path::Path, sync::Arc, time::Duration};

use plotters::prelude::*;
use resvg::{tiny_skia, usvg};

use crate::recorder::{Recorder, Sample};

const SIZE: (u32, u32) = (1000, 520);
const FONT: &str = "Ubuntu";
const LOAD: RGBColor = RGBColor(120, 120, 120);
const SEEN: RGBColor = RGBColor(214, 93, 14);
const WANTED: RGBColor = RGBColor(31, 119, 180);
const READY: RGBColor = RGBColor(44, 160, 44);

/// Labels of a chart.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// Title above both charts.
    pub title: &'a str,
    /// A horizontal line at a number of ServingGroups, with its label.
    pub level: Option<(f64, &'a str)>,
}

/// Writes `<path>.svg` and `<path>.png`.
///
/// # Panics
/// If they cannot be written.
pub fn draw(recorder: &Recorder, picture: Picture<'_>, path: &Path) {
    draw_beside(&[(recorder, picture)], path);
}

/// [`draw`] for several recordings side by side, with the same scales.
///
/// # Panics
/// If the files cannot be written.
pub fn draw_beside(recordings: &[(&Recorder, Picture<'_>)], path: &Path) {
    let count = u32::try_from(recordings.len()).expect("a few recordings");
    let size = (SIZE.0 * count, SIZE.1);
    let tops = Tops::of(recordings.iter().map(|(recorder, _)| *recorder));
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE).expect("a picture");
        for ((recorder, picture), column) in recordings.iter().zip(area.split_evenly((1, recordings.len()))) {
            let (above, below) =
                column.titled(picture.title, (FONT, 20)).expect("a title").split_vertically(SIZE.1 / 2);
            requests(recorder, tops.requests, &above);
            serving_groups(recorder, *picture, tops.serving_groups, &below);
        }
        area.present().expect("a picture");
    }
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path.with_extension("svg"), &svg).expect("a picture");
    raster(&svg, size).save_png(path.with_extension("png")).expect("a picture");
}

/// Upper ends of the axes.
struct Tops {
    requests: f64,
    serving_groups: f64,
}

impl Tops {
    fn of<'a>(recorders: impl Iterator<Item = &'a Recorder>) -> Self {
        let mut tops = Self { requests: 1.0, serving_groups: 1.0 };
        for sample in recorders.flat_map(|recorder| &recorder.samples) {
            tops.requests = tops.requests.max(sample.load as f64);
            tops.serving_groups = tops.serving_groups.max(sample.wanted.max(sample.ready) as f64);
        }
        Self { requests: tops.requests * 1.15, serving_groups: tops.serving_groups + 1.0 }
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

fn span(recorder: &Recorder) -> f64 {
    recorder.samples.last().map_or(1.0, |sample| seconds(sample.at))
}

fn requests(recorder: &Recorder, top: f64, area: &Area<'_>) {
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .x_label_area_size(26)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..span(recorder), 0.0..top)
        .expect("a chart");
    let mesh = chart
        .configure_mesh()
        .y_desc("requests in flight")
        .label_style((FONT, 13))
        .axis_desc_style((FONT, 14))
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&whole)
        .y_label_formatter(&whole)
        .draw();
    mesh.expect("axes");
    for (at, label) in &recorder.marks {
        let at = seconds(*at);
        chart.draw_series([PathElement::new([(at, 0.0), (at, top)], BLACK.mix(0.25))]).expect("a mark");
        chart
            .draw_series([Text::new(label.clone(), (at + span(recorder) / 250.0, top * 0.97), (FONT, 12))])
            .expect("a mark");
    }
    let load = recorder.samples.iter().map(|sample| (seconds(sample.at), sample.load as f64));
    chart
        .draw_series(LineSeries::new(load, LOAD.stroke_width(2)))
        .expect("a line")
        .label("clients")
        .legend(|at| key(at, LOAD));
    // The line has a gap while Prometheus does not respond.
    let mut known =
        recorder.samples.split(|sample| sample.seen.is_none()).filter(|run| !run.is_empty()).enumerate();
    known.by_ref().for_each(|(i, run)| {
        let line = chart.draw_series(LineSeries::new(
            run.iter().map(|sample| (seconds(sample.at), sample.seen.unwrap_or_default())),
            SEEN.stroke_width(2),
        ));
        let line = line.expect("a line");
        if i == 0 {
            line.label("known to Prometheus").legend(|at| key(at, SEEN));
        }
    });
    legend(&mut chart, SeriesLabelPosition::MiddleRight);
}

fn serving_groups(recorder: &Recorder, picture: Picture<'_>, top: f64, area: &Area<'_>) {
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..span(recorder), 0.0..top)
        .expect("a chart");
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("seconds")
        .y_desc("ServingGroups")
        .label_style((FONT, 13))
        .axis_desc_style((FONT, 14))
        .light_line_style(TRANSPARENT);
    // One label per ServingGroup, at most 12.
    mesh.y_labels((top as usize + 1).min(12))
        .x_label_formatter(&whole)
        .y_label_formatter(&whole)
        .draw()
        .expect("axes");
    if let Some((level, label)) = picture.level {
        chart
            .draw_series([PathElement::new([(0.0, level), (span(recorder), level)], BLACK.mix(0.4))])
            .expect("a level");
        chart
            .draw_series([Text::new(
                label.to_owned(),
                (span(recorder) / 100.0, level + top * 0.07),
                (FONT, 12),
            )])
            .expect("a level");
    }
    let mut line = |of: fn(&Sample) -> i64, color: RGBColor, what: &str| {
        chart
            .draw_series(LineSeries::new(steps(recorder, of), color.stroke_width(2)))
            .expect("a line")
            .label(what)
            .legend(move |at| key(at, color));
    };
    line(|sample| sample.ready, READY, "ready");
    line(|sample| sample.wanted, WANTED, "wanted (spec.replicas)");
    legend(&mut chart, SeriesLabelPosition::UpperRight);
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "plotters' formatter signature")]
fn whole(value: &f64) -> String {
    format!("{value:.0}")
}

/// Points of a step function: a value stays until the next sample.
fn steps(recorder: &Recorder, of: fn(&Sample) -> i64) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for sample in &recorder.samples {
        let (at, value) = (seconds(sample.at), of(sample) as f64);
        if let Some((_, before)) = points.last().copied() {
            points.push((at, before));
        }
        points.push((at, value));
    }
    points
}

fn key((x, y): (i32, i32), color: RGBColor) -> PathElement<(i32, i32)> {
    PathElement::new([(x, y), (x + 18, y)], color.stroke_width(3))
}

type Chart<'a, 'b> = ChartContext<
    'b,
    SVGBackend<'a>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;

fn legend<'a: 'b, 'b>(chart: &mut Chart<'a, 'b>, position: SeriesLabelPosition) {
    let mut labels = chart.configure_series_labels();
    labels.position(position).label_font((FONT, 13)).background_style(WHITE.mix(0.85));
    labels.draw().expect("a legend");
}

/// Renders with an embedded font, so that the result is the same on every machine.
fn raster(svg: &str, size: (u32, u32)) -> tiny_skia::Pixmap {
    let mut fonts = usvg::fontdb::Database::new();
    fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
    let options =
        usvg::Options { fontdb: Arc::new(fonts), font_family: FONT.to_owned(), ..usvg::Options::default() };
    let tree = usvg::Tree::from_str(svg, &options).expect("an SVG");
    let mut pixels = tiny_skia::Pixmap::new(size.0, size.1).expect("a size");
    resvg::render(&tree, tiny_skia::Transform::identity(), &mut pixels.as_mut());
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_a_recording_as_svg_and_png() {
        let sample = |at: u64, load: usize, wanted: i64| Sample {
            at: Duration::from_secs(at),
            load,
            seen: (at != 2).then_some(load as f64),
            wanted,
            ready: wanted,
            keda: String::new(),
            hpa: String::new(),
        };
        let samples = vec![sample(0, 0, 1), sample(1, 30, 1), sample(2, 30, 3), sample(3, 20, 3)];
        let mut recorder = Recorder::default();
        recorder.samples = samples;
        let path = std::env::temp_dir().join(format!("kthena-keda-picture-{}/curve", std::process::id()));
        draw(&recorder, Picture { title: "A test", level: Some((2.0, "need")) }, &path);
        let svg = fs::read_to_string(path.with_extension("svg")).unwrap();
        assert!(svg.contains("A test") && svg.contains("known to Prometheus"), "{svg}");
        let png = fs::read(path.with_extension("png")).unwrap();
        assert!(png.starts_with(b"\x89PNG") && png.len() > 5000, "{}", png.len());
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
