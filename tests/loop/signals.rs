//! Every signal scales a model, on the series of the real router and of the mock engines.

use std::time::Duration;

use engine::{Dialect, Engine, EngineSettings, Load, LoadSettings};
use harness::{Chain, Model, ModelServingBuilder, neighbours::Router, objects, wait::until_asked};
use rstest::rstest;
use serde_json::json;

use super::shared::{SETTLED, chain};

const SIGNALS: &str = "autoscaling.kthena.io/signals";

/// The window of rates, the time until there is one after Prometheus started, and some more.
const RATES: Duration = Duration::from_mins(6);

/// Longer than any test, so that a request stays where the router sent it.
const ENDLESS: u32 = 100_000;

fn by(signals: &str) -> impl FnOnce(ModelServingBuilder) -> ModelServingBuilder {
    move |builder| builder.annotated(SIGNALS, signals)
}

fn engine(concurrency: usize, dialect: Dialect) -> Engine {
    Engine::start(EngineSettings { concurrency, dialect, ..EngineSettings::default() })
}

/// The pods declare no port, and their engine and port are the ModelServer's to tell.
#[rstest]
// Of 10 requests 4 run and 6 wait.
#[case::vllm_queue("engine-queue=3", Dialect::Vllm, 4, 10, 2)]
#[case::sglang_queue("engine-queue=3", Dialect::Sglang, 4, 10, 2)]
#[case::vllm_running("engine-running=4", Dialect::Vllm, 100, 12, 3)]
#[case::sglang_running("engine-running=4", Dialect::Sglang, 100, 12, 3)]
// The mock's cache is as full as its slots are taken: 8 of 10.
#[case::vllm_cache("kv-cache=0.4", Dialect::Vllm, 10, 8, 2)]
#[case::sglang_cache("kv-cache=0.4", Dialect::Sglang, 10, 8, 2)]
#[tokio::test]
async fn of_the_engines(
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
    let load = chain.load_of(&name, ENDLESS);
    load.hold(requests);
    chat.has_replicas(replicas).await;
    chat.keeps_replicas(replicas, SETTLED).await;
    load.hold(0);
    chat.has_replicas(1).await;
}

#[tokio::test]
async fn whoever_asks_for_the_most_counts() {
    let Some(chain) = chain().await else { return };
    let chat = chain.model_with("several", by("active-requests=10,engine-running=4")).await;
    chat.serves(chain).await;
    let load = chain.load_of("several", ENDLESS);
    // 2 by the router's count, 3 by the engines'.
    load.hold(12);
    chat.has_replicas(3).await;
    chat.keeps_replicas(3, SETTLED).await;
    chat.serving.annotate(&[(SIGNALS, Some("active-requests=2,engine-running=4"))]).await;
    chat.has_replicas(6).await;
    load.hold(0);
    chat.has_replicas(1).await;
}

#[tokio::test]
async fn a_pod_of_many_containers_and_ports_is_scraped_once() {
    let Some(chain) = chain().await else { return };
    let chat = chain.model_with("crowded", |builder| by("engine-running=4")(builder.crowded())).await;
    chat.serves(chain).await;
    let load = chain.load_of("crowded", ENDLESS);
    load.hold(10);
    chat.has_replicas(3).await;
    let of_chat =
        format!("{{namespace=\"{}\",modelserving_volcano_sh_name=\"chat\"}}", chat.serving.namespace.name);
    // Once pods of all three ServingGroups are seen, there are three targets.
    let all_seen = format!(
        "count(count by (modelserving_volcano_sh_group_name) (vllm:num_requests_running{of_chat})) == 3"
    );
    chain.prometheus.until(&all_seen, |count| count.is_some()).await;
    for metric in ["up", "vllm:num_requests_running"] {
        assert_eq!(chain.prometheus.query(&format!("count({metric}{of_chat})")).await, Some(3.0), "{metric}");
    }
    chat.keeps_replicas(3, SETTLED).await;
}

/// A router that lets five requests of a model in at a time, and has the others queue.
async fn queueing_router(chain: &Chain, chat: &Model) -> Router {
    let fairness = [
        ("ENABLE_FAIRNESS_SCHEDULING", "true"),
        ("FAIRNESS_MAX_CONCURRENT", "5"),
        ("FAIRNESS_QUEUE_TIMEOUT", "10m"),
    ];
    Router::start_with(&chain.stack.control_plane, chat.client(), "kthena-router-fair", &fairness).await
}

#[tokio::test]
async fn requests_that_queue_in_the_router() {
    let Some(chain) = chain().await else { return };
    let chat = chain.model_with("queued", by("queued-requests=4")).await;
    chat.serves(chain).await;
    let router = queueing_router(chain, &chat).await;
    let load = Load::start(LoadSettings {
        router: router.url.clone(),
        model: chat.name.clone(),
        tokens: ENDLESS,
        most_requests: 1000,
    });
    // 12 of them queue.
    load.hold(17);
    chat.has_replicas(3).await;
    chat.keeps_replicas(3, SETTLED).await;
    load.hold(0);
    chat.has_replicas(1).await;
}

#[rstest]
// Clients that wait a second for each answer of 100 tokens.
#[case::requests("request-rate=2", 6)]
#[case::tokens("output-tokens=200", 6)]
#[tokio::test]
async fn rates(#[case] signal: &str, #[case] clients: usize) {
    let Some(chain) = chain().await else { return };
    let name = signal.replace('=', "-");
    let chat = chain.model_with(&name, by(signal)).await;
    chat.serves(chain).await;
    let load = chain.load_of(&name, 100);
    load.hold(clients);
    chat.wants_replicas_within(RATES, 3).await;
    chat.keeps_replicas(3, SETTLED).await;
    load.hold(0);
    chat.wants_replicas_within(RATES, 1).await;
}

#[tokio::test]
async fn a_query_of_the_platform_teams_own() {
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

/// A level is no total: as long as it is too high the count is multiplied, up to the maximum.
#[tokio::test]
async fn a_level_of_the_platform_teams_own() {
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

/// The quick profile of this chain, with these settings.
pub async fn profile(chain: &Chain, name: &str, settings: &serde_json::Value) -> String {
    let quick = harness::ChainSettings::quick(super::shared::BINARY).profile;
    let mut profile: serde_json::Value = serde_saphyr::from_str(&quick).unwrap();
    profile["metadata"]["name"] = json!(name);
    profile["spec"].as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    objects::apply(&chain.stack.client().await, profile).await;
    name.to_owned()
}

/// A Prometheus that wants a client certificate, a password and TLS, asked by KEDA with credentials that it looks up.
#[tokio::test]
async fn from_a_prometheus_that_lets_nobody_in_without_credentials() {
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
    // The operator itself has none: its own check cannot run, and that is no reason to call a model badly scaled.
    chat.serving
        .within(Duration::from_secs(90))
        .says("Scaling", "the operator could not check the signals")
        .await;
    // Without them it is not let in, and holds.
    chat.serving
        .annotate(&[("autoscaling.kthena.io/profile", Some(&barred(chain, &guarded.url).await))])
        .await;
    chat.keda_says("Ready", "False").await;
    load.hold(0);
    chat.keeps_replicas(3, SETTLED).await;
    let log = async || chain.keda.operator.log();
    until_asked("KEDA says why", log, |log| log.contains("certificate") || log.contains("tls")).await;
}

async fn barred(chain: &Chain, url: &str) -> String {
    profile(chain, "barred", &json!({"prometheus": {"url": url, "unsafeSsl": true}})).await
}

/// Nothing divided by nothing is no number, and no reason to scale in.
#[tokio::test]
async fn a_query_that_answers_no_number_holds() {
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
