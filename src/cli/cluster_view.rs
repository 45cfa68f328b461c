//! A cluster as the user of a command may read it, read once for all models.

use kube::ResourceExt as _;

use super::{
    access::Access,
    operator::Operator,
    prometheus_route::{PrometheusRoute, prometheus_url},
};
use crate::{
    cluster::{
        self,
        discovery::{self, ServedApis},
    },
    sources::{
        kinds::optional_apis,
        live::{self, Live},
    },
};
use kthena_keda_core::{
    api::kthena::ModelServing,
    intent::{Profile, PrometheusSettings},
    observed::Observed,
    plan::plan_router,
};

/// Namespace of kthena-router where neither a flag nor the operator names one.
pub(super) const ROUTER_NAMESPACE: &str = "kthena-system";

/// Objects of a cluster, and the way to its Prometheus.
pub(super) struct ClusterView {
    pub(super) served: ServedApis,
    /// The operator, or the ambiguity among several Deployments.
    pub(super) operator: Result<Option<Operator>, String>,
    pub(super) live: Live,
    pub(super) route: PrometheusRoute,
    router_namespace: String,
}

/// The inputs of a plan, as far as they are seen from here.
pub(super) struct Seen {
    pub(super) observed: Observed,
    pub(super) defaults: Profile,
    /// Source of the operator's own address of Prometheus.
    pub(super) prometheus_from: String,
}

impl ClusterView {
    /// Reads the cluster; objects of one namespace suffice where the caller may not read more.
    ///
    /// # Errors
    /// A text for users if the cluster is not reachable.
    pub(super) async fn read(access: &Access, namespace: Option<&str>) -> Result<Self, String> {
        let client = cluster::connect(access.context.clone()).await.map_err(|error| error.to_string())?;
        let served = discovery::discover(&client, &optional_apis())
            .await
            .map_err(|error| format!("discovery of the cluster's APIs failed: {}", error.user_message()))?;
        let operator = Operator::find(&client).await;
        let of_operator = operator.as_ref().ok().and_then(Option::as_ref);
        let of_operator = of_operator.and_then(|found| found.router_namespace.as_deref());
        let router_namespace =
            access.router_namespace.as_deref().or(of_operator).unwrap_or(ROUTER_NAMESPACE).to_owned();
        let live = live::read(&client, &served, namespace, &router_namespace).await;
        let route = PrometheusRoute::new(client, access.prometheus_url.clone(), access.credentials())?;
        Ok(Self { served, operator, live, route, router_namespace })
    }

    /// The operator, unless its Deployment cannot be read or is not the only one.
    pub(super) fn known_operator(&self) -> Option<&Operator> {
        self.operator.as_ref().ok().and_then(Option::as_ref)
    }

    /// All ModelServings that were read.
    pub(super) fn models(&self) -> impl Iterator<Item = &ModelServing> {
        self.live.objects.model_servings.iter().map(|(_, model)| model.as_ref())
    }

    /// Everything that the plan of a model depends on.
    pub(super) fn observe(&self, model: &ModelServing) -> Seen {
        let objects = &self.live.objects;
        let operator = self.known_operator();
        let (url, prometheus_from) = prometheus_url(&self.live, model, operator, &self.route);
        let mut defaults = Profile::built_in();
        defaults.prometheus = url.map(PrometheusSettings::from);
        let (router, _) = objects.observe_router(&self.router_namespace);
        let router = plan_router(&router, objects.default_profile().as_ref(), &defaults, true).router;
        let mut observed = objects.observe(model, router);
        // Without a Deployment to read, the model is explained as if the operator makes stand-ins and may scale roles.
        observed.stand_in.image =
            operator.map_or_else(|| Some(String::new()), |operator| operator.stand_in_image.clone());
        observed.may_scale_roles = operator.is_none_or(|operator| operator.scales_roles);
        Seen { observed, defaults, prometheus_from }
    }
}

/// `true` if a model has this namespace and name.
pub(super) fn is_named(model: &ModelServing, (namespace, name): (&str, &str)) -> bool {
    model.namespace().as_deref() == Some(namespace) && model.name_any() == name
}
