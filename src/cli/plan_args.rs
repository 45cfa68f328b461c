//! The flags that decide what is planned; `run` and `render` share them, so that they cannot disagree.

use std::{
    fmt::Display,
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use crate::{
    api::profile::AutoscalingProfile,
    intent::{CreateMonitors, Profile, PrometheusSettings, PrometheusUrl, ScrapeInterval},
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
    /// A file with an AutoscalingProfile: what models get that do not say otherwise. Flags win over it.
    #[arg(long, env = "KTHENA_KEDA_DEFAULT_PROFILE", value_name = "FILE")]
    default_profile: Option<PathBuf>,
    /// Whether to have kthena-router scraped: true, unless somebody else's monitor does it; always, even then; or false.
    #[arg(long, env = "KTHENA_KEDA_CREATE_MONITORS", value_enum, value_name = "WHEN", default_value_t = Create::True)]
    create_monitors: Create,
    /// Labels by which your Prometheus selects its monitors, such as release=kube-prometheus-stack; several separated by commas.
    #[arg(long, env = "KTHENA_KEDA_MONITOR_LABELS", value_name = "LABELS", value_delimiter = ',', value_parser = label)]
    monitor_labels: Vec<(String, String)>,
    /// How often Prometheus scrapes, from 1s to 30s; 15s where neither flag nor profile says otherwise.
    #[arg(long, env = "KTHENA_KEDA_MONITOR_INTERVAL", value_name = "DURATION")]
    monitor_interval: Option<ScrapeInterval>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Create {
    True,
    False,
    Always,
}

impl PlanArgs {
    /// # Errors
    /// Everything that is wrong with the profile, by file and field.
    pub(super) fn settings(&self) -> Result<Settings, Vec<String>> {
        let mut defaults = Profile::built_in();
        if let Some(file) = &self.default_profile {
            let at = |error: &dyn Display| format!("{}: {error}", file.display());
            let profile = read_profile(file).map_err(|error| vec![at(&error)])?;
            defaults = defaults.overlaid(&profile.spec).map_err(|errors| errors.iter().map(|error| at(error)).collect::<Vec<_>>())?;
        }
        if let Some(url) = self.prometheus_url.clone() {
            defaults.prometheus = Some(PrometheusSettings { url });
        }
        defaults.monitors.labels.extend(self.monitor_labels.iter().cloned());
        defaults.monitors.interval = self.monitor_interval.unwrap_or(defaults.monitors.interval);
        defaults.monitors.create = match self.create_monitors {
            Create::True => CreateMonitors::UnlessScraped,
            Create::False => CreateMonitors::Never,
            Create::Always => CreateMonitors::Always,
        };
        Ok(Settings { defaults, router_namespace: self.router_namespace.clone() })
    }
}

fn read_profile(file: &Path) -> Result<AutoscalingProfile, String> {
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    let profile: AutoscalingProfile = serde_saphyr::from_str(&text).map_err(|error| error.to_string())?;
    if (profile.api_version.as_str(), profile.kind.as_str()) != (AutoscalingProfile::API_VERSION, AutoscalingProfile::KIND) {
        return Err(format!("it must be one {} {}", AutoscalingProfile::API_VERSION, AutoscalingProfile::KIND));
    }
    Ok(profile)
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
