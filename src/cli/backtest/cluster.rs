//! The model of a backtest in a cluster, and the route to its Prometheus.

use kube::{
    Api,
    api::{ApiResource, DynamicObject},
};

use super::{
    failure::Failure,
    subject::{Subject, select},
};
use crate::{
    cli::{
        operator::Operator,
        prometheus_route::{PrometheusRoute, ROUTER_NAMESPACE, is_unknown, prometheus_url},
    },
    cluster::{self, discovery},
    controllers::measurements,
    prometheus::{ClientConfig, Prometheus, Querier},
    sources::{kinds::optional_apis, live},
};
use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::PrometheusUrl,
    foresight::gpus::gpus_per_group,
    intent::{Profile, PrometheusSettings},
    plan::{self, ResolvedIntent, plan_router},
};

/// A model in a cluster.
pub(in crate::cli) struct InCluster {
    pub(in crate::cli) subject: Subject,
    pub(in crate::cli) querier: Querier,
}

/// Flags that lead to the model.
pub(in crate::cli) struct Location<'a> {
    pub(in crate::cli) namespace: &'a str,
    pub(in crate::cli) name: &'a str,
    pub(in crate::cli) context: Option<&'a str>,
    pub(in crate::cli) router_namespace: Option<&'a str>,
    pub(in crate::cli) prometheus_url: Option<&'a PrometheusUrl>,
    pub(in crate::cli) client: ClientConfig,
}

impl Location<'_> {
    /// Reads the model and everything that its plan depends on.
    pub(in crate::cli) async fn read(&self) -> Result<InCluster, Failure> {
        let client = cluster::connect(self.context.map(str::to_owned)).await.map_err(Failure::input)?;
        let served = discovery::discover(&client, &optional_apis())
            .await
            .map_err(|error| Failure::Input(format!("discovery of the cluster's APIs failed: {error}")))?;
        let operator = Operator::find(&client).await.map_err(Failure::Input)?;
        let of_operator = operator.as_ref().and_then(|found| found.router_namespace.clone());
        let router_namespace = self.router_namespace.map(str::to_owned).or(of_operator);
        let router_namespace = router_namespace.unwrap_or_else(|| ROUTER_NAMESPACE.to_owned());
        let live = live::read(&client, &served, Some(self.namespace), &router_namespace).await;
        let models = live.objects.model_servings.iter().map(|(_, model)| model.as_ref());
        let model = select(models, Some((self.namespace, self.name))).map_err(|failure| match failure {
            Failure::Input(error) if !live.missing.is_empty() => {
                Failure::Input(format!("{error}; {}", live.missing.join("; ")))
            }
            failure => failure,
        })?;
        let route =
            PrometheusRoute::new(client.clone(), self.prometheus_url.cloned()).map_err(Failure::Input)?;
        let mut defaults = Profile::built_in();
        let (url, _) = prometheus_url(&live, model, operator.as_ref(), &route);
        defaults.prometheus = url.map(PrometheusSettings::from);
        let (router, _) = live.objects.observe_router(&router_namespace);
        let profile = live.objects.default_profile();
        let router = plan_router(&router, profile.as_ref(), &defaults, true).router;
        let mut observed = live.objects.observe(model, router);
        let querier = match self.prometheus_url {
            Some(_) => Querier::Direct(Prometheus::new(self.client.clone()).map_err(Failure::input)?),
            None => Querier::Proxied(client.clone()),
        };
        let plan = plan::plan(&observed, served.capabilities, &defaults);
        let resolved = plan.explanation.and_then(|explanation| explanation.resolved);
        if let Some(ResolvedIntent { intent, triggers }) = &resolved
            && let Some(prometheus) = &intent.profile.prometheus
            && let Ok(settings) = callers_settings(prometheus, self.prometheus_url)
        {
            observed.measured =
                measurements::measure(&querier, &settings, triggers).await.unwrap_or_default();
        }
        let api: Api<DynamicObject> =
            Api::namespaced_with(client, self.namespace, &ApiResource::erase::<ModelServing>(&()));
        let object = api.get(self.name).await.ok().and_then(|object| serde_json::to_value(object).ok());
        let gpus = object.as_ref().and_then(gpus_per_group);
        let capabilities = served.capabilities;
        Ok(InCluster {
            subject: Subject { observed, capabilities, defaults, gpus, is_built_in: false },
            querier,
        })
    }
}

/// Settings of Prometheus for the caller: those of KEDA, at the address of `--prometheus-url` if it is set.
pub(in crate::cli) fn callers_settings(
    settings: &PrometheusSettings,
    url: Option<&PrometheusUrl>,
) -> Result<PrometheusSettings, Failure> {
    let mut settings = settings.clone();
    match url {
        Some(url) => {
            settings.url = url.clone();
            // The address of the caller may be that of a proxy that signs.
            settings.aws_region = None;
        }
        None if is_unknown(&settings) || super::subject::is_placeholder(&settings) => {
            return Err(Failure::Input(
                "the address of Prometheus is not known; pass --prometheus-url, or a file with --history or --load"
                    .to_owned(),
            ));
        }
        None => {}
    }
    Ok(settings)
}
