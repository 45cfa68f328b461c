//! A control plane with CRDs and the operator's RBAC permissions, and a namespace for each test.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use k8s_openapi::api::core::v1::Namespace as CoreNamespace;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, PostParams},
};
use serde_json::json;

use crate::{
    audit::{self, Request},
    certificates::Identity,
    control_plane::ControlPlane,
    crds::Crds,
    model_serving::ModelServingBuilder,
    objects::apply_file,
    operator::{OPERATOR, Settings},
    process::Process,
};

/// A control plane with CRDs.
#[derive(Debug)]
pub struct Stack {
    /// API server and etcd.
    pub control_plane: ControlPlane,
}

impl Stack {
    /// Starts a control plane with these CRDs, the operator's own CRD, and the RBAC manifests and the admission policy
    /// for its service account in `config/install`.
    pub async fn start(crds: &[Crds]) -> Self {
        let ours = Crds::ours();
        let stack = Self::bare(&crds.iter().cloned().chain([ours]).collect::<Vec<_>>()).await;
        let client = stack.client().await;
        for file in ["namespace", "serviceaccount", "rbac", "operatorpolicy"] {
            apply_file(&client, &root().join(format!("config/install/{file}.yaml"))).await;
        }
        stack
    }

    /// Starts a control plane with these CRDs and nothing of the operator.
    pub async fn bare(crds: &[Crds]) -> Self {
        let stack = Self { control_plane: ControlPlane::start().await };
        let client = stack.client().await;
        futures::future::join_all(crds.iter().map(|crds| crds.install(&client))).await;
        // Kthena's namespace exists even if Kthena does not run.
        stack.create_namespace(&client, "kthena-system").await;
        stack
    }

    /// Grants the operator and KEDA what the chart grants with `roles.enabled`.
    ///
    /// # Panics
    /// If Helm fails.
    pub async fn allow_roles(&self) {
        let mut command = std::process::Command::new(crate::control_plane::binary("helm"));
        command.args(["template", "kthena-keda", "charts/kthena-keda", "--namespace", "kthena-keda"]);
        command.args(["--set", "prometheus.url=http://prometheus:9090", "--set", "roles.enabled=true"]);
        for file in ["rbac", "operatorpolicy", "keda-grant"] {
            command.args(["--show-only", &format!("templates/{file}.yaml")]);
        }
        let output = command.current_dir(root()).output().expect("Helm");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let objects: Vec<serde_json::Value> =
            serde_saphyr::from_multiple(&String::from_utf8_lossy(&output.stdout)).expect("manifests");
        let client = self.client().await;
        for object in objects.into_iter().filter(|object| !object.is_null()) {
            crate::objects::apply(&client, object).await;
        }
    }

    /// Creates a client with all permissions. Each test needs its own, because connections belong to the
    /// test's runtime.
    pub async fn client(&self) -> Client {
        self.control_plane.client(&Identity::Admin).await
    }

    /// Starts the operator as its service account.
    pub fn start_operator(&self, settings: &Settings) -> Process {
        settings.start(&self.control_plane.folder, &self.control_plane.kubeconfig(&OPERATOR))
    }

    /// Requests of the operator so far.
    pub fn requests(&self) -> Vec<Request> {
        audit::requests(&self.control_plane, &OPERATOR)
    }

    /// Writes of the operator so far.
    pub fn writes(&self) -> Vec<Request> {
        self.requests().into_iter().filter(Request::is_write).collect()
    }

    /// Creates a namespace for one test.
    pub async fn namespace(&self) -> Namespace {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let (client, name) =
            (self.client().await, format!("models-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        self.create_namespace(&client, &name).await;
        Namespace { client, name }
    }

    async fn create_namespace(&self, client: &Client, name: &str) {
        let namespace = CoreNamespace {
            metadata: kube::api::ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
            ..Default::default()
        };
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.expect("a namespace");
    }
}

/// Root folder of the project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(".")).to_owned()
}

/// Resource of a kind, without discovery.
pub fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

/// Kinds that tests use.
pub mod kinds {
    use kube::api::ApiResource;

    use super::resource;

    /// Kthena's ModelServing.
    pub fn model_serving() -> ApiResource {
        resource("workload.serving.volcano.sh", "v1alpha1", "ModelServing", "modelservings")
    }

    /// Kthena's ModelBooster.
    pub fn model_booster() -> ApiResource {
        resource("workload.serving.volcano.sh", "v1alpha1", "ModelBooster", "modelboosters")
    }

    /// Kthena's ModelServer.
    pub fn model_server() -> ApiResource {
        resource("networking.serving.volcano.sh", "v1alpha1", "ModelServer", "modelservers")
    }

    /// Kthena's ModelRoute.
    pub fn model_route() -> ApiResource {
        resource("networking.serving.volcano.sh", "v1alpha1", "ModelRoute", "modelroutes")
    }

    /// The scale target of a role.
    pub fn model_serving_role() -> ApiResource {
        resource("autoscaling.kthena.io", "v1alpha1", "ModelServingRole", "modelservingroles")
    }

    /// KEDA's ScaledObject.
    pub fn scaled_object() -> ApiResource {
        resource("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects")
    }

    /// The operator's AutoscalingProfile.
    pub fn profile() -> ApiResource {
        resource("autoscaling.kthena.io", "v1alpha1", "AutoscalingProfile", "autoscalingprofiles")
    }

    /// The Prometheus Operator's ServiceMonitor.
    pub fn service_monitor() -> ApiResource {
        resource("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors")
    }

    /// The Prometheus Operator's PodMonitor.
    pub fn pod_monitor() -> ApiResource {
        resource("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors")
    }

    /// Kubernetes' Pod.
    pub fn pod() -> ApiResource {
        resource("", "v1", "Pod", "pods")
    }

    /// Kubernetes' Service.
    pub fn service() -> ApiResource {
        resource("", "v1", "Service", "services")
    }
}

/// A namespace that only one test uses.
#[derive(Clone)]
pub struct Namespace {
    /// Client with all permissions.
    pub client: Client,
    /// Its name.
    pub name: String,
}

impl Namespace {
    /// Builder of a ModelServing in the namespace.
    pub fn model_serving(&self, name: &str) -> ModelServingBuilder {
        ModelServingBuilder::new(self.clone(), name)
    }

    /// Model name that no other namespace uses, because the router serves the models of all namespaces.
    pub fn model_name(&self) -> String {
        format!("llama.{}", self.name)
    }

    /// API for a kind in the namespace.
    pub fn api(&self, kind: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.name, kind)
    }

    /// Creates an object of any kind in the namespace.
    pub async fn create(&self, kind: &ApiResource, content: serde_json::Value) -> DynamicObject {
        let mut object = json!({"apiVersion": kind.api_version, "kind": kind.kind});
        if let (Some(object), Some(content)) = (object.as_object_mut(), content.as_object()) {
            object.extend(content.clone());
        }
        let object: DynamicObject = serde_json::from_value(object).expect("an object");
        let created = self.api(kind).create(&PostParams::default(), &object).await;
        created.unwrap_or_else(|error| panic!("{} {}: {error}", kind.kind, object.name_any()))
    }

    /// The same client for another namespace.
    #[must_use]
    pub fn elsewhere(&self, name: &str) -> Self {
        Self { client: self.client.clone(), name: name.to_owned() }
    }
}
