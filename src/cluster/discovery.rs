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
    api::{kthena::ModelServing, model_serving_role::ModelServingRole},
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

/// Presence of an API in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Discovery lists it.
    Served,
    /// Discovery is complete and does not list it.
    Absent,
    /// The API server could not refresh the API's group, so it may be served although it is not listed.
    Unknown,
}

/// The optional APIs that the cluster serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedApis {
    apis: Arc<[(WatchedApi, Presence)]>,
    /// Features that plans depend on.
    pub capabilities: Capabilities,
    /// `false` until a second discovery has confirmed that the missing APIs are missing.
    pub is_confirmed: bool,
}

impl ServedApis {
    /// The given APIs, confirmed.
    pub fn new(apis: impl IntoIterator<Item = (WatchedApi, Presence)>, capabilities: Capabilities) -> Self {
        Self { apis: apis.into_iter().collect(), capabilities, is_confirmed: true }
    }

    /// Presence of a resource in the cluster.
    pub fn presence(&self, group: &str, plural: &str) -> Presence {
        let found = self.apis.iter().find(|(api, _)| api.group == group && api.plural == plural);
        found.map_or(Presence::Absent, |(_, presence)| *presence)
    }

    /// The optional APIs by their name in metrics, each with `true` if it is served.
    pub fn optional_apis(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let apis =
            self.apis.iter().filter_map(|(api, presence)| Some((api.label?, *presence == Presence::Served)));
        apis.chain([("scale", self.capabilities.scale)])
    }

    /// The same, where an API of which nothing is known now is as it was in `before`.
    fn completed_by(mut self, before: &Self) -> Self {
        let apis = self.apis.iter().map(|(api, presence)| match presence {
            Presence::Unknown => (api.clone(), before.presence(&api.group, &api.plural)),
            presence => (api.clone(), *presence),
        });
        self.apis = apis.collect();
        self
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
    versions: Vec<ServedVersion>,
}

#[derive(Deserialize)]
struct GroupName {
    name: String,
}

#[derive(Deserialize)]
struct ServedVersion {
    version: String,
    #[serde(default)]
    resources: Vec<ServedResource>,
    #[serde(default)]
    freshness: Freshness,
}

/// Result of the last request of the aggregating API server to the server of the group (Kubernetes
/// `staging/src/k8s.io/api/apidiscovery/v2/types.go`).
#[derive(Default, PartialEq, Deserialize)]
enum Freshness {
    #[default]
    Current,
    Stale,
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

    fn presence(&self, api: &WatchedApi) -> Presence {
        if self.has(&api.group, &api.version, &api.plural) {
            return Presence::Served;
        }
        let group = self.items.iter().find(|found| found.metadata.name == api.group);
        let mut versions = group.into_iter().flat_map(|group| &group.versions);
        if versions.any(|found| found.freshness == Freshness::Stale) {
            Presence::Unknown
        } else {
            Presence::Absent
        }
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
        scale: has_scale(model_serving),
        pod_monitors: groups.has("monitoring.coreos.com", "v1", "podmonitors"),
        roles: has_scale(groups.find(ModelServingRole::GROUP, "v1alpha1", ModelServingRole::PLURAL)),
    };
    let served = apis.iter().map(|api| (api.clone(), groups.presence(api)));
    Ok(ServedApis::new(served, capabilities))
}

fn has_scale(resource: Option<&ServedResource>) -> bool {
    resource.is_some_and(|found| found.subresources.iter().any(|sub| sub.subresource == "scale"))
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
            Ok(found) if !is_confirming && is_doubtful(served.borrow().as_ref(), &found) => {
                is_confirming = true;
                if served.borrow().is_none() {
                    publish(served, ServedApis { is_confirmed: false, ..found });
                }
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

/// `true` if an API is missing that was served before, or at the first discovery: an API server that has just
/// started does not serve all custom resources yet.
fn is_doubtful(known: Option<&ServedApis>, found: &ServedApis) -> bool {
    known.map_or_else(|| !found.is_complete(), |known| known.loses(found))
}

fn publish(served: &watch::Sender<Option<ServedApis>>, found: ServedApis) {
    let found = match &*served.borrow() {
        Some(before) => found.completed_by(before),
        None => found,
    };
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

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    const CURRENT: &str = "Current";

    fn api(plural: &str, label: Option<&'static str>) -> WatchedApi {
        WatchedApi { group: "g".into(), version: "v1".into(), plural: plural.into(), label }
    }

    fn groups(freshness: &str, resources: &[&str]) -> Groups {
        let resources: Vec<Value> = resources.iter().map(|name| json!({"resource": name})).collect();
        let version = json!({"version": "v1", "resources": resources, "freshness": freshness});
        serde_json::from_value(json!({"items": [{"metadata": {"name": "g"}, "versions": [version]}]}))
            .unwrap()
    }

    /// The API server lists a group whose server does not answer, as it was or without resources.
    #[rstest]
    #[case::listed(CURRENT, &["things"], Presence::Served)]
    #[case::not_listed(CURRENT, &["others"], Presence::Absent)]
    #[case::listed_before("Stale", &["things"], Presence::Served)]
    #[case::not_refreshed("Stale", &[], Presence::Unknown)]
    fn tells_absent_apis_from_those_that_are_not_known(
        #[case] freshness: &str,
        #[case] resources: &[&str],
        #[case] expected: Presence,
    ) {
        assert_eq!(groups(freshness, resources).presence(&api("things", None)), expected);
    }

    fn served(things: Presence) -> ServedApis {
        ServedApis::new([(api("things", Some("things")), things)], Capabilities::NEWEST)
    }

    #[test]
    fn a_group_that_is_not_refreshed_changes_nothing() {
        let sender = watch::Sender::new(None);
        for (found, expected) in [
            (Presence::Unknown, Presence::Unknown),
            (Presence::Served, Presence::Served),
            (Presence::Unknown, Presence::Served),
            (Presence::Absent, Presence::Absent),
        ] {
            publish(&sender, served(found));
            assert_eq!(sender.borrow().as_ref().unwrap().presence("g", "things"), expected);
        }
    }

    #[test]
    fn a_missing_api_is_confirmed_also_at_the_first_discovery() {
        assert!(is_doubtful(None, &served(Presence::Absent)));
        assert!(is_doubtful(Some(&served(Presence::Served)), &served(Presence::Absent)));
        assert!(!is_doubtful(None, &served(Presence::Served)));
        assert!(!is_doubtful(Some(&served(Presence::Absent)), &served(Presence::Absent)));
    }
}
