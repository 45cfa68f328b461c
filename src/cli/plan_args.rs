//! The flags that decide what is planned; `run` and `render` share them, so that they cannot disagree.

use std::{
    fmt::Display,
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use crate::{
    api::profile::AutoscalingProfile,
    intent::{CreateMonitors, Label, Namespace, Profile, PrometheusSettings, PrometheusUrl, ScrapeInterval, ValueError},
    settings::Settings,
};

#[derive(Args)]
pub(super) struct PlanArgs {
    /// Prometheus as KEDA reaches it, such as <http://prometheus-operated.monitoring.svc:9090>; no trailing slash.
    #[arg(long, env = "KTHENA_KEDA_PROMETHEUS_URL", value_name = "URL")]
    prometheus_url: Option<PrometheusUrl>,
    /// The namespace in which kthena-router runs.
    #[arg(long, env = "KTHENA_KEDA_ROUTER_NAMESPACE", value_name = "NAMESPACE", default_value = "kthena-system", value_parser = namespace)]
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

fn namespace(text: &str) -> Result<String, ValueError> {
    text.parse().map(Namespace::into_string)
}

fn label(text: &str) -> Result<(String, String), ValueError> {
    text.parse().map(Label::into_pair)
}
