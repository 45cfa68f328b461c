//! What objects speak of: by these they are found, and whoever they concern.

use crate::process::index::Topic;

/// The kind of [`model_name`].
pub const MODEL_NAME: u8 = 0;
const MODEL_SERVING: u8 = 1;
const GENERATED: u8 = 2;
const MODEL_SERVER: u8 = 3;
const LABEL: u8 = 4;
const NAMESPACE: u8 = 5;
const OPTED_IN: u8 = 6;
const PROFILE: u8 = 7;

/// A name that clients send.
pub fn model_name(name: &str) -> Topic {
    Topic::of(MODEL_NAME, &[name])
}

/// A ModelServing.
pub fn model_serving(namespace: &str, name: &str) -> Topic {
    Topic::of(MODEL_SERVING, &[namespace, name])
}

/// What is named for a ModelServing: its ScaledObject, its HPA or its PodMonitor.
pub fn generated(namespace: &str, name: &str) -> Topic {
    Topic::of(GENERATED, &[namespace, name])
}

/// A ModelServer.
pub fn model_server(namespace: &str, name: &str) -> Topic {
    Topic::of(MODEL_SERVER, &[namespace, name])
}

/// A label of pods.
pub fn label(namespace: &str, key: &str, value: &str) -> Topic {
    Topic::of(LABEL, &[namespace, key, value])
}

/// Everything of a namespace.
pub fn namespace(namespace: &str) -> Topic {
    Topic::of(NAMESPACE, &[namespace])
}

/// Everything that asks for autoscaling.
pub fn opted_in() -> Topic {
    Topic::of(OPTED_IN, &[])
}

/// A profile, of those that ask for autoscaling by it.
pub fn profile(name: &str) -> Topic {
    Topic::of(PROFILE, &[name])
}
