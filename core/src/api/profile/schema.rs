//! Parts of the CRD's schema that derive from the code: enumerations and validation rules in CEL.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};
use strum::VariantArray as _;

use super::CreateWord;
use crate::domain::{ACTIVATION, Demand, Kibibytes, Latency, SeriesMatchers, Signal};

pub(super) fn signal_names() -> Vec<&'static str> {
    Signal::all().map(Signal::name).collect()
}

/// Reserves the names of the built-in signals and of the activation trigger.
pub(super) fn is_not_reserved() -> Value {
    let reserved = Signal::all().filter(|signal| signal.is_reserved()).map(Signal::name);
    let names = quoted_names(reserved.chain([ACTIVATION]));
    rule(&format!("!(self in [{names}])"), "must not be the name of a built-in signal")
}

/// Names as the elements of a list in CEL.
fn quoted_names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

fn latency_names() -> String {
    quoted_names(Latency::VARIANTS.iter().map(|latency| Signal::Latency(*latency).name()))
}

/// Requires a number as the target of a signal, and a duration as that of a latency.
pub(super) fn is_target_of_signal() -> [Value; 5] {
    let latencies = latency_names();
    let number = format!("self.name in [{latencies}] || self.target.matches('^[0-9]+([.][0-9]+)?$')");
    let is_number = "self.target.matches('^[0-9]+([.][0-9]+)?$')";
    let bound =
        |cel: &str| format!("self.name in [{latencies}] || !{is_number} || double(self.target) {cel}");
    let between = |name: &str, min: &str, max: &str| {
        format!(
            "self.name != '{name}' || (self.target.matches('^[0-9]{{1,5}}(ms|s|m)$') && duration(self.target) >= duration('{min}') && duration(self.target) <= duration('{max}'))"
        )
    };
    [
        target_rule(&number, "must be a number, because only ttft-p90 and itl-p90 have a duration"),
        target_rule(&bound(">= 0.001"), "must be at least 0.001"),
        target_rule(&bound("<= 1000000000.0"), "must be at most 1000000000"),
        target_rule(&between("ttft-p90", "10ms", "10m"), "must be a duration such as 2s, from 10ms to 10m"),
        target_rule(&between("itl-p90", "20ms", "10s"), "must be a duration such as 50ms, from 20ms to 10s"),
    ]
}

fn target_rule(cel: &str, message: &str) -> Value {
    json!({"rule": cel, "fieldPath": ".target", "message": message})
}

/// Requires a signal of the router, or a custom one, beside latencies.
pub(super) fn has_demand() -> Value {
    let latencies = latency_names();
    let of_router = quoted_names(Demand::VARIANTS.iter().map(|demand| Signal::Demand(*demand).name()));
    json!({
        "rule": format!(
            "!self.signals.exists(signal, signal.name in [{latencies}]) || self.signals.exists(signal, signal.name in [{of_router}]) || (has(self.customSignals) && size(self.customSignals) > 0)"
        ),
        "fieldPath": ".signals",
        "message": "must have a signal of the router beside ttft-p90 and itl-p90, such as active-requests",
    })
}

/// Keeps the names of both lists apart.
pub(super) fn names_differ() -> Value {
    json!({
        "rule": "!has(self.customSignals) || !self.customSignals.exists(custom, self.signals.exists(signal, signal.name == custom.name))",
        "fieldPath": ".customSignals",
        "message": "must not contain a name of signals",
    })
}

/// Requires two roles for a ratio.
pub(super) fn is_of_two_roles() -> Value {
    json!({
        "rule": "!has(self.roleRatio) || (has(self.roles) && size(self.roles) == 2)",
        "fieldPath": ".roleRatio",
        "message": "requires two entries of roles",
    })
}

/// Bounds a ratio.
pub(super) fn is_ratio() -> [Value; 1] {
    [rule("double(self) >= 0.001 && double(self) <= 1000.0", "must be from 0.001 to 1000")]
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

/// CEL expression for the KiB of a size with the unit Ki or Mi, of a field of `self`.
pub(super) fn kibibytes(field: &str) -> String {
    kibibytes_of(&format!("self.{field}"))
}

fn kibibytes_of(text: &str) -> String {
    format!("int({text}.substring(0, {text}.size() - 2)) * ({text}.endsWith('Mi') ? 1024 : 1)")
}

/// Rule for a size with the unit Ki or Mi; `max` is written as `text`.
pub(super) fn size_up_to(max: Kibibytes) -> [Value; 1] {
    [rule(&format!("{} <= {}", kibibytes_of("self"), max.0), &format!("must be at most {max}"))]
}
