//! The custom resource definitions of the neighbours, in the shapes that clusters have them.

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

/// Definitions that are installed and removed together.
#[derive(Clone, Debug)]
pub struct Crds {
    /// What they are called in messages.
    pub name: String,
    files: Vec<PathBuf>,
}

impl Crds {
    /// KEDA's.
    pub fn keda() -> Self {
        Self::from_folder("KEDA", &built().join("manifests/keda/crds"))
    }

    /// The oldest release of KEDA that is supported.
    pub fn keda_2_14() -> Self {
        Self::from_folder("KEDA v2.14", &built().join("manifests/keda-2.14/crds"))
    }

    /// Our own, as it is shipped.
    pub fn ours() -> Self {
        Self::from_folder("kthena-keda", &root().join("crds"))
    }

    /// The Prometheus Operator's.
    pub fn prometheus_operator() -> Self {
        Self::from_folder("the Prometheus Operator", &built().join("manifests/prometheus-operator/crds"))
    }

    /// Kthena's newest release.
    pub fn kthena() -> Self {
        Self::from_folder("Kthena v1.0.0", &built().join("manifests/kthena/crds"))
    }

    /// Kthena as it was before the scale subresource; what autoscaling depends on.
    pub fn kthena_0_2() -> Self {
        Self { name: "Kthena v0.2, in short".to_owned(), files: vec![own("kthena-v0.2.yaml")] }
    }

    /// Kthena as it was with a scale subresource whose selector nobody fills; what autoscaling depends on.
    pub fn kthena_0_4() -> Self {
        Self { name: "Kthena v0.4, in short".to_owned(), files: vec![own("kthena-v0.4.yaml")] }
    }

    /// One of Kthena's releases, where its definitions are at hand: in `KTHENA_CRDS`, or in a folder beside the project.
    pub fn kthena_released(version: &str) -> Option<Self> {
        let beside = || root().join("../shared/data/kthena-crds");
        let folder = env::var_os("KTHENA_CRDS").map_or_else(beside, PathBuf::from).join(version);
        folder.is_dir().then(|| Self::from_folder(&format!("Kthena {version}"), &folder))
    }

    fn from_folder(name: &str, folder: &Path) -> Self {
        let entries = fs::read_dir(folder)
            .unwrap_or_else(|error| panic!("{}: {error}: run `make stack`", folder.display()));
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        Self { name: name.to_owned(), files }
    }

    /// Installs them and waits until they are served.
    pub async fn install(&self, client: &Client) {
        let (definitions, api) = (self.definitions(), definitions(client));
        for definition in &definitions {
            let name = name(definition);
            // A definition that is going takes its objects first; it cannot be brought back before.
            if api
                .get_opt(name)
                .await
                .expect("an answer")
                .is_some_and(|found| found.metadata.deletion_timestamp.is_some())
            {
                gone(client, name).await;
            }
            api.patch(name, &PatchParams::apply("harness").force(), &Patch::Apply(definition))
                .await
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        for definition in &definitions {
            let established = await_condition(
                Api::<CustomResourceDefinition>::all(client.clone()),
                name(definition),
                conditions::is_crd_established(),
            );
            timeout(LIMIT, established).await.expect("definitions are established in time").expect("a watch");
            // Established is not served yet, and one that is deleted before it is served hangs about for a minute.
            let objects: Api<DynamicObject> = Api::all_with(client.clone(), &kind(definition));
            until_asked(
                "its objects can be listed",
                async || objects.list(&ListParams::default().limit(1)).await.is_ok(),
                |ok| *ok,
            )
            .await;
        }
    }

    /// Removes them with every object of their kinds, and waits until they are gone.
    pub async fn remove(&self, client: &Client) {
        for definition in &self.definitions() {
            definitions(client)
                .delete(name(definition), &DeleteParams::default())
                .await
                .expect("to delete a definition");
        }
        for definition in &self.definitions() {
            gone(client, name(definition)).await;
        }
    }

    fn definitions(&self) -> Vec<DynamicObject> {
        let read = |path: &PathBuf| {
            fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        self.files
            .iter()
            .flat_map(|path| serde_saphyr::from_multiple::<DynamicObject>(&read(path)).expect("YAML"))
            .collect()
    }
}

/// The kind that a definition defines.
fn kind(definition: &DynamicObject) -> ApiResource {
    let text = |pointer: &str| {
        definition.data.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or_default()
    };
    resource(
        text("/spec/group"),
        text("/spec/versions/0/name"),
        text("/spec/names/kind"),
        text("/spec/names/plural"),
    )
}

async fn gone(client: &Client, name: &str) {
    crate::wait::until(&definitions(client), name, "is gone", |found| found.is_none()).await;
}

fn name(definition: &DynamicObject) -> &str {
    definition.metadata.name.as_deref().unwrap_or_default()
}

fn definitions(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &ApiResource::erase::<CustomResourceDefinition>(&()))
}

fn own(file: &str) -> PathBuf {
    root().join("tests/harness/crds").join(file)
}
