//! Flags that lead to a cluster and its Prometheus.

use std::path::PathBuf;

use clap::Args;

use super::plan_args::namespace;
use crate::prometheus::ClientConfig;
use kthena_keda_core::domain::PrometheusUrl;

#[derive(Args)]
#[command(next_help_heading = "Access")]
pub(super) struct Access {
    /// Context of the kubeconfig; the current context by default.
    #[arg(long)]
    pub(super) context: Option<String>,
    /// Address of Prometheus as reached from here, such as `http://localhost:9090`; by default queries go
    /// through the API server.
    #[arg(long, value_name = "URL")]
    pub(super) prometheus_url: Option<PrometheusUrl>,
    /// File with a bearer token for Prometheus at --prometheus-url.
    #[arg(long, value_name = "FILE")]
    prometheus_bearer_token_file: Option<PathBuf>,
    /// PEM file of certificate authorities to trust for Prometheus at --prometheus-url.
    #[arg(long, value_name = "FILE")]
    prometheus_ca_file: Option<PathBuf>,
    /// Namespace of kthena-router; by default that of the operator's Deployment, else kthena-system.
    #[arg(long, env = "KTHENA_KEDA_ROUTER_NAMESPACE", value_name = "NAMESPACE", value_parser = namespace)]
    pub(super) router_namespace: Option<String>,
}

impl Access {
    /// Credentials for Prometheus at --prometheus-url.
    pub(super) fn credentials(&self) -> ClientConfig {
        ClientConfig {
            bearer_token_file: self.prometheus_bearer_token_file.clone(),
            ca_file: self.prometheus_ca_file.clone(),
        }
    }
}
