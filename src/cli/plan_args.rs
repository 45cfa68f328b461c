//! Flags that plans depend on, shared by `run` and `render`.

use clap::{Args, ValueEnum};

use crate::settings::Settings;
use kthena_keda_core::{
    domain::{Label, Namespace, PrometheusUrl, ScrapeInterval, ValueError},
    intent::{CreateMonitors, Profile, PrometheusSettings},
};

#[derive(Args)]
pub(super) struct PlanArgs {
    /// Address of Prometheus as KEDA reaches it, such as `http://prometheus-operated.monitoring.svc:9090`,
    /// without a trailing slash. Used unless the profile sets prometheus.url.
    #[arg(long, env = "KTHENA_KEDA_PROMETHEUS_URL", value_name = "URL")]
    prometheus_url: Option<PrometheusUrl>,
    /// Namespace of kthena-router.
    #[arg(long, env = "KTHENA_KEDA_ROUTER_NAMESPACE", value_name = "NAMESPACE", default_value = "kthena-system", value_parser = namespace)]
    router_namespace: String,
    /// Create monitors: true, unless Prometheus shows another monitor of the router; always, even then; or false.
    /// Used unless the profile sets monitors.create.
    #[arg(long, env = "KTHENA_KEDA_CREATE_MONITORS", value_enum, value_name = "WHEN", default_value_t = Create::True)]
    create_monitors: Create,
    /// Labels by which your Prometheus selects monitors, such as release=kube-prometheus-stack, separated by
    /// commas. Used if there is no AutoscalingProfile named default.
    #[arg(long, env = "KTHENA_KEDA_MONITOR_LABELS", value_name = "LABELS", value_delimiter = ',', value_parser = label)]
    monitor_labels: Vec<(String, String)>,
    /// Scrape interval of the monitors, from 1s to 30s. Used if there is no AutoscalingProfile named default.
    #[arg(long, env = "KTHENA_KEDA_MONITOR_INTERVAL", value_name = "DURATION", default_value = "15s")]
    monitor_interval: ScrapeInterval,
}

#[derive(Clone, Copy, ValueEnum)]
enum Create {
    True,
    False,
    Always,
}

impl PlanArgs {
    /// Settings of an operator that may scale roles.
    pub(super) fn settings(&self) -> Settings {
        let mut defaults = Profile::built_in();
        defaults.prometheus = self.prometheus_url.clone().map(PrometheusSettings::from);
        defaults.monitors.labels = self.monitor_labels.iter().cloned().collect();
        defaults.monitors.interval = self.monitor_interval;
        defaults.monitors.create = Some(match self.create_monitors {
            Create::True => CreateMonitors::UnlessScraped,
            Create::False => CreateMonitors::Never,
            Create::Always => CreateMonitors::Always,
        });
        let router_namespace = self.router_namespace.clone();
        Settings { defaults, router_namespace, scale_roles: true }
    }
}

pub(super) fn namespace(text: &str) -> Result<String, ValueError> {
    text.parse().map(Namespace::into_string)
}

/// Namespace and name of a model that is given as `NAMESPACE/NAME`, or by its name beside a namespace.
///
/// # Errors
/// If the namespace is missing, or there are two.
pub(super) fn model_name<'a>(
    model: &'a str,
    namespace: Option<&'a str>,
) -> Result<(&'a str, &'a str), String> {
    match (model.split_once('/'), namespace) {
        (Some((namespace, _)), Some(other)) if namespace != other => {
            Err(format!("{model:?} is not in the namespace {other}; pass only one namespace"))
        }
        (Some(both), _) => Ok(both),
        (None, Some(namespace)) => Ok((namespace, model)),
        (None, None) => {
            Err(format!("invalid value {model:?}: expected NAMESPACE/NAME, or -n NAMESPACE NAME"))
        }
    }
}

fn label(text: &str) -> Result<(String, String), ValueError> {
    text.parse().map(Label::into_pair)
}
