//! Writes: server-side apply of generated objects, status patches, deletes.

use std::fmt::Debug;

use http::header::{ACCEPT, HeaderValue};
use json_patch::{PatchOperation, RemoveOperation, TestOperation, jsonptr::PointerBuf};
use kube::{
    Api, Client, Resource,
    api::{
        ApiResource, DeleteParams, DynamicObject, ListParams, PartialObjectMeta, Patch, PatchParams,
        Preconditions, TypeMeta,
    },
    core::{NamespaceResourceScope, Request},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::Error;
use kthena_keda_core::{
    api::metadata::OPERATOR,
    domain::Pause,
    observed::{Fingerprint, LiveObject, OwnedObject, Ownership, SpecDifference, with_pause},
};

/// `Accept` header for a response that holds metadata alone (Kubernetes API concepts, "metadata-only fetches").
pub const METADATA: HeaderValue =
    HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

/// A kind that the operator writes whole.
pub trait Generated:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + Clone + Debug
{
    /// The kind as the API server returns it.
    type Live: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + LiveObject
        + Clone
        + DeserializeOwned
        + Debug;

    /// Fingerprint of the live object that equals this one.
    fn fingerprint(&self) -> Fingerprint;

    /// The spec, as it is compared with that of the live object.
    fn desired_spec(&self) -> Value;
}

/// Outcome of a write.
#[derive(Debug)]
pub struct Applied<L> {
    /// The object as written last.
    pub live: L,
    /// JSON pointers to fields that other clients had added, and that were removed.
    pub removed: Vec<String>,
    /// Fields that differ all the same.
    pub rest: SpecDifference,
}

/// Applies an object unless it is as desired already, by the fingerprint of `desired`, or is not ours to write. Returns the outcome; `None` without a write.
///
/// Fields of the spec that other clients added are removed, except those in `left_alone`: a server-side apply removes none of them, since
/// it changes only the fields of its own field manager.
///
/// # Errors
/// A conflict, or any rejection by the API server.
pub async fn apply_if_changed<K: Generated>(
    api: &Api<K::Live>,
    ownership: Ownership,
    found: Option<&OwnedObject>,
    desired: &K,
    fingerprint: Fingerprint,
    left_alone: &[String],
) -> Result<Option<Applied<K::Live>>, Error> {
    let name = desired.meta().name.as_deref().ok_or(Error::Malformed("a name"))?;
    let live = match (ownership, found) {
        (Ownership::Owned, Some(found)) if found.fingerprint == fingerprint => return Ok(None),
        (Ownership::Owned, Some(found)) => update(api, name, &found.uid, desired.clone()).await?,
        (Ownership::Absent, _) => create(api, name, desired).await?,
        (Ownership::Foreign | Ownership::Terminating | Ownership::Orphaned, _) | (Ownership::Owned, None) => {
            return Ok(None);
        }
    };
    let spec = desired.desired_spec();
    let mut removed = live.spec().difference(&spec).added;
    removed.retain(|field| !left_alone.contains(field));
    let live = if removed.is_empty() { live } else { remove_fields(api, name, &live, &removed).await? };
    let rest = live.spec().difference(&spec);
    Ok(Some(Applied { live, removed, rest }))
}

/// Changes nothing but the pause of a ScaledObject: the fields that the operator applied last are applied again with it, over exactly the
/// version that was read. Returns `None` if the object is gone, or is another one.
///
/// # Errors
/// A conflict if the object changed since it was read, or any other rejection by the API server.
pub async fn apply_pause<L>(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: &str,
    pause: Option<Pause>,
) -> Result<Option<L>, Error>
where
    L: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let kind = ApiResource::erase::<L>(&());
    let live: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
    // The permissions are those of the watch, which has no `get`.
    let found = live.list(&ListParams::default().fields(&format!("metadata.name={name}"))).await?;
    let mut found = found.items.into_iter().filter(|found| found.metadata.uid.as_deref() == Some(uid));
    let Some(mut live) = found.next() else { return Ok(None) };
    // Elements of a list have no type.
    live.types = Some(TypeMeta { api_version: kind.api_version.clone(), kind: kind.kind.clone() });
    let live = serde_json::to_value(live).map_err(kube::Error::SerdeError)?;
    let api: Api<L> = Api::namespaced(client.clone(), namespace);
    let params = PatchParams::apply(OPERATOR).force();
    Ok(Some(api.patch(name, &params, &Patch::Apply(with_pause(&live, pause))).await?))
}

/// Removes fields from exactly this version of an object; [`Error::Contended`] if it changed since.
async fn remove_fields<L>(api: &Api<L>, name: &str, live: &L, fields: &[String]) -> Result<L, Error>
where
    L: Resource + Clone + DeserializeOwned + Debug,
{
    let version = TestOperation {
        path: PointerBuf::from_tokens(["metadata", "resourceVersion"]),
        value: live.meta().resource_version.clone().into(),
    };
    // Pointers are made of names of fields, so they parse.
    let paths = fields.iter().filter_map(|field| PointerBuf::parse(field).ok());
    let removals = paths.map(|path| PatchOperation::Remove(RemoveOperation { path }));
    let patch = json_patch::Patch([PatchOperation::Test(version)].into_iter().chain(removals).collect());
    let removed = api.patch(name, &by_operator(), &Patch::<()>::Json(patch)).await;
    removed.map_err(|error| Error::from(error).or_contended())
}

fn by_operator() -> PatchParams {
    PatchParams { field_manager: Some(OPERATOR.to_owned()), ..PatchParams::default() }
}

/// Creates an object.
///
/// Not forced: where another field manager holds a field with another value, the API server returns a conflict.
///
/// # Errors
/// A conflict, or any other rejection by the API server.
pub async fn create<L, K>(api: &Api<L>, name: &str, object: &K) -> Result<L, Error>
where
    L: Clone + DeserializeOwned + Debug,
    K: Serialize + Debug,
{
    Ok(api.patch(name, &PatchParams::apply(OPERATOR), &Patch::Apply(object)).await?)
}

/// Restores an object that the operator owns.
///
/// The uid is a precondition: an object that was deleted and recreated by another client is a conflict.
async fn update<L, K>(api: &Api<L>, name: &str, uid: &str, mut object: K) -> Result<L, Error>
where
    L: Clone + DeserializeOwned + Debug,
    K: Resource + Serialize + Debug,
{
    object.meta_mut().uid = Some(uid.to_owned());
    Ok(api.patch(name, &PatchParams::apply(OPERATOR).force(), &Patch::Apply(&object)).await?)
}

/// Checks that no object has a name, with the permissions of a watch.
///
/// # Errors
/// [`Error::Occupied`] if one has it, or any rejection by the API server.
pub async fn is_free<L>(api: &Api<L>, name: &str) -> Result<(), Error>
where
    L: Clone + DeserializeOwned + Debug,
{
    let found = api.list_metadata(&ListParams::default().fields(&format!("metadata.name={name}"))).await?;
    if found.items.is_empty() { Ok(()) } else { Err(Error::Occupied) }
}

/// Merges the status of a built-in kind by strategy: of a list of conditions only those in `object` change. Returns `None` if the object is gone.
///
/// # Errors
/// A conflict if `object` has another uid, or any other rejection by the API server.
pub async fn merge_conditions<L, K>(api: &Api<L>, name: &str, object: &K) -> Result<Option<L>, Error>
where
    L: Clone + DeserializeOwned + Debug,
    K: Serialize + Debug,
{
    match api.patch_status(name, &by_operator(), &Patch::Strategic(object)).await.map_err(Error::from) {
        Ok(live) => Ok(Some(live)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A merge patch of the status, rejected by the API server if the resource version differs.
#[derive(Debug, Serialize)]
struct StatusPatch<S> {
    metadata: Precondition,
    status: S,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Precondition {
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_version: Option<String>,
}

/// Merges into the status of exactly this version of an object; of any version without one.
///
/// # Errors
/// A conflict if the object changed since, or any other rejection by the API server.
pub async fn merge_status<L, S>(
    api: &Api<L>,
    name: &str,
    resource_version: Option<String>,
    status: S,
) -> Result<L, Error>
where
    L: Clone + DeserializeOwned + Debug,
    S: Serialize + Debug,
{
    let patch = StatusPatch { metadata: Precondition { resource_version }, status };
    Ok(api.patch_status(name, &by_operator(), &Patch::Merge(patch)).await?)
}

/// Patches the status of an object; the first operation tests its resource version.
///
/// The response holds metadata alone: encoding the whole object again would cost the API server 10 KB for nothing new.
///
/// # Errors
/// Any rejection by the API server; a [stale write](Error::is_stale_write) if the version differs.
pub async fn patch_status<L>(
    api: &Api<L>,
    name: &str,
    operations: json_patch::Patch,
) -> Result<PartialObjectMeta<L>, Error>
where
    L: Resource + Clone,
{
    let (requests, patch) = (Request::new(api.resource_url()), Patch::<()>::Json(operations));
    send_for_metadata(api, requests.patch_subresource("status", name, &by_operator(), &patch)).await
}

/// The same for the object itself.
///
/// # Errors
/// Any rejection by the API server; a [stale write](Error::is_stale_write) if a test fails.
pub async fn patch<L>(
    api: &Api<L>,
    name: &str,
    operations: json_patch::Patch,
) -> Result<PartialObjectMeta<L>, Error>
where
    L: Resource + Clone,
{
    let (requests, patch) = (Request::new(api.resource_url()), Patch::<()>::Json(operations));
    send_for_metadata(api, requests.patch(name, &by_operator(), &patch)).await
}

async fn send_for_metadata<L>(
    api: &Api<L>,
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<PartialObjectMeta<L>, Error>
where
    L: Resource + Clone,
{
    let mut request = request.map_err(kube::Error::BuildRequest)?;
    request.headers_mut().insert(ACCEPT, METADATA);
    Ok(api.clone().into_client().request(request).await?)
}

/// Deletes exactly this object; one that is gone already is no error.
///
/// # Errors
/// Any other rejection by the API server.
pub async fn delete<L>(api: &Api<L>, name: &str, uid: &str) -> Result<(), Error>
where
    L: Clone + DeserializeOwned + Debug,
{
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(name, &params).await.map_err(Error::from) {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Class;
    use kthena_keda_core::{api::monitoring::PodMonitor, observed::LivePodMonitor};
    use kube::client::Body;
    use rstest::rstest;
    use serde_json::json;

    /// Class of the failure to remove a field, for a response of the API server to the JSON patch.
    async fn removal_failure(response: Value) -> Class {
        let live = json!({
            "metadata": {"name": "chat", "namespace": "models", "uid": "u", "resourceVersion": "7"},
            "spec": {"selector": {}, "podMetricsEndpoints": [], "sampleLimit": 9},
        });
        let api_server = move |request: http::Request<Body>| {
            let is_removal = request.headers()["content-type"] == "application/json-patch+json";
            let (code, body) = if is_removal { (422, &response) } else { (200, &live) };
            let response =
                http::Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
            async move { response }
        };
        let api: Api<LivePodMonitor> =
            Api::namespaced(Client::new(tower::service_fn(api_server), "models"), "models");
        let desired =
            json!({"metadata": {"name": "chat"}, "spec": {"selector": {}, "podMetricsEndpoints": []}});
        let desired: PodMonitor = serde_json::from_value(desired).unwrap();
        let fingerprint = desired.fingerprint();
        let outcome = apply_if_changed(&api, Ownership::Absent, None, &desired, fingerprint, &[]).await;
        let Err(error) = outcome else { panic!("the removal succeeds") };
        error.class()
    }

    fn unprocessable(message: &str, details: &Value) -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 422, "reason": "Invalid", "message": message, "details": details})
    }

    #[rstest]
    #[case::another_version("the server rejected our request due to an error in our request", json!({}), Class::Transient)]
    #[case::invalid_object(
        "PodMonitor \"chat\" is invalid",
        json!({"causes": [{"reason": "FieldValueRequired", "field": "spec.sampleLimit", "message": "Required value"}]}),
        Class::Rejected
    )]
    #[case::denied("admission webhook \"w\" denied the request: no", json!({}), Class::Rejected)]
    #[tokio::test]
    async fn a_lost_race_is_no_rejection(
        #[case] message: &str,
        #[case] details: Value,
        #[case] expected: Class,
    ) {
        assert_eq!(removal_failure(unprocessable(message, &details)).await, expected);
    }
}
