//! Cost of the operator's own queries: of models in shadow, and of service times that it measures. A real Prometheus has a day of requests to each model.

use std::{path::Path, time::Duration};

use harness::{
    Crds, Settings, Stack,
    neighbours::{Bare, Prometheus},
    past_requests,
};
use kthena_keda_core::api::annotations::MEASURED_SERVICE_TIME;
use kube::ResourceExt as _;
use tokio::time::{Instant, sleep};

use crate::{
    contender::{Contender, settled},
    models::{Models, name},
};

/// Most models in shadow, by default.
const SHADOWS: usize = 50;
/// Seconds between two samples of the history. Fewer samples than usual keep its 12 million in bounds for 1,000 models.
const SCRAPE: u64 = 60;
/// Time in which the cost at rest and that of shadow are measured.
const TIME: Duration = Duration::from_mins(2);
/// Time in which all models are measured, by far.
const LIMIT: Duration = Duration::from_mins(20);
/// Time until the first round of all models in shadow is over: two syncs of the HPA.
const FIRST_ROUND: Duration = Duration::from_secs(30);
const SHADOW: &str = "autoscaling.kthena.io/shadow";

/// Measures `count` models at rest, 50 of them in shadow, and the first measurement of the service time of all.
pub async fn run(binary: &Path, count: usize) {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let models = Models::create(stack.namespace().await, count).await;
    let prometheus = prometheus(&stack, &models).await;
    let settings = Settings::new(binary)
        .without("--log-level")
        .without("--check-interval")
        .without("--discovery-interval")
        .without("--prometheus-url")
        .with(&format!("--prometheus-url={}", prometheus.url));
    settled(&stack).await;
    let mut operator = Contender::start(&stack, || vec![stack.start_operator(&settings)]).await;
    operator.until_written(2 * count).await;
    println!(
        "{:<28}  {:>7}  {:>8}  {:>10}  {:>7}  {:>6}  {:>8}",
        "", "seconds", "CPU", "Prometheus", "queries", "writes", "memory"
    );
    at_rest(&stack, "at rest", &mut operator, &prometheus).await;
    let shadows = SHADOWS.min(count);
    set_shadows(&models, shadows, Some("true")).await;
    at_rest(&stack, &format!("{shadows} in shadow"), &mut operator, &prometheus).await;
    set_shadows(&models, shadows, None).await;
    settled(&stack).await;
    let meter = Meter::start(&mut operator, &prometheus).await;
    models.measure_service_times().await;
    until_measured(&models).await;
    meter.print("service times, the first time", &mut operator).await;
}

async fn at_rest(stack: &Stack, part: &str, operator: &mut Contender<'_>, prometheus: &Bare) {
    settled(stack).await;
    let meter = Meter::start(operator, prometheus).await;
    sleep(TIME).await;
    meter.print(part, operator).await;
}

/// Has models begin or end a dry run, and waits until their first round, which reads the last minutes, is over.
async fn set_shadows(models: &Models, count: usize, value: Option<&str>) {
    for i in 0..count {
        models.annotate(i, SHADOW, value).await;
    }
    sleep(FIRST_ROUND).await;
}

async fn prometheus(stack: &Stack, models: &Models) -> Bare {
    let names: Vec<String> = (0..models.count()).map(name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let history = past_requests(&models.namespace().name, &names, SCRAPE);
    // The last samples stay current for the whole run.
    let current = ["--query.lookback-delta=1h"];
    Prometheus::with_history_and(&stack.control_plane.folder, &history, &current).await
}

/// Waits until every ScaledObject has a measured service time.
async fn until_measured(models: &Models) {
    let limit = Instant::now() + LIMIT;
    let count = async || {
        let all = models.scaled_objects().await;
        all.iter().filter(|found| found.annotations().contains_key(MEASURED_SERVICE_TIME)).count()
    };
    loop {
        let measured = count().await;
        if measured == models.count() {
            return;
        }
        assert!(Instant::now() < limit, "timeout: {measured} of {} models are measured", models.count());
        sleep(Duration::from_secs(1)).await;
    }
}

/// Counters at the start of a part.
struct Meter<'a> {
    prometheus: &'a Bare,
    began: Instant,
    cpu: Duration,
    questions: u64,
}

impl<'a> Meter<'a> {
    async fn start(operator: &mut Contender<'_>, prometheus: &'a Bare) -> Self {
        operator.begin().await;
        Self {
            prometheus,
            began: Instant::now(),
            cpu: prometheus.cpu(),
            questions: prometheus.questions().await,
        }
    }

    /// Prints what the part has cost.
    async fn print(&self, part: &str, operator: &mut Contender<'_>) {
        let requests = operator.requests();
        let span = operator.span(&requests).await;
        println!(
            "{part:<28}  {:>7.0}  {:>6.2} s  {:>8.2} s  {:>9}  {:>6}  {:>4.1} MiB",
            self.began.elapsed().as_secs_f64(),
            span.cpu.iter().sum::<f64>(),
            (self.prometheus.cpu().saturating_sub(self.cpu)).as_secs_f64(),
            self.prometheus.questions().await - self.questions,
            span.writes,
            operator.memory().0,
        );
    }
}
