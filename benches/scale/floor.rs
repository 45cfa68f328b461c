//! The floors: a bare client that makes the operator's writes with the same concurrency, without planning. One only
//! writes; the other lists and watches what it writes, as any operator has to, and discards what it reads.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use futures::{StreamExt as _, stream};
use harness::{OPERATOR, Process, Stack, kinds};
use http::header::ACCEPT;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kthena_keda::{cluster::server_side_apply::METADATA, sources::Manifests};
use kthena_keda_core::{
    domain::{Capabilities, PrometheusUrl},
    intent::{Profile, PrometheusSettings},
    plan::{Desired, Plan, plan},
    signals::RouterSeries,
};
use kube::{
    Client, Config, Resource as _, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, Request, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{Value, json};

use crate::models::Models;

/// Concurrent writes, as many as the operator's.
const CONCURRENCY: usize = 8;
const MANAGER: &str = "kthena-keda";

/// The two writes of a model.
#[derive(Serialize, Deserialize)]
struct Writes {
    namespace: String,
    name: String,
    status: json_patch::Patch,
    scaled_object: Value,
}

/// Plans the writes for the present models into a file, and returns a function that starts the client for it.
pub async fn prepare(
    stack: &Stack,
    models: &Models,
    prometheus: &str,
    is_watching: bool,
) -> impl Fn() -> Vec<Process> + use<> {
    let mut defaults = Profile::built_in();
    defaults.prometheus = prometheus.parse::<PrometheusUrl>().ok().map(PrometheusSettings::from);
    let profile = models.profile().await;
    let writes: Vec<Writes> =
        models.list().await.iter().map(|model| writes(&profile, model, &defaults)).collect();
    let (folder, kubeconfig) =
        (stack.control_plane.folder.clone(), stack.control_plane.kubeconfig(&OPERATOR));
    let file = folder.join("floor.json");
    fs::write(&file, serde_json::to_vec(&writes).expect("JSON")).expect("a file");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.arg("floor").arg(kubeconfig).arg(file);
    if is_watching {
        command.arg("--watching");
    }
    move || vec![Process::start(&folder, "floor", &command)]
}

fn writes(profile: &DynamicObject, model: &DynamicObject, defaults: &Profile) -> Writes {
    let mut manifests = Manifests::default();
    for object in [profile, model] {
        manifests.add("the cluster", serde_json::to_value(object).expect("JSON")).expect("an object");
    }
    let (_, model_serving) = manifests.model_servings.first().expect("a ModelServing");
    let observed = manifests.observe(model_serving, RouterSeries::assumed("kthena-system"));
    let Plan {
        scaled_object: Desired::Apply(scaled_object),
        selector: Desired::Apply(selector),
        condition: Desired::Apply(verdict),
        ..
    } = plan(&observed, Capabilities::NEWEST, defaults)
    else {
        panic!("expected a ScaledObject, a selector and a condition");
    };
    let condition = json!({
        "type": "AutoscalingReady", "status": verdict.status.as_str(), "reason": verdict.reason.as_str(), "message": verdict.message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    Writes {
        namespace: model.namespace().unwrap_or_default(),
        name: model.name_any(),
        status: status(model, &selector, &condition),
        scaled_object: serde_json::to_value(&*scaled_object).expect("JSON"),
    }
}

fn status(model: &DynamicObject, selector: &str, condition: &Value) -> json_patch::Patch {
    let operations = json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": model.resource_version()},
        {"op": "add", "path": "/status", "value": {}},
        {"op": "add", "path": "/status/labelSelector", "value": selector},
        {"op": "add", "path": "/status/conditions", "value": [condition]},
    ]);
    serde_json::from_value(operations).expect("operations")
}

/// Makes all writes in a file, then waits until it is killed, so that its CPU time and memory can be read.
pub async fn run(kubeconfig: PathBuf, file: &Path, is_watching: bool) {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("a kubeconfig");
    let client = Client::try_from(config).expect("a client");
    let models: Vec<Writes> = serde_json::from_slice(&fs::read(file).expect("a file")).expect("writes");
    if is_watching {
        for kind in [kinds::scaled_object(), kinds::model_serving()] {
            let version = list(&client, &kind).await;
            tokio::spawn(watch(client.clone(), kind, version));
        }
    }
    stream::iter(models).for_each_concurrent(CONCURRENCY, |writes| write(&client, writes)).await;
    std::future::pending::<()>().await;
}

/// The part of a list that the client reads.
#[derive(Deserialize)]
struct Listed {
    metadata: ListMeta,
}

/// Lists a kind, and returns the resource version.
async fn list(client: &Client, kind: &ApiResource) -> String {
    let request = Request::new(DynamicObject::url_path(kind, None)).list(&ListParams::default());
    let listed = client.request::<Listed>(request.expect("a request")).await.expect("a list");
    listed.metadata.resource_version.expect("a resource version")
}

/// Reads a watch until it ends.
async fn watch(client: Client, kind: ApiResource, version: String) {
    let request = Request::new(DynamicObject::url_path(&kind, None))
        .watch(&WatchParams::default().timeout(290), &version);
    let events = client.request_stream(request.expect("a request")).await.expect("a watch");
    futures::io::copy(events, &mut futures::io::sink()).await.expect("events");
}

fn requests(kind: &ApiResource, namespace: &str) -> Request {
    Request::new(DynamicObject::url_path(kind, Some(namespace)))
}

async fn write(client: &Client, writes: Writes) {
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let status = requests(&kinds::model_serving(), &writes.namespace).patch_subresource(
        "status",
        &writes.name,
        &params,
        &Patch::<()>::Json(writes.status),
    );
    let mut status = status.expect("a request");
    // Like the operator, request metadata only.
    status.headers_mut().insert(ACCEPT, METADATA);
    client.request::<IgnoredAny>(status).await.expect("a status");
    let applied = requests(&kinds::scaled_object(), &writes.namespace).patch(
        &writes.name,
        &PatchParams::apply(MANAGER),
        &Patch::Apply(&writes.scaled_object),
    );
    client.request::<IgnoredAny>(applied.expect("a request")).await.expect("a ScaledObject");
}
