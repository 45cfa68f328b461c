//! Discovery: which kinds and fields the cluster serves, found again for life.
//!
//! In: aggregated discovery and the OpenAPI document of KEDA's group; neither needs any right beyond `system:discovery`.
//! Out: [`ServedApis`] in a watch channel. What cannot be found out keeps its last state.

use std::time::Duration;

use kube::Client;
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::Error;
use crate::runtime::backoff;
use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::{Capabilities, Keda},
};

/// How long a state in which nothing is missing is believed.
const SETTLED: Duration = Duration::from_mins(5);

/// When to ask again before a loss is believed.
///
/// An API server that has just started serves before it has found all custom resources; taking its word would turn every condition.
const DOUBT: Duration = Duration::from_secs(5);

/// What the cluster serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedApis {
    /// ModelServings, without which there is nothing to do.
    pub model_servings: bool,
    /// AutoscalingProfiles.
    pub profiles: bool,
    /// ServiceMonitors.
    pub service_monitors: bool,
    /// Kthena's kinds that lead requests to pods.
    pub network: RoutingApis,
    /// Kthena's own autoscaler.
    pub policies: PolicyApis,
    /// What plans depend on.
    pub plan: Capabilities,
}

/// Which of Kthena's kinds there are that lead requests to pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutingApis {
    /// ModelRoutes.
    pub routes: bool,
    /// ModelServers.
    pub servers: bool,
}

/// Which of the kinds there are that drive Kthena's own autoscaler; each release has one or both, so that neither is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyApis {
    /// AutoscalingPolicies.
    pub policies: bool,
    /// AutoscalingPolicyBindings, up to Kthena 0.4.
    pub bindings: bool,
}

impl ServedApis {
    /// Everything that may be there or not, by name.
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

    fn has_synced(self) -> bool {
        self.optional_apis().into_iter().all(|(_, is_served)| is_served)
    }

    /// Whether something is missing that `self` has.
    fn loses(self, next: Self) -> bool {
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
}

/// Asks once.
///
/// # Errors
/// When the API server does not answer; nothing is then known.
pub async fn discover(client: &Client) -> Result<ServedApis, Error> {
    let groups: Groups =
        get(client, "/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList").await?;
    let model_serving = groups.find(ModelServing::GROUP, ModelServing::VERSION, ModelServing::PLURAL);
    let has = |group, version, resource| groups.find(group, version, resource).is_some();
    let keda =
        if has("keda.sh", "v1alpha1", "scaledobjects") { Some(keda_fields(client).await?) } else { None };
    Ok(ServedApis {
        model_servings: model_serving.is_some(),
        service_monitors: has("monitoring.coreos.com", "v1", "servicemonitors"),
        network: RoutingApis {
            routes: has("networking.serving.volcano.sh", "v1alpha1", "modelroutes"),
            servers: has("networking.serving.volcano.sh", "v1alpha1", "modelservers"),
        },
        policies: PolicyApis {
            policies: has(ModelServing::GROUP, ModelServing::VERSION, "autoscalingpolicies"),
            bindings: has(ModelServing::GROUP, ModelServing::VERSION, "autoscalingpolicybindings"),
        },
        profiles: has("autoscaling.kthena.io", "v1alpha1", "autoscalingprofiles"),
        plan: Capabilities {
            keda,
            scale: model_serving
                .is_some_and(|found| found.subresources.iter().any(|sub| sub.subresource == "scale")),
            pod_monitors: has("monitoring.coreos.com", "v1", "podmonitors"),
        },
    })
}

async fn keda_fields(client: &Client) -> Result<Keda, Error> {
    let document: Value = get(client, "/openapi/v3/apis/keda.sh/v1alpha1", "application/json").await?;
    let spec = document
        .pointer("/components/schemas")
        .and_then(Value::as_object)
        .and_then(|schemas| schemas.iter().find(|(name, _)| name.ends_with(".ScaledObject")))
        .and_then(|(_, schema)| schema.pointer("/properties/spec/properties"))
        .ok_or(Error::Malformed("a schema of ScaledObject in KEDA's OpenAPI document"))?;
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

/// Asks for life: at once, every `interval` while something is missing, else every five minutes, and when `wake` is notified.
pub async fn rediscover(
    client: Client,
    interval: Duration,
    wake: &Notify,
    served: &watch::Sender<Option<ServedApis>>,
) {
    let mut failures = 0;
    let mut doubted = false;
    loop {
        let pause = match discover(&client).await {
            Ok(found) if !doubted && served.borrow().is_some_and(|known| known.loses(found)) => {
                doubted = true;
                // Not to be woken early: the same answer at once would prove nothing.
                sleep(DOUBT).await;
                continue;
            }
            Ok(found) => {
                doubted = false;
                failures = 0;
                publish(served, found);
                if found.has_synced() { SETTLED } else { interval }
            }
            Err(error) => {
                failures += 1;
                if failures == 1 {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot discover what the cluster serves; trying on"
                    );
                }
                backoff::delay(failures, interval)
            }
        };
        // Either way it is time to ask again.
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
            "the cluster serves"
        );
    }
}
