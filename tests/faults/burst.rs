//! Many different models created and changed at once. Failed requests are retried, as users do.

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

/// Timeout of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit of a burst, including outages.
const LIMIT: Duration = Duration::from_mins(2);

/// A task that creates models.
pub struct Burst {
    created: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Burst {
    /// Starts to create `count` models, different from each other.
    pub fn start(models: &Namespace, count: usize, random: Random) -> Self {
        let created = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(create(models.clone(), count, random, created.clone()));
        Self { created, task }
    }

    /// Starts to create `count` equal models, which are not changed.
    pub fn start_uniform(models: &Namespace, count: usize) -> Self {
        let created = Arc::new(AtomicUsize::new(0));
        let (models, progress) = (models.clone(), created.clone());
        let task = tokio::spawn(async move {
            for i in 0..count {
                models.model_serving(&format!("chat-{i}")).opted_in(&format!("llama-{i}")).create().await;
                progress.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { created, task }
    }

    /// Waits until `count` models are created.
    ///
    /// # Panics
    /// If the burst ends before.
    pub async fn has_created(&self, count: usize) {
        while self.created.load(Ordering::Relaxed) < count {
            assert!(!self.task.is_finished(), "the burst ended before {count} models were created");
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// `true` if all models are created.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until all models are created.
    pub async fn finished(self) {
        until_asked_within(
            LIMIT,
            "all models are created",
            async || self.task.is_finished(),
            |finished| *finished,
        )
        .await;
        self.task.await.unwrap();
    }
}

async fn create(models: Namespace, count: usize, mut random: Random, created: Arc<AtomicUsize>) {
    let (api, params) = (models.api(&kinds::model_serving()), PostParams::default());
    let mut names = Vec::new();
    for i in 0..count {
        let object = model(&models, i, &mut random).object();
        names.push(object.name_any());
        retry(|| api.create(&params, &object)).await;
        let earlier = usize::try_from(random.below(names.len() as u64)).unwrap();
        change(&api, &names[earlier], &mut random).await;
        created.fetch_add(1, Ordering::Relaxed);
    }
}

/// A model that is not opted in, has an invalid annotation, names a profile, has too long a name, or, mostly,
/// is plain.
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
    retry(|| api.patch(name, &params, &patch)).await;
}

async fn retry<T, F: Future<Output = kube::Result<T>>>(send: impl Fn() -> F) {
    loop {
        match timeout(REQUEST_TIMEOUT, send()).await {
            Ok(Ok(_)) => return,
            // An earlier try succeeded, and its response was lost.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => return,
            Ok(Err(kube::Error::Api(status))) if status.code == 422 => panic!("{status:?}"),
            Ok(Err(_)) | Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}
