//! Time for the simulation of a week in steps of 15 s on one core, and of a thousand candidates on two, with the memory of all.
#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark stops by panicking"
)]

use std::{fs, hint::black_box, thread, time::Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kthena_keda::sources::Manifests;
use kthena_keda_core::{
    domain::{Backlog, Capabilities, PrometheusUrl},
    foresight::{
        backtest::{Backtest, Periods, PlantOptions, Source},
        fleet::Queue,
        fluid::Inflow,
        history::{Grid, History, SeriesName},
        report::{Costs, Slo},
        settings::Settings,
        workload::Workload,
    },
    intent::{Profile, PrometheusSettings},
    plan::{Desired, plan},
    signals::RouterSeries,
};
use serde_json::json;

/// Steps of a week.
const STEPS: u32 = 40_320;
const START: i64 = 1_795_064_400;

/// The built-in settings, with a service time if it is given.
fn history(annotations: &serde_json::Value, workload: &Workload) -> (Settings, History) {
    let mut manifests = Manifests::of_newest_cluster(false);
    let model = json!({
        "apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing",
        "metadata": {"name": "chat", "namespace": "models", "annotations": annotations},
        "spec": {"template": {"roles": [{"name": "engine"}]}},
    });
    manifests.add("benchmark", model).expect("a ModelServing");
    let (_, model) = manifests.model_servings.first().expect("a ModelServing");
    let observed = manifests.observe(model, RouterSeries::assumed("kthena-system"));
    let mut defaults = Profile::built_in();
    defaults.prometheus =
        "http://prometheus:9090".parse::<PrometheusUrl>().ok().map(PrometheusSettings::from);
    let plan = plan(&observed, Capabilities::NEWEST, &defaults);
    let Desired::Apply(object) = plan.scaled_object else { unreachable!("{:?}", plan.findings) };
    let intent = plan.explanation.and_then(|found| found.resolved).expect("settings").intent;
    let backlog: Backlog = intent.backlog;
    let settings = Settings::from_scaled_object(&object, backlog).expect("settings");
    let mut history = History::new(workload.grid(), "models", "chat", &object, backlog);
    for step in 0..STEPS {
        let inflow = workload.inflow(step as usize).expect("requests");
        let at = f64::from(u32::try_from(START).expect("a date") + step * 15);
        let in_flight = inflow.rate * inflow.service_time;
        for (name, value) in [
            (SeriesName::Trigger("active-requests".to_owned()), in_flight),
            (SeriesName::InFlight, in_flight),
            (SeriesName::Arrivals, inflow.rate),
            (SeriesName::Spec, (in_flight / 10.0).ceil().clamp(1.0, 10.0)),
        ] {
            history.record(&name, at, value);
        }
    }
    (settings, history)
}

/// The backtest of the settings in force, without candidates.
fn backtest<'a>(current: &'a Settings, source: Source<'a>) -> Backtest<'a> {
    Backtest {
        model: "models/chat".to_owned(),
        source,
        current,
        candidates: &[],
        fixed: &[],
        slo: Slo::default(),
        plant: PlantOptions { slots: None, cold_start: 300.0, queue: Queue::Engine, service_time: None },
        costs: Costs::default(),
        periods: Periods::default(),
        explain: None,
        assume_independent: false,
    }
}

/// A week of days and nights in which the busiest hours are too much for ten ServingGroups.
fn week() -> Workload {
    let inflow = |step: u32| {
        let hour = f64::from(step) / 240.0;
        let rate = 12.0 - 11.0 * (hour / 24.0 * std::f64::consts::TAU).cos();
        Some(Inflow { rate, service_time: 6.0, tokens: 200.0 })
    };
    Workload::new(Grid::new(START, 15, STEPS as usize).expect("a week"), (0..STEPS).map(inflow).collect())
}

fn weeks(criterion: &mut Criterion) {
    let workload = week();
    let mut group = criterion.benchmark_group("week");
    group.throughput(Throughput::Elements(STEPS.into())).sample_size(10);
    let one = json!({"kthena.io/model-name": "m"});
    let bounded = json!({"kthena.io/model-name": "m", "autoscaling.kthena.io/service-time": "6s"});
    for (name, annotations) in [("in flight", one), ("bounded backlog", bounded)] {
        let (settings, history) = history(&annotations, &workload);
        group.bench_function(format!("{name}, a load"), |bencher| {
            bencher
                .iter(|| backtest(&settings, Source::Load(black_box(&workload))).report().expect("a report"));
        });
        group.bench_function(format!("{name}, a history: five replays and two runs"), |bencher| {
            bencher.iter(|| {
                backtest(&settings, Source::History(black_box(&history))).report().expect("a report")
            });
        });
    }
    group.finish();
}

/// Candidates of a search, and the cores that share them.
const CANDIDATES: usize = 1000;
const CORES: usize = 2;

/// A thousand candidates of a week, once, and the peak of the memory.
fn candidates(_: &mut Criterion) {
    let workload = week();
    let (settings, _) =
        history(&json!({"kthena.io/model-name": "m", "autoscaling.kthena.io/service-time": "6s"}), &workload);
    let run = |_: usize| {
        backtest(&settings, Source::Load(black_box(&workload))).report().expect("a report").runs.len()
    };
    let started = Instant::now();
    let done: usize = thread::scope(|scope| {
        let part = |_| scope.spawn(|| (0..CANDIDATES / CORES).map(run).sum::<usize>());
        let parts: Vec<_> = (0..CORES).map(part).collect();
        parts.into_iter().map(|part| part.join().expect("a sum")).sum()
    });
    let seconds = started.elapsed().as_secs_f64();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or(" unknown").trim();
    println!(
        "{done} candidates of a week on {CORES} cores: {seconds:.1} s, {:.2} of the 10 s allowed",
        seconds / 10.0
    );
    println!("peak memory of the benchmark: {peak}");
}

criterion_group!(benches, candidates, weeks);
criterion_main!(benches);
