//! Shards: several instances with different selectors write together what one instance would write.

use std::{collections::BTreeMap, io::Write as _, process::Command};

use harness::{
    Crds, Namespace, Settings, Stack, audit, control_plane::binary, kinds, objects, stack::root, wait::until,
};

const BINARY: &str = env!("CARGO_BIN_EXE_kthena-keda");

async fn create(models: &Namespace) {
    for i in 0..6 {
        let shard = if i % 2 == 0 { "a" } else { "b" };
        models
            .model_serving(&format!("chat-{i}"))
            .opted_in(&format!("llama-{i}"))
            .in_shard(shard)
            .create()
            .await;
    }
    for i in 0..6 {
        until(&models.api(&kinds::scaled_object()), &format!("chat-{i}"), "exists", |found| found.is_some())
            .await;
    }
    let profiles = kube::Api::all_with(models.client.clone(), &kinds::profile());
    until(&profiles, "default", "has six users", |found| {
        found.is_some_and(|found| found.data["status"]["modelServings"] == 6)
    })
    .await;
}

/// Number of writes per object, without profiles, whose count of ModelServings is written a varying number of
/// times while it grows.
fn written(stack: &Stack, models: &Namespace) -> BTreeMap<String, usize> {
    let mut written = audit::summary(&stack.writes());
    written.retain(|what, _| !what.contains("autoscalingprofiles"));
    written.into_iter().map(|(what, count)| (what.replace(&models.name, "models"), count)).collect()
}

#[tokio::test]
async fn two_shards_write_the_same_as_one_instance() {
    let crds = [Crds::kthena(), Crds::keda(), Crds::prometheus_operator()];
    let mut totals = Vec::new();
    for shards in
        [&[&[][..]][..], &[&["--selector=shard=a"], &["--selector=shard in (b)", "--cluster-duties=false"]]]
    {
        let stack = Stack::start(&crds).await;
        let models = stack.namespace().await;
        for file in ["autoscaling-profile", "router-service"] {
            objects::apply_file(&models.client, &root().join(format!("config/samples/{file}.yaml"))).await;
        }
        let start = |arguments: &&[&str]| {
            stack.start_operator(
                &arguments.iter().fold(Settings::new(BINARY), |settings, argument| settings.with(argument)),
            )
        };
        let _instances: Vec<_> = shards.iter().map(start).collect();
        create(&models).await;
        let monitors = models.elsewhere("kthena-system").api(&kinds::service_monitor());
        until(&monitors, "kthena-keda-router", "exists", |found| found.is_some()).await;
        totals.push(written(&stack, &models));
        if shards.len() == 2 {
            keeps_the_scaled_object_outside_all_shards(&models).await;
        }
    }
    assert_eq!(totals[0], totals[1]);
    assert_eq!(
        totals[0].len(),
        13,
        "a status and a ScaledObject per model, and the router's monitor: {:?}",
        totals[0]
    );
}

/// A ModelServing that no selector matches any more has not opted out.
async fn keeps_the_scaled_object_outside_all_shards(models: &Namespace) {
    let (serving, scaled) = (models.api(&kinds::model_serving()), models.api(&kinds::scaled_object()));
    let before = scaled.get("chat-0").await.unwrap();
    let label =
        |shard: &str| kube::api::Patch::Merge(serde_json::json!({"metadata": {"labels": {"shard": shard}}}));
    serving.patch("chat-0", &kube::api::PatchParams::default(), &label("none")).await.unwrap();
    // Both instances have reconciled a later model, so they have observed the label.
    for (name, shard) in [("after-a", "a"), ("after-b", "b")] {
        models.model_serving(name).opted_in(name).in_shard(shard).create().await.scaled_object().await;
    }
    assert_eq!(
        scaled.get("chat-0").await.unwrap().metadata.resource_version,
        before.metadata.resource_version
    );
}

#[tokio::test]
async fn permissions_in_the_watched_namespaces_suffice() {
    let stack = Stack::bare(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator(), Crds::ours()]).await;
    let (first, second, other) = (stack.namespace().await, stack.namespace().await, stack.namespace().await);
    for file in [
        "install/namespace",
        "install/serviceaccount",
        "samples/router-service",
        "samples/autoscaling-profile",
    ] {
        objects::apply_file(&first.client, &root().join(format!("config/{file}.yaml"))).await;
    }
    let rbac = stack.control_plane.folder.join("rbac.yaml");
    let watched = format!("watchNamespaces={{{},{}}}", first.name, second.name);
    let mut helm = Command::new(binary("helm"));
    helm.args([
        "template",
        "kthena-keda",
        "charts/kthena-keda",
        "--namespace",
        "kthena-keda",
        "--show-only",
        "templates/rbac.yaml",
    ]);
    let rendered =
        helm.args(["--set", "prometheus.url=http://prometheus:9090", "--set", &watched]).output().unwrap();
    std::fs::File::create(&rbac).unwrap().write_all(&rendered.stdout).unwrap();
    objects::apply_file(&first.client, &rbac).await;
    let namespaces = format!("--watch-namespaces={},{}", second.name, first.name);
    let operator = stack.start_operator(&Settings::new(BINARY).with(&namespaces));
    let elsewhere = other.model_serving("chat").opted_in("elsewhere").create().await;
    for (models, name) in [(&first, "one"), (&second, "two")] {
        let chat = models.model_serving("chat").opted_in(name).create().await;
        chat.scaled_object().await;
        chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("7"))]).await;
        chat.scaled_object_until("has a maximum of 7", |found| found.data["spec"]["maxReplicaCount"] == 7)
            .await;
    }
    // The instance with the cluster duties counts the models of all namespaces, but scales only those that it
    // watches.
    let profiles = kube::Api::all_with(first.client.clone(), &kinds::profile());
    until(&profiles, "default", "has three users", |found| {
        found.is_some_and(|found| found.data["status"]["modelServings"] == 3)
    })
    .await;
    let monitors = first.elsewhere("kthena-system").api(&kinds::service_monitor());
    until(&monitors, "kthena-keda-router", "exists", |found| found.is_some()).await;
    assert!(elsewhere.scaled_objects().get_opt("chat").await.unwrap().is_none());
    assert!(harness::condition(&elsewhere.get().await).is_none());
    assert!(operator.terminate());
    let forbidden: Vec<_> = stack.requests().into_iter().filter(|request| request.code() == 403).collect();
    assert!(forbidden.is_empty(), "{:?}", audit::summary(&forbidden));
}
