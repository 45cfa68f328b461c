//! Metrics computed at scrape time, so that a deleted model leaves no series behind.

use std::{fmt::Error, fs, sync::Arc};

use kube::ResourceExt as _;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{
        MetricType,
        counter::ConstCounter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
};
use tokio::sync::watch;

use kthena_keda_core::{api::kthena::ModelServing, domain::Status};

use crate::{
    cluster::discovery::ServedApis,
    sources::{Caches, LastReported},
    telemetry::{
        self,
        metrics::{
            CPU, FILES, LOADING_TIME, MEMORY, MODELS, MetricSpec, NOT_READY, REPLICAS, ROLE_REPLICAS, SERVED,
            SHADOW_REPLICAS, STARTED, WAITING,
        },
    },
};

/// Ticks of `/proc` per second; Linux exposes no other number to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// Metrics of the models and of the served APIs.
#[derive(Debug)]
pub struct Cluster {
    /// Source of the last report on each model.
    pub caches: Arc<Caches>,
    /// APIs that the cluster serves.
    pub served: watch::Receiver<Option<ServedApis>>,
    /// Export numbers and loading times of each model.
    pub exports_models: bool,
}

type Labels<const N: usize> = [(&'static str, String); N];

impl Collector for Cluster {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let (by_reason, not_ready) =
            (Family::<Labels<2>, Gauge>::default(), Family::<Labels<3>, Gauge>::default());
        for (model_serving, LastReported { status, reason }) in self.caches.reported() {
            by_reason
                .get_or_create(&[
                    ("status", status.as_str().to_owned()),
                    ("reason", reason.as_str().to_owned()),
                ])
                .inc();
            if status == Status::False {
                let namespace = model_serving.namespace().unwrap_or_default();
                let labels = [
                    ("namespace", namespace),
                    ("model_serving", model_serving.name_any()),
                    ("reason", reason.as_str().to_owned()),
                ];
                not_ready.get_or_create(&labels).set(1);
            }
        }
        show(&mut encoder, &MODELS, &by_reason)?;
        show(&mut encoder, &NOT_READY, &not_ready)?;
        let waiting = Family::<Labels<3>, Gauge>::default();
        for ((namespace, name), found) in self.caches.waiting_models() {
            let cause = found.cause().to_owned();
            waiting
                .get_or_create(&[("namespace", namespace), ("model_serving", name), ("cause", cause)])
                .set(1);
        }
        show(&mut encoder, &WAITING, &waiting)?;
        let shadows = Family::<Labels<2>, Gauge>::default();
        for ((namespace, name), replicas) in self.caches.shadows.replicas() {
            shadows.get_or_create(&[("namespace", namespace), ("model_serving", name)]).set(replicas.into());
        }
        show(&mut encoder, &SHADOW_REPLICAS, &shadows)?;
        let served = Family::<Labels<1>, Gauge>::default();
        for (neighbour, is_served) in self.served.borrow().iter().flat_map(ServedApis::optional_apis) {
            served.get_or_create(&[("neighbour", neighbour.to_owned())]).set(is_served.into());
        }
        show(&mut encoder, &SERVED, &served)?;
        if self.exports_models { self.encode_models(encoder) } else { Ok(()) }
    }
}

impl Cluster {
    /// Instances of each scaled role of the opted-in models.
    fn role_replicas(&self) -> Family<Labels<4>, Gauge> {
        let replicas = Family::<Labels<4>, Gauge>::default();
        for (model_serving, _) in self.caches.reported() {
            for (role, states) in self.caches.role_replicas(&model_serving) {
                for (state, count) in states {
                    let labels = [
                        ("namespace", model_serving.namespace().unwrap_or_default()),
                        ("model_serving", model_serving.name_any()),
                        ("role", role.clone()),
                        ("state", state.to_owned()),
                    ];
                    replicas.get_or_create(&labels).set(count.into());
                }
            }
        }
        replicas
    }

    /// ServingGroups of each opted-in model, and their loading times.
    fn encode_models(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let replicas = Family::<Labels<3>, Gauge>::default();
        let mut loading_times = Vec::new();
        for (model_serving, _) in self.caches.reported() {
            let (namespace, name) = (model_serving.namespace().unwrap_or_default(), model_serving.name_any());
            for (state, count) in replicas_by_state(&model_serving) {
                let labels = [
                    ("namespace", namespace.clone()),
                    ("model_serving", name.clone()),
                    ("state", state.to_owned()),
                ];
                replicas.get_or_create(&labels).set(count.into());
            }
            let times = self.caches.loading_times.of(&model_serving);
            loading_times
                .extend(times.map(|times| ([("namespace", namespace), ("model_serving", name)], times)));
        }
        show(&mut encoder, &REPLICAS, &replicas)?;
        show(&mut encoder, &ROLE_REPLICAS, &self.role_replicas())?;
        let mut series = encoder.encode_descriptor(
            LOADING_TIME.bare_name(),
            LOADING_TIME.help,
            None,
            MetricType::Histogram,
        )?;
        loading_times.iter().try_for_each(|(labels, times)| times.encode(series.encode_family(labels)?))
    }
}

/// Numbers of ServingGroups, with their label value. Kthena leaves a number of 0 out of the status.
fn replicas_by_state(model_serving: &ModelServing) -> [(&'static str, i32); 3] {
    let status = &model_serving.status;
    [
        ("spec", model_serving.replicas()),
        ("total", status.replicas.unwrap_or_default()),
        ("ready", status.available_replicas.unwrap_or_default()),
    ]
}

/// Metrics of this process, from `/proc`.
#[derive(Debug)]
pub struct Process {
    started: f64,
}

impl Process {
    /// The metrics of a process that starts now.
    pub fn started_now() -> Self {
        Self { started: telemetry::unix_time() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        if let Some(seconds) = processor_seconds() {
            show(&mut encoder, &CPU, &ConstCounter::new(seconds))?;
        }
        if let Some(bytes) = resident_bytes() {
            show(&mut encoder, &MEMORY, &ConstGauge::new(bytes))?;
        }
        if let Some(files) =
            fs::read_dir("/proc/self/fd").ok().and_then(|files| i64::try_from(files.count()).ok())
        {
            show(&mut encoder, &FILES, &ConstGauge::new(files))?;
        }
        show(&mut encoder, &STARTED, &ConstGauge::new(self.started))
    }
}

fn show(
    encoder: &mut DescriptorEncoder,
    declared: &MetricSpec,
    metric: &impl EncodeMetric,
) -> Result<(), Error> {
    metric.encode(encoder.encode_descriptor(
        declared.bare_name(),
        declared.help,
        None,
        metric.metric_type(),
    )?)
}

/// CPU time in user and system mode, in seconds: fields 14 and 15 of `/proc/self/stat` (`proc_pid_stat(5)`), counted after
/// the name, which may contain spaces.
fn processor_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u32>().ok())
        .sum::<Option<u32>>()?;
    Some(f64::from(ticks) / TICKS_PER_SECOND)
}

fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?
        .split_whitespace()
        .next()?
        .parse::<i64>()
        .ok()?;
    Some(kib * 1024)
}
