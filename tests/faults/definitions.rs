//! Definitions that go, with every object of theirs, and come back, while many models are there.

use std::time::{Duration, Instant};

use harness::{Crds, condition, kinds, neighbours::ControllerManager, wait::until_asked_within};
use kube::{
    ResourceExt as _,
    api::{DynamicObject, ListParams},
};

use super::{
    settled::{settled, settled_within},
    shared::{World, most_requests},
};

const MODELS: usize = 60;

/// Waits until all those models that are concerned, and ask for autoscaling, have this reason.
async fn all_say(world: &World, reason: &str, concerned: impl Fn(&DynamicObject) -> bool) {
    let api = world.models.api(&kinds::model_serving());
    let differ = async || {
        let all = api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        let asking = all
            .iter()
            .filter(|model| model.annotations().contains_key("kthena.io/model-name") && concerned(model));
        let others = asking.filter(|model| condition(model).is_none_or(|found| found["reason"] != reason));
        (all.len(), others.map(|model| (model.name_any(), condition(model).cloned())).collect::<Vec<_>>())
    };
    until_asked_within(Duration::from_mins(1), reason, differ, |(count, others)| {
        *count == MODELS && others.is_empty()
    })
    .await;
}

#[tokio::test]
async fn kedas_go_in_a_burst_and_come_back() {
    let mut world = World::start().await;
    let mut operator = world.start_operator().await;
    let burst = world.in_the_midst_of_a_burst(MODELS).await;
    let began = Instant::now();
    Crds::keda().remove(&world.models.client).await;
    burst.ends().await;
    all_say(&world, "KedaNotInstalled", |model| {
        !model.annotations().contains_key("autoscaling.kthena.io/paused")
    })
    .await;
    Crds::keda().install(&world.models.client).await;
    world.add_strangers_scaled_object().await;
    settled(&world, &mut operator).await;
    // Each model is written before, while and after they are gone.
    let asked = world.stack.requests().len();
    assert!(
        asked <= most_requests(3 * MODELS, began, 1),
        "{asked}: {:?}",
        harness::audit::summary(&world.stack.requests())
    );
}

#[tokio::test]
async fn our_own_goes_in_a_burst_and_comes_back() {
    let mut world = World::start().await;
    let mut operator = world.start_operator().await;
    let burst = world.in_the_midst_of_a_burst(MODELS).await;
    let began = Instant::now();
    Crds::ours().remove(&world.models.client).await;
    burst.ends().await;
    all_say(&world, "ProfileNotFound", |model| {
        model.annotations().contains_key("autoscaling.kthena.io/profile")
    })
    .await;
    Crds::ours().install(&world.models.client).await;
    world.add_profile().await;
    settled(&world, &mut operator).await;
    let asked = world.stack.requests().len();
    assert!(
        asked <= most_requests(2 * MODELS, began, 1),
        "{asked}: {:?}",
        harness::audit::summary(&world.stack.requests())
    );
}

/// Kthena's take all models with them, and Kubernetes' garbage collector what was made for them; the same models then come back.
#[tokio::test]
async fn kthenas_go_and_come_back_with_the_same_models() {
    let mut world = World::start().await;
    let mut operator = world.start_operator().await;
    let _collector = ControllerManager::start(&world.stack.control_plane, 15);
    world.burst(MODELS).ends().await;
    settled(&world, &mut operator).await;
    Crds::kthena().remove(&world.models.client).await;
    Crds::kthena().install(&world.models.client).await;
    let began = Instant::now();
    world.burst(MODELS).ends().await;
    // The collector looks for new kinds every half minute.
    settled_within(Duration::from_secs(100), &world, &mut operator).await;
    let asked = world.stack.requests().len();
    assert!(
        asked <= most_requests(4 * MODELS, began, 1),
        "{asked}: {:?}",
        harness::audit::summary(&world.stack.requests())
    );
}
