//! What is not counted but found out when somebody asks, so that nothing of a model that is gone is left behind.

use std::{fmt::Error, fs, sync::Arc};

use kube::ResourceExt as _;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{
        counter::ConstCounter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
};
use tokio::sync::watch;

use kthena_keda_core::domain::Status;

use crate::{
    cluster::discovery::ServedApis,
    sources::{Caches, LastReported},
    telemetry::{
        self,
        metrics::{CPU, FILES, MEMORY, MODELS, MetricSpec, NOT_READY, SERVED, STARTED},
    },
};

/// How many ticks of `/proc` make a second; Linux shows no other number to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// The models, and what the cluster serves.
#[derive(Debug)]
pub struct Cluster {
    /// What the watches have seen.
    pub caches: Arc<Caches>,
    /// What the cluster serves.
    pub served: watch::Receiver<Option<ServedApis>>,
}

type Labels<const N: usize> = [(&'static str, String); N];

impl Collector for Cluster {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let (by_reason, not_ready) =
            (Family::<Labels<2>, Gauge>::default(), Family::<Labels<3>, Gauge>::default());
        for (model_serving, LastReported { status, reason }) in self.caches.reported() {
            by_reason
                .get_or_create(&[("status", status.as_str().to_owned()), ("reason", reason.to_owned())])
                .inc();
            if status == Status::False {
                let namespace = model_serving.namespace().unwrap_or_default();
                let labels = [
                    ("namespace", namespace),
                    ("model_serving", model_serving.name_any()),
                    ("reason", reason.to_owned()),
                ];
                not_ready.get_or_create(&labels).set(1);
            }
        }
        show(&mut encoder, &MODELS, &by_reason)?;
        show(&mut encoder, &NOT_READY, &not_ready)?;
        let served = Family::<Labels<1>, Gauge>::default();
        for (neighbour, is_served) in
            self.served.borrow().iter().flat_map(super::super::cluster::discovery::ServedApis::optional_apis)
        {
            served.get_or_create(&[("neighbour", neighbour.to_owned())]).set(is_served.into());
        }
        show(&mut encoder, &SERVED, &served)
    }
}

/// This process, as Linux sees it.
#[derive(Debug)]
pub struct Process {
    started: f64,
}

impl Process {
    /// One that has just started.
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

/// The time in user and system mode: the 14th and 15th field of `/proc/self/stat` (`proc_pid_stat(5)`), counted behind the name, which may
/// hold spaces.
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
