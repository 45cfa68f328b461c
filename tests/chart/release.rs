//! Life cycle of a release: installation, scaling, loss of the leader, upgrade and uninstallation.

use std::fs;

use harness::{
    Chain, ChainSettings, Crds, Model, Release, Stack,
    audit::summary,
    chain::can_run,
    kinds,
    release::RELEASE,
    stack::resource,
    wait::{until, until_asked},
};
use kube::{Api, api::DynamicObject};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_kthena-keda");

/// Dashboard panels that are empty on a healthy system, or need a scrape of another component.
const EMPTY_WHEN_HEALTHY: [&str; 7] = [
    "Not ready",
    "Not ready, by name",
    "Unknown",
    "KEDA's errors, by ScaledObject",
    "What KEDA reads, by signal",
    "Events dropped",
    "Errors, by class",
];
/// Panels on stand-ins, which are off by default: they have no data here.
const OF_STAND_INS: [&str; 3] =
    ["Requests that wait for a model", "Handed over and refused", "Time until the hand-over"];

/// Values with the Prometheus URL and short intervals, because the result of a check before the first scrape
/// stays until the next check.
fn values(chain: &Chain, more: &[&str]) -> Vec<String> {
    let base = [
        format!("prometheus.url={}", chain.prometheus.url),
        "metrics.serviceMonitor.interval=1s".to_owned(),
        "checkInterval=1".to_owned(),
    ];
    base.into_iter().chain(more.iter().map(|value| (*value).to_owned())).collect()
}

fn writes(chain: &Chain) -> Vec<harness::audit::Request> {
    chain.stack.writes().into_iter().filter(|write| write.object_ref.resource != "leases").collect()
}

/// Without the chart value `roles.enabled` the operator writes only the status of ModelServings.
fn writes_no_spec_of_a_model(chain: &Chain) {
    let writes = writes(chain);
    let of_models: Vec<_> =
        writes.iter().filter(|write| write.object_ref.resource == "modelservings").collect();
    assert!(!of_models.is_empty());
    let others: Vec<String> = of_models
        .iter()
        .filter(|write| write.object_ref.subresource != "status")
        .map(|write| write.describe())
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

async fn leader(chain: &Chain) -> String {
    let leases: Api<DynamicObject> = Api::namespaced_with(
        chain.stack.client().await,
        RELEASE,
        &resource("coordination.k8s.io", "v1", "Lease", "leases"),
    );
    let holder = |found: Option<&DynamicObject>| {
        found?.data["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty()).map(str::to_owned)
    };
    let found = until(&leases, RELEASE, "is held", |found| holder(found).is_some()).await;
    holder(found.as_ref()).unwrap()
}

async fn has_two_replicas(chain: &Chain, release: &Release) {
    let deployments: Api<DynamicObject> = Api::namespaced_with(
        chain.stack.client().await,
        RELEASE,
        &resource("apps", "v1", "Deployment", "deployments"),
    );
    let rolled_out = |found: Option<&DynamicObject>| {
        found.is_some_and(|found| {
            let (status, generation) = (&found.data["status"], found.metadata.generation);
            status["observedGeneration"].as_i64() == generation
                && status["updatedReplicas"] == 2
                && status["replicas"] == 2
                && status["availableReplicas"] == 2
        })
    };
    until(&deployments, RELEASE, "is rolled out", rolled_out).await;
    until_asked("two pods run", async || release.pods().len(), |count| *count == 2).await;
}

#[tokio::test]
async fn a_release_is_installed_fails_over_is_upgraded_and_uninstalled() {
    if !can_run() {
        return;
    }
    let stack = Stack::bare(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let settings = ChainSettings::quick(BINARY);
    let chain = Chain::around(stack, &settings).await;
    let release = Release::prepare(&chain.stack.control_plane, BINARY.as_ref()).await;

    // The chart needs only a Prometheus URL, and installs the CRD.
    let notes = release.upgrade(&values(&chain, &[])).unwrap();
    assert!(notes.contains("kubectl get scaledobjects") && notes.contains("kthena.io/model-name"), "{notes}");
    has_two_replicas(&chain, &release).await;
    chain.apply_profile(&settings.profile).await;
    let chat = chain.model("chat").await;
    chat.hpa().await;
    chain.model_with("in-shadow", |model| model.annotated("autoscaling.kthena.io/shadow", "true")).await;
    // Panels of rates need requests that end.
    let load = chain.load_of(&chat.name, 3000);
    load.hold(25);
    chat.has_replicas(3).await;
    let objectives = "active-requests=10,ttft-p90=10m,itl-p90=10s";
    let measured = chain
        .model_with("measured", |model| model.annotated("autoscaling.kthena.io/signals", objectives))
        .await;
    measured.serves(&chain).await;
    let streams = chain.load_of("measured", 200);
    streams.hold(2);
    every_panel_has_data(&chain, &chat).await;
    drop(streams);

    // The leader is killed while clients wait: the other replica takes over, writes only what is new, and the
    // model continues to scale.
    let (first, before) = (leader(&chain).await, writes(&chain).len());
    release.kill(&first);
    load.hold(45);
    chat.has_replicas(5).await;
    until_asked("another pod leads", async || leader(&chain).await, |holder| *holder != first).await;
    chat.serving.annotate(&[("autoscaling.kthena.io/max-replicas", Some("6"))]).await;
    chat.serving
        .scaled_object_until("has a maximum of 6", |found| found.data["spec"]["maxReplicaCount"] == 6)
        .await;
    load.hold(100);
    chat.has_replicas(6).await;
    let since = writes(&chain).split_off(before);
    let of_scaled_objects = since.iter().filter(|write| write.object_ref.resource == "scaledobjects").count();
    assert_eq!(of_scaled_objects, 1, "one write per change: {:?}\n{}", summary(&since), release.logs());

    writes_no_spec_of_a_model(&chain);

    // An upgrade of the chart starts new pods and changes no object of a model.
    load.hold(25);
    chat.has_replicas(3).await;
    let (kept, before) = (chat.serving.scaled_object().await, writes(&chain).len());
    release.upgrade(&values(&chain, &["log.level=debug"])).unwrap();
    has_two_replicas(&chain, &release).await;
    let pods = release.pods();
    until_asked("a new pod leads", async || leader(&chain).await, |holder| pods.contains(holder)).await;
    let other = chain.model("other").await;
    other.serving.scaled_object().await;
    let since: Vec<_> = writes(&chain)
        .split_off(before)
        .into_iter()
        .filter(|write| write.object_ref.namespace == chat.serving.namespace.name)
        .collect();
    assert!(since.is_empty(), "{:?}\n{}", summary(&since), release.logs());
    assert_eq!(chat.serving.scaled_object().await.metadata.uid, kept.metadata.uid);

    // ScaledObjects, CRDs and profiles stay after an uninstallation, and the models continue to scale.
    release.uninstall().unwrap();
    until_asked("no pod runs", async || release.pods().len(), |count| *count == 0).await;
    load.hold(45);
    chat.has_replicas(5).await;
    assert_eq!(chat.serving.scaled_object().await.metadata.uid, kept.metadata.uid);
    let profiles: Api<DynamicObject> = Api::all_with(chain.stack.client().await, &kinds::profile());
    profiles.get("default").await.expect("the profile stays");
}

/// Runs the queries of the shipped dashboard on the Prometheus that scrapes the release with the
/// ServiceMonitor of the chart.
async fn every_panel_has_data(chain: &Chain, chat: &Model) {
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string("charts/kthena-keda/dashboards/kthena-keda.json").unwrap())
            .unwrap();
    let mut queries = Vec::new();
    collect_queries(&dashboard["panels"], &mut queries);
    assert!(queries.len() > 20, "{queries:?}");
    let one = format!("kthena_router_active_downstream_requests{{model=\"{}\"}}", chat.name);
    chain.prometheus.until(&format!("sum({one})"), |found| found.is_some_and(|found| found > 0.0)).await;
    let panels = queries.into_iter().filter(|(title, _)| !OF_STAND_INS.contains(&title.as_str()));
    for (title, query) in panels {
        // Panels that must have data are queried without their fallback to 0.
        let without_fallback = query.replace(" or on () vector(0)", "");
        let query = if EMPTY_WHEN_HEALTHY.contains(&title.as_str()) { query } else { without_fallback };
        let query = query.replace("$__rate_interval", "30s");
        let values = async || chain.prometheus.values(&query).await;
        let has_data = |values: &Vec<f64>| !values.is_empty() && values.iter().any(|value| value.is_finite());
        until_asked(&format!("{title} has data: {query}"), values, has_data).await;
    }
}

fn collect_queries(panels: &Value, queries: &mut Vec<(String, String)>) {
    for panel in panels.as_array().into_iter().flatten() {
        let title = panel["title"].as_str().unwrap_or_default();
        let of_panel =
            panel["targets"].as_array().into_iter().flatten().filter_map(|target| target["expr"].as_str());
        queries.extend(of_panel.map(|query| (title.to_owned(), query.to_owned())));
        collect_queries(&panel["panels"], queries);
    }
}
