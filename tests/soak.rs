//! Scenarios that take minutes, run by `make soak`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::large_futures,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "tests report failures by panicking"
)]

mod soak {
    mod backlog;
    mod cycles;
}

use std::{fs, time::Duration};

use demo::{Picture, Recorder, draw};
use engine::{EngineSettings, LoadSettings};
use harness::{Chain, ChainSettings, Model, chain::is_in_namespace, kinds, stack::root, wait::until_asked};
use kube::api::ListParams;
use rstest::rstest;
use tokio::time::{Instant, sleep};

/// ServingGroups that the load needs: 20 requests a second, each of which takes 5 s of a tenth of a
/// ServingGroup.
const NEED: i64 = 10;
const MAX: i64 = 40;
const PER_SECOND: u32 = 20;
/// Maximum number of requests in flight.
const MOST_IN_FLIGHT: usize = 500;
/// A tenth of the shipped scale-down window.
const SCALE_DOWN_WINDOW: Duration = Duration::from_mins(1);
/// A tenth of the period of the shipped scale-up policies, less the delay of sampling every half second.
const SCALE_UP_PERIOD: Duration = Duration::from_secs(5);

/// A profile in `config/samples`, as the profile named default, with the Prometheus of the chain.
fn sample_profile(name: &str) -> String {
    let text = fs::read_to_string(root().join(format!("config/samples/{name}.yaml"))).unwrap();
    text.replace(&format!("name: {}", name.trim_start_matches("autoscaling-profile-")), "name: default")
        .replace("  prometheus:\n    url: http://prometheus-operated.monitoring.svc:9090\n", "")
}

/// The built-in profile.
fn shipped_profile() -> String {
    sample_profile("autoscaling-profile")
}

/// The shipped profile with every time divided by ten, in whole seconds.
fn a_tenth(profile: &str) -> String {
    let tenth = |word: &str| {
        let (number, rest) = word.split_at(word.find(|c: char| !c.is_ascii_digit())?);
        let (unit, tail) = rest.split_at(1);
        let seconds = number.parse::<u32>().ok()?
            * match unit {
                "s" => 1,
                "m" => 60,
                _ => return None,
            };
        let ends = tail.is_empty() || tail.starts_with(|c: char| !c.is_alphanumeric());
        ends.then(|| format!("{}s{tail}", seconds.div_ceil(10)))
    };
    profile
        .split_inclusive(' ')
        .flat_map(|part| part.split_inclusive('\n'))
        .map(|part| {
            let word = part.trim_end();
            tenth(word).map_or_else(|| part.to_owned(), |shorter| part.replace(word, &shorter))
        })
        .collect()
}

#[test]
fn divides_only_times_by_ten() {
    let shorter = a_tenth("a: 15s\nb: {value: 2, period: 60s}\nc: {w: 10m, x: 0s} # 3 models\n");
    assert_eq!(shorter, "a: 2s\nb: {value: 2, period: 6s}\nc: {w: 60s, x: 0s} # 3 models\n");
}

/// A profile in `config/samples`, and the expected scaling with it.
#[derive(Clone, Copy, Debug)]
struct Expected {
    profile: &'static str,
    /// ServingGroups that may be added per period, independent of the current count.
    step: i64,
    /// `true` if the surplus is removed within three scale-down windows after the backlog is gone.
    settles: bool,
}

/// The load of ten ServingGroups arrives at once. One ServingGroup exists, and each new one takes a minute to
/// load, here a tenth of that.
#[rstest]
#[case::shipped(Expected { profile: "autoscaling-profile", step: 2, settles: false })]
#[case::for_steps(Expected { profile: "autoscaling-profile-steps", step: 8, settles: true })]
#[tokio::test]
async fn scales_for_a_step_of_load_while_models_load_slowly(#[case] expected: Expected) {
    assert!(is_in_namespace(), "run `make soak`: this needs a network namespace");
    let Expected { profile, .. } = expected;
    let mut settings = ChainSettings::quick(env!("CARGO_BIN_EXE_kthena-keda"));
    settings.profile = a_tenth(&sample_profile(profile));
    settings.engine = EngineSettings {
        concurrency: 10,
        token_time: Duration::from_millis(100),
        ..EngineSettings::default()
    };
    let chain = Chain::start(&settings).await;
    let max = MAX.to_string();
    let chat = chain
        .model_with("step", |builder| {
            builder.loading("6s").annotated("autoscaling.kthena.io/max-replicas", &max)
        })
        .await;
    chat.serves(&chain).await;
    chat.keda_says("Ready", "True").await;

    let load = engine::Load::start(LoadSettings {
        router: chain.router.url.clone(),
        model: chat.name.clone(),
        tokens: 50,
        most_requests: 200_000,
    });
    let mut recorder = Recorder::default();
    load.arrive(PER_SECOND, MOST_IN_FLIGHT);
    let (mut gone, limit) = (None::<Instant>, Instant::now() + Duration::from_mins(12));
    while gone.is_none_or(|gone| gone.elapsed() < 3 * SCALE_DOWN_WINDOW) {
        let sample = recorder.look(&chain, &chat, &load).await;
        assert!(Instant::now() < limit, "the backlog is not gone yet: {sample:?}");
        // Slightly more than the requests in flight when every request is served at once.
        let served_at_once = usize::try_from(NEED * 12).unwrap();
        if gone.is_none() && sample.at > Duration::from_secs(20) && sample.load <= served_at_once {
            gone = Some(Instant::now());
            recorder.mark("backlog gone");
        }
        sleep(Duration::from_millis(500)).await;
    }
    let title = format!("The load of ten ServingGroups arrives at once ({profile}); times divided by ten");
    let picture = Picture { title: &title, level: Some((NEED as f64, "need")) };
    draw(&recorder, picture, &root().join("target/demo").join(profile));
    assert_scaling(&recorder, expected);
}

fn assert_scaling(recorder: &Recorder, expected: Expected) {
    let peak = recorder.samples.iter().map(|sample| sample.wanted).max().unwrap();
    let last = recorder.samples.last().unwrap().wanted;
    println!(
        "{}: peak {peak} for a need of {NEED}, {:.1} times; {last} wanted at the end",
        expected.profile,
        peak as f64 / NEED as f64
    );
    assert!(peak <= MAX);
    for (i, sample) in recorder.samples.iter().enumerate() {
        let since = sample.at.saturating_sub(SCALE_UP_PERIOD);
        let base = recorder.samples[..i]
            .iter()
            .filter(|before| before.at >= since)
            .map(|before| before.wanted)
            .min()
            .unwrap_or(sample.wanted);
        assert!(
            sample.wanted <= (2 * base).max(base + expected.step),
            "from {base} to {} within a period, at {:?}",
            sample.wanted,
            sample.at
        );
    }
    let is_settled = (last - NEED).abs() <= NEED / 5;
    assert!(
        is_settled || !expected.settles,
        "{last} are wanted three scale-down windows after the backlog is gone"
    );
}

/// The shipped intervals, except for the cooldown before a model scales to zero.
const SHORT_COOLDOWN: &str = "
apiVersion: autoscaling.kthena.io/v1alpha1
kind: AutoscalingProfile
metadata: {name: default}
spec:
  scaleToZero: {cooldown: 30s, initialCooldown: 30s}
";

/// A scrape, a poll and the creation of pods.
const A_MINUTE: Duration = Duration::from_mins(1);
/// The longest range of a query, and a margin.
const LOOK_BACK: Duration = Duration::from_secs(150);

/// Waits until the model has no ServingGroup and no pod, and gives the router 2 s to notice; a request to the
/// router would wake the model.
async fn scales_to_zero(chat: &Model) {
    chat.wants_replicas_within(LOOK_BACK + 2 * A_MINUTE, 0).await;
    chat.has_replicas(0).await;
    let pods = chat.serving.namespace.api(&kinds::pod());
    until_asked(
        "its pods are gone",
        async || pods.list(&ListParams::default()).await.unwrap().items.len(),
        |count| *count == 0,
    )
    .await;
    sleep(Duration::from_secs(2)).await;
}

#[tokio::test]
async fn a_request_wakes_a_model_at_zero_and_an_empty_prometheus_does_not() {
    assert!(is_in_namespace(), "run `make soak`: this needs a network namespace");
    let mut settings = ChainSettings::quick(env!("CARGO_BIN_EXE_kthena-keda"));
    SHORT_COOLDOWN.clone_into(&mut settings.profile);
    settings.hpa_sync_seconds = 15;
    settings.prometheus.lookback_seconds = 300;
    let mut chain = Chain::start(&settings).await;
    let chat = chain
        .model_with("sleepy", |builder| builder.annotated("autoscaling.kthena.io/min-replicas", "0"))
        .await;
    chat.serves(&chain).await;
    // No more requests are sent. Those of the first minutes count as demand until they leave the range of the
    // queries.
    scales_to_zero(&chat).await;

    // Exactly one request, which fails and is not retried.
    let once = LoadSettings {
        router: chain.router.url.clone(),
        model: chat.name.clone(),
        tokens: 1,
        most_requests: 1,
    };
    let load = engine::Load::start(once);
    load.hold(1);
    chat.wants_replicas_within(A_MINUTE, 1).await;
    let counts = load.counts();
    assert_eq!((counts.sent, counts.served, counts.failed), (1, 0, 1));
    chat.has_replicas(1).await;
    chat.serves(&chain).await;

    // A Prometheus that has lost its data does not wake the model from zero.
    scales_to_zero(&chat).await;
    chain.prometheus.server.kill();
    chain.prometheus.forget();
    chain.prometheus.server.start();
    chat.keeps_replicas(0, LOOK_BACK + A_MINUTE).await;
}
