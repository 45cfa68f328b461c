//! Scaling by each signal, with the series of the real router and of mock engines.

use std::time::Duration;

use engine::{Dialect, Engine, EngineSettings, Load, LoadSettings};
use harness::{
    Chain, Model, ModelServingBuilder,
    neighbours::{Router, RouterSettings},
    objects,
    wait::until_asked,
};
use rstest::rstest;
use serde_json::json;

use super::shared::{SETTLED, chain, explain};

const SIGNALS: &str = "autoscaling.kthena.io/signals";

/// The range of the rates, the time after a start of Prometheus until a rate exists, and a margin.
const RATES: Duration = Duration::from_mins(6);

/// The window of a latency, after which a ServingGroup counts as ready, and a margin.
const LATENCIES: Duration = Duration::from_mins(2);

/// Words of a long prompt.
const PROMPT: usize = 1600;

/// Tokens of an answer that outlasts every test, so that a request stays in flight.
const ENDLESS: u32 = 100_000;

fn by(signals: &str) -> impl FnOnce(ModelServingBuilder) -> ModelServingBuilder {
    move |builder| builder.annotated(SIGNALS, signals)
}

/// An engine with slow tokens and a small KV cache, whose usage follows the number of running requests: the prompt
/// of each takes a tenth.
fn engine(concurrency: usize, dialect: Dialect) -> Engine {
    Engine::start(EngineSettings {
        concurrency,
        dialect,
        token_time: Duration::from_secs(1),
        kv_blocks: 10 * PROMPT / 16,
        ..EngineSettings::default()
    })
}

/// The pods declare no port; the ModelServer names the engine and the port.
#[rstest]
// 4 of 10 requests run, and 6 wait.
#[case::vllm_queue("engine-queue=3", Dialect::Vllm, 4, 10, 2)]
#[case::sglang_queue("engine-queue=3", Dialect::Sglang, 4, 10, 2)]
#[case::vllm_running("engine-running=4", Dialect::Vllm, 100, 12, 3)]
#[case::sglang_running("engine-running=4", Dialect::Sglang, 100, 12, 3)]
// 7 requests use a tenth of a KV cache each.
#[case::vllm_cache("kv-cache=0.4", Dialect::Vllm, 100, 7, 2)]
#[case::sglang_cache("kv-cache=0.4", Dialect::Sglang, 100, 7, 2)]
#[tokio::test]
async fn scales_by_engine_signals(
    #[case] signal: &str,
    #[case] dialect: Dialect,
    #[case] concurrency: usize,
    #[case] requests: usize,
    #[case] replicas: i64,
) {
    let Some(chain) = chain().await else { return };
    let engine = engine(concurrency, dialect);
    let name = format!("{signal}-{dialect:?}").replace(['=', '.'], "-").to_lowercase();
    let chat = chain.model_on(&engine, &name, by(signal)).await;
    chat.serves(chain).await;
    chat.keda_says("Ready", "True").await;
    let settings = LoadSettings {
        router: chain.router.url.clone(),
        model: name,
        tokens: ENDLESS,
        most_requests: 20_000,
    };
    let load = Load::with_prompts(settings, PROMPT);
    load.hold(requests);
    chat.has_replicas(replicas).await;
    chat.keeps_replicas(replicas, SETTLED).await;
    load.hold(0);
    chat.has_replicas(1).await;
}

/// Two of eight requests run at a time and take 2 s each, so most wait for 6 s. The objective is 2 s.
#[tokio::test]
async fn scales_by_the_time_to_the_first_token() {
    let Some(chain) = chain().await else { return };
    let engine = Engine::start(EngineSettings {
        concurrency: 2,
        token_time: Duration::from_millis(100),
        ..EngineSettings::default()
    });
    let chat = chain.model_on(&engine, "slow", by("active-requests=100,ttft-p90=2s")).await;
    chat.serves(chain).await;
    chat.keda_says("Ready", "True").await;
    let load = chain.load_of("slow", 20);
    load.hold(8);
    // Four times the one that is ready, and no more while the others have not been ready for a window.
    chat.wants_replicas_within(LATENCIES, 4).await;
    chat.keeps_replicas(4, SETTLED).await;
    let (report, _) = explain(chain, &chat);
    let signal =
        report["signals"].as_array().unwrap().iter().find(|signal| signal["name"] == "ttft-p90").unwrap();
    assert_eq!(
        (&signal["target"], &signal["latency"]["objective"]),
        (&json!("0.5"), &json!("2s")),
        "{signal:#}"
    );
    assert!(signal["latency"]["p90Seconds"].as_f64().is_some_and(|p90| p90 > 2.0), "{signal:#}");
    load.hold(0);
    chat.wants_replicas_within(LATENCIES, 1).await;
}

#[tokio::test]
async fn scales_by_the_signal_that_needs_the_most() {
    let Some(chain) = chain().await else { return };
    let chat = chain.model_with("several", by("active-requests=10,engine-running=4")).await;
    chat.serves(chain).await;
    let load = chain.load_of("several", ENDLESS);
    // active-requests needs 2 ServingGroups, engine-running needs 3.
    load.hold(12);
    chat.has_replicas(3).await;
    chat.keeps_replicas(3, SETTLED).await;
    chat.serving.annotate(&[(SIGNALS, Some("active-requests=2,engine-running=4"))]).await;
    chat.has_replicas(6).await;
    load.hold(0);
    chat.has_replicas(1).await;
}

#[tokio::test]
async fn scrapes_a_pod_with_many_containers_and_ports_once() {
    let Some(chain) = chain().await else { return };
    let chat = chain.model_with("crowded", |builder| by("engine-running=4")(builder.crowded())).await;
    chat.serves(chain).await;
    let load = chain.load_of("crowded", ENDLESS);
    load.hold(10);
    chat.has_replicas(3).await;
    let matchers =
        format!("{{namespace=\"{}\",modelserving_volcano_sh_name=\"chat\"}}", chat.serving.namespace.name);
    // Prometheus has series of all three ServingGroups, so there are three targets.
    let all_scraped = format!(
        "count(count by (modelserving_volcano_sh_group_name) (vllm:num_requests_running{matchers})) == 3"
    );
    chain.prometheus.until(&all_scraped, |count| count.is_some()).await;
    for metric in ["up", "vllm:num_requests_running"] {
        assert_eq!(
            chain.prometheus.query(&format!("count({metric}{matchers})")).await,
            Some(3.0),
            "{metric}"
        );
    }
    chat.keeps_replicas(3, SETTLED).await;
}

/// Series of other metrics, of the router, and of another model by its labels: `count` of each.
fn intruding(count: usize) -> String {
    let labels = "namespace=\"victim\",pod=\"victim\",modelserving_volcano_sh_name=\"victim\"";
    let series = |i: usize| {
        format!(
            "intruder{{i=\"{i}\"}} 1\nkthena_router_active_downstream_requests{{model=\"m\",i=\"{i}\",namespace=\"kthena-system\"}} 1\nvllm:num_requests_running{{i=\"{i}\",{labels}}} 0\n"
        )
    };
    (0..count).map(series).collect()
}

fn intruder(count: usize) -> Engine {
    Engine::start(EngineSettings { extra_metrics: intruding(count), ..EngineSettings::default() })
}

/// An engine adds nothing to Prometheus but a bounded number of series that the queries read, under its own name.
#[tokio::test]
async fn keeps_series_of_engines_that_no_query_reads_out_of_prometheus() {
    let Some(chain) = chain().await else { return };
    let engine = intruder(1000);
    let chat = chain.model_on(&engine, "intruder", by("engine-running=4")).await;
    let namespace = &chat.serving.namespace.name;
    let own = format!("namespace=\"{namespace}\",modelserving_volcano_sh_name=\"chat\"");
    // 1000 series, and the engine's own.
    let running = format!("count(vllm:num_requests_running{{{own}}})");
    chain.prometheus.until(&running, |count| count == Some(1001.0)).await;
    let strange = [
        format!("count({{__name__!~\"up|scrape_.*|vllm:num_requests_running\",{own}}})"),
        "count(intruder)".to_owned(),
        "count({modelserving_volcano_sh_name=\"victim\"})".to_owned(),
        "count({pod=\"victim\"})".to_owned(),
        "count(kthena_router_active_downstream_requests{i!=\"\"})".to_owned(),
    ];
    for query in strange {
        assert_eq!(chain.prometheus.query(&query).await, None, "{query}");
    }

    // A scrape with more samples of the metrics that are read fails as a whole.
    let engine = intruder(2000);
    let greedy = chain.model_on(&engine, "greedy", by("engine-running=4")).await;
    let own =
        format!("namespace=\"{}\",modelserving_volcano_sh_name=\"chat\"", greedy.serving.namespace.name);
    chain.prometheus.until(&format!("max(up{{{own}}})"), |up| up == Some(0.0)).await;
    assert_eq!(chain.prometheus.query(&format!("count(vllm:num_requests_running{{{own}}})")).await, None);
}

/// A router that forwards five requests of a model at a time and queues the others.
pub async fn queueing_router(chain: &Chain, chat: &Model, name: &'static str) -> Router {
    let fairness = [
        ("ENABLE_FAIRNESS_SCHEDULING", "true"),
        ("FAIRNESS_MAX_CONCURRENT", "5"),
        ("FAIRNESS_QUEUE_TIMEOUT", "10m"),
    ];
    let settings = RouterSettings { environment: &fairness, ..RouterSettings::default() };
    Router::start_with(&chain.stack.control_plane, chat.client(), name, settings).await
}

#[tokio::test]
async fn scales_by_requests_queued_in_the_router() {
    let Some(chain) = chain().await else { return };
    let chat = chain.model_with("queued", by("queued-requests=4")).await;
    chat.serves(chain).await;
    let router = queueing_router(chain, &chat, "kthena-router-fair").await;
    let load = Load::start(LoadSettings {
        router: router.url.clone(),
        model: chat.name.clone(),
        tokens: ENDLESS,
        most_requests: 1000,
    });
    // 12 of the 17 requests queue.
    load.hold(17);
    chat.has_replicas(3).await;
    chat.keeps_replicas(3, SETTLED).await;
    load.hold(0);
    chat.has_replicas(1).await;
}

#[rstest]
// Each client waits a second for an answer of 100 tokens, and up to twice as long on a busy machine.
#[case::requests("request-rate=2", 4)]
#[case::tokens("output-tokens=200", 4)]
#[tokio::test]
async fn scales_by_rates(#[case] signal: &str, #[case] clients: usize) {
    let Some(chain) = chain().await else { return };
    let name = signal.replace('=', "-");
    let chat = chain.model_with(&name, by(signal)).await;
    chat.serves(chain).await;
    let load = chain.load_of(&name, 100);
    load.hold(clients);
    chat.wants_replicas_within(RATES, 2).await;
    chat.keeps_replicas(2, SETTLED).await;
    load.hold(0);
    chat.wants_replicas_within(RATES, 1).await;
}

#[tokio::test]
async fn scales_by_a_custom_signal() {
    let Some(chain) = chain().await else { return };
    let query = "sum(kthena_router_active_downstream_requests{model=~{{model}}})";
    let signals = json!([{"name": "own", "query": query, "target": "5"}]);
    let profile = profile(chain, "own-query", &json!({"signals": [], "customSignals": signals})).await;
    let chat = chain
        .model_with("own,own-adapter", |builder| builder.annotated("autoscaling.kthena.io/profile", &profile))
        .await;
    let loads = ["own", "own-adapter"].map(|name| chain.load_of(name, ENDLESS));
    for load in &loads {
        load.hold(7);
    }
    chat.has_replicas(3).await;
    chat.keeps_replicas(3, SETTLED).await;
    for load in &loads {
        load.hold(0);
    }
    chat.has_replicas(1).await;
}

/// The HPA multiplies the count as long as a Value metric is above its target, up to the maximum.
#[tokio::test]
async fn scales_by_a_custom_signal_of_type_value() {
    let Some(chain) = chain().await else { return };
    let query = "sum(kthena_router_active_downstream_requests{model={{model}}}) or vector(0)";
    let signals = json!([{"name": "level", "query": query, "target": "10", "metricType": "Value"}]);
    let settings = json!({"replicas": {"max": 4}, "signals": [], "customSignals": signals});
    let profile = profile(chain, "own-level", &settings).await;
    let chat = chain
        .model_with("level", |builder| builder.annotated("autoscaling.kthena.io/profile", &profile))
        .await;
    chat.serves(chain).await;
    let load = chain.load_of("level", ENDLESS);
    load.hold(20);
    chat.has_replicas(4).await;
    load.hold(0);
    chat.has_replicas(1).await;
}

/// Creates a profile with the quick settings of this chain and `settings`, and returns its name.
pub async fn profile(chain: &Chain, name: &str, settings: &serde_json::Value) -> String {
    let quick = harness::ChainSettings::quick(super::shared::BINARY).profile;
    let mut profile: serde_json::Value = serde_saphyr::from_str(&quick).unwrap();
    profile["metadata"]["name"] = json!(name);
    profile["spec"].as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    objects::apply(&chain.stack.client().await, profile).await;
    name.to_owned()
}

/// Prometheus requires TLS, a client certificate and a password; KEDA reads the credentials from a
/// `ClusterTriggerAuthentication`.
#[tokio::test]
async fn scales_with_a_prometheus_that_requires_credentials() {
    let Some(chain) = chain().await else { return };
    let client = chain.stack.client().await;
    let guarded = chain.prometheus.guarded(&chain.stack.control_plane).await;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "prometheus", "namespace": "keda"}, "stringData": guarded.credentials,
    });
    objects::apply(&client, secret).await;
    let parameters: Vec<_> = ["username", "password", "ca", "cert", "key"]
        .into_iter()
        .map(|key| json!({"parameter": key, "name": "prometheus", "key": key}))
        .collect();
    let authentication = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ClusterTriggerAuthentication", "metadata": {"name": "prometheus"},
        "spec": {"secretTargetRef": parameters},
    });
    objects::apply(&client, authentication).await;
    let prometheus = json!({
        "url": guarded.url, "authenticationRef": {"name": "prometheus"}, "authModes": ["tls", "basic"], "headers": {"X-Scope-OrgID": "team-a"},
    });
    let profile = profile(chain, "guarded", &json!({"prometheus": prometheus})).await;
    let chat = chain
        .model_with("guarded", |builder| builder.annotated("autoscaling.kthena.io/profile", &profile))
        .await;
    chat.serves(chain).await;
    chat.keda_says("Ready", "True").await;
    let load = chain.load(&chat);
    load.hold(27);
    chat.has_replicas(3).await;
    // The operator has no credentials for its own signal check; the condition stays Scaling and reports that.
    chat.serving.within(Duration::from_secs(90)).says("Scaling", "Prometheus could not be queried").await;
    // Without credentials KEDA gets no data, and the count stays.
    chat.serving
        .annotate(&[(
            "autoscaling.kthena.io/profile",
            Some(&profile_without_credentials(chain, &guarded.url).await),
        )])
        .await;
    chat.keda_says("Ready", "False").await;
    load.hold(0);
    chat.keeps_replicas(3, SETTLED).await;
    let log = async || chain.keda.operator.log();
    until_asked("KEDA logs a TLS error", log, |log| log.contains("certificate") || log.contains("tls")).await;
}

async fn profile_without_credentials(chain: &Chain, url: &str) -> String {
    profile(chain, "no-credentials", &json!({"prometheus": {"url": url, "unsafeSsl": true}})).await
}

/// 0 / 0 is NaN, which must not scale a model in.
#[tokio::test]
async fn keeps_replicas_while_a_query_returns_nan() {
    let Some(chain) = chain().await else { return };
    let query = "sum(kthena_router_active_downstream_requests{model=~{{model}}}) / (sum(kthena_router_active_downstream_requests{model=~{{model}}}) > bool 0)";
    let signals = json!([{"name": "ratio", "query": query, "target": "1"}]);
    let profile = profile(chain, "no-number", &json!({"signals": [], "customSignals": signals})).await;
    let chat = chain
        .model_with("no-number", |builder| builder.annotated("autoscaling.kthena.io/profile", &profile))
        .await;
    chat.serves(chain).await;
    let load = chain.load_of("no-number", ENDLESS);
    load.hold(3);
    chat.has_replicas(3).await;
    load.hold(0);
    chat.serving.says("ScaledObjectNotReady", "KEDA reports TriggerError").await;
    chat.keeps_replicas(3, SETTLED).await;
}
