//! Samples of every link of the chain over time.

use std::time::{Duration, Instant};

use engine::Load;
use harness::{Chain, Model};
use kube::api::DynamicObject;
use serde_json::Value;

/// State of the chain at one time.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Time since the start of the recording.
    pub at: Duration,
    /// Requests in flight as the clients count them.
    pub load: usize,
    /// Requests in flight according to Prometheus; `None` while it does not respond.
    pub seen: Option<f64>,
    /// `spec.replicas`.
    pub wanted: i64,
    /// `status.availableReplicas`.
    pub ready: i64,
    /// Conditions of the ScaledObject.
    pub keda: String,
    /// Desired replicas and conditions of the HPA.
    pub hpa: String,
}

/// Recorder of one model.
pub struct Recorder {
    started: Instant,
    /// All samples, by time.
    pub samples: Vec<Sample>,
    /// Times and labels of actions.
    pub marks: Vec<(Duration, String)>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { started: Instant::now(), samples: Vec::new(), marks: Vec::new() }
    }
}

impl Recorder {
    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Records an action at the present time.
    pub fn mark(&mut self, label: &str) {
        self.marks.push((self.started.elapsed(), label.to_owned()));
    }

    /// Takes a sample.
    pub async fn look(&mut self, chain: &Chain, model: &Model, load: &Load) -> &Sample {
        let query = format!("sum(kthena_router_active_downstream_requests{{model={:?}}})", model.name);
        let (scaled_objects, hpas) = (model.serving.scaled_objects(), model.hpas());
        let (serving, scaled_object, hpa, seen) = tokio::join!(
            model.serving.get(),
            scaled_objects.get_opt("chat"),
            hpas.get_opt("keda-hpa-chat"),
            chain.prometheus.query(&query)
        );
        self.samples.push(Sample {
            at: self.started.elapsed(),
            load: load.counts().in_flight,
            seen,
            wanted: serving.data["spec"]["replicas"].as_i64().unwrap_or(1),
            ready: serving.data["status"]["availableReplicas"].as_i64().unwrap_or_default(),
            keda: scaled_object.ok().flatten().map_or_else(
                || "no ScaledObject".to_owned(),
                |found| conditions(&found, &["Ready", "Active"]),
            ),
            hpa: hpa.ok().flatten().map_or_else(|| "no HPA".to_owned(), |found| hpa_status(&found)),
        });
        self.samples.last().expect("the sample that was just added")
    }
}

fn condition<'a>(object: &'a DynamicObject, kind: &str) -> Option<&'a Value> {
    object.data["status"]["conditions"].as_array()?.iter().find(|found| found["type"] == kind)
}

fn conditions(object: &DynamicObject, kinds: &[&str]) -> String {
    let texts = kinds.iter().filter_map(|kind| {
        let found = condition(object, kind)?;
        Some(format!("{kind}={} ({})", found["status"].as_str()?, found["reason"].as_str()?))
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn hpa_status(hpa: &DynamicObject) -> String {
    let desired = &hpa.data["status"]["desiredReplicas"];
    format!(
        "desired {}, {}",
        desired.as_i64().unwrap_or_default(),
        conditions(hpa, &["ScalingActive", "ScalingLimited"])
    )
}
