//! The file format of a history: lines of JSON.
//!
//! ```text
//! {"apiVersion":"foresight.kthena.io/v1","kind":"History","namespace":"models","name":"chat","start":"…","step":15,"steps":40320,"scaledObject":{…}}
//! {"series":"trigger/active-requests","at":"2026-11-19T05:00:00Z","values":[0,1,null,2]}
//! ```
//!
//! The first line has the settings in force; each other line has consecutive values of one series, `null` in gaps.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Read as _, Write},
};

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Grid, History, STEPS_MAX, SeriesName};
use crate::{
    api::keda::{ScaledObject, ScaledObjectSpec, Trigger, pause_annotation},
    domain::{Backlog, Pause, printable, quoted},
};

/// `apiVersion` of histories and reports.
pub const HISTORY_API_VERSION: &str = "foresight.kthena.io/v1";
const KIND: &str = "History";

/// Longest line, in bytes.
const LINE_MAX: u64 = 1 << 20;
/// Lines of a file.
const LINES_MAX: usize = 200_000;
/// Values in a written line: an hour at 15 s.
const VALUES_PER_LINE: usize = 240;
/// Settings of a trigger that are written: none of them holds a secret.
const METADATA: [&str; 4] = ["query", "threshold", "activationThreshold", "ignoreNullValues"];

/// Error of a history file.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file has no line.
    #[error("the file is empty; write one with --save")]
    Empty,
    /// A line is not of the format.
    #[error("line {line}: {problem}")]
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// Cause and remedy.
        problem: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    api_version: String,
    kind: String,
    namespace: String,
    name: String,
    start: Timestamp,
    step: u32,
    steps: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replicas_from: Option<String>,
    #[serde(default)]
    backlog: BacklogHeader,
    scaled_object: ScaledObjectHeader,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BacklogHeader {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service_time: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    headroom: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drain_time: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct ScaledObjectHeader {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    spec: ScaledObjectSpec,
}

#[derive(Serialize, Deserialize)]
struct Line {
    series: String,
    at: Timestamp,
    values: Vec<Option<f64>>,
}

/// The part of a ScaledObject that a simulation reads.
pub(super) fn without_secrets(object: &ScaledObject) -> ScaledObject {
    let trigger = |trigger: &Trigger| Trigger {
        metadata: trigger
            .metadata
            .iter()
            .filter(|(key, _)| METADATA.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        authentication_ref: None,
        ..trigger.clone()
    };
    let mut kept = ScaledObject::new(
        object.metadata.name.as_deref().unwrap_or_default(),
        ScaledObjectSpec {
            triggers: object.spec.triggers.iter().map(trigger).collect(),
            ..object.spec.clone()
        },
    );
    let pauses = [Pause::All, Pause::ScaleIn, Pause::ScaleOut].map(pause_annotation);
    let annotations = object.metadata.annotations.iter().flatten();
    let annotations: BTreeMap<String, String> = annotations
        .filter(|(key, _)| pauses.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    kept.metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    kept
}

impl From<Backlog> for BacklogHeader {
    fn from(backlog: Backlog) -> Self {
        Self {
            service_time: Some(backlog.service_time.to_string()),
            headroom: Some(backlog.headroom.to_string()),
            drain_time: Some(format!("{}s", backlog.drain_time.seconds())),
        }
    }
}

impl BacklogHeader {
    fn read(&self) -> Result<Backlog, String> {
        let default = Backlog::default();
        let text = |error: crate::domain::ValueError| format!("backlog: {error}");
        Ok(Backlog {
            service_time: self
                .service_time
                .as_deref()
                .map_or(Ok(default.service_time), str::parse)
                .map_err(text)?,
            headroom: self.headroom.as_deref().map_or(Ok(default.headroom), str::parse).map_err(text)?,
            drain_time: self
                .drain_time
                .as_deref()
                .map_or(Ok(default.drain_time), str::parse)
                .map_err(text)?,
        })
    }
}

/// Writes a history.
///
/// # Errors
/// If the output cannot be written to.
pub fn write(history: &History, mut out: impl Write) -> io::Result<()> {
    let grid = history.grid();
    let header = Header {
        api_version: HISTORY_API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        namespace: history.namespace.clone(),
        name: history.name.clone(),
        start: timestamp(grid.start())?,
        step: grid.step(),
        steps: grid.steps(),
        replicas_from: history.replicas_from.clone(),
        backlog: history.backlog.into(),
        scaled_object: ScaledObjectHeader {
            annotations: history.scaled_object.metadata.annotations.clone().unwrap_or_default(),
            spec: history.scaled_object.spec.clone(),
        },
    };
    writeln!(out, "{}", serde_json::to_string(&header)?)?;
    for (name, series) in &history.series {
        let mut start = grid.start();
        for values in series.0.chunks(VALUES_PER_LINE) {
            if values.iter().any(|value| !value.is_nan()) {
                let values = values.iter().map(|value| (!value.is_nan()).then(|| rounded(*value))).collect();
                let line = Line { series: name.to_string(), at: timestamp(start)?, values };
                writeln!(out, "{}", serde_json::to_string(&line)?)?;
            }
            start += i64::from(grid.step()) * 240;
        }
    }
    Ok(())
}

/// Nine significant digits: more than the thousandths that the HPA keeps.
fn rounded(value: f64) -> f64 {
    format!("{value:.8e}").parse().unwrap_or(value)
}

fn timestamp(seconds: i64) -> io::Result<Timestamp> {
    Timestamp::from_second(seconds).map_err(io::Error::other)
}

/// Reads a history. Its memory is bounded for any input.
///
/// # Errors
/// If the input cannot be read, or a line is not of the format.
pub fn read(mut input: impl BufRead) -> Result<History, HistoryError> {
    let mut buffer = Vec::new();
    let at_line = |line: usize| move |problem: String| HistoryError::Line { line, problem };
    let Some(first) = next_line(&mut input, &mut buffer).map_err(|error| match error {
        LineError::Io(error) => HistoryError::Io(error),
        LineError::Long(problem) => at_line(1)(problem),
    })?
    else {
        return Err(HistoryError::Empty);
    };
    let mut history = header(first).map_err(at_line(1))?;
    let mut number = 1;
    loop {
        number += 1;
        let line = match next_line(&mut input, &mut buffer) {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(history),
            Err(LineError::Io(error)) => return Err(error.into()),
            Err(LineError::Long(problem)) => return Err(at_line(number)(problem)),
        };
        if number > LINES_MAX {
            return Err(at_line(number)(format!("more than {LINES_MAX} lines; save a shorter time")));
        }
        if !line.trim().is_empty() {
            record(&mut history, line).map_err(at_line(number))?;
        }
    }
}

enum LineError {
    Io(io::Error),
    Long(String),
}

fn next_line<'a>(input: &mut impl BufRead, buffer: &'a mut Vec<u8>) -> Result<Option<&'a str>, LineError> {
    buffer.clear();
    let read = input.take(LINE_MAX).read_until(b'\n', buffer).map_err(LineError::Io)?;
    if read == 0 {
        return Ok(None);
    }
    if u64::try_from(read).is_ok_and(|read| read >= LINE_MAX) {
        return Err(LineError::Long(format!("longer than {LINE_MAX} bytes; use shorter lines")));
    }
    std::str::from_utf8(buffer)
        .map(Some)
        .map_err(|_| LineError::Long("not UTF-8; save the history again".to_owned()))
}

fn header(line: &str) -> Result<History, String> {
    let not_a_history = |error: serde_json::Error| {
        format!("not the first line of a history: {}; write one with --save", printable(&error.to_string()))
    };
    let header: Header = serde_json::from_str(line).map_err(not_a_history)?;
    if header.api_version != HISTORY_API_VERSION || header.kind != KIND {
        return Err(format!(
            "{} {} is not supported: expected {HISTORY_API_VERSION} {KIND}; use the release that wrote the file",
            quoted(&header.api_version),
            quoted(&header.kind)
        ));
    }
    let grid = Grid::new(header.start.as_second(), header.step, header.steps).ok_or_else(|| {
        format!(
            "invalid grid: expected 1 to {STEPS_MAX} steps of 1 to 3600 s and a year at most, found {} of {} s from {}",
            header.steps, header.step, header.start
        )
    })?;
    let mut object = ScaledObject::new("", header.scaled_object.spec);
    object.metadata.annotations = Some(header.scaled_object.annotations).filter(|found| !found.is_empty());
    let mut history = History::new(grid, &header.namespace, &header.name, &object, header.backlog.read()?);
    history.replicas_from = header.replicas_from;
    Ok(history)
}

#[allow(clippy::cast_precision_loss, reason = "exact below 2^53")]
fn record(history: &mut History, line: &str) -> Result<(), String> {
    let line: Line =
        serde_json::from_str(line).map_err(|error| printable(&error.to_string()).into_owned())?;
    let name: SeriesName = line.series.parse().map_err(|_| {
        format!(
            "unknown series {}; expected trigger/NAME, in-flight, arrivals, output-tokens or replicas/STATE",
            quoted(&line.series)
        )
    })?;
    let step = f64::from(history.grid().step());
    let start = line.at.as_second() as f64;
    for (index, value) in line.values.iter().enumerate() {
        if let Some(value) = value {
            history.record(&name, step.mul_add(index as f64, start), *value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::{super::tests::history, *};
    use crate::{
        observed::fixture::Fixture,
        plan::{Desired, plan},
    };

    const HEADER: &str = r#"{"apiVersion":"foresight.kthena.io/v1","kind":"History","namespace":"n","name":"m","start":"2026-01-01T00:00:00Z","step":15,"steps":4,"scaledObject":{"spec":{"scaleTargetRef":{}}}}"#;

    fn planned() -> ScaledObject {
        let fixture = Fixture::model("llama");
        let Desired::Apply(object) =
            plan(&fixture.observed(), fixture.capabilities, &fixture.defaults).scaled_object
        else {
            panic!("no ScaledObject")
        };
        *object
    }

    #[test]
    fn a_written_history_is_read_as_it_was() {
        let mut written = history(500);
        written.scaled_object = without_secrets(&planned());
        written.scaled_object.metadata.name = None;
        written.backlog.service_time = "5s".parse().unwrap();
        for (step, value) in [(0_u32, 0.0), (1, 1.0 / 3.0), (240, 7.0), (499, 1e9)] {
            written.record(&SeriesName::InFlight, 1_000_000_020.0 + f64::from(step) * 15.0, value);
        }
        let mut bytes = Vec::new();
        write(&written, &mut bytes).unwrap();
        let mut again = Vec::new();
        let found = read(bytes.as_slice()).unwrap();
        write(&found, &mut again).unwrap();
        assert_eq!(String::from_utf8(bytes), String::from_utf8(again));
        assert_eq!(found.series(&SeriesName::InFlight).and_then(|it| it.get(1)), Some(0.333_333_333));
        assert_eq!((found.scaled_object.spec, found.backlog), (written.scaled_object.spec, written.backlog));
    }

    /// The settings of a trigger may have an address with a user's name, headers and credentials.
    #[test]
    fn a_written_history_has_no_secrets() {
        let mut object = planned();
        for trigger in &mut object.spec.triggers {
            trigger.metadata.insert("customHeaders".to_owned(), "X-Token=hidden".to_owned());
            trigger.metadata.insert("serverAddress".to_owned(), "http://user:hidden@p".to_owned());
            trigger.authentication_ref = Some(crate::api::keda::AuthenticationReference {
                kind: String::new(),
                name: "hidden".to_owned(),
            });
        }
        let grid = Grid::new(0, 15, 1).unwrap();
        let mut bytes = Vec::new();
        write(&History::new(grid, "n", "m", &object, Backlog::default()), &mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(
            !text.contains("hidden") && text.contains("kthena_router_active_downstream_requests"),
            "{text}"
        );
    }

    #[rstest]
    #[case::empty("", "the file is empty")]
    #[case::no_json("time,value", "line 1: not the first line of a history")]
    #[case::version(&HEADER.replace("io/v1", "io/v9"), r#"line 1: "foresight.kthena.io/v9" "History" is not supported"#)]
    #[case::steps(&HEADER.replace(r#""steps":4"#, r#""steps":0"#), "line 1: invalid grid")]
    #[case::step(&HEADER.replace(r#""step":15"#, r#""step":0"#), "line 1: invalid grid")]
    #[case::service_time(
        &HEADER.replace(r#""step":15"#, r#""step":15,"backlog":{"serviceTime":"soon"}"#),
        "line 1: backlog: expected off, auto, or a duration"
    )]
    #[case::series(&format!("{HEADER}\n{{\"series\":\"cpu\",\"at\":\"2026-01-01T00:00:00Z\",\"values\":[]}}"), "line 2: unknown series \"cpu\"")]
    #[case::value(&format!("{HEADER}\n\n{{\"series\":\"in-flight\",\"at\":\"2026-01-01T00:00:00Z\",\"values\":[\"a\"]}}"), "line 3: invalid type")]
    #[case::long(&format!("{HEADER}\n{}", "x".repeat(1 << 20)), "line 2: longer than 1048576 bytes")]
    fn reports_the_line_of_an_error(#[case] text: &str, #[case] expected: &str) {
        let error = read(text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }

    proptest! {
        #[test]
        fn reads_anything(lines in prop::collection::vec(".{0,80}", 0..4), values in prop::collection::vec(any::<Option<f64>>(), 0..8)) {
            let line = serde_json::to_string(&Line { series: "in-flight".to_owned(), at: Timestamp::UNIX_EPOCH, values }).unwrap();
            let _ = read(format!("{HEADER}\n{line}\n{}", lines.join("\n")).as_bytes());
            let _ = read(lines.join("\n").as_bytes());
        }
    }
}
