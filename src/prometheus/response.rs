//! Decodes responses of Prometheus.
//!
//! In: a body, from any server at the address of a Prometheus. Out: samples, or an error text for users.
//!
//! Source: Prometheus `web/api/v1/api.go`, `Response`, and `promql/value.go`.

use std::collections::HashMap;

use kthena_keda_core::observed::Sample;
use serde::{Deserialize, de::IgnoredAny};

#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Envelope<D> {
    Success {
        data: D,
    },
    Error {
        #[serde(default, rename = "errorType")]
        kind: String,
        #[serde(default)]
        error: String,
    },
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<WireSample>),
    Matrix(IgnoredAny),
    Scalar(IgnoredAny),
    String(IgnoredAny),
}

/// The result of a range query.
#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum RangeData {
    Matrix(Vec<WireSeries>),
}

/// One series of a matrix; native histograms have no values.
#[derive(Deserialize)]
struct WireSeries {
    #[serde(default)]
    values: Vec<(f64, String)>,
}

/// A series of a range query: times in seconds since 1970, and values.
pub(super) type Points = Vec<(f64, f64)>;

/// One element of a vector; a native histogram has no value.
#[derive(Deserialize)]
struct WireSample {
    metric: HashMap<String, String>,
    value: Option<(IgnoredAny, String)>,
}

/// The samples of a response body; an element without a numeric value is skipped.
///
/// # Errors
/// Prometheus' own error, or that the response is not one of Prometheus.
pub fn read(body: &[u8]) -> Result<Vec<Sample>, String> {
    decode(body).unwrap_or_else(|error| Err(unexpected(&error)))
}

/// Like [`read`], with a separate error for a response that is not one of Prometheus.
pub(super) fn decode(body: &[u8]) -> Result<Result<Vec<Sample>, String>, serde_json::Error> {
    Ok(match serde_json::from_slice(body)? {
        Envelope::Success { data: Data::Vector(samples) } => {
            Ok(samples.into_iter().filter_map(sample).collect())
        }
        Envelope::Success { data: Data::Matrix(_) | Data::Scalar(_) | Data::String(_) } => {
            Err("the result is not a vector; change the query".to_owned())
        }
        Envelope::Error { kind, error } => Err(format!("{kind}: {error}")),
    })
}

/// The series of a response body to a range query; a value that is not a number is kept as such.
///
/// # Errors
/// Prometheus' own error, or that the response is not one of Prometheus.
pub(super) fn decode_range(body: &[u8]) -> Result<Result<Vec<Points>, String>, serde_json::Error> {
    let points = |series: WireSeries| {
        series.values.into_iter().map(|(at, value)| (at, value.parse().unwrap_or(f64::NAN))).collect()
    };
    Ok(match serde_json::from_slice(body)? {
        Envelope::Success { data: RangeData::Matrix(series) } => Ok(series.into_iter().map(points).collect()),
        Envelope::Error { kind, error } => Err(format!("{kind}: {error}")),
    })
}

/// The text for a response that is not one of Prometheus.
pub(super) fn unexpected(error: &serde_json::Error) -> String {
    format!("unexpected response (is this a Prometheus?): {error}")
}

fn sample(sample: WireSample) -> Option<Sample> {
    let (_, value) = sample.value?;
    Some(Sample { labels: sample.metric, value: value.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn reads_samples_with_a_value() {
        let body = br#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"model":"llama"},"value":[1764028800.781,"2.5"]},
            {"metric":{},"value":[1764028800,"+Inf"]},
            {"metric":{"a":"histogram"},"histogram":[1764028800,{"count":"1"}]}]},"warnings":["w"],"infos":[]}"#;
        let read: Vec<(Option<String>, f64)> = read(body)
            .unwrap()
            .into_iter()
            .map(|mut found| (found.labels.remove("model"), found.value))
            .collect();
        assert_eq!(read, [(Some("llama".to_owned()), 2.5), (None, f64::INFINITY)]);
    }

    #[rstest]
    #[case(r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#, "bad_data: parse error")]
    #[case(r#"{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}"#, "not a vector")]
    #[case(r#"{"status":"success"}"#, "is this a Prometheus?): missing field `data`")]
    #[case(
        r#"{"status":"success","data":{"resultType":"streams","result":[]}}"#,
        "is this a Prometheus?): unknown variant"
    )]
    #[case("<html>Sign in</html>", "is this a Prometheus?)")]
    #[case("", "is this a Prometheus?)")]
    fn reports_errors_and_unexpected_responses(#[case] body: &str, #[case] expected: &str) {
        let error = read(body.as_bytes()).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
