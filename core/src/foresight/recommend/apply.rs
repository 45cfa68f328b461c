//! Lines to paste: annotations of the ModelServing, and the settings that only a profile has.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::{
    api::annotations::PREFIX,
    domain::{ACTIVATION, Signal},
    foresight::settings::Settings,
};

/// Form of the lines to paste.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyAs {
    /// `kubectl annotate`.
    Annotations,
    /// An AutoscalingProfile.
    Profile,
    /// `kubectl patch`.
    Patch,
}

/// Settings that annotations have, and their keys.
const ANNOTATIONS: [(&str, &str); 4] = [
    ("target", "signals"),
    ("min", "min-replicas"),
    ("max", "max-replicas"),
    ("serviceTime", "service-time"),
];

/// Lines that apply changes to a model. `settings` are those with the changes.
pub fn lines(apply: ApplyAs, namespace: &str, name: &str, changes: &[String], settings: &Settings) -> String {
    let pairs: Vec<(&str, &str)> = changes.iter().filter_map(|change| change.split_once('=')).collect();
    if pairs.is_empty() {
        return String::new();
    }
    let key_of = |key: &str| ANNOTATIONS.iter().find(|(setting, _)| *setting == key).map(|(_, key)| *key);
    let (of_model, of_profile): (Vec<_>, Vec<_>) =
        pairs.iter().copied().partition(|(key, _)| apply != ApplyAs::Profile && key_of(key).is_some());
    let annotations: Vec<(String, String)> = of_model
        .iter()
        .filter_map(|(key, value)| {
            let value = if *key == "target" { signals(settings)? } else { (*value).to_owned() };
            Some((format!("{PREFIX}{}", key_of(key)?), value))
        })
        .collect();
    let mut text = String::new();
    if !annotations.is_empty() {
        let _ = writeln!(text, "{}", command(apply, namespace, name, &annotations));
    }
    if of_model.len() > annotations.len() {
        let _ = writeln!(
            text,
            "# Set the target of the first signal in {PREFIX}signals, and keep the objectives of the others."
        );
    }
    if !of_profile.is_empty() {
        let _ = writeln!(
            text,
            "# A profile of its own, or a part of the model's: see docs/recommend.md#lines-to-paste. Annotations take precedence."
        );
        text.push_str(&profile(&format!("{namespace}-{name}"), &of_profile, settings));
    }
    text
}

fn command(apply: ApplyAs, namespace: &str, name: &str, annotations: &[(String, String)]) -> String {
    if apply == ApplyAs::Patch {
        let annotations: Map<String, Value> =
            annotations.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
        let patch = json!({"metadata": {"annotations": annotations}});
        return format!("kubectl patch modelserving {name} -n {namespace} --type merge -p '{patch}'");
    }
    let pairs: Vec<String> = annotations.iter().map(|(key, value)| format!(" \\\n  {key}={value}")).collect();
    format!("kubectl annotate modelserving {name} -n {namespace} --overwrite{}", pairs.concat())
}

/// Built-in signals and their targets; `None` if an objective, which the settings do not have, would be lost.
fn signals(settings: &Settings) -> Option<String> {
    let pairs: Option<Vec<String>> =
        targets(settings).map(|pair| pair.map(|(name, target)| format!("{name}={target}"))).collect();
    pairs.map(|pairs| pairs.join(","))
}

#[allow(clippy::cast_precision_loss, reason = "targets are below 2^53")]
fn targets(settings: &Settings) -> impl Iterator<Item = Option<(&str, f64)>> {
    let triggers = settings.triggers.iter().zip(settings.hpa.metrics());
    triggers.filter(|(trigger, _)| trigger.name != ACTIVATION).map(|(trigger, metric)| {
        let has_objective = matches!(Signal::from_name(&trigger.name), Some(Signal::Latency(_)));
        (!has_objective).then_some((trigger.name.as_str(), metric.target as f64 / 1000.0))
    })
}

fn profile(name: &str, changes: &[(&str, &str)], settings: &Settings) -> String {
    let value = |key: &str| changes.iter().find(|(changed, _)| *changed == key).map(|(_, value)| *value);
    let mut text = format!(
        "apiVersion: autoscaling.kthena.io/v1alpha1\nkind: AutoscalingProfile\nmetadata:\n  name: {name}\nspec:\n"
    );
    let mut mapping = |key: &str, fields: &[(&str, Option<String>)]| {
        let fields: Vec<String> = fields
            .iter()
            .filter_map(|(field, value)| Some(format!("{field}: {}", value.as_ref()?)))
            .collect();
        if !fields.is_empty() {
            let _ = writeln!(text, "  {key}: {{{}}}", fields.join(", "));
        }
    };
    let owned = |key: &str| value(key).map(str::to_owned);
    mapping("replicas", &[("min", owned("min")), ("max", owned("max"))]);
    mapping("backlog", &[("serviceTime", owned("serviceTime")), ("drainTime", owned("drainTime"))]);
    for direction in ["scaleUp", "scaleDown"] {
        let window = owned(&format!("{direction}.stabilizationWindow"));
        let policies = value(&format!("{direction}.policies")).map(policies);
        let select = owned(&format!("{direction}.select"));
        mapping(direction, &[("stabilizationWindow", window), ("policies", policies), ("select", select)]);
    }
    mapping("scaleToZero", &[("cooldown", owned("cooldown"))]);
    if value("target").is_some() {
        text.push_str(&signals_of_profile(settings));
    }
    text
}

/// The list of signals. A profile has custom signals in a list of their own, and objectives are not in the settings.
fn signals_of_profile(settings: &Settings) -> String {
    let (built_in, others): (Vec<_>, Vec<_>) =
        targets(settings).partition(|found| found.is_some_and(|(name, _)| Signal::from_name(name).is_some()));
    let mut text = String::from("  signals:\n");
    for (signal, target) in built_in.into_iter().flatten() {
        let _ = writeln!(text, "    - {{name: {signal}, target: \"{target}\"}}");
    }
    if !others.is_empty() {
        text.push_str(
            "    # Keep the signals with an objective, and set targets of custom signals in customSignals.\n",
        );
    }
    text
}

/// Policies such as `8/60s,100%/60s` as a list.
fn policies(text: &str) -> String {
    let policy = |text: &str| {
        let (value, period) = text.split_once('/').unwrap_or((text, "60s"));
        let (kind, value) = value.strip_suffix('%').map_or(("Pods", value), |value| ("Percent", value));
        format!("{{type: {kind}, value: {value}, period: {period}}}")
    };
    format!("[{}]", text.split(',').map(policy).collect::<Vec<_>>().join(", "))
}
