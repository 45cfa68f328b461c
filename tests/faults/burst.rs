//! Many models at once, as different as users have them, some of which change their mind. Whatever fails is tried again, as people do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use harness::{ModelServingBuilder, Namespace, Random, kinds, wait::until_asked_within};
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a burst may take, outages included.
const LIMIT: Duration = Duration::from_mins(2);

/// Models on their way.
pub struct Burst {
    made: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Burst {
    /// Begins to create so many.
    pub fn of(models: &Namespace, count: usize, random: Random) -> Self {
        let made = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(create(models.clone(), count, random, made.clone()));
        Self { made, task }
    }

    /// Begins to create so many that are all alike, and stay as they are.
    pub fn plain(models: &Namespace, count: usize) -> Self {
        let made = Arc::new(AtomicUsize::new(0));
        let (models, progress) = (models.clone(), made.clone());
        let task = tokio::spawn(async move {
            for i in 0..count {
                models.model_serving(&format!("chat-{i}")).opted_in(&format!("llama-{i}")).create().await;
                progress.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { made, task }
    }

    /// Waits until so many were made.
    pub async fn has_made(&self, count: usize) {
        while self.made.load(Ordering::Relaxed) < count {
            assert!(!self.task.is_finished(), "the burst is over before {count} were made");
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Whether all are made.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until all are made.
    pub async fn ends(self) {
        until_asked_within(LIMIT, "all models are made", async || self.task.is_finished(), |over| *over)
            .await;
        self.task.await.unwrap();
    }
}

async fn create(models: Namespace, count: usize, mut random: Random, made: Arc<AtomicUsize>) {
    let (api, params) = (models.api(&kinds::model_serving()), PostParams::default());
    let mut names = Vec::new();
    for i in 0..count {
        let object = model(&models, i, &mut random).object();
        names.push(object.name_any());
        insist(|| api.create(&params, &object)).await;
        let earlier = usize::try_from(random.below(names.len() as u64)).unwrap();
        change(&api, &names[earlier], &mut random).await;
        made.fetch_add(1, Ordering::Relaxed);
    }
}

/// Plain ones, and those that ask for nothing, for what cannot be, for a profile, or have too long a name.
fn model(models: &Namespace, i: usize, random: &mut Random) -> ModelServingBuilder {
    let (name, model) = (format!("chat-{i}"), format!("llama-{i}"));
    match random.below(10) {
        0 => models.model_serving(&name),
        1 => {
            models.model_serving(&name).opted_in(&model).annotated("autoscaling.kthena.io/paused", "perhaps")
        }
        2 => models.model_serving(&name).opted_in(&model).annotated("autoscaling.kthena.io/profile", "gold"),
        3 => models
            .model_serving(&format!("{name}-with-a-name-that-is-too-long-for-what-keda-makes"))
            .opted_in(&model),
        _ => models.model_serving(&name).opted_in(&model),
    }
}

async fn change(api: &Api<DynamicObject>, name: &str, random: &mut Random) {
    let annotations = match random.below(10) {
        0 => json!({"kthena.io/model-name": null}),
        1 | 2 => json!({"autoscaling.kthena.io/max-replicas": (5 + random.below(5)).to_string()}),
        _ => return,
    };
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    let params = PatchParams::default();
    insist(|| api.patch(name, &params, &patch)).await;
}

async fn insist<T, F: Future<Output = kube::Result<T>>>(ask: impl Fn() -> F) {
    loop {
        match timeout(PATIENCE, ask()).await {
            Ok(Ok(_)) => return,
            // It was done, and the answer lost.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => return,
            Ok(Err(kube::Error::Api(status))) if status.code == 422 => panic!("{status:?}"),
            Ok(Err(_)) | Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}
