//! A step of load while models load, with and without a bounded backlog, at the shipped intervals.

use std::{process::Command, time::Duration};

use demo::{Picture, Recorder, Sample, draw_beside};
use engine::{Engine, EngineSettings, Load, LoadSettings};
use harness::{
    Chain, ChainSettings, Model, chain::is_in_namespace, neighbours::MAX_WAITING, stack::root,
    wait::until_asked_within,
};
use rstest::rstest;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{MAX, NEED, PER_SECOND, shipped_profile};

/// Time for one request, in tokens and seconds.
const TOKENS: u32 = 10;
/// Few tokens, so that this machine serves all requests without delay.
const TOKEN_TIME: Duration = Duration::from_millis(500);
const SERVICE_TIME: &str = "5s";
/// Time that a ServingGroup takes to load.
const LOADING: &str = "60s";
/// More requests in flight than ever arrive before the models have loaded.
const UNLIMITED: usize = 20_000;
/// Period of the samples.
const PERIOD: Duration = Duration::from_secs(2);
/// Time without a backlog after which the run ends.
const CALM: Duration = Duration::from_mins(2);

/// A model under load, and what was recorded of it.
struct Run {
    name: &'static str,
    title: &'static str,
    chat: Model,
    load: Load,
    recorder: Recorder,
    /// Time at which the backlog was gone.
    cleared: Option<Duration>,
}

impl Run {
    /// Creates a model with a service time, which serves requests of 5 s with ten slots in each ServingGroup.
    async fn start(
        chain: &Chain,
        engine: &Engine,
        (name, title): (&'static str, &'static str),
        service_time: &str,
    ) -> Self {
        let max = MAX.to_string();
        let chat = chain
            .model_on(engine, name, |builder| {
                builder
                    .loading(LOADING)
                    .annotated("autoscaling.kthena.io/max-replicas", &max)
                    .annotated("autoscaling.kthena.io/service-time", service_time)
            })
            .await;
        let load = Load::start(LoadSettings {
            router: chain.router.url.clone(),
            model: name.to_owned(),
            tokens: TOKENS,
            most_requests: 200_000,
        });
        Self { name, title, chat, load, recorder: Recorder::default(), cleared: None }
    }

    /// Takes a sample. Returns `true` once the backlog has been gone for a while.
    async fn look(&mut self, chain: &Chain) -> bool {
        let sample = self.recorder.look(chain, &self.chat, &self.load).await;
        // Slightly more than the requests in flight when every request is served at once.
        let is_served =
            sample.at > Duration::from_mins(1) && sample.load <= usize::try_from(NEED * 12).unwrap();
        let at = sample.at;
        if is_served && self.cleared.is_none() {
            self.recorder.mark("backlog gone");
            self.cleared = Some(at);
        }
        self.cleared.is_some_and(|cleared| at > cleared + CALM)
    }

    fn peak(&self) -> i64 {
        self.recorder.samples.iter().map(|sample| sample.wanted).max().unwrap()
    }

    /// ServingGroups that were wanted, times hours.
    fn group_hours(&self) -> f64 {
        self.integral(|sample| sample.wanted as f64) / 3600.0
    }

    /// Requests that waited, times seconds.
    fn waiting(&self) -> f64 {
        self.integral(|sample| (sample.load as f64 - (sample.ready * 10) as f64).max(0.0))
    }

    /// The value of each sample, times the seconds until the next one.
    fn integral(&self, value: impl Fn(&Sample) -> f64) -> f64 {
        let lasting = |pair: &[Sample]| value(&pair[0]) * pair[1].at.saturating_sub(pair[0].at).as_secs_f64();
        self.recorder.samples.windows(2).map(lasting).sum()
    }

    fn report(&self) {
        println!(
            "{}: peak {} for a need of {NEED}, {:.1} times; backlog gone after {:?}; {:.2} group-hours; {:.0} request-seconds of waiting",
            self.name,
            self.peak(),
            self.peak() as f64 / NEED as f64,
            self.cleared,
            self.group_hours(),
            self.waiting(),
        );
    }

    /// Time that 95 % of the requests waited at most, in seconds.
    fn p95_wait(&self) -> f64 {
        let mut waits = self.load.waits();
        waits.sort();
        waits[waits.len() * 95 / 100].as_secs_f64()
    }

    /// `backtest` over the run and a minute before it, which also tries another service time.
    fn backtest(&self, chain: &Chain, service_time: &str) -> Value {
        let seconds = self.recorder.samples.last().unwrap().at.as_secs() + 60;
        let output = Command::new(env!("CARGO_BIN_EXE_kthena-keda"))
            .args(["backtest", &format!("{}/chat", self.chat.serving.namespace.name), "--step=1s"])
            .args(["-o", "json", "--capacity=10", "--service-time=5s"])
            .args([format!("--cold-start={LOADING}"), format!("--since={seconds}s")])
            .arg(format!("--set=serviceTime={service_time}"))
            .arg(format!("--prometheus-url={}", chain.prometheus.url))
            .arg(format!(
                "--save={}",
                root().join("target/demo").join(format!("{}.jsonl", self.name)).display()
            ))
            .env("KUBECONFIG", chain.stack.control_plane.kubeconfig(&harness::Identity::Admin))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    const fn picture(&self) -> (&Recorder, Picture<'_>) {
        (&self.recorder, Picture { title: self.title, level: Some((NEED as f64, "need")) })
    }
}

/// Asserts that a replay equals what the real autoscaler did: each change within a sync and a scrape.
fn assert_replay(name: &str, report: &Value) {
    let fidelity = &report["fidelity"];
    println!("{name}: replay {fidelity}");
    let number = |field: &str| fidelity[field].as_f64().unwrap();
    assert!(number("equal") >= 0.95, "{fidelity}");
    assert!(number("longestDifference") <= 30.0, "{fidelity}");
    assert_eq!(fidelity["simulatedPeak"], fidelity["recordedPeak"]);
    assert!((number("simulatedHours") / number("recordedHours") - 1.0).abs() <= 0.01, "{fidelity}");
}

/// Compares settings that were predicted on the record of one model with the real run of the other, and its record.
fn assert_prediction(report: &Value, real: &Run, record: &Value) {
    let predicted = report["runs"].as_array().unwrap().last().unwrap();
    let real_hours = record["fidelity"]["recordedHours"].as_f64().unwrap();
    let number = |field: &str| predicted[field].as_f64().unwrap();
    let (peak, hours, wait) =
        (number("peak"), number("groupHours"), predicted["waiting"]["p95"].as_f64().unwrap());
    println!(
        "{}: predicted peak {peak}, {hours:.2} group-hours, p95 wait {wait:.1} s; real {}, {:.2}, {:.1} s",
        real.name,
        real.peak(),
        real_hours,
        real.p95_wait()
    );
    let real_peak = real.peak() as f64;
    assert!((peak - real_peak).abs() <= (real_peak * 0.1).max(1.0), "{predicted}");
    assert!((hours / real_hours - 1.0).abs() <= 0.05, "{predicted}");
    assert!((wait / real.p95_wait() - 1.0).abs() <= 0.2, "{predicted}");
}

/// Both models at once, so that everything else is equal. Requests arrive at the same pace however many wait.
///
/// By default the router refuses requests while each engine has ten waiting ones. Every repetition by a client counts as an
/// arrival, so the bound saves little or nothing then.
#[rstest]
#[case::queues_in_engines("engines-queue", 100_000, Some(1.6))]
#[case::refusals("router-refuses", MAX_WAITING, None)]
#[tokio::test]
async fn a_bounded_backlog_adds_no_more_groups_than_all_requests(
    #[case] name: &str,
    #[case] router_max_waiting: u32,
    #[case] most: Option<f64>,
) {
    assert!(is_in_namespace(), "run `make soak`: this needs a network namespace");
    let mut settings = ChainSettings::quick(env!("CARGO_BIN_EXE_kthena-keda"));
    settings.profile = shipped_profile();
    settings.hpa_sync_seconds = 15;
    settings.router_max_waiting = router_max_waiting;
    settings.prometheus.lookback_seconds = 300;
    settings.operator_interval = Some("1s");
    let chain = Chain::start(&settings).await;
    let engine = || {
        Engine::start(EngineSettings { concurrency: 10, token_time: TOKEN_TIME, ..EngineSettings::default() })
    };
    let engines = [engine(), engine()];
    let mut runs = [
        Run::start(&chain, &engines[0], ("all-in-flight", "All requests in flight count"), "off").await,
        Run::start(&chain, &engines[1], ("bounded-backlog", "The backlog is bounded"), SERVICE_TIME).await,
    ];
    for run in &runs {
        run.load.hold(1);
        let served = async || run.load.counts().served;
        until_asked_within(Duration::from_mins(4), "the router serves the model", served, |served| {
            *served > 0
        })
        .await;
        run.load.hold(0);
        run.chat.keda_says("Ready", "True").await;
    }
    // The router is older than the window of the arrival rate.
    sleep(Duration::from_secs(90)).await;
    for run in &mut runs {
        run.recorder = Recorder::default();
        run.load.arrive(PER_SECOND, UNLIMITED);
    }
    let limit = Instant::now() + Duration::from_mins(25);
    loop {
        let mut are_calm = true;
        for run in &mut runs {
            are_calm &= run.look(&chain).await;
        }
        if are_calm {
            break;
        }
        assert!(
            Instant::now() < limit,
            "the backlog is not gone: {:?}",
            runs.each_ref().map(|run| run.cleared)
        );
        sleep(PERIOD).await;
    }
    println!("{name}:");
    runs.iter().for_each(Run::report);
    draw_beside(&runs.each_ref().map(Run::picture), &root().join("target/demo").join(name));
    let [all, bounded] = &runs;
    let peaks = [bounded, all].map(|run| run.peak() as f64 / NEED as f64);
    assert!(peaks[0] <= most.unwrap_or(peaks[1]) && peaks[0] <= peaks[1], "{peaks:?} times the need");
    let [slow, fast] = [bounded, all].map(|run| run.cleared.unwrap().as_secs_f64());
    assert!(
        slow <= 1.1 * fast + PERIOD.as_secs_f64(),
        "cleared after {slow} s, without a bound after {fast} s"
    );
    let reports = [all.backtest(&chain, SERVICE_TIME), bounded.backtest(&chain, "off")];
    for (run, report) in runs.iter().zip(&reports) {
        assert_replay(run.name, report);
    }
    // Clients that are refused and ask again are not simulated.
    if router_max_waiting > MAX_WAITING {
        assert_prediction(&reports[0], bounded, &reports[1]);
        assert_prediction(&reports[1], all, &reports[0]);
    }
}
