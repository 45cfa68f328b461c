//! The measured cases: the bare client, one operator from its start to the opt-out of all models, the start of
//! two shards, and a hostile tenant beside the models.

use std::time::Duration;

use harness::{Process, Settings, Stack, audit::summary};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;

use crate::{
    contender::{Contender, Span, settled},
    figures::Figures,
    latency::{latency, percentile},
    models::Models,
    tenant::Tenant,
};

/// Number of changes that the latency benchmark makes.
const CHANGES: usize = 100;

/// Runs one operator: start, profile change, single changes, restart, rest and opt-out.
pub async fn one_operator(
    stack: &Stack,
    settings: &Settings,
    models: &Models,
    rest: Duration,
    figures: &mut Figures,
) {
    let count = models.count();
    let mut operator = Contender::start(stack, || vec![stack.start_operator(settings)]).await;
    let span = operator.until_written(2 * count).await;
    models.are_complete().await;
    push_span(figures, "start", count, &span);
    figures.push("start.rss_peak", operator.memory().1);

    operator.begin().await;
    models.change_profile().await;
    let span = operator.until_written(count).await;
    push_span(figures, "profile", count, &span);

    settled(stack).await;
    let latency = latency(models, CHANGES).await;
    for (percent, events, responses) in [
        (50.0, "latency.events_p50", "latency.answers_p50"),
        (95.0, "latency.events_p95", "latency.answers_p95"),
        (99.0, "latency.events_p99", "latency.answers_p99"),
    ] {
        figures.push(events, percentile(&latency.events, percent));
        figures.push(responses, percentile(&latency.responses, percent));
    }
    figures.push("rest.rss", operator.memory().0);
    for process in operator.processes.drain(..) {
        assert!(process.terminate(), "the operator exits with 0");
    }

    settled(stack).await;
    let mut operator = restarted(stack, settings, figures).await;
    at_rest(&mut operator, rest, figures).await;

    operator.begin().await;
    models.opt_out().await;
    let span = operator.until_written(2 * count).await;
    assert!(models.scaled_objects().await.is_empty(), "no ScaledObject is left");
    push_span(figures, "opt_out", count, &span);
}

/// Restarts the operator with all objects in place.
async fn restarted<'a>(stack: &'a Stack, settings: &Settings, figures: &mut Figures) -> Contender<'a> {
    let mut operator = Contender::start(stack, || vec![stack.start_operator(settings)]).await;
    let quiet = operator.until_quiet().await;
    let requests = operator.requests();
    let span = operator.span(&requests).await;
    figures.push("restart.seconds", quiet);
    figures.push("restart.cpu", span.cpu.iter().sum());
    figures.push("restart.writes", to_f64(span.writes));
    figures.push("restart.reads", to_f64(span.reads));
    figures.push("restart.rss_peak", operator.memory().1);
    operator
}

/// Measures the cost at rest during `rest`, extrapolated to one hour.
async fn at_rest(operator: &mut Contender<'_>, rest: Duration, figures: &mut Figures) {
    if rest.is_zero() {
        return;
    }
    operator.begin().await;
    tokio::time::sleep(rest).await;
    let requests = operator.requests();
    let span = operator.span(&requests).await;
    let rests_per_hour = 3600.0 / rest.as_secs_f64();
    figures.push("rest.requests_an_hour", to_f64(span.writes + span.reads) * rests_per_hour);
    figures.push("rest.writes", to_f64(span.writes));
    figures.push("rest.cpu_an_hour", span.cpu.iter().sum::<f64>() * rests_per_hour);
    println!("requests in {rest:?} at rest: {:?}", summary(&requests));
}

/// Runs the start with two operators, each with half of the models.
pub async fn two_shards(stack: &Stack, settings: &Settings, models: &Models, figures: &mut Figures) {
    let count = models.count();
    let settings = [
        settings.clone().with("--selector=shard=a"),
        settings.clone().with("--selector=shard=b").with("--cluster-duties=false"),
    ];
    let start = || settings.iter().map(|settings| stack.start_operator(settings)).collect::<Vec<Process>>();
    let mut operators = Contender::start(stack, start).await;
    let span = operators.until_written(2 * count).await;
    models.are_complete().await;
    push_span(figures, "shards", count, &span);
    figures.push("shards.rss_peak", operators.memory().1);
}

/// Most ModelServings of the tenant, which take about 300 MB in the store.
const TENANT_MODELS: usize = 1_000;
/// Objects of a tenant that the operator does not watch.
const UNWATCHED: usize = 50;

/// Compares the latency of the ordinary models without a tenant, beside a hostile one at rest, and while that one changes its
/// models one after the other. The same changes to objects that nothing watches show how much of it is the API server's load.
pub async fn hostile_tenant(stack: &Stack, settings: &Settings, models: &Models, figures: &mut Figures) {
    let settings = settings.clone().with("--leader-elect=true");
    let mut operator = Contender::start(stack, || vec![stack.start_operator(&settings)]).await;
    operator.until_written(2 * models.count()).await;
    settled(stack).await;
    let before = transitions(stack).await;
    push_latency(figures, "alone", models).await;
    let unwatched = Tenant::create_unwatched(stack.namespace().await, UNWATCHED).await;
    tokio::select! {
        () = unwatched.change_all() => {}
        () = push_latency(figures, "unwatched", models) => {}
    }
    settled(stack).await;
    let tenant = Tenant::create(stack.namespace().await, models.count().min(TENANT_MODELS)).await;
    operator.until_quiet().await;
    settled(stack).await;
    push_latency(figures, "beside", models).await;
    tokio::select! {
        () = tenant.change_all() => {}
        () = push_latency(figures, "during", models) => {}
    }
    for (part, compared) in [("beside", "alone"), ("unwatched", "alone"), ("during", "unwatched")] {
        let p95 = |part: &str| figures.last(&format!("tenant.{part}_p95"));
        if let (Some(with), Some(without)) = (p95(part), p95(compared)) {
            figures.push(&format!("tenant.{part}_over_{compared}"), with / without);
        }
    }
    figures.push("tenant.rss_peak", operator.memory().1);
    figures.push("tenant.lease_transitions", f64::from(transitions(stack).await - before));
}

async fn push_latency(figures: &mut Figures, part: &str, models: &Models) {
    let latency = latency(models, CHANGES).await;
    figures.push(&format!("tenant.{part}_p95"), percentile(&latency.responses, 95.0));
}

/// Times that the operator's lease has changed its holder.
async fn transitions(stack: &Stack) -> i32 {
    let leases: Api<Lease> = Api::namespaced(stack.client().await, "kthena-keda");
    let lease = leases.get("kthena-keda").await.expect("the operator holds a lease");
    lease.spec.and_then(|spec| spec.lease_transitions).unwrap_or_default()
}

fn push_span(figures: &mut Figures, part: &str, models: usize, span: &Span) {
    figures.push(&format!("{part}.seconds"), span.seconds);
    figures.push(&format!("{part}.cpu"), span.cpu.iter().copied().fold(0.0, f64::max));
    figures.push(&format!("{part}.server_cpu"), span.server_cpu);
    figures.push(&format!("{part}.writes_a_model"), to_f64(span.writes) / to_f64(models));
    figures.push(&format!("{part}.reads_a_model"), to_f64(span.reads) / to_f64(models));
    figures.push(&format!("{part}.watched_a_model"), span.watched / to_f64(models) / 1024.0);
}

/// Runs a bare client, which `start` starts.
pub async fn floor(
    stack: &Stack,
    start: impl FnOnce() -> Vec<Process>,
    models: &Models,
    part: &str,
    figures: &mut Figures,
) {
    let mut floor = Contender::start(stack, start).await;
    let span = floor.until_written(2 * models.count()).await;
    models.are_complete().await;
    push_span(figures, part, models.count(), &span);
    figures.push(&format!("{part}.rss_peak"), floor.memory().1);
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn to_f64(count: usize) -> f64 {
    count as f64
}
