//! Index keys: names and labels that objects refer to, by which related objects and the models to requeue are found.

use crate::cache::IndexKey;

/// Kind of the index key of [`model_name`].
pub const MODEL_NAME: u8 = 0;
const MODEL_SERVING: u8 = 1;
const GENERATED: u8 = 2;
/// Kind of the index key of [`model_server`].
pub const MODEL_SERVER: u8 = 3;
const LABEL: u8 = 4;
const NAMESPACE: u8 = 5;
const OPTED_IN: u8 = 6;
const PROFILE: u8 = 7;
const POLICY: u8 = 11;
const BOOSTER: u8 = 8;
const BOOSTED: u8 = 9;
const UNREAD_BOOSTER: u8 = 10;
const IN_SHADOW: u8 = 12;

/// A model name that clients send.
pub fn model_name(name: &str) -> IndexKey {
    IndexKey::of(MODEL_NAME, &[name])
}

/// A ModelServing.
pub fn model_serving(namespace: &str, name: &str) -> IndexKey {
    IndexKey::of(MODEL_SERVING, &[namespace, name])
}

/// An object that is generated for a ModelServing: its ScaledObject, HPA or PodMonitor.
pub fn generated(namespace: &str, name: &str) -> IndexKey {
    IndexKey::of(GENERATED, &[namespace, name])
}

/// A ModelServer.
pub fn model_server(namespace: &str, name: &str) -> IndexKey {
    IndexKey::of(MODEL_SERVER, &[namespace, name])
}

/// A label of pods.
pub fn label(namespace: &str, key: &str, value: &str) -> IndexKey {
    IndexKey::of(LABEL, &[namespace, key, value])
}

/// Every object of a namespace.
pub fn namespace(namespace: &str) -> IndexKey {
    IndexKey::of(NAMESPACE, &[namespace])
}

/// Every opted-in ModelServing.
pub fn opted_in() -> IndexKey {
    IndexKey::of(OPTED_IN, &[])
}

/// Every ModelServing in shadow.
pub fn in_shadow() -> IndexKey {
    IndexKey::of(IN_SHADOW, &[])
}

/// The opted-in ModelServings that use a profile.
pub fn profile(name: &str) -> IndexKey {
    IndexKey::of(PROFILE, &[name])
}

/// The ModelServings that a ModelBooster controls.
pub fn booster(namespace: &str, name: &str) -> IndexKey {
    IndexKey::of(BOOSTER, &[namespace, name])
}

/// Every ModelServing that a ModelBooster controls.
pub fn boosted() -> IndexKey {
    IndexKey::of(BOOSTED, &[])
}

/// The ModelServings whose ModelBooster was not read when their digest was made.
pub fn unread_booster() -> IndexKey {
    IndexKey::of(UNREAD_BOOSTER, &[])
}

/// An AutoscalingPolicy, and the bindings that refer to it.
pub fn policy(namespace: &str, name: &str) -> IndexKey {
    IndexKey::of(POLICY, &[namespace, name])
}
