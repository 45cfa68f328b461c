//! What objects speak of: by these they are found, and whoever they concern.

use kthena_keda_core::{
    domain::Key,
    observed::{
        HpaDigest, MonitorDigest, PolicyDigest, ProfileDigest, RouteDigest, RouterService,
        ScaledObjectDigest, ServerDigest,
    },
};

use crate::cache::{Digest, IndexKey};

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
pub fn model_name(name: &str) -> IndexKey {
    IndexKey::of(MODEL_NAME, &[name])
}

/// A ModelServing.
pub fn model_serving(namespace: &str, name: &str) -> IndexKey {
    IndexKey::of(MODEL_SERVING, &[namespace, name])
}

/// What is named for a ModelServing: its ScaledObject, its HPA or its PodMonitor.
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

/// Everything of a namespace.
pub fn namespace(namespace: &str) -> IndexKey {
    IndexKey::of(NAMESPACE, &[namespace])
}

/// Everything that asks for autoscaling.
pub fn opted_in() -> IndexKey {
    IndexKey::of(OPTED_IN, &[])
}

/// A profile, of those that ask for autoscaling by it.
pub fn profile(name: &str) -> IndexKey {
    IndexKey::of(PROFILE, &[name])
}

impl Digest for HpaDigest {
    fn index_keys(&self, (namespace, _): &Key) -> Vec<IndexKey> {
        self.target.model_serving().map(|name| model_serving(namespace, name)).into_iter().collect()
    }
}

impl Digest for ScaledObjectDigest {
    fn index_keys(&self, (namespace, _): &Key) -> Vec<IndexKey> {
        self.target.model_serving().map(|name| model_serving(namespace, name)).into_iter().collect()
    }
}

impl Digest for PolicyDigest {
    fn index_keys(&self, _: &Key) -> Vec<IndexKey> {
        self.model_servings().iter().map(|(namespace, name)| model_serving(namespace, name)).collect()
    }
}

impl Digest for RouteDigest {
    fn index_keys(&self, (namespace, _): &Key) -> Vec<IndexKey> {
        let servers = self.servers().map(|server| model_server(namespace, server));
        self.names().map(model_name).chain(servers).chain([self::namespace(namespace)]).collect()
    }
}

impl Digest for ServerDigest {
    /// The label that selects the fewest ModelServings: Kthena's own label of their name, else one that users set, else the namespace.
    fn index_keys(&self, (namespace, _): &Key) -> Vec<IndexKey> {
        let name =
            self.labels().get("modelserving.volcano.sh/name").map(|name| model_serving(namespace, name));
        let user_label = self.labels().iter().find(|(key, _)| !key.starts_with("modelserving.volcano.sh/"));
        let user_label = user_label.map(|(key, value)| label(namespace, key, value));
        vec![name.or(user_label).unwrap_or_else(|| self::namespace(namespace))]
    }
}

impl Digest for MonitorDigest {}

impl Digest for ProfileDigest {}

impl Digest for RouterService {}
