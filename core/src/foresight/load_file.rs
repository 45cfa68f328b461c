//! Arrivals in a CSV file.
//!
//! ```text
//! # comment
//! time,arrivals,input_tokens,output_tokens
//! 0,251,64120,9840
//! 60,248,63700,9630
//! ```
//!
//! `arrivals` and the tokens are totals within a row; `service_time` is a mean in seconds. Columns that end with `_rps`
//! are rates per second. `time` or `t` is in seconds, from any start or since 1970. Other columns are ignored.

use super::{
    fluid::Inflow,
    history::{Grid, STEP, STEPS_MAX},
    workload::Workload,
};
use crate::domain::{printable, quoted};

/// Settings of the requests that a file leaves open.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadOptions {
    /// Length of a row in seconds, for files without a column `time`.
    pub row: Option<u32>,
    /// Column of rates, for files with several of them.
    pub column: Option<String>,
    /// Time that one request takes without waiting, in seconds; without it the column or the tokens decide.
    pub service_time: Option<f64>,
}

/// Seconds for one generated token, where a file has tokens and no service time.
pub const TOKEN_SECONDS: f64 = 0.03;
/// Service time in seconds, where a file has neither.
pub const SERVICE_TIME: f64 = 10.0;

/// Error of a file of arrivals.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// There is no row.
    #[error("there are no rows; a file has a header such as time,arrivals and one row for each step")]
    Empty,
    /// The columns are not usable.
    #[error("{0}")]
    Header(String),
    /// A row is not usable.
    #[error("line {line}: {problem}")]
    Row {
        /// Number of the line, from 1.
        line: usize,
        /// Cause and remedy.
        problem: String,
    },
    /// The times do not follow each other in equal steps, or there are too many.
    #[error("{0}")]
    Grid(String),
}

/// Arrivals of a file.
#[derive(Clone, Debug)]
pub struct LoadFile {
    /// Requests, step by step.
    pub workload: Workload,
    /// Source of the service times, for the report.
    pub service_time_from: &'static str,
    /// Rows without requests in a column of rates, which are gaps of the record.
    pub gaps: usize,
}

/// Positions of the columns.
struct Columns {
    time: Option<usize>,
    arrivals: Arrivals,
    output_tokens: Option<usize>,
    service_time: Option<usize>,
}

enum Arrivals {
    Total(usize),
    /// Requests per second; 0 is a gap of the record.
    Rate(usize),
}

/// One row: time, and requests per second with their service time and tokens; `None` in a gap.
struct Row {
    line: usize,
    time: Option<f64>,
    arrivals: Option<f64>,
    output_tokens: Option<f64>,
    service_time: Option<f64>,
}

/// Reads arrivals.
///
/// # Errors
/// If a column is missing, a value is not a number >= 0, or the times are not in equal steps.
pub fn read(text: &str, options: &LoadOptions) -> Result<LoadFile, LoadError> {
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let (_, header) = lines.next().ok_or(LoadError::Empty)?;
    let columns = Columns::find(header, options)?;
    let mut rows = Vec::new();
    for (line, text) in lines {
        if rows.len() == STEPS_MAX {
            return Err(LoadError::Grid(format!(
                "more than {STEPS_MAX} rows; use longer rows or a part of the file"
            )));
        }
        rows.push(columns.row(line, text)?);
    }
    let (start, step) = grid(&rows, options.row)?;
    let grid = Grid::new(start, step, rows.len()).ok_or_else(|| {
        LoadError::Grid("the times are not those of this era: expected seconds >= 0".to_owned())
    })?;
    let mut gaps = 0;
    let inflows = rows.iter().map(|row| {
        let inflow = inflow(row, step, options, &columns.arrivals);
        gaps += usize::from(inflow.is_none());
        inflow
    });
    let inflows = inflows.collect();
    let service_time_from = match (options.service_time, columns.service_time, columns.output_tokens) {
        (Some(_), _, _) => "--service-time",
        (None, Some(_), _) => "the column service_time",
        (None, None, Some(_)) => "0.03 s for each output token",
        (None, None, None) => "an assumption; pass --service-time",
    };
    Ok(LoadFile { workload: Workload::new(grid, inflows), service_time_from, gaps })
}

fn inflow(row: &Row, step: u32, options: &LoadOptions, kind: &Arrivals) -> Option<Inflow> {
    let arrivals = row.arrivals?;
    let rate = match kind {
        Arrivals::Total(_) => arrivals / f64::from(step),
        Arrivals::Rate(_) => arrivals,
    };
    let requests = rate * f64::from(step);
    let tokens = row.output_tokens.filter(|_| requests > 0.0).map_or(0.0, |tokens| tokens / requests);
    let by_tokens = row.output_tokens.filter(|_| arrivals > 0.0).map(|_| tokens * TOKEN_SECONDS);
    let service_time = options.service_time.or(row.service_time).or(by_tokens).unwrap_or(SERVICE_TIME);
    Some(Inflow { rate, service_time: service_time.clamp(0.01, 3600.0), tokens })
}

impl Columns {
    fn find(header: &str, options: &LoadOptions) -> Result<Self, LoadError> {
        let names: Vec<&str> = header.split(',').map(str::trim).collect();
        let index = |name: &str| names.iter().position(|found| *found == name);
        let rates: Vec<&str> = names.iter().copied().filter(|name| name.ends_with("_rps")).collect();
        let missing = |name: &str| {
            LoadError::Header(format!(
                "there is no column {}; the columns are {}",
                quoted(name),
                printable(&names.join(", "))
            ))
        };
        let arrivals = match (&options.column, index("arrivals"), rates.as_slice()) {
            (Some(column), ..) if column == "arrivals" => {
                Arrivals::Total(index(column).ok_or_else(|| missing(column))?)
            }
            (Some(column), ..) => Arrivals::Rate(index(column).ok_or_else(|| missing(column))?),
            (None, Some(index), _) => Arrivals::Total(index),
            (None, None, [rate]) => Arrivals::Rate(index(rate).unwrap_or_default()),
            (None, None, []) => {
                return Err(LoadError::Header(
                    "there is no column arrivals; the first line has the names of the columns, such as time,arrivals,output_tokens".to_owned(),
                ));
            }
            (None, None, several) => {
                return Err(LoadError::Header(format!(
                    "there are several columns of rates; pass --load-column with one of {}",
                    printable(&several.join(", "))
                )));
            }
        };
        Ok(Self {
            time: index("time").or_else(|| index("t")),
            arrivals,
            output_tokens: index("output_tokens"),
            service_time: index("service_time"),
        })
    }

    fn row(&self, line: usize, text: &str) -> Result<Row, LoadError> {
        let cells: Vec<&str> = text.split(',').map(str::trim).collect();
        let number = |index: usize| {
            let cell = cells.get(index).copied().unwrap_or_default();
            let number = cell.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
            number.ok_or_else(|| LoadError::Row {
                line,
                problem: format!("invalid value {}: expected a number >= 0", quoted(cell)),
            })
        };
        let optional = |index: Option<usize>| index.map(number).transpose();
        let arrivals = match self.arrivals {
            Arrivals::Total(index) => Some(number(index)?),
            Arrivals::Rate(index) => Some(number(index)?).filter(|rate| *rate > 0.0),
        };
        Ok(Row {
            line,
            time: optional(self.time)?,
            arrivals,
            output_tokens: optional(self.output_tokens)?,
            service_time: optional(self.service_time)?.filter(|time| *time > 0.0),
        })
    }
}

/// Start and length of the rows, in seconds.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded before the cast")]
fn grid(rows: &[Row], row: Option<u32>) -> Result<(i64, u32), LoadError> {
    let first = rows.first().ok_or(LoadError::Empty)?;
    let (Some(start), second) = (first.time, rows.get(1).and_then(|row| row.time)) else {
        let row = row.ok_or_else(|| {
            LoadError::Grid(
                "the length of a row is not known; add a column time in seconds, end the name of the file with it as in week-60s.csv, or pass --load-row".to_owned(),
            )
        })?;
        return Ok((0, row));
    };
    let length = second.map_or(f64::from(row.unwrap_or(60)), |second| second - start);
    if start > 250e9
        || length.fract() != 0.0
        || !(f64::from(*STEP.start())..=f64::from(*STEP.end())).contains(&length)
    {
        return Err(LoadError::Grid(format!(
            "the first two rows are {length} s apart: expected whole seconds from {} to {}; sort the rows by time and remove duplicates",
            STEP.start(),
            STEP.end()
        )));
    }
    for (pair, line) in rows.windows(2).zip(rows.iter().skip(1).map(|row| row.line)) {
        let [Some(before), Some(after)] = [pair.first(), pair.last()].map(|row| row.and_then(|row| row.time))
        else {
            continue;
        };
        if (after - before - length).abs() > 1e-3 {
            return Err(LoadError::Row {
                line,
                problem: format!(
                    "time {after} follows {before}, but rows are {length} s apart; sort the rows by time, remove duplicates, and add missing rows"
                ),
            });
        }
    }
    Ok((start as i64, length as u32))
}

/// Length of a row in seconds, by the end of a file's name such as `day-15s` or `week-1min`.
pub fn row_of_name(stem: &str) -> Option<u32> {
    let (_, length) = stem.rsplit_once('-')?;
    let (number, seconds) = match length.strip_suffix("min") {
        Some(number) => (number, 60),
        None => (length.strip_suffix('s')?, 1),
    };
    number.parse::<u32>().ok()?.checked_mul(seconds).filter(|seconds| STEP.contains(seconds))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn load(text: &str) -> Result<LoadFile, String> {
        read(text, &LoadOptions::default()).map_err(|error| error.to_string())
    }

    #[rstest]
    #[case::totals("time,arrivals\n0,60\n60,0\n", 60, [Some((1.0, 10.0)), Some((0.0, 10.0))])]
    #[case::tokens("time,arrivals,output_tokens\n60,60,12000\n75,0,0", 15, [Some((4.0, 6.0)), Some((0.0, 10.0))])]
    #[case::tokens_beside_a_rate("time,chat_rps,output_tokens\n60,4,12000\n75,1,3000", 15, [Some((4.0, 6.0)), Some((1.0, 6.0))])]
    #[case::service_time("# c\n\nservice_time,arrivals,time\n5,30,1e9\n0,30,1000000030", 30, [Some((1.0, 5.0)), Some((1.0, 10.0))])]
    #[case::gap("t,a_rps\n0,2.5\n600,0", 600, [Some((2.5, 10.0)), None])]
    fn reads_rows(#[case] text: &str, #[case] step: u32, #[case] expected: [Option<(f64, f64)>; 2]) {
        let found = load(text).unwrap();
        let inflow = |step| found.workload.inflow(step).map(|inflow| (inflow.rate, inflow.service_time));
        assert_eq!((found.workload.grid().step(), [inflow(0), inflow(1)]), (step, expected));
        assert_eq!(found.gaps, expected.iter().filter(|inflow| inflow.is_none()).count());
    }

    #[rstest]
    #[case::empty("", "there are no rows")]
    #[case::header_only("time,arrivals\n", "there are no rows")]
    #[case::no_arrivals("time,load\n0,1", "there is no column arrivals")]
    #[case::several("t,a_rps,b_rps\n0,1,2", "pass --load-column with one of a_rps, b_rps")]
    #[case::no_length("arrivals\n1\n2", "the length of a row is not known")]
    #[case::nan("time,arrivals\n0,NaN", r#"line 2: invalid value "NaN": expected a number >= 0"#)]
    #[case::infinite("time,arrivals\n0,inf", r#"line 2: invalid value "inf""#)]
    #[case::negative("time,arrivals\n0,-1", r#"line 2: invalid value "-1""#)]
    #[case::text("time,arrivals\n0,many", r#"line 2: invalid value "many""#)]
    #[case::short("time,arrivals\n0", r#"line 2: invalid value """#)]
    #[case::duplicate(
        "time,arrivals\n0,1\n60,1\n60,1",
        "line 4: time 60 follows 60, but rows are 60 s apart; sort"
    )]
    #[case::duplicate_first("time,arrivals\n0,1\n0,1", "the first two rows are 0 s apart")]
    #[case::unordered("time,arrivals\n0,1\n60,1\n30,1", "line 4: time 30 follows 60")]
    #[case::missing_row("time,arrivals\n0,1\n60,1\n180,1", "line 4: time 180 follows 60")]
    #[case::far_future("time,arrivals\n1e15,1\n1e15,1", "the first two rows")]
    fn reports_unusable_files(#[case] text: &str, #[case] expected: &str) {
        let error = load(text).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[rstest]
    #[case("servegen-r1-day-15s", Some(15))]
    #[case("servegen-2weeks-10min", Some(600))]
    #[case("week", None)]
    #[case("week-0s", None)]
    #[case("a-99999999999min", None)]
    fn reads_the_length_of_a_row_from_a_name(#[case] stem: &str, #[case] expected: Option<u32>) {
        assert_eq!(row_of_name(stem), expected);
    }

    proptest! {
        #[test]
        fn reads_anything(text in "(time|t|,|\n|arrivals|a_rps|[0-9.e-]{1,6}){0,40}", row in prop::option::of(any::<u32>())) {
            let _ = read(&text, &LoadOptions { row, ..LoadOptions::default() });
        }
    }
}
