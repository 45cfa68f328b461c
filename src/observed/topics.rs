//! What objects speak of: by these they are found, and whoever they concern.

use crate::process::index::Topic;

/// The kind of [`model_name`].
pub const MODEL_NAME: &str = "model name";

/// A name that clients send.
pub fn model_name(name: &str) -> Topic {
    Topic::of(MODEL_NAME, &[name])
}

/// A ModelServing.
pub fn model_serving(namespace: &str, name: &str) -> Topic {
    Topic::of("ModelServing", &[namespace, name])
}

/// What is named for a ModelServing: its ScaledObject, its HPA or its PodMonitor.
pub fn generated(namespace: &str, name: &str) -> Topic {
    Topic::of("generated", &[namespace, name])
}

/// A ModelServer.
pub fn model_server(namespace: &str, name: &str) -> Topic {
    Topic::of("ModelServer", &[namespace, name])
}

/// A label of pods.
pub fn label(namespace: &str, key: &str, value: &str) -> Topic {
    Topic::of("label", &[namespace, key, value])
}

/// Everything of a namespace.
pub fn namespace(namespace: &str) -> Topic {
    Topic::of("namespace", &[namespace])
}

/// Everything that asks for autoscaling.
pub fn opted_in() -> Topic {
    Topic::of("opted in", &[])
}

/// A profile, of those that ask for autoscaling by it.
pub fn profile(name: &str) -> Topic {
    Topic::of("profile", &[name])
}
