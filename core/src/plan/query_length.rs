//! Length of the queries in the requests of KEDA, which sends each in the address of a GET
//! (`pkg/scalers/prometheus_scaler.go`).

use super::{finding::listed, triggers::TriggerSpec};
use crate::signals::ACTIVATION;

/// Longest query without a warning, in bytes after URL encoding. nginx and Apache allow a request line of
/// 8 KiB by default (`large_client_header_buffers`, `LimitRequestLine`); the rest is for the path, the time and
/// the profile's query parameters.
pub(super) const LENGTH_MAX: usize = 6 * 1024;

/// Bytes of the text in an address, encoded by Go's `url.QueryEscape`, which writes a space as `+`.
pub(super) fn encoded_length(text: &str) -> usize {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~ ".contains(&byte);
    text.bytes().map(|byte| if is_plain(byte) { 1 } else { 3 }).sum()
}

/// Warning about queries that a proxy in front of Prometheus may refuse. A plan is never refused for them.
pub(super) fn warning(triggers: &[TriggerSpec]) -> Option<String> {
    let lengths = triggers.iter().map(|trigger| (trigger.name.as_str(), encoded_length(&trigger.query)));
    let long: Vec<(&str, usize)> = lengths.filter(|(_, length)| *length > LENGTH_MAX).collect();
    let described: Vec<String> =
        long.iter().map(|(name, length)| format!("{name} ({length} bytes)")).collect();
    let described: Vec<&str> = described.iter().map(String::as_str).collect();
    // No signal of a profile replaces the activation query.
    let has_signal = long.iter().any(|(name, _)| *name != ACTIVATION);
    let rule = if has_signal { ", or use a custom signal over a recording rule" } else { "" };
    (!long.is_empty()).then(|| {
        format!(
            "queries have more than {LENGTH_MAX} bytes after URL encoding: {}; Prometheus answers them, but a proxy in front of it that limits a request line, often to 8 KiB, may not, and then replicas stay as they are; raise the limit of the proxy, let prometheus.url lead past it, route fewer names and adapters to this model{rule}",
            listed(&described)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::keda::MetricType;
    use rstest::rstest;

    #[rstest]
    #[case::plain("sum_by-1.0~x", 12)]
    #[case::spaces("a or b", 6)]
    #[case::structure(r#"{a=~"b|c"}"#, 22)]
    #[case::other_text("ü", 6)]
    fn counts_bytes_as_go_encodes_them(#[case] text: &str, #[case] expected: usize) {
        assert_eq!(encoded_length(text), expected);
    }

    #[rstest]
    #[case::at_the_limit(LENGTH_MAX, None)]
    #[case::above(LENGTH_MAX + 1, Some("long (6145 bytes)"))]
    #[case::far_above(2 << 20, Some("long (2097152 bytes)"))]
    fn warns_above_the_limit(#[case] length: usize, #[case] expected: Option<&str>) {
        let trigger = |name: &str, query: String| TriggerSpec {
            name: name.to_owned(),
            query,
            threshold: "1".to_owned(),
            metric_type: MetricType::AverageValue,
            activation: None,
        };
        let warning = warning(&[trigger("long", "x".repeat(length)), trigger("short", "up".to_owned())]);
        assert_eq!(warning.is_some(), expected.is_some());
        let text = warning.unwrap_or_default();
        assert!(expected.is_none_or(|expected| text.contains(expected)) && !text.contains("short"), "{text}");
    }
}
