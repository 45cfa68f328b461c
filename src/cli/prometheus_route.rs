//! Route of a command's queries to Prometheus, and the address that KEDA uses.

use kube::{Client, ResourceExt as _};

use super::operator::Operator;
use crate::{
    prometheus::{ClientConfig, Prometheus, Querier},
    sources::live::Live,
};
use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::{PrometheusUrl, Reason},
    intent::PrometheusSettings,
    observed::ProbeTarget,
};

/// Stands in for an address that is not known here.
const UNKNOWN_PROMETHEUS: &str = "http://not-known-here.invalid";

/// The error of a query without an address.
pub(super) const NO_ADDRESS: &str = "the address of Prometheus is not known here, so pass --prometheus-url";

/// `true` if the settings have no address that is known here.
pub(super) fn is_unknown(settings: &PrometheusSettings) -> bool {
    settings.url.to_string() == UNKNOWN_PROMETHEUS
}

/// Route of the caller's queries to Prometheus.
pub(super) struct PrometheusRoute {
    pub(super) client: Client,
    pub(super) querier: Querier,
    /// Address to use in place of KEDA's.
    pub(super) url: Option<PrometheusUrl>,
}

impl PrometheusRoute {
    /// A direct route to `url` with these credentials, or one through the API server without it.
    ///
    /// # Errors
    /// A text for users if the credentials cannot be read.
    pub(super) fn new(
        client: Client,
        url: Option<PrometheusUrl>,
        credentials: ClientConfig,
    ) -> Result<Self, String> {
        let querier = match url {
            Some(_) => {
                let prometheus = Prometheus::new(credentials);
                Querier::Direct(prometheus.map_err(|error| error.to_string())?)
            }
            None => Querier::Proxied(client.clone()),
        };
        Ok(Self { client, querier, url })
    }

    /// `true` if an address of this Prometheus is known here.
    pub(super) fn has_address(&self, settings: &PrometheusSettings) -> bool {
        self.url.is_some() || !is_unknown(settings)
    }

    /// KEDA's settings with the address of this route.
    pub(super) fn settings(&self, settings: &PrometheusSettings) -> PrometheusSettings {
        settings_at(settings, self.url.as_ref())
    }

    /// KEDA's probe target with the address of this route.
    pub(super) fn target(&self, target: &ProbeTarget) -> ProbeTarget {
        ProbeTarget { prometheus: self.settings(&target.prometheus), router: target.router.clone() }
    }
}

/// KEDA's settings with another address, if one is given.
pub(super) fn settings_at(settings: &PrometheusSettings, url: Option<&PrometheusUrl>) -> PrometheusSettings {
    let settings = settings.clone();
    match url {
        // It may be that of a proxy that signs.
        Some(url) => PrometheusSettings { url: url.clone(), aws_region: None, ..settings },
        None => settings,
    }
}

/// The address of Prometheus that the operator was started with, and where it was found.
///
/// It is not known where neither the Deployment nor a ScaledObject tells it. That is no problem of the model, unless
/// the operator itself reports that it has none.
pub(super) fn prometheus_url(
    live: &Live,
    model: &ModelServing,
    operator: Option<&Operator>,
    route: &PrometheusRoute,
) -> (Option<PrometheusUrl>, String) {
    if let Some(Operator { place, prometheus_url: Some(url), .. }) = operator {
        return (Some(url.clone()), format!("the arguments of the Deployment {place}"));
    }
    let namespace = model.namespace().unwrap_or_default();
    let applied = live.objects.scaled_object(&namespace, &model.scaled_object_name());
    if let Some(url) = applied.and_then(|found| found.server_address()?.parse().ok()) {
        return (Some(url), "the ScaledObject".to_owned());
    }
    if let Some(url) = &route.url {
        return (Some(url.clone()), "--prometheus-url".to_owned());
    }
    let lacks_it = Reason::PrometheusNotConfigured.as_str();
    if operator.is_some() || model.condition().is_some_and(|condition| condition.reason == lacks_it) {
        return (None, "nowhere: the operator has none".to_owned());
    }
    (UNKNOWN_PROMETHEUS.parse().ok(), "nowhere; pass --prometheus-url to have the signals checked".to_owned())
}
