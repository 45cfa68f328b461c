//! Discovery of the kinds and fields that the cluster serves, repeated for as long as the process runs.
//!
//! In: aggregated discovery and the OpenAPI document of KEDA's group; neither needs a permission beyond
//! `system:discovery`. Out: [`ServedApis`] in a watch channel, which keeps its last state while discovery
//! fails.

use std::{sync::Arc, time::Duration};

use kube::Client;
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::Error;
use crate::runtime::{
    backoff,
    delays::{DISCOVERY_CONFIRM, DISCOVERY_SETTLED},
};
use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::{Capabilities, Keda},
};

/// An API that the operator watches and that may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedApi {
    /// API group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural name of the resource.
    pub plural: String,
    /// Name in metrics; `None` where the absence of the API means nothing.
    pub label: Option<&'static str>,
}

/// The optional APIs that the cluster serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedApis {
    apis: Arc<[(WatchedApi, bool)]>,
    /// Features that plans depend on.
    pub capabilities: Capabilities,
}

impl ServedApis {
    /// The given APIs, each with `true` if it is served.
    pub fn new(apis: impl IntoIterator<Item = (WatchedApi, bool)>, capabilities: Capabilities) -> Self {
        Self { apis: apis.into_iter().collect(), capabilities }
    }

    /// `true` if the cluster serves this resource.
    pub fn serves(&self, group: &str, plural: &str) -> bool {
        self.apis.iter().any(|(api, is_served)| *is_served && api.group == group && api.plural == plural)
    }

    /// The optional APIs by their name in metrics.
    pub fn optional_apis(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let apis = self.apis.iter().filter_map(|(api, is_served)| Some((api.label?, *is_served)));
        apis.chain([("scale", self.capabilities.scale)])
    }

    fn is_complete(&self) -> bool {
        self.optional_apis().all(|(_, is_served)| is_served)
    }

    /// `true` if `next` lacks an API that `self` has.
    fn loses(&self, next: &Self) -> bool {
        self.optional_apis().zip(next.optional_apis()).any(|((_, had), (_, has))| had && !has)
    }
}

#[derive(Deserialize)]
struct Groups {
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    metadata: GroupName,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Deserialize)]
struct GroupName {
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<ServedResource>,
}

#[derive(Deserialize)]
struct ServedResource {
    resource: String,
    #[serde(default)]
    subresources: Vec<Subresource>,
}

#[derive(Deserialize)]
struct Subresource {
    subresource: String,
}

impl Groups {
    fn find(&self, group: &str, version: &str, resource: &str) -> Option<&ServedResource> {
        let group = self.items.iter().find(|found| found.metadata.name == group)?;
        let version = group.versions.iter().find(|found| found.version == version)?;
        version.resources.iter().find(|found| found.resource == resource)
    }

    fn has(&self, group: &str, version: &str, resource: &str) -> bool {
        self.find(group, version, resource).is_some()
    }
}

/// Discovers once which of `apis` the cluster serves.
///
/// # Errors
/// When the API server does not answer; nothing is then known.
pub async fn discover(client: &Client, apis: &[WatchedApi]) -> Result<ServedApis, Error> {
    let groups: Groups =
        get(client, "/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList").await?;
    let model_serving = groups.find(ModelServing::GROUP, ModelServing::VERSION, ModelServing::PLURAL);

    let keda = if groups.has("keda.sh", "v1alpha1", "scaledobjects") {
        Some(keda_fields(client).await?)
    } else {
        None
    };
    let capabilities = Capabilities {
        keda,
        scale: model_serving
            .is_some_and(|found| found.subresources.iter().any(|sub| sub.subresource == "scale")),
        pod_monitors: groups.has("monitoring.coreos.com", "v1", "podmonitors"),
    };
    let served = apis.iter().map(|api| (api.clone(), groups.has(&api.group, &api.version, &api.plural)));
    Ok(ServedApis::new(served, capabilities))
}

/// The fields of the installed KEDA's ScaledObject that are newer than the oldest supported release.
async fn keda_fields(client: &Client) -> Result<Keda, Error> {
    let document: Value = get(client, "/openapi/v3/apis/keda.sh/v1alpha1", "application/json").await?;
    let spec = document
        .pointer("/components/schemas")
        .and_then(Value::as_object)
        .and_then(|schemas| schemas.iter().find(|(name, _)| name.ends_with(".ScaledObject")))
        .and_then(|(_, schema)| schema.pointer("/properties/spec/properties"))
        .ok_or(Error::Malformed("the schema of ScaledObject in KEDA's OpenAPI document"))?;
    let tolerance = "/advanced/properties/horizontalPodAutoscalerConfig/properties/behavior/properties/scaleDown/properties/tolerance";
    Ok(Keda {
        initial_cooldown: spec.get("initialCooldownPeriod").is_some(),
        fallback_behavior: spec.pointer("/fallback/properties/behavior").is_some(),
        directional_pause: spec.pointer(tolerance).is_some(),
    })
}

async fn get<T: for<'de> Deserialize<'de>>(client: &Client, path: &str, accept: &str) -> Result<T, Error> {
    let request = http::Request::get(path)
        .header(http::header::ACCEPT, accept)
        .body(Vec::new())
        .map_err(kube::Error::HttpError)?;
    Ok(client.request(request).await?)
}

/// Discovers for the life of the process: at once, every `interval` while something is missing, else every five minutes, and whenever
/// `wake` is notified.
pub async fn rediscover(
    client: Client,
    apis: Vec<WatchedApi>,
    interval: Duration,
    wake: &Notify,
    served: &watch::Sender<Option<ServedApis>>,
) {
    let mut failures = 0;
    let mut is_confirming = false;
    loop {
        let pause = match discover(&client, &apis).await {
            Ok(found)
                if !is_confirming && served.borrow().as_ref().is_some_and(|known| known.loses(&found)) =>
            {
                is_confirming = true;
                // No early wake-up: the same response at once would prove nothing.
                sleep(DISCOVERY_CONFIRM).await;
                continue;
            }
            Ok(found) => {
                is_confirming = false;
                failures = 0;
                let pause = if found.is_complete() { DISCOVERY_SETTLED } else { interval };
                publish(served, found);
                pause
            }
            Err(error) => {
                failures += 1;
                if failures == 1 {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "API discovery failed; retrying"
                    );
                }
                backoff::delay(failures, interval)
            }
        };
        // A notification and the end of the pause both lead to the next discovery.
        let _ = timeout(backoff::jitter(pause), wake.notified()).await;
    }
}

fn publish(served: &watch::Sender<Option<ServedApis>>, found: ServedApis) {
    let (has, lacks): (Vec<_>, Vec<_>) = found.optional_apis().partition(|(_, is_served)| *is_served);
    let has_changed = served.send_if_modified(|known| {
        let has_changed = known.as_ref() != Some(&found);
        *known = Some(found);
        has_changed
    });
    if has_changed {
        tracing::info!(served = names(&has), missing = names(&lacks), "discovered the APIs of the cluster");
    }
}

fn names(apis: &[(&'static str, bool)]) -> String {
    apis.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",")
}
