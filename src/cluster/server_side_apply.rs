//! Writes of objects that are wholly ours.

use std::fmt::Debug;

use http::header::{ACCEPT, HeaderValue};
use kube::{
    Api, Resource,
    api::{DeleteParams, PartialObjectMeta, Patch, PatchParams, Preconditions},
    core::Request,
};
use serde::{Serialize, de::DeserializeOwned};

use super::Error;
use kthena_keda_core::{
    api::metadata::OPERATOR,
    observed::{Fingerprint, OwnedObject, Ownership},
};

/// An answer of nothing but metadata (Kubernetes API concepts, "metadata-only fetches").
pub const METADATA: HeaderValue =
    HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

/// Brings what stands under a name to what is wanted; answers what was written, nothing where it stands so already or is not ours.
///
/// # Errors
/// A conflict, or any refusal of the API server.
pub async fn apply_if_changed<L, K>(
    api: &Api<L>,
    existing: Ownership,
    found: Option<&OwnedObject>,
    wanted: K,
    fingerprint: Fingerprint,
) -> Result<Option<L>, Error>
where
    L: Clone + DeserializeOwned + Debug,
    K: Resource + Serialize + Debug,
{
    let name = wanted.meta().name.clone().ok_or(Error::Malformed("a name"))?;
    match (existing, found) {
        (Ownership::Owned, Some(found)) if found.fingerprint == fingerprint => Ok(None),
        (Ownership::Owned, Some(found)) => update(api, &name, &found.uid, wanted).await.map(Some),
        (Ownership::Absent, _) => create(api, &name, &wanted).await.map(Some),
        (Ownership::Foreign | Ownership::Terminating, _) | (Ownership::Owned, None) => Ok(None),
    }
}

/// Creates an object, unless somebody else has one of that name.
///
/// Not forced: where another manager holds a field with another value the API server answers with a conflict.
async fn create<L, K>(api: &Api<L>, name: &str, object: &K) -> Result<L, Error>
where
    L: Clone + DeserializeOwned + Debug,
    K: Serialize + Debug,
{
    Ok(api.patch(name, &PatchParams::apply(OPERATOR), &Patch::Apply(object)).await?)
}

/// Brings an object of ours back to what it should be, whoever changed it.
///
/// The identity makes sure that it is still that object: one that was deleted and made anew by somebody else is a conflict.
async fn update<L, K>(api: &Api<L>, name: &str, uid: &str, mut object: K) -> Result<L, Error>
where
    L: Clone + DeserializeOwned + Debug,
    K: Resource + Serialize + Debug,
{
    object.meta_mut().uid = Some(uid.to_owned());
    Ok(api.patch(name, &PatchParams::apply(OPERATOR).force(), &Patch::Apply(&object)).await?)
}

/// A change of the status: what it leaves out stays, and with another resource version the API server refuses it.
#[derive(Debug, Serialize)]
struct StatusPatch<S> {
    metadata: Precondition,
    status: S,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Precondition {
    resource_version: Option<String>,
}

/// Merges into the status of exactly this version of an object.
///
/// # Errors
/// A conflict where it has changed since, or any refusal of the API server.
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
    let params = PatchParams { field_manager: Some(OPERATOR.to_owned()), ..PatchParams::default() };
    Ok(api.patch_status(name, &params, &Patch::Merge(patch)).await?)
}

/// Changes the status of an object by operations of which the first tests its version.
///
/// Only metadata is asked for in answer: the API server would encode the whole object once more, of which nothing is news.
///
/// # Errors
/// Any refusal of the API server; one that [may be late](Error::may_be_late) where the version is another.
pub async fn patch_status<L>(
    api: &Api<L>,
    name: &str,
    operations: json_patch::Patch,
) -> Result<PartialObjectMeta<L>, Error>
where
    L: Resource + Clone,
{
    let params = PatchParams { field_manager: Some(OPERATOR.to_owned()), ..PatchParams::default() };
    let request = Request::new(api.resource_url()).patch_subresource(
        "status",
        name,
        &params,
        &Patch::<()>::Json(operations),
    );
    let mut request = request.map_err(kube::Error::BuildRequest)?;
    request.headers_mut().insert(ACCEPT, METADATA);
    Ok(api.clone().into_client().request(request).await?)
}

/// Deletes exactly this object; it is no error if it is gone already.
///
/// # Errors
/// Any other refusal of the API server.
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
