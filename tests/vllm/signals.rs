//! Scaling by each signal of the engines, with real series.

use engine::{Load, LoadSettings};

use super::shared::{ENDLESS, Engines, engine, seconds};

/// A signal, an engine and a load that needs more than one ServingGroup.
struct Case {
    signal: &'static str,
    slots: usize,
    cache: &'static str,
    token_seconds: &'static str,
    /// Requests in flight, and the words of their prompts.
    load: (usize, usize),
    expected: i64,
}

const CASES: [Case; 3] = [
    // 4 of 10 requests run, and 6 wait.
    Case {
        signal: "engine-queue=3",
        slots: 4,
        cache: "64M",
        token_seconds: "0.05",
        load: (10, 1),
        expected: 2,
    },
    Case {
        signal: "engine-running=4",
        slots: 16,
        cache: "64M",
        token_seconds: "0.05",
        load: (11, 1),
        expected: 3,
    },
    // 8 requests with prompts of 1600 tokens take 400 of the 640 blocks of 32 tokens.
    Case { signal: "kv-cache=0.4", slots: 16, cache: "20M", token_seconds: "1", load: (8, 800), expected: 2 },
];

#[tokio::test]
async fn scales_by_engine_signals() {
    let Some(engines) = Engines::quick().await else { return };
    for Case { signal, slots, cache, token_seconds, load: (requests, prompt), expected } in CASES {
        let config = format!("{{\"seconds_per_token\": {token_seconds}}}");
        let settings = engine(slots, cache, &["--additional-config", &config]);
        let name = signal.replace(['=', '.'], "-");
        let by_signal = |builder: harness::ModelServingBuilder| {
            builder.annotated("autoscaling.kthena.io/signals", signal)
        };
        let chat = engines.model(&name, &settings, by_signal).await;
        let settings = LoadSettings {
            router: engines.chain.router.url.clone(),
            model: name,
            tokens: ENDLESS,
            most_requests: 1000,
        };
        let load = Load::with_prompts(settings, prompt);
        load.hold(requests);
        engines.has_ready(&chat, expected).await;
        let selector = format!("{{namespace=\"{}\"}}", chat.serving.namespace.name);
        for metric in ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"] {
            let values = engines.chain.prometheus.query(&format!("sum(vllm:{metric}{selector})")).await;
            println!("{signal}: sum of vllm:{metric}: {values:?}");
        }
        load.hold(0);
        engines.has_ready(&chat, 1).await;
        println!(
            "{signal}: scaled to {expected} and back; loading times: {}",
            seconds(&engines.loading_times())
        );
        engines.delete(&chat).await;
    }
}
