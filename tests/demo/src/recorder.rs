//! Looks at every link of the chain now and then, and keeps what it saw.

use std::time::{Duration, Instant};

use engine::Load;
use harness::{Chain, Model};
use kube::api::DynamicObject;
use serde_json::Value;

/// What was to be seen at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Since the recording began.
    pub at: Duration,
    /// Requests that clients have under way.
    pub load: usize,
    /// The same as Prometheus knows it; none while it does not answer.
    pub seen: Option<f64>,
    /// ServingGroups that are wanted.
    pub wanted: i64,
    /// ServingGroups that are ready.
    pub ready: i64,
    /// What KEDA says of the ScaledObject.
    pub keda: String,
    /// What the HPA says.
    pub hpa: String,
}

/// Records one model.
pub struct Recorder {
    began: Instant,
    /// Everything that was seen.
    pub samples: Vec<Sample>,
    /// When something was done, and what.
    pub marks: Vec<(Duration, String)>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { began: Instant::now(), samples: Vec::new(), marks: Vec::new() }
    }
}

impl Recorder {
    /// Notes that something is done now.
    pub fn mark(&mut self, what: &str) {
        self.marks.push((self.began.elapsed(), what.to_owned()));
    }

    /// Looks once.
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
            at: self.began.elapsed(),
            load: load.counts().in_flight,
            seen,
            wanted: serving.data["spec"]["replicas"].as_i64().unwrap_or(1),
            ready: serving.data["status"]["availableReplicas"].as_i64().unwrap_or_default(),
            keda: scaled_object
                .ok()
                .flatten()
                .map_or_else(|| "no ScaledObject".to_owned(), |found| says(&found, &["Ready", "Active"])),
            hpa: hpa.ok().flatten().map_or_else(|| "no HPA".to_owned(), |found| wants(&found)),
        });
        self.samples.last().expect("the one that was pushed")
    }
}

fn condition<'a>(object: &'a DynamicObject, kind: &str) -> Option<&'a Value> {
    object.data["status"]["conditions"].as_array()?.iter().find(|found| found["type"] == kind)
}

fn says(object: &DynamicObject, kinds: &[&str]) -> String {
    let each = kinds.iter().filter_map(|kind| {
        let found = condition(object, kind)?;
        Some(format!("{kind}={} ({})", found["status"].as_str()?, found["reason"].as_str()?))
    });
    each.collect::<Vec<_>>().join(", ")
}

fn wants(hpa: &DynamicObject) -> String {
    let desired = &hpa.data["status"]["desiredReplicas"];
    format!(
        "desired {}, {}",
        desired.as_i64().unwrap_or_default(),
        says(hpa, &["ScalingActive", "ScalingLimited"])
    )
}
