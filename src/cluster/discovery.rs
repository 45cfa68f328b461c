//! Discovery of the kinds and fields that the cluster serves, repeated for as long as the process runs.
//!
//! In: aggregated discovery and the OpenAPI document of KEDA's group; neither needs a permission beyond
//! `system:discovery`. Out: [`ServedApis`] in a watch channel, which keeps its last state while discovery
//! fails.

use std::time::Duration;

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

/// APIs that the cluster serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedApis {
    /// ModelServings, without which the operator has nothing to do.
    pub model_servings: bool,
    /// AutoscalingProfiles.
    pub profiles: bool,
    /// ServiceMonitors.
    pub service_monitors: bool,
    /// Kthena's kinds that route requests to pods.
    pub network: RoutingApis,
    /// Kinds of Kthena's own autoscaler.
    pub policies: PolicyApis,
    /// Features that plans depend on.
    pub plan: Capabilities,
}

/// Kthena's kinds that route requests to pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutingApis {
    /// ModelRoutes.
    pub routes: bool,
    /// ModelServers.
    pub servers: bool,
}

/// Kinds of Kthena's own autoscaler. Each release of Kthena has one or both, so neither counts as missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyApis {
    /// AutoscalingPolicies.
    pub policies: bool,
    /// AutoscalingPolicyBindings, up to Kthena 0.4.
    pub bindings: bool,
}

impl ServedApis {
    /// Every optional API by its name in the metric `kthena_keda_served`, and whether the cluster serves it.
    pub const fn optional_apis(self) -> [(&'static str, bool); 8] {
        let Self {
            model_servings,
            profiles,
            service_monitors,
            network: RoutingApis { routes, servers },
            policies: _,
            plan,
        } = self;
        let Capabilities { keda, scale, pod_monitors } = plan;
        [
            ("modelservings", model_servings),
            ("scale", scale),
            ("keda", keda.is_some()),
            ("autoscalingprofiles", profiles),
            ("servicemonitors", service_monitors),
            ("podmonitors", pod_monitors),
            ("modelroutes", routes),
            ("modelservers", servers),
        ]
    }

    fn is_complete(self) -> bool {
        self.optional_apis().into_iter().all(|(_, is_served)| is_served)
    }

    /// `true` if `next` lacks an API that `self` has.
    fn is_reduced_in(self, next: Self) -> bool {
        self.optional_apis().into_iter().zip(next.optional_apis()).any(|((_, had), (_, has))| had && !has)
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

/// Reads once from the API server what it serves.
///
/// # Errors
/// Any failed request, and an OpenAPI document of KEDA without ScaledObjects.
pub async fn discover(client: &Client) -> Result<ServedApis, Error> {
    let groups: Groups =
        get(client, "/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList").await?;
    let model_serving = groups.find(ModelServing::GROUP, ModelServing::VERSION, ModelServing::PLURAL);
    let keda = if groups.has("keda.sh", "v1alpha1", "scaledobjects") {
        Some(keda_fields(client).await?)
    } else {
        None
    };
    Ok(ServedApis {
        model_servings: model_serving.is_some(),
        service_monitors: groups.has("monitoring.coreos.com", "v1", "servicemonitors"),
        network: RoutingApis {
            routes: groups.has("networking.serving.volcano.sh", "v1alpha1", "modelroutes"),
            servers: groups.has("networking.serving.volcano.sh", "v1alpha1", "modelservers"),
        },
        policies: PolicyApis {
            policies: groups.has(ModelServing::GROUP, ModelServing::VERSION, "autoscalingpolicies"),
            bindings: groups.has(ModelServing::GROUP, ModelServing::VERSION, "autoscalingpolicybindings"),
        },
        profiles: groups.has("autoscaling.kthena.io", "v1alpha1", "autoscalingprofiles"),
        plan: Capabilities {
            keda,
            scale: model_serving
                .is_some_and(|found| found.subresources.iter().any(|sub| sub.subresource == "scale")),
            pod_monitors: groups.has("monitoring.coreos.com", "v1", "podmonitors"),
        },
    })
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

/// Repeats discovery until the process ends: at once, then every `interval` while an optional API is missing,
/// else every [`DISCOVERY_SETTLED`], and whenever `wake` is notified. Publishes changes to `served`.
pub async fn rediscover(
    client: Client,
    interval: Duration,
    wake: &Notify,
    served: &watch::Sender<Option<ServedApis>>,
) {
    let mut failures = 0;
    let mut is_confirming = false;
    loop {
        let pause = match discover(&client).await {
            Ok(found)
                if !is_confirming && served.borrow().is_some_and(|known| known.is_reduced_in(found)) =>
            {
                is_confirming = true;
                // A notification does not cut this short: the same response at once would confirm nothing.
                sleep(DISCOVERY_CONFIRM).await;
                continue;
            }
            Ok(found) => {
                is_confirming = false;
                failures = 0;
                publish(served, found);
                if found.is_complete() { DISCOVERY_SETTLED } else { interval }
            }
            Err(error) => {
                failures += 1;
                if failures == 1 {
                    tracing::warn!(error = &error as &dyn std::error::Error, "discovery failed; retrying");
                }
                backoff::delay(failures, interval)
            }
        };
        // A timeout and a notification both start the next discovery.
        let _ = timeout(backoff::jitter(pause), wake.notified()).await;
    }
}

fn publish(served: &watch::Sender<Option<ServedApis>>, found: ServedApis) {
    let changed = served.send_if_modified(|known| {
        let changed = *known != Some(found);
        *known = Some(found);
        changed
    });
    if changed {
        tracing::info!(
            model_servings = found.model_servings,
            scale = found.plan.scale,
            keda = found.plan.keda.is_some(),
            service_monitors = found.service_monitors,
            pod_monitors = found.plan.pod_monitors,
            profiles = found.profiles,
            model_routes = found.network.routes,
            model_servers = found.network.servers,
            "discovered the APIs that the cluster serves"
        );
    }
}
