//! Wakes the models of ScaledObjects on which KEDA has not reported for long, since a watch has no event for that.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use tokio::time::sleep;

use crate::{
    cache::{Change, Digest as _, DigestStore},
    runtime::delays::KEDA_REPORT,
    sources::{Caches, kinds::WatchedKind as _},
};
use kthena_keda_core::{
    domain::Key,
    observed::{LiveScaledObject, ScaledObjectDigest},
};

/// Interval of the check, and so the longest time by which a silence is reported late.
const INTERVAL: Duration = Duration::from_secs(30);

/// Runs for the life of the process, and calls `changed` with each ScaledObject on which KEDA has just become silent for [`KEDA_REPORT`].
pub async fn run(caches: &Caches, changed: impl Fn(&Change)) {
    let scaled_objects = LiveScaledObject::store(&caches.stores);
    for (_, scoped) in scaled_objects.scoped() {
        scoped.wait_synced().await;
    }
    // The first plans find the others.
    let mut silent = Silent::default();
    drop(silent.begun(scaled_objects, KEDA_REPORT + INTERVAL));
    loop {
        sleep(INTERVAL).await;
        silent.begun(scaled_objects, KEDA_REPORT).iter().for_each(&changed);
    }
}

/// The ScaledObjects on which KEDA was silent at the last check.
#[derive(Default)]
struct Silent(BTreeSet<Arc<Key>>);

impl Silent {
    /// Those on which it has reported nothing for this long, and which were not at the last check.
    fn begun(&mut self, scaled_objects: &DigestStore<ScaledObjectDigest>, least: Duration) -> Vec<Change> {
        let now = Timestamp::now();
        let found =
            scaled_objects.filtered(|found| found.silence(now).is_some_and(|silence| silence >= least));
        let begun = found.iter().filter(|(key, _)| !self.0.contains(key));
        let changes =
            begun.map(|(key, digest)| Change::Object(Key::clone(key), digest.index_keys(key))).collect();
        self.0 = found.into_iter().map(|(key, _)| key).collect();
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::ScopedStore;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    fn scaled_object(name: &str, age: Duration, conditions: &serde_json::Value) -> LiveScaledObject {
        let target = json!({"apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing", "name": name});
        let created = (Timestamp::now() - age).to_string();
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "models", "resourceVersion": "1", "creationTimestamp": created},
            "spec": {"scaleTargetRef": target},
            "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    #[test]
    fn finds_each_silent_scaled_object_once_for_each_silence() {
        let store = DigestStore::<ScaledObjectDigest>::of([None]);
        let (_, scoped): (_, &ScopedStore<_>) = store.scoped().next().unwrap();
        let (old, reported) =
            (KEDA_REPORT * 2, json!([{"type": "Ready", "status": "True", "reason": "ScaledObjectReady"}]));
        for (name, age, conditions) in [
            ("silent", old, json!([])),
            ("new", KEDA_REPORT / 2, json!([])),
            ("healthy", old, reported.clone()),
        ] {
            scoped.apply_event(&Event::Apply(scaled_object(name, age, &conditions)), &mut BTreeSet::new());
        }
        let mut silent = Silent::default();
        let names = |changes: Vec<Change>| -> Vec<String> {
            let name = |change: Change| match change {
                Change::Object((_, name), index_keys) => {
                    assert_eq!(index_keys.len(), 1, "the model is found by its name");
                    name
                }
                Change::Resync => panic!("a single object"),
            };
            changes.into_iter().map(name).collect()
        };
        assert_eq!(names(silent.begun(&store, KEDA_REPORT)), ["silent"]);
        assert_eq!(names(silent.begun(&store, KEDA_REPORT)), [""; 0]);
        scoped.apply_event(&Event::Apply(scaled_object("silent", old, &reported)), &mut BTreeSet::new());
        assert_eq!(names(silent.begun(&store, KEDA_REPORT)), [""; 0]);
        scoped.apply_event(&Event::Apply(scaled_object("silent", old, &json!([]))), &mut BTreeSet::new());
        assert_eq!(names(silent.begun(&store, KEDA_REPORT)), ["silent"]);
    }
}
