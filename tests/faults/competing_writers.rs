//! Other writers that change the operator's fields, as fast as they can.

use std::time::{Duration, Instant};

use harness::{ModelServing, kinds, stack::resource};
use kube::{
    Api,
    api::{DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use super::{convergence::converges, shared::Cluster};

const MODELS: usize = 6;
/// Duration of the writes of others.
const STORM: Duration = Duration::from_secs(8);
/// Maximum number of repairs of one object in that time, however often it is changed: the first at once, the
/// others after delays that double.
const REPAIRS: usize = 8;

async fn models(cluster: &Cluster) -> Vec<ModelServing> {
    let mut models = Vec::new();
    for i in 0..MODELS {
        let model =
            cluster.models.model_serving(&format!("chat-{i}")).opted_in(&format!("llama-{i}")).create().await;
        model.scaled_object().await;
        models.push(model);
    }
    models
}

/// Numbers of the operator's writes of this kind that succeeded, and that failed because another write came
/// first: with a conflict, or with a patch whose test of the version failed.
fn count_writes(cluster: &Cluster, kind: &str) -> (usize, usize) {
    let all: Vec<_> =
        cluster.stack.writes().into_iter().filter(|write| write.describe().starts_with(kind)).collect();
    let conflicts = all.iter().filter(|write| [409, 422].contains(&write.code())).count();
    (all.len() - conflicts, conflicts)
}

fn foreign_condition(number: usize) -> Value {
    json!({"type": "Progressing", "status": "True", "reason": "Seen", "message": number.to_string(), "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

/// Increments a number in its own condition, checks that no other writer loses it, and returns the last
/// number.
async fn increment_condition(model: ModelServing) -> usize {
    let (started, api) = (Instant::now(), model.namespace.api(&kinds::model_serving()));
    let mut count = 0;
    while started.elapsed() < STORM {
        let found = model.get().await;
        let mut conditions = found.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if count > 0 {
            assert!(
                conditions.contains(&foreign_condition(count)),
                "condition {count} is lost: {conditions:?}"
            );
        }
        conditions.retain(|condition| condition["type"] != "Progressing");
        conditions.push(foreign_condition(count + 1));
        let version = found.metadata.resource_version;
        let patch = json!({"metadata": {"resourceVersion": version}, "status": {"conditions": conditions}});
        match api.patch_status(&model.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => count += 1,
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => panic!("{error}"),
        }
    }
    count
}

#[tokio::test]
async fn keeps_foreign_conditions_during_a_storm_of_status_writes() {
    const CHANGES: usize = 16;
    let mut cluster = Cluster::start().await;
    let mut operator = cluster.start_operator().await;
    let models = models(&cluster).await;
    let mut storm = JoinSet::new();
    for model in models.clone() {
        storm.spawn(increment_condition(model));
    }
    let (before, _) = count_writes(&cluster, "patch modelservings/status");
    // The operator's condition changes at the same time.
    for i in 0..CHANGES {
        for model in &models {
            model.annotate(&[("autoscaling.kthena.io/paused", (i % 2 == 0).then_some("perhaps"))]).await;
        }
        sleep(cluster.random.millis(100, 400)).await;
    }
    let counts = storm.join_all().await;
    converges(&cluster, &mut operator).await;
    for model in &models {
        let found = model.get().await;
        assert!(
            found.data["status"]["conditions"]
                .as_array()
                .is_some_and(|all| all.iter().any(|condition| condition["type"] == "Progressing"))
        );
    }
    let (done, conflicts) = count_writes(&cluster, "patch modelservings/status");
    assert!(done - before <= MODELS * (CHANGES + 1), "{} writes beside {counts:?}", done - before);
    // Each conflict is caused by one write of the others.
    assert!(conflicts <= counts.iter().sum(), "{conflicts} conflicts beside {counts:?}");
}

/// The other writer replaces the whole list of conditions repeatedly, without the operator's condition.
#[tokio::test]
async fn limits_repairs_of_a_dropped_condition() {
    let cluster = Cluster::start().await;
    let mut operator = cluster.start_operator().await;
    let models = models(&cluster).await;
    for model in &models {
        model.reason("Pending").await;
    }
    let (before, _) = count_writes(&cluster, "patch modelservings/status");
    let mut storm = JoinSet::new();
    for model in models {
        storm.spawn(async move {
            let (started, mut count) = (Instant::now(), 0);
            while started.elapsed() < STORM {
                count += 1;
                model
                    .patch_status(
                        "kthena-controller-manager",
                        json!({"conditions": [foreign_condition(count)]}),
                    )
                    .await
                    .unwrap();
            }
            count
        });
    }
    let counts = storm.join_all().await;
    let (done, conflicts) = count_writes(&cluster, "patch modelservings/status");
    assert!(done > before, "the operator repaired nothing");
    assert!(done - before <= MODELS * REPAIRS, "{} writes beside {counts:?}", done - before);
    assert!(conflicts <= counts.iter().sum(), "{conflicts} conflicts beside {counts:?}");
    converges(&cluster, &mut operator).await;
}

/// Overwrites a field of the ScaledObject whenever the operator has restored it, and returns the number of
/// writes.
async fn overwrite(api: Api<DynamicObject>, name: String) -> usize {
    let (started, mut count) = (Instant::now(), 0);
    while started.elapsed() < STORM {
        if api.get(&name).await.unwrap().data["spec"]["maxReplicaCount"] != 99 {
            let patch = Patch::Merge(json!({"spec": {"maxReplicaCount": 99}}));
            api.patch(
                &name,
                &PatchParams { field_manager: Some("other-manager".to_owned()), ..PatchParams::default() },
                &patch,
            )
            .await
            .unwrap();
            count += 1;
        }
    }
    count
}

#[tokio::test]
async fn limits_repairs_of_an_overwritten_field() {
    let cluster = Cluster::start().await;
    let mut operator = cluster.start_operator().await;
    let models = models(&cluster).await;
    let (before, _) = count_writes(&cluster, "patch scaledobjects");
    let mut storm = JoinSet::new();
    for model in &models {
        storm.spawn(overwrite(model.scaled_objects(), model.name.clone()));
    }
    let counts = storm.join_all().await;
    let (done, conflicts) = count_writes(&cluster, "patch scaledobjects");
    assert!(counts.iter().all(|count| *count > 1), "not every field was restored: {counts:?}");
    assert!(
        done + conflicts - before <= MODELS * REPAIRS,
        "{} writes beside {counts:?}",
        done + conflicts - before
    );
    let events = cluster.models.api(&resource("events.k8s.io", "v1", "Event", "events"));
    let repairs = events.list(&ListParams::default()).await.unwrap().items;
    let repairs = repairs
        .iter()
        .filter(|event| event.data["reason"].as_str().is_some_and(|reason| reason.contains("Repair")));
    assert!(repairs.count() <= 2 * MODELS, "each dispute is reported at its begin and once more");
    converges(&cluster, &mut operator).await;
}
