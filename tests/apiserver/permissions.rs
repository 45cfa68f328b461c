//! Kinds that the operator cannot read: its RBAC rule is missing at the start or withdrawn later, or the API is
//! gone. Models keep what they have.

use std::time::Duration;

use harness::{
    Crds, Fault, FaultProxy, ModelServing, Namespace, OPERATOR, Process, Settings, Stack, ask, condition,
    kinds, objects,
    wait::{until, until_asked_within},
};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, PostParams},
};
use serde_json::{Value, json};

use super::shared::{BINARY, without};

/// Time for a watch that is retried with growing delays.
const RETRY: Duration = Duration::from_mins(1);

/// A model at 40 of at most 64 ServingGroups, by the profile named `default`.
struct Fleet {
    stack: Stack,
    models: Namespace,
    chat: ModelServing,
    proxy: FaultProxy,
    operator: Process,
    role: ClusterRole,
}

impl Fleet {
    async fn start() -> Self {
        let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
        let models = stack.namespace().await;
        let role = roles(&models.client).get("kthena-keda").await.unwrap();
        create_default(&models.client).await;
        let server = json!({"inferenceEngine": "vLLM", "workloadSelector": {"matchLabels": {"modelserving.volcano.sh/name": "chat"}}, "workloadPort": {"port": 8000}, "model": "llama"});
        models.create(&kinds::model_server(), json!({"metadata": {"name": "chat"}, "spec": server})).await;
        let rules = json!([{"name": "all", "targetModels": [{"modelServerName": "chat"}]}]);
        let route = json!({"modelName": models.model_name(), "rules": rules});
        models.create(&kinds::model_route(), json!({"metadata": {"name": "chat"}, "spec": route})).await;
        let chat = models.model_serving("chat").replicas(40).opts_in().create().await;
        let proxy = FaultProxy::start(&stack.control_plane, &OPERATOR, Fault::None).await;
        let operator = start(&stack, &proxy);
        chat.scaled_object_until("has the bounds of the profile", |found| bounds(found) == (0, 64)).await;
        chat.reason("Pending").await;
        Self { stack, models, chat, proxy, operator, role }
    }

    /// Removes the permissions on one resource, and cuts the watches, which keep theirs until they end.
    async fn forbid(&self, plural: &str) {
        self.set_rules(without(self.role.rules.iter().flatten(), plural)).await;
        self.proxy.cut();
    }

    async fn permit_everything(&self) {
        self.set_rules(self.role.rules.clone().unwrap_or_default()).await;
    }

    async fn set_rules(&self, rules: Vec<PolicyRule>) {
        let api = roles(&self.models.client);
        let found = api.get("kthena-keda").await.unwrap();
        let changed = ClusterRole { rules: Some(rules), ..found };
        api.replace("kthena-keda", &PostParams::default(), &changed).await.unwrap();
        // The authorizer follows its own watch of the roles.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    /// The same for several resources.
    async fn forbid_all(&self, plurals: &[&str]) {
        let all = self.role.rules.clone().unwrap_or_default();
        self.set_rules(plurals.iter().fold(all, |rules, plural| without(&rules, plural))).await;
        self.proxy.cut();
    }

    fn restart(&mut self) {
        self.restart_with(&[]);
    }

    fn restart_with(&mut self, flags: &[&str]) {
        let settings = flags.iter().fold(Settings::new(BINARY), |settings, flag| settings.with(flag));
        let operator = settings.start(&self.stack.control_plane.folder, &self.proxy.kubeconfig());
        assert!(std::mem::replace(&mut self.operator, operator).terminate());
    }
}

fn start(stack: &Stack, proxy: &FaultProxy) -> Process {
    Settings::new(BINARY).start(&stack.control_plane.folder, &proxy.kubeconfig())
}

fn roles(client: &Client) -> Api<ClusterRole> {
    Api::all(client.clone())
}

async fn create_default(client: &Client) {
    let spec = json!({"prometheus": {"url": "http://prometheus:9090"}, "replicas": {"min": 0, "max": 64}});
    let profile = json!({"apiVersion": "autoscaling.kthena.io/v1alpha1", "kind": "AutoscalingProfile", "metadata": {"name": "default"}, "spec": spec});
    objects::apply(client, profile).await;
}

fn bounds(scaled_object: &DynamicObject) -> (i64, i64) {
    let bound = |name: &str| scaled_object.data["spec"][name].as_i64().unwrap_or(-1);
    (bound("minReplicaCount"), bound("maxReplicaCount"))
}

fn status(found: &DynamicObject) -> Option<(Value, Value)> {
    condition(found).map(|condition| (condition["status"].clone(), condition["reason"].clone()))
}

async fn create_router_service(router: &Namespace) {
    objects::apply_file(&router.client, &harness::stack::root().join("config/samples/router-service.yaml"))
        .await;
}

/// Permits the operator to list the ModelServings of one namespace.
async fn permit_model_servings_in(namespace: &Namespace) {
    let rule = json!({"apiGroups": ["workload.serving.volcano.sh"], "resources": ["modelservings"], "verbs": ["get", "list", "watch"]});
    permit_in(namespace, &json!([rule])).await;
}

/// Permits everything that the operator may do, in one namespace.
async fn permit_everything_in(namespace: &Namespace, role: &ClusterRole) {
    permit_in(namespace, &json!(role.rules)).await;
}

async fn permit_in(namespace: &Namespace, rules: &Value) {
    let group = "rbac.authorization.k8s.io/v1";
    let metadata = json!({"name": "models", "namespace": namespace.name});
    let subject = json!({"kind": "ServiceAccount", "name": "kthena-keda", "namespace": "kthena-keda"});
    let role_ref = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "models"});
    for object in [
        json!({"apiVersion": group, "kind": "Role", "metadata": metadata, "rules": rules}),
        json!({"apiVersion": group, "kind": "RoleBinding", "metadata": metadata, "roleRef": role_ref, "subjects": [subject]}),
    ] {
        objects::apply(&namespace.client, object).await;
    }
}

/// Waits for the condition that names the rule, and checks that the ScaledObject has not changed.
async fn is_held(fleet: &Fleet, plural: &str, group: &str) {
    let rule = format!("grant list and watch on {plural} in the API group {group}");
    let message = fleet.chat.within(RETRY).says("MissingPermission", &rule).await;
    assert!(message.contains("keeps its last valid settings") || plural == "scaledobjects", "{message}");
    assert_eq!(status(&fleet.chat.get().await), Some((json!("Unknown"), json!("MissingPermission"))));
    assert_eq!(bounds(&fleet.chat.scaled_object().await), (0, 64), "{plural}");
}

#[tokio::test]
async fn models_keep_what_they_have_when_the_operator_starts_without_a_rule() {
    let mut fleet = Fleet::start().await;
    let before = fleet.chat.scaled_object().await.resource_version();
    for (plural, group) in [
        ("autoscalingprofiles", "autoscaling.kthena.io"),
        ("scaledobjects", "keda.sh"),
        ("modelroutes", "networking.serving.volcano.sh"),
        ("modelservers", "networking.serving.volcano.sh"),
    ] {
        fleet.forbid(plural).await;
        fleet.restart();
        is_held(&fleet, plural, group).await;
        fleet.permit_everything().await;
        fleet.chat.within(RETRY).says("Pending", "waiting for KEDA").await;
    }
    assert_eq!(fleet.chat.scaled_object().await.resource_version(), before);
}

#[tokio::test]
async fn models_keep_what_they_have_when_a_rule_is_withdrawn() {
    let fleet = Fleet::start().await;
    let before = fleet.chat.scaled_object().await.resource_version();
    for (plural, group) in
        [("autoscalingprofiles", "autoscaling.kthena.io"), ("modelroutes", "networking.serving.volcano.sh")]
    {
        fleet.forbid(plural).await;
        is_held(&fleet, plural, group).await;
        fleet.permit_everything().await;
        fleet.chat.within(RETRY).says("Pending", "waiting for KEDA").await;
    }
    assert_eq!(fleet.chat.scaled_object().await.resource_version(), before);
    assert!(forbidden_errors(&fleet.operator).await > 0);
}

async fn forbidden_errors(operator: &Process) -> u64 {
    let (_, metrics) = ask(operator, "/metrics").await;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("kthena_keda_reconcile_errors_total{class=\"forbidden\"} "));
    line.map_or(0, |count| count.parse().unwrap())
}

/// The alert for missing permissions depends on the count.
#[tokio::test]
async fn errors_of_the_routers_monitor_are_counted() {
    let fleet = Fleet::start().await;
    let router = fleet.models.elsewhere("kthena-system");
    let roles: Api<Role> = Api::namespaced(router.client.clone(), &router.name);
    for mut role in roles.list(&ListParams::default()).await.unwrap() {
        let writes = |rule: &PolicyRule| rule.verbs.iter().any(|verb| verb == "create");
        role.rules.iter_mut().for_each(|rules| rules.retain(|rule| !writes(rule)));
        roles.replace(&role.name_any(), &PostParams::default(), &role).await.unwrap();
    }
    create_router_service(&router).await;
    let errors = async || forbidden_errors(&fleet.operator).await;
    until_asked_within(RETRY, "the operator counts a forbidden write", errors, |count| *count > 0).await;
}

/// HPAs only show conflicts: a model that opts in waits, and one that is scaled follows its settings.
#[tokio::test]
async fn a_rule_that_only_shows_conflicts_holds_back_creation_alone() {
    let mut fleet = Fleet::start().await;
    fleet.forbid("horizontalpodautoscalers").await;
    fleet.restart();
    let new = fleet.models.model_serving("new").opted_in("new").create().await;
    let rule = "grant list and watch on horizontalpodautoscalers in the API group autoscaling";
    new.within(RETRY).says("MissingPermission", rule).await;
    assert!(new.scaled_objects().get_opt("new").await.unwrap().is_none());
    fleet.chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("50"))]).await;
    fleet.chat.scaled_object_until("follows the annotation", |found| bounds(found) == (0, 50)).await;
    fleet.permit_everything().await;
    until(&new.scaled_objects(), "new", "exists", |found| found.is_some()).await;
}

/// The removal of the CRD deletes the profiles first.
#[tokio::test]
async fn models_keep_what_they_have_while_the_crd_of_profiles_is_replaced() {
    let fleet = Fleet::start().await;
    let before = fleet.chat.scaled_object().await.resource_version();
    Crds::ours().remove(&fleet.models.client).await;
    fleet.chat.within(RETRY).says("Pending", "autoscalingprofiles in the API group").await;
    Crds::ours().install(&fleet.models.client).await;
    create_default(&fleet.models.client).await;
    fleet.chat.within(RETRY).says("Pending", "waiting for KEDA").await;
    assert_eq!(fleet.chat.scaled_object().await.resource_version(), before);
}

/// Without the opt-ins of the other instances nothing shows that the last model has left.
#[tokio::test]
async fn the_routers_monitor_stays_when_the_opt_ins_cannot_be_listed() {
    let mut fleet = Fleet::start().await;
    let router = fleet.models.elsewhere("kthena-system");
    create_router_service(&router).await;
    let monitors = router.api(&kinds::service_monitor());
    until(&monitors, "kthena-keda-router", "exists", |found| found.is_some()).await;
    fleet.forbid("modelservings").await;
    permit_model_servings_in(&router).await;
    fleet.restart_with(&[&format!("--watch-namespaces={}", router.name)]);
    let says_so = async || fleet.operator.log();
    until_asked_within(RETRY, "the operator reports the rule", says_so, |log| {
        log.contains("no permission to list modelservings")
    })
    .await;
    assert!(monitors.get_opt("kthena-keda-router").await.unwrap().is_some());
}

/// A namespace that is deleted takes the role binding of the operator with it.
#[tokio::test]
async fn a_watched_namespace_without_permissions_does_not_delay_the_others() {
    let mut fleet = Fleet::start().await;
    let late = fleet.stack.namespace().await;
    let namespaces = format!("--watch-namespaces={},{}", fleet.models.name, late.name);
    permit_everything_in(&fleet.models, &fleet.role).await;
    fleet.forbid_all(&["modelservings", "scaledobjects", "podmonitors", "horizontalpodautoscalers"]).await;
    fleet.restart_with(&[&namespaces, "--cluster-duties=false"]);
    fleet.chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("50"))]).await;
    fleet.chat.scaled_object_until("follows the annotation", |found| bounds(found) == (0, 50)).await;
    let new = late.model_serving("new").opts_in().create().await;
    permit_everything_in(&late, &fleet.role).await;
    until(&new.scaled_objects(), "new", "exists", |found| found.is_some()).await;
    assert_eq!(bounds(&fleet.chat.scaled_object().await), (0, 50));
}

/// Monitors of watched namespaces only show that the router is scraped already.
#[tokio::test]
async fn the_routers_monitor_does_not_wait_for_every_watched_namespace() {
    let mut fleet = Fleet::start().await;
    let router = fleet.models.elsewhere("kthena-system");
    create_router_service(&router).await;
    let monitors = router.api(&kinds::service_monitor());
    let other = fleet.stack.namespace().await;
    let namespaces = format!("--watch-namespaces={},{}", fleet.models.name, other.name);
    for permitted in [&fleet.models, &router] {
        permit_everything_in(permitted, &fleet.role).await;
    }
    fleet.forbid_all(&["servicemonitors", "podmonitors"]).await;
    fleet.restart_with(&[&namespaces]);
    // The operator before may have made it.
    let _ = monitors.delete("kthena-keda-router", &DeleteParams::default()).await;
    until(&monitors, "kthena-keda-router", "exists", |found| found.is_some()).await;
}
