//! Range queries over days and weeks, in chunks that Prometheus accepts.
//!
//! In: queries and a grid of times. Out: points, handed over as they arrive, so that memory is bounded by the chunks in
//! flight. `query_range` evaluates a query at each step as an instant query does, so the points are the values that KEDA
//! saw at those seconds.

use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use reqwest::StatusCode;

use super::{
    Querier,
    client::status_message,
    response::{self, Points},
    unsigned,
};
use kthena_keda_core::{domain::printable, foresight::history::Grid, intent::PrometheusSettings};

/// Points of a series that Prometheus returns at most (`web/api/v1/api.go`).
const POINTS_MAX: usize = 11_000;
/// Longest chunk, in seconds.
const CHUNK: usize = 86_400;
/// Chunks that are requested at the same time.
const CONCURRENCY: usize = 4;
/// Limit of a request, and of its evaluation in Prometheus, unless the profile sets one.
const REQUEST: Duration = Duration::from_mins(2);
const EVALUATION: &str = "110s";
/// Series of a response that are looked at; KEDA accepts one.
const SERIES_MAX: &str = "100";

/// A query over a grid.
#[derive(Clone, Debug)]
pub struct RangeQuery<K> {
    /// Key of the points.
    pub key: K,
    /// PromQL.
    pub query: String,
}

/// Error of a range query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// There is no response of a Prometheus.
    #[error(
        "Prometheus is not reachable: {0}; pass --prometheus-url with an address that is reachable from here"
    )]
    Unreachable(String),
    /// Prometheus does not run the query.
    #[error("Prometheus refused a query: {0}")]
    Refused(String),
}

/// Extent of what was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeStats {
    /// Requests.
    pub requests: usize,
    /// Requests that were repeated in halves.
    pub halved: usize,
}

/// Consecutive steps of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chunk {
    first: usize,
    steps: usize,
}

impl Chunk {
    fn of(grid: Grid) -> impl Iterator<Item = Self> {
        let step = usize::try_from(grid.step()).unwrap_or(1).max(1);
        let steps = (CHUNK / step).clamp(1, POINTS_MAX);
        (0..grid.steps())
            .step_by(steps)
            .map(move |first| Self { first, steps: steps.min(grid.steps() - first) })
    }

    /// Both halves; `None` for a single step.
    const fn halves(self) -> Option<[Self; 2]> {
        let half = self.steps / 2;
        if half == 0 {
            return None;
        }
        let second = Self { first: self.first + half, steps: self.steps - half };
        Some([Self { first: self.first, steps: half }, second])
    }

    /// First and last time, in seconds since 1970.
    fn times(self, grid: Grid) -> (i64, i64) {
        let at = |index: usize| grid.start() + i64::from(grid.step()) * i64::try_from(index).unwrap_or(0);
        (at(self.first), at(self.first + self.steps.saturating_sub(1)))
    }
}

/// Response to one chunk.
enum Answer {
    Series(Vec<Points>),
    /// Too much for one request.
    TooMuch(String),
}

/// Runs queries over a grid. `progress` gets the number of chunks that are done and their total; `record` gets each
/// point: key, time in seconds since 1970, value.
///
/// # Errors
/// The first error of a chunk.
pub async fn query_ranges<K: Clone>(
    querier: &Querier,
    settings: &PrometheusSettings,
    asked: &[RangeQuery<K>],
    grid: Grid,
    progress: impl Fn(usize, usize),
    mut record: impl FnMut(&K, f64, f64),
) -> Result<RangeStats, RangeError> {
    if let Some(error) = unsigned(settings) {
        return Err(RangeError::Refused(error));
    }
    let chunks: Vec<(&RangeQuery<K>, Chunk)> =
        Chunk::of(grid).flat_map(|chunk| asked.iter().map(move |query| (query, chunk))).collect();
    let (all, mut done, mut sums) = (chunks.len(), 0, RangeStats::default());
    let mut answers = stream::iter(chunks)
        .map(async |(query, chunk)| (query, chunk_points(querier, settings, &query.query, grid, chunk).await))
        .buffer_unordered(CONCURRENCY);
    while let Some((query, answer)) = answers.next().await {
        let (points, of_chunk) = answer?;
        for (at, value) in points {
            record(&query.key, at, value);
        }
        sums.requests += of_chunk.requests;
        sums.halved += of_chunk.halved;
        done += 1;
        progress(done, all);
    }
    Ok(sums)
}

/// The points of one chunk, requested in halves if it is too much for one request.
async fn chunk_points(
    querier: &Querier,
    settings: &PrometheusSettings,
    query: &str,
    grid: Grid,
    chunk: Chunk,
) -> Result<(Points, RangeStats), RangeError> {
    let (mut points, mut stats) = (Points::new(), RangeStats::default());
    let mut rest = vec![chunk];
    while let Some(chunk) = rest.pop() {
        stats.requests += 1;
        match request(querier, settings, query, grid, chunk).await? {
            Answer::Series(series) => points.extend(single_values(series)),
            Answer::TooMuch(error) => {
                let [first, second] = chunk.halves().ok_or(RangeError::Refused(error))?;
                stats.halved += 1;
                rest.extend([second, first]);
            }
        }
    }
    Ok((points, stats))
}

/// One value for each time: KEDA takes several for an error, so they are none.
fn single_values(series: Vec<Points>) -> Points {
    let mut points: Points = series.into_iter().flatten().collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let groups = points.chunk_by(|a, b| (a.0 - b.0).abs() < 1e-3);
    groups.filter_map(|group| if let [point] = group { Some(*point) } else { None }).collect()
}

async fn request(
    querier: &Querier,
    settings: &PrometheusSettings,
    query: &str,
    grid: Grid,
    chunk: Chunk,
) -> Result<Answer, RangeError> {
    let (start, end) = chunk.times(grid);
    let [start, end, step] = [start.to_string(), end.to_string(), grid.step().to_string()];
    let evaluation = settings.timeout.map_or(EVALUATION.to_owned(), |seconds| format!("{seconds}s"));
    let parameters = [
        ("query", query),
        ("start", &start),
        ("end", &end),
        ("step", &step),
        ("timeout", &evaluation),
        ("limit", SERIES_MAX),
    ];
    let response = querier.api(settings, "query_range", &parameters, REQUEST).await;
    let (status, body) = response.map_err(RangeError::Unreachable)?;
    match response::decode_range(&body) {
        Ok(Ok(series)) => Ok(Answer::Series(series)),
        Ok(Err(error)) if is_too_much(status, &error) => Ok(Answer::TooMuch(shown(&error))),
        Ok(Err(error)) => Err(RangeError::Refused(shown(&error))),
        Err(_) if !status.is_success() => {
            let text = String::from_utf8_lossy(&body);
            let message = status_message(status);
            if is_too_much(status, &text) {
                Ok(Answer::TooMuch(message))
            } else {
                Err(refusal(status, message))
            }
        }
        Err(error) => Err(RangeError::Unreachable(response::unexpected(&error))),
    }
}

/// A gateway that has no Prometheus behind it is one that cannot be reached.
fn refusal(status: StatusCode, message: String) -> RangeError {
    match status {
        StatusCode::NOT_FOUND | StatusCode::BAD_GATEWAY => RangeError::Unreachable(message),
        _ => RangeError::Refused(message),
    }
}

/// `true` if a shorter time may be accepted: too many points or samples, a timeout, or an overload.
fn is_too_much(status: StatusCode, error: &str) -> bool {
    let texts =
        ["exceeded maximum resolution", "too many samples", "timed out", "the query time range exceeds"];
    status == StatusCode::SERVICE_UNAVAILABLE
        || status == StatusCode::GATEWAY_TIMEOUT
        || texts.iter().any(|text| error.contains(text))
}

/// The beginning of an error of another program, escaped.
pub(super) fn shown(error: &str) -> String {
    printable(&error.chars().take(300).collect::<String>()).into_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use kthena_keda_core::domain::PrometheusUrl;
    use kube::client::Body;
    use rstest::rstest;

    use super::*;

    type Asked = Arc<Mutex<Vec<(i64, i64)>>>;

    /// A Prometheus behind the API server's service proxy that refuses more than `most` points with this status and
    /// error, and else returns the time of each step as its value.
    fn prometheus(most: i64, status: u16, error: &'static str) -> (Querier, Asked) {
        let asked = Asked::default();
        let seen = Arc::clone(&asked);
        let api_server = move |request: http::Request<Body>| {
            let seen = Arc::clone(&seen);
            async move {
                assert!(request.uri().path().ends_with("/proxy/api/v1/query_range"), "{}", request.uri());
                let query = request.uri().query().unwrap_or_default().to_owned();
                let number = |name: &str| -> i64 {
                    let found = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
                    found.unwrap().parse().unwrap()
                };
                assert!(query.contains("timeout=110s") && query.contains("limit=100"), "{query}");
                let (start, end, step) = (number("start"), number("end"), number("step"));
                assert_eq!(start % step, 0, "aligned to the step");
                seen.lock().unwrap().push((start, end));
                let (code, body) = if (end - start) / step + 1 > most {
                    (status, error.to_owned())
                } else {
                    let values: Vec<String> = (start..=end)
                        .step_by(usize::try_from(step).unwrap())
                        .map(|at| format!("[{at},\"{at}\"]"))
                        .collect();
                    let series = format!(r#"{{"metric":{{}},"values":[{}]}}"#, values.join(","));
                    (
                        200,
                        format!(
                            r#"{{"status":"success","data":{{"resultType":"matrix","result":[{series}]}}}}"#
                        ),
                    )
                };
                let response = http::Response::builder().status(code).body(Body::from(body.into_bytes()));
                Ok::<_, kube::Error>(response.unwrap())
            }
        };
        (Querier::Proxied(kube::Client::new(tower::service_fn(api_server), "models")), asked)
    }

    fn settings() -> PrometheusSettings {
        let url: PrometheusUrl = "http://prometheus.monitoring.svc:9090".parse().unwrap();
        PrometheusSettings::from(url)
    }

    async fn read(querier: &Querier, grid: Grid) -> Result<(Vec<(f64, f64)>, RangeStats), RangeError> {
        let asked = [RangeQuery { key: (), query: "up".to_owned() }];
        let mut points = Vec::new();
        let record = |(): &(), at, value| points.push((at, value));
        let stats = query_ranges(querier, &settings(), &asked, grid, |_, _| {}, record).await?;
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok((points, stats))
    }

    fn every_step(grid: Grid) -> Vec<(f64, f64)> {
        let at = |step: u32| f64::from(u32::try_from(grid.start()).unwrap() + step * grid.step());
        (0..u32::try_from(grid.steps()).unwrap()).map(|step| (at(step), at(step))).collect()
    }

    #[rstest]
    #[case::a_day(15, 5760, 1)]
    #[case::a_week(15, 40_320, 7)]
    #[case::one_more_step(15, 5761, 2)]
    #[case::short_steps(1, 30_000, 3)]
    #[case::long_steps(3600, 100, 5)]
    #[tokio::test]
    async fn asks_for_a_day_or_eleven_thousand_points(
        #[case] step: u32,
        #[case] steps: usize,
        #[case] requests: usize,
    ) {
        let grid = Grid::new(1_800_000_000, step, steps).unwrap();
        let (querier, asked) = prometheus(11_000, 422, "");
        let (points, stats) = read(&querier, grid).await.unwrap();
        assert_eq!(stats, RangeStats { requests, halved: 0 });
        assert_eq!(points, every_step(grid));
        let asked = asked.lock().unwrap();
        assert!(asked.iter().all(|(start, end)| end - start < 86_400), "{asked:?}");
    }

    const RESOLUTION: &str = r#"{"status":"error","errorType":"bad_data","error":"exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"}"#;

    #[rstest]
    #[case::points(422, RESOLUTION)]
    #[case::bad_request(400, RESOLUTION)]
    #[case::overload(503, "<html>overloaded</html>")]
    #[case::samples(422, r#"{"status":"error","errorType":"execution","error":"query processing would load too many samples into memory in query execution"}"#)]
    #[case::time(
        503,
        r#"{"status":"error","errorType":"timeout","error":"query timed out in expression evaluation"}"#
    )]
    #[tokio::test]
    async fn halves_a_chunk_that_is_too_much(#[case] status: u16, #[case] error: &'static str) {
        let grid = Grid::new(1_800_000_000, 15, 5760).unwrap();
        let (querier, _) = prometheus(2000, status, error);
        let (points, stats) = read(&querier, grid).await.unwrap();
        assert_eq!(stats, RangeStats { requests: 7, halved: 3 });
        assert_eq!(points, every_step(grid));
    }

    #[rstest]
    #[case::endless(503, "overloaded", RangeError::Refused("the response has HTTP status 503".to_owned()))]
    #[case::syntax(400, r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#, RangeError::Refused("bad_data: parse error".to_owned()))]
    #[case::forbidden(403, "no", RangeError::Refused(status_message(StatusCode::FORBIDDEN)))]
    #[case::gone(404, "no", RangeError::Unreachable("the response has HTTP status 404".to_owned()))]
    #[tokio::test]
    async fn reports_why_there_are_no_points(
        #[case] status: u16,
        #[case] error: &'static str,
        #[case] expected: RangeError,
    ) {
        let grid = Grid::new(1_800_000_000, 15, 100).unwrap();
        let (querier, asked) = prometheus(0, status, error);
        assert_eq!(read(&querier, grid).await.unwrap_err(), expected);
        assert!(asked.lock().unwrap().len() < 10);
    }

    #[test]
    fn several_series_at_one_time_are_no_value() {
        let series = vec![vec![(15.0, 1.0), (30.0, 2.0)], vec![(30.0, 2.0), (45.0, 3.0)]];
        assert_eq!(single_values(series), [(15.0, 1.0), (45.0, 3.0)]);
    }
}
