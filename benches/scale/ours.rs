//! The operator: from a start with all models waiting, through everything that happens to it, to the opt-out of all.

use std::time::Duration;

use harness::{Process, Settings, Stack, audit::summary};

use crate::{
    contender::{Contender, Span, settled},
    figures::Figures,
    latency::{latency, percentile},
    models::Models,
};

/// How many changes of a model are answered while everything else is at rest.
const CHANGES: usize = 100;

/// Everything that happens to one instance.
pub async fn one(stack: &Stack, settings: &Settings, models: &Models, rest: Duration, figures: &mut Figures) {
    let count = models.count();
    let mut operator = Contender::start(stack, || vec![stack.start_operator(settings)]).await;
    let span = operator.until_written(2 * count).await;
    models.are_complete().await;
    spent(figures, "start", count, &span);
    figures.push("start.rss_peak", operator.memory().1);

    operator.begin().await;
    models.change_profile().await;
    let span = operator.until_written(count).await;
    spent(figures, "profile", count, &span);

    settled(stack).await;
    let latency = latency(models, CHANGES).await;
    for (percent, events, answers) in [
        (50.0, "latency.events_p50", "latency.answers_p50"),
        (95.0, "latency.events_p95", "latency.answers_p95"),
        (99.0, "latency.events_p99", "latency.answers_p99"),
    ] {
        figures.push(events, percentile(&latency.events, percent));
        figures.push(answers, percentile(&latency.answers, percent));
    }
    figures.push("rest.rss", operator.memory().0);
    for process in operator.processes.drain(..) {
        assert!(process.terminate(), "it ends in order");
    }

    settled(stack).await;
    let mut operator = restarted(stack, settings, figures).await;
    at_rest(&mut operator, rest, figures).await;

    operator.begin().await;
    models.opt_out().await;
    let span = operator.until_written(2 * count).await;
    assert!(models.scaled_objects().await.is_empty(), "no ScaledObject is left");
    spent(figures, "opt_out", count, &span);
}

/// A start where everything stands already.
async fn restarted<'a>(stack: &'a Stack, settings: &Settings, figures: &mut Figures) -> Contender<'a> {
    let mut operator = Contender::start(stack, || vec![stack.start_operator(settings)]).await;
    let quiet = operator.until_quiet().await;
    let requests = operator.requests();
    let span = operator.span(&requests).await;
    figures.push("restart.seconds", quiet);
    figures.push("restart.cpu", span.cpu.iter().sum());
    figures.push("restart.writes", f(span.writes));
    figures.push("restart.reads", f(span.reads));
    figures.push("restart.rss_peak", operator.memory().1);
    operator
}

/// What an hour costs in which nothing happens, from a part of it.
async fn at_rest(operator: &mut Contender<'_>, rest: Duration, figures: &mut Figures) {
    if rest.is_zero() {
        return;
    }
    operator.begin().await;
    tokio::time::sleep(rest).await;
    let requests = operator.requests();
    let span = operator.span(&requests).await;
    let an_hour = 3600.0 / rest.as_secs_f64();
    figures.push("rest.requests_an_hour", f(span.writes + span.reads) * an_hour);
    figures.push("rest.writes", f(span.writes));
    figures.push("rest.cpu_an_hour", span.cpu.iter().sum::<f64>() * an_hour);
    println!("in {rest:?} at rest: {:?}", summary(&requests));
}

/// The same work by two instances, each with half of the models.
pub async fn two(stack: &Stack, settings: &Settings, models: &Models, figures: &mut Figures) {
    let count = models.count();
    let shard = |settings: Settings, name: &str| settings.with(&format!("--selector=shard={name}"));
    let settings =
        [shard(settings.clone(), "a"), shard(settings.clone(), "b").with("--cluster-duties=false")];
    let start = || settings.iter().map(|settings| stack.start_operator(settings)).collect::<Vec<Process>>();
    let mut operators = Contender::start(stack, start).await;
    let span = operators.until_written(2 * count).await;
    models.are_complete().await;
    spent(figures, "shards", count, &span);
    figures.push("shards.rss_peak", operators.memory().1);
}

fn spent(figures: &mut Figures, part: &str, models: usize, span: &Span) {
    figures.push(&format!("{part}.seconds"), span.seconds);
    figures.push(&format!("{part}.cpu"), span.cpu.iter().copied().fold(0.0, f64::max));
    figures.push(&format!("{part}.server_cpu"), span.server_cpu);
    figures.push(&format!("{part}.writes_a_model"), f(span.writes) / f(models));
    figures.push(&format!("{part}.reads_a_model"), f(span.reads) / f(models));
    figures.push(&format!("{part}.watched_a_model"), span.watched / f(models) / 1024.0);
}

/// The floor's part of a round.
pub async fn floor(
    stack: &Stack,
    start: impl FnOnce() -> Vec<Process>,
    models: &Models,
    figures: &mut Figures,
) {
    let mut floor = Contender::start(stack, start).await;
    let span = floor.until_written(2 * models.count()).await;
    models.are_complete().await;
    spent(figures, "floor", models.count(), &span);
    figures.push("floor.rss_peak", floor.memory().1);
}

#[expect(clippy::cast_precision_loss, reason = "a count, far from that large")]
fn f(count: usize) -> f64 {
    count as f64
}
