//! A step of load while real engines load.

use std::{fmt::Write as _, fs, time::Duration};

use demo::{Picture, Recorder, draw_beside};
use engine::{Load, LoadSettings};
use harness::{ChainSettings, stack::root};
use tokio::time::{Instant, sleep};

use super::shared::{BINARY, Engines, engine, seconds};

/// ServingGroups that the load needs: 0.6 requests a second, each of which takes 10 s or, on a busy machine, a bit
/// more of a quarter of a ServingGroup.
const NEED: i64 = 2;
/// Maximum number of ServingGroups, which the memory of the machine limits: an engine needs almost 1 GB.
const MAX: &str = "6";
const SLOTS: usize = 4;
/// 10 s at 50 ms each.
const TOKENS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(1600);
const MOST_IN_FLIGHT: usize = 100;

/// The shipped profile with the times of scaling up divided by three, as a start takes about 20 s instead of a minute,
/// and those of scaling down by six.
const PROFILE: &str = "
apiVersion: autoscaling.kthena.io/v1alpha1
kind: AutoscalingProfile
metadata: {name: default}
spec:
  signals: [{name: active-requests, target: \"4\"}]
  pollingInterval: 5s
  scaleUp: {policies: [{type: Pods, value: 2, period: 20s}, {type: Percent, value: 100, period: 20s}]}
  scaleDown: {stabilizationWindow: 100s, policies: [{type: Pods, value: 1, period: 20s}]}
  monitors: {interval: 5s}
";

/// The step, and the time until the surplus is removed.
const DURATION: Duration = Duration::from_mins(5);

/// A further field of the profile's spec; its name labels the results.
struct Variant {
    name: &'static str,
    field: &'static str,
}

const VARIANTS: [Variant; 2] = [
    Variant { name: "off", field: "backlog: {serviceTime: \"off\"}" },
    Variant { name: "10s", field: "backlog: {serviceTime: 10s}" },
];

/// The same step with all requests in flight as the signal, and with a bounded backlog. `VLLM_FIELD` replaces the
/// variants by one with this field, as YAML.
#[tokio::test]
async fn scales_for_a_step_of_load() {
    let mut recordings = Vec::new();
    let own = std::env::var("VLLM_FIELD").ok();
    let variants = match &own {
        Some(field) => vec![("own", field.as_str())],
        None => VARIANTS.iter().map(|variant| (variant.name, variant.field)).collect(),
    };
    for (name, field) in variants {
        let Some(recorder) = run(name, field).await else { return };
        recordings.push((format!("service time {name}"), recorder));
    }
    let pictures: Vec<_> = recordings
        .iter()
        .map(|(title, recorder)| (recorder, Picture { title, level: Some((NEED as f64, "need")) }))
        .collect();
    draw_beside(&pictures, &root().join("target/vllm/step"));
}

async fn run(name: &str, field: &str) -> Option<Recorder> {
    let mut settings = ChainSettings::quick(BINARY);
    settings.profile = format!("{PROFILE}  {field}\n");
    settings.hpa_sync_seconds = 5;
    settings.prometheus.lookback_seconds = 60;
    let engines = Engines::start(&settings).await?;
    let maximum = "autoscaling.kthena.io/max-replicas";
    let chat =
        engines.model("step", &engine(SLOTS, "64M", &[]), |builder| builder.annotated(maximum, MAX)).await;
    let load = Load::start(LoadSettings {
        router: engines.chain.router.url.clone(),
        model: chat.name.clone(),
        tokens: TOKENS,
        most_requests: 10_000,
    });
    let mut recorder = Recorder::default();
    load.arrive_every(PAUSE, MOST_IN_FLIGHT);
    let started = Instant::now();
    while started.elapsed() < DURATION {
        recorder.look(&engines.chain, &chat, &load).await;
        sleep(Duration::from_millis(500)).await;
    }
    let summary = summary(&recorder, &load, &engines);
    println!("service time {name}:\n{summary}");
    let folder = root().join("target/vllm");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("step-{name}.txt")), &summary).unwrap();
    Some(recorder)
}

/// Measures of a run, one per line.
fn summary(recorder: &Recorder, load: &Load, engines: &Engines) -> String {
    let samples = &recorder.samples;
    let peak = samples.iter().map(|sample| sample.wanted).max().unwrap();
    let group_seconds: f64 = samples
        .windows(2)
        .map(|pair| pair[0].wanted as f64 * pair[1].at.saturating_sub(pair[0].at).as_secs_f64())
        .sum();
    let mut waits = load.waits();
    waits.sort();
    let quantile = |percent: usize| waits[(waits.len() - 1) * percent / 100].as_secs_f64();
    let mean = waits.iter().sum::<Duration>().as_secs_f64() / waits.len() as f64;
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "peak {peak} for a need of {NEED}: {:.1} times", peak as f64 / NEED as f64);
    let _ = writeln!(
        text,
        "time to the first token: mean {mean:.1} s, P50 {:.1} s, P95 {:.1} s, P99 {:.1} s, {} requests",
        quantile(50),
        quantile(95),
        quantile(99),
        waits.len()
    );
    let _ = writeln!(text, "group hours: {:.3}", group_seconds / 3600.0);
    let _ = writeln!(text, "requests: {:?}", load.counts());
    let _ = writeln!(text, "loading times: {}", seconds(&engines.loading_times()));
    text
}
