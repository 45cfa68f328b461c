//! The cluster as a source of [`Observed`](kthena_keda_core::observed::Observed), read once with the caller's own permissions, for
//! `explain`.

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, TypeMeta},
};

use super::{
    Manifests,
    kinds::{Area, KindVisitor, WatchedKind, visit_all},
};
use crate::cluster::{Error, discovery::ServedApis};

/// Objects of the cluster, as far as the caller may read them.
#[derive(Debug, Default)]
pub struct Live {
    /// Everything that was read.
    pub objects: Manifests,
    /// Messages on kinds that could not be read; mostly missing permissions.
    pub missing: Vec<String>,
}

/// A kind to list.
struct Listed {
    resource: ApiResource,
    /// The only namespace in which the kind matters.
    namespace: Option<String>,
    /// `true` if its objects belong to no namespace.
    is_cluster_scoped: bool,
}

/// Reads every kind of the [table](super::kinds), cluster-wide where the caller may, else in `namespace`.
pub async fn read(
    client: &Client,
    served: &ServedApis,
    namespace: Option<&str>,
    router_namespace: &str,
) -> Live {
    let mut live = Live { objects: Manifests::of_cluster(served.clone()), missing: Vec::new() };
    for listed in listed_kinds(served, router_namespace) {
        live.list(client, &listed, namespace).await;
    }
    live.missing.extend(live.objects.complete());
    live
}

fn listed_kinds(served: &ServedApis, router_namespace: &str) -> Vec<Listed> {
    struct Collect<'a> {
        served: &'a ServedApis,
        router_namespace: &'a str,
        kinds: Vec<Listed>,
    }
    impl KindVisitor for Collect<'_> {
        fn visit<K: WatchedKind>(&mut self) {
            // Few callers may list pods, and few models have a stand-in.
            if K::is_served(self.served) && K::ROW.area != Area::StandIns {
                let namespace = (K::ROW.area == Area::Router).then(|| self.router_namespace.to_owned());
                let is_cluster_scoped = K::ROW.area == Area::Cluster;
                let resource = ApiResource::erase::<K>(&());
                self.kinds.push(Listed { resource, namespace, is_cluster_scoped });
            }
        }
    }
    let mut collect = Collect { served, router_namespace, kinds: Vec::new() };
    visit_all(&mut collect);
    collect.kinds
}

impl Live {
    async fn list(&mut self, client: &Client, listed: &Listed, fallback: Option<&str>) {
        let Listed { resource, namespace, is_cluster_scoped } = listed;
        let plural = &resource.plural;
        let mut found = list_in(client, resource, namespace.as_deref()).await;
        if let (Err(error), None, Some(fallback)) = (&found, namespace, fallback)
            && error.is_forbidden()
            && !is_cluster_scoped
        {
            self.missing.push(format!(
                "no permission to list {plural} in all namespaces; only those in {fallback} were read"
            ));
            found = list_in(client, resource, Some(fallback)).await;
        }
        match found {
            Ok(objects) => objects.into_iter().for_each(|object| self.add(resource, object)),
            Err(error) if error.is_forbidden() => {
                self.objects.record_unread(plural, true);
                let place = namespace.iter().map(|namespace| format!(" in namespace {namespace}"));
                let place: String = place.collect();
                self.missing
                    .push(format!("no permission to list {plural}{place}; dependent checks were skipped"));
            }
            Err(error) => {
                self.objects.record_unread(plural, false);
                self.missing.push(format!("cannot list {plural}: {}", error.user_message()));
            }
        }
    }

    fn add(&mut self, resource: &ApiResource, mut object: DynamicObject) {
        let place = format!("{} {}", resource.kind, object.metadata.name.clone().unwrap_or_default());
        object.types =
            Some(TypeMeta { api_version: resource.api_version.clone(), kind: resource.kind.clone() });
        let added = serde_json::to_value(object)
            .map_err(|error| error.to_string())
            .and_then(|object| self.objects.add(&place, object));
        self.missing.extend(added.err());
    }
}

async fn list_in(
    client: &Client,
    resource: &ApiResource,
    namespace: Option<&str>,
) -> Result<Vec<DynamicObject>, Error> {
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    };
    Ok(api.list(&ListParams::default()).await?.items)
}
