//! A user who may write the objects of one namespace only changes nothing in another, and stops nothing.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use harness::{
    Crds, Identity, ModelServing, Namespace, Process, Settings, Stack, ask, condition, kinds,
    objects::{apply, apply_file},
    wait::until_asked,
};
use kthena_keda_core::domain::printable;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams, PostParams},
};
use rstest::rstest;
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_kthena-keda");
/// User with all permissions on the objects of one namespace that concern models.
const TENANT: Identity = Identity::User("tenant");
/// Longest message of a condition, in bytes.
const MESSAGE_MAX: usize = 2000;
/// Objects that are created in a burst.
const BURST: usize = 300;

/// Models of another team: one is routed and sleeps, the other one has no route.
struct Victim {
    models: Namespace,
    routed: ModelServing,
    unrouted: ModelServing,
}

impl Victim {
    async fn create(stack: &Stack) -> Self {
        let models = stack.namespace().await;
        models.model_server("routed", "routed", 8000).await;
        models.model_route("routed", "routed-name", &[("routed", 100)]).await;
        let routed = models
            .model_serving("routed")
            .opted_in("routed-name")
            .annotated("autoscaling.kthena.io/min-replicas", "0")
            .annotated("autoscaling.kthena.io/signals", "active-requests=7,engine-queue=4");
        let routed = routed.create().await;
        let unrouted = models.model_serving("unrouted").opted_in("unrouted-name").create().await;
        routed.scaled_object().await;
        unrouted.scaled_object().await;
        let victim = Self { models, routed, unrouted };
        until_asked("the victim's PodMonitor", async || victim.objects().await.len(), |found| *found == 3)
            .await;
        victim
    }

    /// Specs and owners of the generated objects, without the maximum.
    async fn objects(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for kind in [kinds::scaled_object(), kinds::pod_monitor()] {
            let found = self.models.api(&kind).list(&ListParams::default()).await.unwrap();
            for mut object in found.items {
                if let Some(max) = object.data.pointer_mut("/spec/maxReplicaCount") {
                    *max = Value::Null;
                }
                all.push(json!([object.name_any(), object.owner_references(), object.data["spec"]]));
            }
        }
        all
    }

    /// Changes the maximum of both models and waits for it in their ScaledObjects.
    async fn follows_a_new_maximum(&self, max: i64) {
        for model in [&self.routed, &self.unrouted] {
            model.annotate(&[("autoscaling.kthena.io/max-replicas", Some(&max.to_string()))]).await;
        }
        for model in [&self.routed, &self.unrouted] {
            model
                .scaled_object_until("has the new maximum", |found| {
                    found.data["spec"]["maxReplicaCount"] == max
                })
                .await;
        }
    }
}

/// A namespace in which the tenant may write, and a client of the tenant.
struct Tenant {
    client: Client,
    namespace: Namespace,
}

impl Tenant {
    async fn create(stack: &Stack) -> Self {
        let namespace = stack.namespace().await;
        let resources = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": ["*"]});
        let rules = json!([
            resources("workload.serving.volcano.sh", &["modelservings", "autoscalingpolicies"]),
            resources("networking.serving.volcano.sh", &["modelroutes", "modelservers"]),
            resources("keda.sh", &["scaledobjects"]),
            resources("monitoring.coreos.com", &["podmonitors", "servicemonitors"]),
            resources("", &["services"]),
        ]);
        let metadata = json!({"name": "tenant", "namespace": namespace.name});
        let api = "rbac.authorization.k8s.io";
        let role =
            json!({"apiVersion": format!("{api}/v1"), "kind": "Role", "metadata": metadata, "rules": rules});
        let binding = json!({
            "apiVersion": format!("{api}/v1"), "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": "tenant"},
            "subjects": [{"apiGroup": api, "kind": "User", "name": TENANT.user()}],
        });
        apply(&namespace.client, role).await;
        apply(&namespace.client, binding).await;
        Self { client: stack.control_plane.client(&TENANT).await, namespace }
    }

    /// Creates an object; `false` if the API server or the admission policy rejects it.
    async fn creates(&self, kind: &ApiResource, mut object: Value) -> bool {
        object["apiVersion"] = json!(kind.api_version);
        object["kind"] = json!(kind.kind);
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace.name, kind);
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) => {
                assert!([400, 413, 422].contains(&status.code), "{status:?}");
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Creates a ModelServing with these annotations.
    async fn model(&self, name: &str, annotations: &Value) -> bool {
        let mut object = serde_json::to_value(self.namespace.model_serving(name).object()).unwrap();
        object["metadata"]["annotations"] = annotations.clone();
        self.creates(&kinds::model_serving(), object).await
    }

    async fn route(&self, name: &str, model: &str, adapters: &[&str]) -> bool {
        let rules =
            json!([{"name": "default", "targetModels": [{"modelServerName": "thief", "weight": 100}]}]);
        let mut spec = json!({"modelName": model, "rules": rules});
        if !adapters.is_empty() {
            spec["loraAdapters"] = json!(adapters);
        }
        self.creates(&kinds::model_route(), json!({"metadata": {"name": name}, "spec": spec})).await
    }
}

fn names(count: usize) -> String {
    (0..count).map(|i| i.to_string()).collect::<Vec<_>>().join(",")
}

/// Annotations that fill the 256 KiB that the API server allows, each an attempt to keep a reconcile busy.
async fn huge_annotations(tenant: &Tenant) -> usize {
    let mut accepted = 0;
    for i in 0..4 {
        let names = format!("{}{}", "a,".repeat(64), names(40_000));
        accepted +=
            usize::from(tenant.model(&format!("names-{i}"), &json!({"kthena.io/model-name": names})).await);
    }
    let signals: Vec<String> = (0..20_000).map(|i| format!("s{i}=1")).collect();
    let annotations = json!({"kthena.io/model-name": "m", "autoscaling.kthena.io/profile": "none", "autoscaling.kthena.io/signals": signals.join(",")});
    accepted += usize::from(tenant.model("signals", &annotations).await);
    let misspelt: Vec<String> = (0..16).map(|i| format!("{i:x}{}", "x".repeat(255))).collect();
    for i in 0..2 {
        let name = format!("{i}{}", "y".repeat(1_000_000));
        assert!(tenant.route(&format!("long-{i}"), &name, &[]).await);
    }
    // Within the limits, so that the policy accepts it too.
    assert!(tenant.model("misspelt", &json!({"kthena.io/model-name": misspelt.join(",")})).await);
    accepted
}

/// Text that would act on a terminal, disguise itself, or forge a line of the log.
async fn odd_text(tenant: &Tenant) {
    let odd = "\u{202e}safe\u{2066}\u{200b}\u{2028}";
    tenant.model("odd-name", &json!({"kthena.io/model-name": odd})).await;
    let control = "\u{1b}[2J\u{1b}]0;pwned\u{7}\r\nlevel=error all lost";
    let annotations = json!({
        "kthena.io/model-name": "m", "autoscaling.kthena.io/signals": format!("{control}{odd}=1"),
        "autoscaling.kthena.io/profile": odd, "autoscaling.kthena.io/engine": control,
    });
    tenant.model("odd-values", &annotations).await;
    let long: Vec<String> = (0..32).map(|i| format!("{i}{}=1", "\u{202e}é".repeat(80))).collect();
    let annotations = json!({"kthena.io/model-name": "m", "autoscaling.kthena.io/signals": long.join(",")});
    tenant.model("odd-signals", &annotations).await;
}

/// The names, labels, owners and routes of the victim.
async fn impersonation(tenant: &Tenant, victim: &Victim) {
    let owner = |uid: String, name: &str| json!([{"apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing", "name": name, "uid": uid, "controller": true}]);
    let routed = victim.routed.get().await;
    let owners = owner(routed.uid().unwrap(), "routed");
    let labels = json!({"app.kubernetes.io/managed-by": "kthena-keda"});
    for name in ["routed", "unrouted"] {
        let annotations = json!({"kthena.io/model-name": "routed-name,unrouted-name"});
        assert!(tenant.model(name, &annotations).await);
        assert!(tenant.route(name, &format!("{name}-name"), &["routed-name", "unrouted-name"]).await);
    }
    let mut child = serde_json::to_value(tenant.namespace.model_serving("owned").object()).unwrap();
    child["metadata"]["ownerReferences"] = owners.clone();
    child["metadata"]["finalizers"] = json!(["example.com/hold"]);
    child["metadata"]["annotations"] = json!({"kthena.io/model-name": "routed-name"});
    assert!(tenant.creates(&kinds::model_serving(), child).await);
    let server = json!({"workloadSelector": {"matchLabels": {"modelserving.volcano.sh/name": "routed"}}, "workloadPort": {"port": 8000}, "inferenceEngine": "vLLM"});
    assert!(
        tenant.creates(&kinds::model_server(), json!({"metadata": {"name": "thief"}, "spec": server})).await
    );
    let target = json!({"apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing", "name": "routed"});
    let triggers = json!([{"type": "prometheus", "metadata": {"serverAddress": "http://p", "query": "1", "threshold": "1"}}]);
    let metadata = json!({"name": "stolen", "labels": labels, "ownerReferences": owners});
    let scaled_object =
        json!({"metadata": metadata, "spec": {"scaleTargetRef": target, "triggers": triggers}});
    assert!(tenant.creates(&kinds::scaled_object(), scaled_object).await);
    let monitor = json!({
        "metadata": {"name": "kthena-keda-routed", "labels": labels, "ownerReferences": owners},
        "spec": {"selector": {}, "namespaceSelector": {"any": true}, "podMetricsEndpoints": [{"port": "http"}]},
    });
    assert!(tenant.creates(&kinds::pod_monitor(), monitor).await);
    let policy = json!({"metadata": {"name": "scale"}, "spec": {"metrics": [{"metricName": "m", "targetValue": "1"}], "homogeneousTarget": {
        "target": {"targetRef": {"kind": "ModelServing", "name": "routed", "namespace": victim.models.name}}, "minReplicas": 1, "maxReplicas": 2,
    }}});
    let autoscaling_policy = harness::stack::resource(
        "workload.serving.volcano.sh",
        "v1alpha1",
        "AutoscalingPolicy",
        "autoscalingpolicies",
    );
    tenant.creates(&autoscaling_policy, policy).await;
}

/// Pod templates and selectors with tens of thousands of labels.
async fn many_labels(tenant: &Tenant) {
    let labels: Value = (0..20_000).map(|i| (format!("l{i}"), json!(""))).collect();
    let mut object = serde_json::to_value(tenant.namespace.model_serving("labels").object()).unwrap();
    object["metadata"]["annotations"] = json!({"kthena.io/model-name": "labels"});
    object["spec"]["template"]["roles"][0]["entryTemplate"]["metadata"]["labels"] = labels.clone();
    tenant.creates(&kinds::model_serving(), object).await;
    let spec = json!({"workloadSelector": {"matchLabels": labels}, "workloadPort": {"port": 8000}, "inferenceEngine": "vLLM"});
    tenant.creates(&kinds::model_server(), json!({"metadata": {"name": "labels"}, "spec": spec})).await;
}

/// Many objects at once, half of them routes with a name of the victim.
async fn burst(tenant: &Tenant) {
    let created = stream::iter(0..BURST).map(async |i| {
        let annotations = json!({"kthena.io/model-name": format!("unrouted-name,{i}"), "autoscaling.kthena.io/max-replicas": "x"});
        tenant.model(&format!("burst-{i}"), &annotations).await;
        tenant.route(&format!("burst-{i}"), "unrouted-name", &["routed-name"]).await;
    });
    created.buffer_unordered(16).collect::<Vec<()>>().await;
}

async fn is_alive(operator: &mut Process) {
    assert!(!operator.has_ended(), "{}", operator.log());
    assert_eq!(ask(operator, "/healthz").await.0, 200);
}

/// `true` without control characters, marks of direction and characters without width. The log is large.
fn is_harmless(text: &str) -> bool {
    let is_odd = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}')
    };
    !text.contains(is_odd)
}

#[rstest]
#[case::with_the_admission_policy(true)]
#[case::without_it(false)]
#[tokio::test]
async fn a_tenant_stops_nothing_and_changes_nothing_of_another(#[case] has_policy: bool) {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    if has_policy {
        let file = harness::stack::root().join("config/install/admissionpolicy.yaml");
        apply_file(&stack.client().await, &file).await;
    }
    let settings = Settings::new(BINARY).with("--leader-elect=true").with("--lease-duration=6");
    let mut operator = stack.start_operator(&settings);
    let victim = Victim::create(&stack).await;
    let tenant = Tenant::create(&stack).await;
    // The router prefers the older route, and the API server records creation in whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let before = victim.objects().await;

    let accepted = huge_annotations(&tenant).await;
    assert_eq!(accepted > 0, !has_policy, "the policy rejects huge annotations");
    victim.follows_a_new_maximum(21).await;
    odd_text(&tenant).await;
    impersonation(&tenant, &victim).await;
    many_labels(&tenant).await;
    victim.follows_a_new_maximum(22).await;
    let ((), ()) = tokio::join!(burst(&tenant), victim.follows_a_new_maximum(23));
    victim.follows_a_new_maximum(24).await;

    is_alive(&mut operator).await;
    assert_eq!(victim.objects().await, before, "the victim's objects");
    let written: Vec<String> = stack
        .writes()
        .iter()
        .filter(|request| request.object_ref.namespace == victim.models.name && request.verb == "delete")
        .map(harness::audit::Request::describe)
        .collect();
    assert_eq!(written, Vec::<String>::new());
    conditions_are_bounded(&tenant).await;
    assert!(is_harmless(&operator.log()), "the log holds control characters");
}

async fn conditions_are_bounded(tenant: &Tenant) {
    let models = tenant.namespace.api(&kinds::model_serving()).list(&ListParams::default()).await.unwrap();
    let conditions: Vec<String> = models
        .iter()
        .filter_map(condition)
        .filter_map(|condition| condition["message"].as_str().map(str::to_owned))
        .collect();
    assert!(conditions.len() > 3, "{conditions:?}");
    for message in conditions {
        assert!(message.len() <= MESSAGE_MAX && printable(&message) == message, "{message}");
    }
}
