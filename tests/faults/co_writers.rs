//! Others who write what we write, as fast as they can.

use std::time::{Duration, Instant};

use harness::{ModelServing, kinds};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use super::{settled::settled, shared::World};

const MODELS: usize = 6;
/// How long the others go on.
const STORM: Duration = Duration::from_secs(8);
/// How often one model's object may be brought back in that time, however often it is changed: at once, and after pauses that double.
const REPAIRS: usize = 8;

async fn models(world: &World) -> Vec<ModelServing> {
    let mut models = Vec::new();
    for i in 0..MODELS {
        let model =
            world.models.model_serving(&format!("chat-{i}")).opted_in(&format!("llama-{i}")).create().await;
        model.scaled_object().await;
        models.push(model);
    }
    models
}

/// How often the operator wrote that, and how often it was too late, since somebody else had written meanwhile: a conflict, or a patch whose
/// test of the version fails.
fn written(world: &World, what: &str) -> (usize, usize) {
    let all: Vec<_> =
        world.stack.writes().into_iter().filter(|write| write.describe().starts_with(what)).collect();
    let late = all.iter().filter(|write| [409, 422].contains(&write.code())).count();
    (all.len() - late, late)
}

fn theirs(number: usize) -> Value {
    json!({"type": "Progressing", "status": "True", "reason": "Seen", "message": number.to_string(), "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

/// Counts on in a condition of its own, of what it read last, and sees that nobody loses it; answers how far it came.
async fn count_on(model: ModelServing) -> usize {
    let (began, api) = (Instant::now(), model.namespace.api(&kinds::model_serving()));
    let mut count = 0;
    while began.elapsed() < STORM {
        let found = model.get().await;
        let mut conditions = found.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if count > 0 {
            assert!(conditions.contains(&theirs(count)), "the {count}th is lost: {conditions:?}");
        }
        conditions.retain(|condition| condition["type"] != "Progressing");
        conditions.push(theirs(count + 1));
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
async fn a_storm_on_the_status_loses_nobodys_condition() {
    const CHANGES: usize = 16;
    let mut world = World::start().await;
    let mut operator = world.start_operator().await;
    let models = models(&world).await;
    let mut storm = JoinSet::new();
    for model in models.clone() {
        storm.spawn(count_on(model));
    }
    let (before, _) = written(&world, "patch modelservings/status");
    // Meanwhile ours has to change, too.
    for i in 0..CHANGES {
        for model in &models {
            model.annotate(&[("autoscaling.kthena.io/paused", (i % 2 == 0).then_some("perhaps"))]).await;
        }
        sleep(world.random.millis(100, 400)).await;
    }
    let counts = storm.join_all().await;
    settled(&world, &mut operator).await;
    for model in &models {
        let found = model.get().await;
        assert!(
            found.data["status"]["conditions"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one["type"] == "Progressing"))
        );
    }
    let (done, late) = written(&world, "patch modelservings/status");
    assert!(done - before <= MODELS * (CHANGES + 1), "{} writes beside {counts:?}", done - before);
    // Each that is too late is so because of one of theirs.
    assert!(late <= counts.iter().sum(), "{late} writes too late beside {counts:?}");
}

/// Somebody who writes the whole list over and over without ours, whatever stands there.
#[tokio::test]
async fn who_drops_our_condition_is_not_fought_without_end() {
    let world = World::start().await;
    let mut operator = world.start_operator().await;
    let models = models(&world).await;
    for model in &models {
        model.reason("Pending").await;
    }
    let (before, _) = written(&world, "patch modelservings/status");
    let mut storm = JoinSet::new();
    for model in models {
        storm.spawn(async move {
            let (began, mut count) = (Instant::now(), 0);
            while began.elapsed() < STORM {
                count += 1;
                model
                    .patch_status("kthena-controller-manager", json!({"conditions": [theirs(count)]}))
                    .await
                    .unwrap();
            }
            count
        });
    }
    let counts = storm.join_all().await;
    let (done, late) = written(&world, "patch modelservings/status");
    assert!(done > before, "nothing was taken away");
    assert!(done - before <= MODELS * REPAIRS, "{} writes beside {counts:?}", done - before);
    assert!(late <= counts.iter().sum(), "{late} writes too late beside {counts:?}");
    settled(&world, &mut operator).await;
}

/// Takes a field of ours back as soon as it is not theirs; answers how often.
async fn insist(api: Api<DynamicObject>, name: String) -> usize {
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < STORM {
        if api.get(&name).await.unwrap().data["spec"]["maxReplicaCount"] != 99 {
            let patch = Patch::Merge(json!({"spec": {"maxReplicaCount": 99}}));
            api.patch(
                &name,
                &PatchParams { field_manager: Some("somebody".to_owned()), ..PatchParams::default() },
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
async fn who_takes_our_fields_back_each_time_is_not_fought_without_end() {
    let world = World::start().await;
    let mut operator = world.start_operator().await;
    let models = models(&world).await;
    let (before, _) = written(&world, "patch scaledobjects");
    let mut storm = JoinSet::new();
    for model in &models {
        storm.spawn(insist(model.scaled_objects(), model.name.clone()));
    }
    let counts = storm.join_all().await;
    let (done, late) = written(&world, "patch scaledobjects");
    assert!(counts.iter().all(|count| *count > 1), "not all were brought back: {counts:?}");
    assert!(done + late - before <= MODELS * REPAIRS, "{} writes beside {counts:?}", done + late - before);
    settled(&world, &mut operator).await;
}
