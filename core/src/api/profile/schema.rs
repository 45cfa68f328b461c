//! Parts of the CRD's schema that derive from the code: enumerations and validation rules in CEL.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::CreateWord;
use crate::domain::{ACTIVATION, SeriesMatchers, Signal};

pub(super) fn signal_names() -> Vec<&'static str> {
    Signal::all().map(Signal::name).collect()
}

/// Reserves the names of the built-in signals and of the activation trigger.
pub(super) fn is_not_reserved() -> Value {
    let names: Vec<String> =
        signal_names().into_iter().chain([ACTIVATION]).map(|name| format!("'{name}'")).collect();
    rule(&format!("!(self in [{}])", names.join(", ")), "must not be the name of a built-in signal")
}

/// Restricts the names of label matchers.
pub(super) fn are_matchers() -> [Value; 2] {
    let matched: Vec<String> =
        SeriesMatchers::matched_labels().iter().map(|name| format!("'{name}'")).collect();
    [
        rule(
            &format!(
                "self.all(key, key.matches('^[a-zA-Z_][a-zA-Z0-9_]*$') && !key.startsWith('__') && size(key) <= {})",
                SeriesMatchers::VALUE_MAX
            ),
            "names must be label names such as cluster, of letters, digits and '_', without a leading '__'",
        ),
        rule(
            &format!("self.all(key, !(key in [{}]))", matched.join(", ")),
            "must not contain a label that the queries match themselves",
        ),
    ]
}

/// Bounds a target: the HPA rejects 0.
pub(super) fn is_target() -> [Value; 2] {
    [
        rule("double(self) >= 0.001", "must be at least 0.001"),
        rule("double(self) <= 1000000000.0", "must be at most 1000000000"),
    ]
}

/// Bounds a duration.
pub(super) fn between(min: &str, max: &str) -> [Value; 1] {
    let cel = format!("duration(self) >= duration('{min}') && duration(self) <= duration('{max}')");
    [rule(&cel, &format!("must be from {min} to {max}"))]
}

/// Bounds a duration, which may be 0.
pub(super) fn at_most(max: &str) -> [Value; 1] {
    [rule(&format!("duration(self) <= duration('{max}')"), &format!("must be at most {max}"))]
}

/// Bounds a service time, or accepts `off` and `auto`.
pub(super) fn service_time_rule() -> [Value; 1] {
    let cel = "self in ['off', 'auto'] || (duration(self) >= duration('100ms') && duration(self) <= duration('1h'))";
    [rule(cel, "must be off, auto, or from 100ms to 1h")]
}

/// Bounds a headroom.
pub(super) fn is_headroom() -> [Value; 1] {
    [rule("double(self) >= 1.0 && double(self) <= 3.0", "must be from 1 to 3")]
}

/// A validation rule in CEL.
pub(super) fn rule(cel: &str, message: &str) -> Value {
    json!({"rule": cel, "message": message})
}

/// A structural schema has at most one type, so an enumeration lists the booleans and the text.
pub(super) fn create_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "enum": [true, false, CreateWord::Always],
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

/// Rules of the TLS settings of a scrape.
pub(crate) fn tls_rules() -> Value {
    json!([rule("has(self.cert) == has(self.keySecret)", "cert and keySecret require each other")])
}
