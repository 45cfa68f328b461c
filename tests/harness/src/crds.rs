//! The CRDs of the components, in the versions that clusters have.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
    runtime::wait::{await_condition, conditions},
};
use tokio::time::timeout;

use crate::{
    control_plane::built,
    stack::{resource, root},
    wait::{LIMIT, until_asked},
};

/// CRDs that are installed and removed together.
#[derive(Clone, Debug)]
pub struct Crds {
    /// Name in failure messages.
    pub name: String,
    files: Vec<PathBuf>,
}

impl Crds {
    /// KEDA's newest release.
    pub fn keda() -> Self {
        Self::from_folder("KEDA", &built().join("manifests/keda/crds"))
    }

    /// KEDA's oldest supported release.
    pub fn keda_2_14() -> Self {
        Self::from_folder("KEDA v2.14", &built().join("manifests/keda-2.14/crds"))
    }

    /// kthena-keda's AutoscalingProfile.
    pub fn ours() -> Self {
        Self::from_folder("kthena-keda", &root().join("crds"))
    }

    /// The Prometheus Operator's CRDs.
    pub fn prometheus_operator() -> Self {
        Self::from_folder("the Prometheus Operator", &built().join("manifests/prometheus-operator/crds"))
    }

    /// Kthena's newest release.
    pub fn kthena() -> Self {
        Self::from_folder("Kthena v1.0.0", &built().join("manifests/kthena/crds"))
    }

    /// Kthena before it had a scale subresource, reduced to the fields that autoscaling depends on.
    pub fn kthena_0_2() -> Self {
        Self { name: "Kthena v0.2 (reduced)".to_owned(), files: vec![reduced("kthena-v0.2.yaml")] }
    }

    /// Kthena with a scale subresource whose selector Kthena does not set, reduced to the fields that
    /// autoscaling depends on.
    pub fn kthena_0_4() -> Self {
        Self { name: "Kthena v0.4 (reduced)".to_owned(), files: vec![reduced("kthena-v0.4.yaml")] }
    }

    /// A release of Kthena, if its CRDs are in the folder `KTHENA_CRDS` or in a folder beside the project.
    pub fn kthena_released(version: &str) -> Option<Self> {
        let folder = env::var_os("KTHENA_CRDS")
            .map_or_else(|| root().join("../shared/data/kthena-crds"), PathBuf::from)
            .join(version);
        folder.is_dir().then(|| Self::from_folder(&format!("Kthena {version}"), &folder))
    }

    fn from_folder(name: &str, folder: &Path) -> Self {
        let entries = fs::read_dir(folder)
            .unwrap_or_else(|error| panic!("{}: {error}: run `make stack`", folder.display()));
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        Self { name: name.to_owned(), files }
    }

    /// Installs the CRDs and waits until the API server serves their kinds.
    pub async fn install(&self, client: &Client) {
        let (crds, api) = (self.read(), api(client));
        for crd in &crds {
            let name = name(crd);
            // A terminating CRD cannot be restored; wait until its objects and the CRD are deleted.
            if api
                .get_opt(name)
                .await
                .expect("to read a CRD")
                .is_some_and(|found| found.metadata.deletion_timestamp.is_some())
            {
                wait_until_deleted(client, name).await;
            }
            api.patch(name, &PatchParams::apply("harness").force(), &Patch::Apply(crd))
                .await
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        for crd in &crds {
            let established = await_condition(
                Api::<CustomResourceDefinition>::all(client.clone()),
                name(crd),
                conditions::is_crd_established(),
            );
            timeout(LIMIT, established).await.expect("CRDs are established in time").expect("a watch");
            // An established CRD may not be served yet, and one that is deleted before it is served stays for
            // a minute.
            let objects: Api<DynamicObject> = Api::all_with(client.clone(), &resource_of(crd));
            until_asked(
                "its objects can be listed",
                async || objects.list(&ListParams::default().limit(1)).await.is_ok(),
                |ok| *ok,
            )
            .await;
        }
    }

    /// Deletes the CRDs with all objects of their kinds, and waits until they are gone.
    pub async fn remove(&self, client: &Client) {
        let crds = self.read();
        for crd in &crds {
            api(client).delete(name(crd), &DeleteParams::default()).await.expect("to delete a CRD");
        }
        for crd in &crds {
            wait_until_deleted(client, name(crd)).await;
        }
    }

    fn read(&self) -> Vec<DynamicObject> {
        self.files
            .iter()
            .flat_map(|path| {
                let text =
                    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                serde_saphyr::from_multiple::<DynamicObject>(&text).expect("YAML")
            })
            .collect()
    }
}

/// Resource of a CRD's first version.
fn resource_of(crd: &DynamicObject) -> ApiResource {
    let text =
        |pointer: &str| crd.data.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or_default();
    resource(
        text("/spec/group"),
        text("/spec/versions/0/name"),
        text("/spec/names/kind"),
        text("/spec/names/plural"),
    )
}

async fn wait_until_deleted(client: &Client, name: &str) {
    crate::wait::until(&api(client), name, "is gone", |found| found.is_none()).await;
}

fn name(crd: &DynamicObject) -> &str {
    crd.metadata.name.as_deref().unwrap_or_default()
}

fn api(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &ApiResource::erase::<CustomResourceDefinition>(&()))
}

fn reduced(file: &str) -> PathBuf {
    root().join("tests/harness/crds").join(file)
}
