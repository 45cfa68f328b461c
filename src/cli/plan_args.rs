//! The flags that decide what is planned; `run` and `render` share them, so that they cannot disagree.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};

use crate::{
    intent::{
        self, CreateMonitors, MonitorSettings, Profile, PrometheusSettings, PrometheusUrl, ReplicaBounds, ScrapeInterval, SignalTarget,
        ValueError,
    },
    settings::Settings,
};

#[derive(Args)]
pub(super) struct PlanArgs {
    /// Prometheus as KEDA reaches it, such as <http://prometheus-operated.monitoring.svc:9090>; no trailing slash.
    #[arg(long, env = "KTHENA_KEDA_PROMETHEUS_URL", value_name = "URL")]
    prometheus_url: Option<PrometheusUrl>,
    /// The namespace in which kthena-router runs.
    #[arg(long, env = "KTHENA_KEDA_ROUTER_NAMESPACE", value_name = "NAMESPACE", default_value = "kthena-system")]
    router_namespace: String,
    /// The fewest ServingGroups of a model that does not say otherwise; 0 lets idle models go to zero.
    #[arg(long, env = "KTHENA_KEDA_MIN_REPLICAS", value_name = "N", default_value_t = 1)]
    min_replicas: i32,
    /// The most ServingGroups of a model that does not say otherwise.
    #[arg(long, env = "KTHENA_KEDA_MAX_REPLICAS", value_name = "N", default_value_t = 10)]
    max_replicas: i32,
    /// What is measured for a model that does not say otherwise, as name=target pairs separated by commas.
    #[arg(long, env = "KTHENA_KEDA_SIGNALS", value_name = "SIGNALS", default_value = "active-requests=10", value_parser = signals)]
    signals: Signals,
    /// Whether to have kthena-router scraped: true, unless somebody else's monitor does it; always, even then; or false.
    #[arg(long, env = "KTHENA_KEDA_CREATE_MONITORS", value_enum, value_name = "WHEN", default_value_t = Create::True)]
    create_monitors: Create,
    /// Labels by which your Prometheus selects its monitors, such as release=kube-prometheus-stack; several separated by commas.
    #[arg(long, env = "KTHENA_KEDA_MONITOR_LABELS", value_name = "LABELS", value_delimiter = ',', value_parser = label)]
    monitor_labels: Vec<(String, String)>,
    /// How often Prometheus scrapes, from 1s to 30s.
    #[arg(long, env = "KTHENA_KEDA_MONITOR_INTERVAL", value_name = "DURATION", default_value = "15s")]
    monitor_interval: ScrapeInterval,
}

#[derive(Clone)]
struct Signals(Vec<SignalTarget>);

#[derive(Clone, Copy, ValueEnum)]
enum Create {
    True,
    False,
    Always,
}

impl PlanArgs {
    /// # Errors
    /// When two flags do not fit together.
    pub(super) fn settings(&self) -> Result<Settings, ValueError> {
        let labels: BTreeMap<String, String> = self.monitor_labels.iter().cloned().collect();
        let create = match self.create_monitors {
            Create::True => CreateMonitors::UnlessScraped,
            Create::False => CreateMonitors::Never,
            Create::Always => CreateMonitors::Always,
        };
        let defaults = Profile {
            prometheus: self.prometheus_url.clone().map(|url| PrometheusSettings { url }),
            replicas: ReplicaBounds::new(self.min_replicas, self.max_replicas)?,
            signals: self.signals.0.clone(),
            monitors: MonitorSettings { create, labels, interval: self.monitor_interval },
            ..Profile::built_in()
        };
        Ok(Settings { defaults, router_namespace: self.router_namespace.clone() })
    }
}

fn signals(text: &str) -> Result<Signals, ValueError> {
    intent::signals(text).map(Signals)
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is no label; write key=value"))?;
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_dns =
        |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(|part| is_label_part(part, "-") && part == part.to_lowercase());
    if !is_label_part(name, "-_.") || !prefix.is_none_or(is_dns) {
        return Err(format!("{key:?} cannot be the key of a label; write one such as release or example.com/team"));
    }
    if !value.is_empty() && !is_label_part(value, "-_.") {
        return Err(format!("{value:?} cannot be the value of a label; up to 63 letters, digits, '-', '_' and '.' are accepted"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Letters and digits, with `inner` allowed between them; what Kubernetes allows in labels.
fn is_label_part(text: &str, inner: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63 && text.starts_with(edge) && text.ends_with(edge) && text.chars().all(|c| edge(c) || inner.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("release=kube-prometheus-stack", None)]
    #[case("example.com/team=a", None)]
    #[case("team=", None)]
    #[case("release", Some("no label"))]
    #[case("=x", Some("key"))]
    #[case("Example.com/team=a", Some("key"))]
    #[case("team=a b", Some("value"))]
    fn reads_labels(#[case] text: &str, #[case] error: Option<&str>) {
        match error {
            None => assert!(label(text).is_ok(), "{text}"),
            Some(why) => assert!(label(text).unwrap_err().contains(why), "{text}"),
        }
    }
}
