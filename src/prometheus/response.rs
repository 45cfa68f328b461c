//! Reads what Prometheus answers.
//!
//! In: a body, from whoever answers under the address of a Prometheus. Out: elements, or why there are none, in words for a message.
//!
//! Source: Prometheus `web/api/v1/api.go`, `Response`, and `promql/value.go`.

use std::collections::HashMap;

use kthena_keda_core::observed::Sample;
use serde::{Deserialize, de::IgnoredAny};

#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Answer {
    Success {
        data: Data,
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

/// A native histogram has no value.
#[derive(Deserialize)]
struct WireSample {
    metric: HashMap<String, String>,
    value: Option<(IgnoredAny, String)>,
}

/// Reads a body; an element whose value is no number is left out.
///
/// # Errors
/// What Prometheus says is wrong, or that it is none that answers.
pub fn read(body: &[u8]) -> Result<Vec<Sample>, String> {
    said(body).unwrap_or_else(|error| Err(unlike(&error)))
}

/// The same, with an error of its own where it is no Prometheus that answers.
pub(super) fn said(body: &[u8]) -> Result<Result<Vec<Sample>, String>, serde_json::Error> {
    Ok(match serde_json::from_slice(body)? {
        Answer::Success { data: Data::Vector(samples) } => {
            Ok(samples.into_iter().filter_map(element).collect())
        }
        Answer::Success { data: Data::Matrix(_) | Data::Scalar(_) | Data::String(_) } => {
            Err("the answer is no vector".to_owned())
        }
        Answer::Error { kind, error } => Err(format!("{kind}: {error}")),
    })
}

/// Says that it is none.
pub(super) fn unlike(error: &serde_json::Error) -> String {
    format!("it answers as no Prometheus does: {error}")
}

fn element(sample: WireSample) -> Option<Sample> {
    let (_, value) = sample.value?;
    Some(Sample { labels: sample.metric, value: value.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn elements_with_a_value_are_read() {
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
    #[case(r#"{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}"#, "no vector")]
    #[case(r#"{"status":"success"}"#, "as no Prometheus does: missing field `data`")]
    #[case(
        r#"{"status":"success","data":{"resultType":"streams","result":[]}}"#,
        "as no Prometheus does: unknown variant"
    )]
    #[case("<html>Sign in</html>", "as no Prometheus does")]
    #[case("", "as no Prometheus does")]
    fn what_is_wrong_is_said(#[case] body: &str, #[case] why: &str) {
        let error = read(body.as_bytes()).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}
