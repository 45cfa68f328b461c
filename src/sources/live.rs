//! A cluster as a source of [`Observed`], read once with the caller's own rights: what `explain` goes by.

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};

use super::Manifests;
use crate::cluster::discovery::ServedApis;

/// What could be read, and what could not.
#[derive(Debug, Default)]
pub struct Live {
    /// Everything that was read.
    pub objects: Manifests,
    /// What is missing, in words: rights mostly.
    pub missing: Vec<String>,
}

/// A kind, and where it is looked for.
struct Listed {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
}

const fn kind(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
) -> Listed {
    Listed { group, version, kind, plural }
}

/// Reads everything that a plan depends on, cluster-wide where the caller may, else in the namespace.
pub async fn read(
    client: &Client,
    served: ServedApis,
    namespace: Option<&str>,
    router_namespace: &str,
) -> Live {
    let workload = |of: &'static str, plural| kind("workload.serving.volcano.sh", "v1alpha1", of, plural);
    let networking = |of: &'static str, plural| kind("networking.serving.volcano.sh", "v1alpha1", of, plural);
    let monitoring = |of: &'static str, plural| kind("monitoring.coreos.com", "v1", of, plural);
    let kinds = [
        (served.model_servings, workload("ModelServing", "modelservings")),
        (served.policies.policies, workload("AutoscalingPolicy", "autoscalingpolicies")),
        (served.policies.bindings, workload("AutoscalingPolicyBinding", "autoscalingpolicybindings")),
        (served.plan.keda.is_some(), kind("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects")),
        (true, kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")),
        (served.network.routes, networking("ModelRoute", "modelroutes")),
        (served.network.servers, networking("ModelServer", "modelservers")),
        (served.service_monitors, monitoring("ServiceMonitor", "servicemonitors")),
        (served.plan.pod_monitors, monitoring("PodMonitor", "podmonitors")),
        (
            served.profiles,
            kind("autoscaling.kthena.io", "v1alpha1", "AutoscalingProfile", "autoscalingprofiles"),
        ),
    ];
    let mut live = Live { objects: Manifests::of_cluster(served.network.routes), missing: Vec::new() };
    for (_, kind) in kinds.iter().filter(|(is_served, _)| *is_served) {
        live.take(client, kind, None, namespace).await;
    }
    live.take(client, &kind("", "v1", "Service", "services"), Some(router_namespace), None).await;
    live
}

impl Live {
    async fn take(
        &mut self,
        client: &Client,
        listed: &Listed,
        within: Option<&str>,
        or_within: Option<&str>,
    ) {
        let gvk = GroupVersionKind::gvk(listed.group, listed.version, listed.kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, listed.plural);
        let scoped = |namespace: Option<&str>| -> Api<DynamicObject> {
            match namespace {
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
                None => Api::all_with(client.clone(), &resource),
            }
        };
        let mut found = scoped(within).list(&ListParams::default()).await;
        if let (Err(kube::Error::Api(status)), Some(namespace)) = (&found, or_within)
            && status.code == 403
        {
            self.missing.push(format!(
                "you may not list {} of all namespaces; only those of {namespace} are looked at",
                listed.plural
            ));
            found = scoped(Some(namespace)).list(&ListParams::default()).await;
        }
        let objects = match found {
            Ok(list) => list.items,
            Err(kube::Error::Api(status)) if status.code == 403 => {
                let place = within.map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
                self.missing.push(format!(
                    "you may not list {}{place}; what depends on them is not known",
                    listed.plural
                ));
                return;
            }
            Err(error) => {
                self.missing.push(format!("cannot list {}: {error}", listed.plural));
                return;
            }
        };
        for mut object in objects {
            object.types = Some(kube::api::TypeMeta {
                api_version: resource.api_version.clone(),
                kind: resource.kind.clone(),
            });
            let place = format!("{} {}", listed.kind, object.metadata.name.clone().unwrap_or_default());
            let added = serde_json::to_value(object)
                .map_err(|error| error.to_string())
                .and_then(|object| self.objects.add(&place, object));
            self.missing.extend(added.err());
        }
    }
}
