//! The model of a backtest in a cluster, and the route to its Prometheus.

use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject},
};

use super::{
    failure::Failure,
    subject::{Subject, select},
};
use crate::{
    cli::{
        access::Access,
        cluster_view::{ClusterView, Seen},
        prometheus_route::{is_unknown, settings_at},
    },
    controllers::measurements,
    prometheus::Querier,
};
use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::PrometheusUrl,
    foresight::gpus::gpus_per_group,
    intent::PrometheusSettings,
    observed::Measurements,
    plan::{self, ResolvedIntent},
};

/// A model in a cluster.
pub(in crate::cli) struct InCluster {
    pub(in crate::cli) subject: Subject,
    pub(in crate::cli) querier: Querier,
}

impl InCluster {
    /// Reads one model and everything that its plan depends on.
    pub(in crate::cli) async fn read(
        access: &Access,
        (namespace, name): (&str, &str),
    ) -> Result<Self, Failure> {
        let view = view(access, Some(namespace)).await?;
        let model = select(view.models(), Some((namespace, name))).map_err(|failure| match failure {
            Failure::Input(error) if !view.live.missing.is_empty() => {
                Failure::Input(format!("{error}; {}", view.live.missing.join("; ")))
            }
            failure => failure,
        })?;
        Ok(Self::of(&view, model).await)
    }

    /// A model of a cluster that was read.
    pub(in crate::cli) async fn of(view: &ClusterView, model: &ModelServing) -> Self {
        let Seen { mut observed, defaults, .. } = view.observe(model);
        let querier = view.route.querier.clone();
        let capabilities = view.served.capabilities;
        let plan = plan::plan(&observed, capabilities, &defaults);
        let resolved = plan.explanation.and_then(|explanation| explanation.resolved);
        if let Some(ResolvedIntent { intent, triggers, .. }) = &resolved
            && let Some(prometheus) = &intent.profile.prometheus
            && let Ok(settings) = callers_settings(prometheus, view.route.url.as_ref())
        {
            let measured = measurements::measure(&querier, &settings, triggers).await.unwrap_or_default();
            let is_kept = observed.scaled_object.as_ref().is_some_and(|found| found.service_time.is_some());
            // The time in force stays until the operator adopts another.
            let service_time = measured.service_time.filter(|_| !is_kept);
            observed.measured = Measurements { service_time, ..measured };
        }
        let resource = ApiResource::erase::<ModelServing>(&());
        let namespace = model.namespace().unwrap_or_default();
        let api: Api<DynamicObject> = Api::namespaced_with(view.route.client.clone(), &namespace, &resource);
        let object = api.get(model.name()).await.ok().and_then(|object| serde_json::to_value(object).ok());
        let gpus = object.as_ref().and_then(gpus_per_group);
        let sync_period = view.known_operator().and_then(|operator| operator.hpa_sync_period);
        let subject = Subject { observed, capabilities, defaults, gpus, sync_period, is_built_in: false };
        Self { subject, querier }
    }
}

/// Reads a cluster whose operator is known, if there is one.
pub(in crate::cli) async fn view(access: &Access, namespace: Option<&str>) -> Result<ClusterView, Failure> {
    let view = ClusterView::read(access, namespace).await.map_err(Failure::Input)?;
    match &view.operator {
        Ok(_) => Ok(view),
        Err(ambiguity) => Err(Failure::Input(ambiguity.clone())),
    }
}

/// Settings of Prometheus for the caller: those of KEDA, at the address of `--prometheus-url` if it is set.
pub(in crate::cli) fn callers_settings(
    settings: &PrometheusSettings,
    url: Option<&PrometheusUrl>,
) -> Result<PrometheusSettings, Failure> {
    if url.is_none() && (is_unknown(settings) || super::subject::is_placeholder(settings)) {
        return Err(Failure::Input(
            "the address of Prometheus is not known; pass --prometheus-url, or a file with --history or --load"
                .to_owned(),
        ));
    }
    Ok(settings_at(settings, url))
}
