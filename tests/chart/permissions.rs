//! RBAC permissions: the operator uses every permission that the chart grants, and needs no other.

use std::collections::BTreeSet;

use harness::{Crds, OPERATOR, Settings, Stack, audit, kinds, objects, objects::apply, wait::until_asked};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_kthena-keda");

/// Granted permissions, such as `patch modelservings/status`.
fn granted() -> BTreeSet<String> {
    let strings = |rule: &Value, field: &str| -> Vec<String> {
        rule[field].as_array().into_iter().flatten().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let rules: Vec<Value> = objects::read(&harness::stack::root().join("config/install/rbac.yaml"))
        .into_iter()
        .flat_map(|object| object["rules"].as_array().cloned().unwrap_or_default())
        .collect();
    assert!(
        !serde_json::to_string(&rules).unwrap().contains('*')
            && !serde_json::to_string(&rules).unwrap().contains("secrets")
    );
    let all = rules.iter().flat_map(|rule| {
        let verbs = strings(rule, "verbs");
        strings(rule, "resources")
            .into_iter()
            .flat_map(move |resource| verbs.clone().into_iter().map(move |verb| format!("{verb} {resource}")))
    });
    all.collect()
}

/// Permissions that the operator's requests needed so far, such as `patch modelservings/status`.
fn used(stack: &Stack) -> BTreeSet<String> {
    let requests = stack.requests();
    let of_objects = requests.iter().filter(|request| !request.object_ref.resource.is_empty());
    of_objects
        .flat_map(|request| {
            let object = &request.object_ref;
            let resource = if object.subresource.is_empty() {
                object.resource.clone()
            } else {
                format!("{}/{}", object.resource, object.subresource)
            };
            // A server-side apply that created the object also needed the permission to create it.
            let created =
                (request.verb == "patch" && request.code() == 201).then(|| format!("create {resource}"));
            [Some(format!("{} {resource}", request.verb)), created].into_iter().flatten()
        })
        .collect()
}

const VALUE_PROFILE: &str = "
apiVersion: autoscaling.kthena.io/v1alpha1
kind: AutoscalingProfile
metadata: {name: level}
spec:
  customSignals: [{name: level, query: 'max(level{model={{model}}})', target: '1', metricType: Value}]
";

#[tokio::test]
async fn every_permission_is_used_and_none_is_missing() {
    // Kthena 0.4 has a CRD of its own autoscaler that later releases dropped.
    let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let client = stack.client().await;
    for crd in objects::read(&harness::stack::root().join("tests/harness/crds/kthena-v0.4.yaml")) {
        if crd["spec"]["names"]["plural"] == "autoscalingpolicybindings" {
            apply(&client, crd).await;
        }
    }
    let settings = Settings::new(BINARY).with("--leader-elect=true").with("--lease-duration=3");
    let operator = stack.start_operator(&settings.clone().with("--lease-identity=first"));
    let second = stack.start_operator(&settings.with("--lease-identity=second"));
    let models = stack.namespace().await;
    for file in ["config/samples/autoscaling-profile.yaml", "config/samples/router-service.yaml"] {
        objects::apply_file(&models.client, &harness::stack::root().join(file)).await;
    }
    apply(&models.client, serde_saphyr::from_str(VALUE_PROFILE).unwrap()).await;
    // One model has an engine signal, which is removed later; the other one has a Value metric.
    let engine = ("autoscaling.kthena.io/signals", "engine-queue=4");
    let chat = models.model_serving("chat").opts_in().create().await;
    chat.annotate(&[(engine.0, Some(engine.1)), ("autoscaling.kthena.io/engine", Some("vllm"))]).await;
    chat.scaled_object().await;
    let level = models.model_serving("level").opted_in("level").create().await;
    level.annotate(&[("autoscaling.kthena.io/profile", Some("level"))]).await;
    level.patch_status("kthena", json!({"replicas": 1})).await.unwrap();
    level.scaled_object().await;
    let monitors = models.api(&kinds::pod_monitor());
    harness::wait::until(&monitors, "kthena-keda-chat", "exists", |found| found.is_some()).await;
    until_asked("the operator lists pods", async || used(&stack).contains("list pods"), |listed| *listed)
        .await;
    // The scale target of a role that is not scaled any more is removed.
    let owner = json!({
        "apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing", "name": "chat",
        "uid": chat.get().await.metadata.uid, "controller": true,
    });
    let metadata = json!({"name": "former", "labels": {"app.kubernetes.io/managed-by": "kthena-keda"}, "ownerReferences": [owner]});
    let target = json!({"modelServing": "chat", "role": "former", "replicas": 1});
    let targets = models.api(&kinds::model_serving_role());
    models.create(&kinds::model_serving_role(), json!({"metadata": metadata, "spec": target})).await;
    harness::wait::until(&targets, "former", "is gone", |found| found.is_none()).await;
    // An invalid annotation publishes an event.
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("x"))]).await;
    chat.reason("InvalidConfiguration").await;
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", None), (engine.0, None)]).await;
    harness::wait::until(&monitors, "kthena-keda-chat", "is gone", |found| found.is_none()).await;
    // Another writer changes the status repeatedly, until a write of the operator conflicts.
    let api = models.api(&kinds::model_serving());
    let write_until_conflict = async || {
        for i in 0..5 {
            let value = (i % 2 == 0).then_some("x");
            chat.annotate(&[("autoscaling.kthena.io/max-replicas", value)]).await;
            let status = Patch::Merge(json!({"status": {"availableReplicas": i}}));
            api.patch_status("chat", &PatchParams::default(), &status).await.expect("a patch");
        }
        used(&stack).contains("get modelservings")
    };
    until_asked("a write of the status conflicts", write_until_conflict, |conflicted| *conflicted).await;
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", None)]).await;
    for model in [&chat, &level] {
        model.annotate(&[("kthena.io/model-name", None)]).await;
        harness::wait::until(&model.scaled_objects(), &model.name, "is gone", |found| found.is_none()).await;
    }
    let unused = async || granted().difference(&used(&stack)).cloned().collect::<Vec<_>>();
    until_asked("every permission is used", unused, Vec::is_empty).await;
    assert!(operator.terminate() && second.terminate());
    let used = used(&stack);
    let missing: Vec<String> = used.difference(&granted()).cloned().collect();
    assert!(missing.is_empty(), "used but not granted: {missing:?}");
    let forbidden: Vec<_> = audit::requests(&stack.control_plane, &OPERATOR)
        .into_iter()
        .filter(|request| request.code() == 403)
        .collect();
    assert!(forbidden.is_empty(), "{:?}", audit::summary(&forbidden));
}
