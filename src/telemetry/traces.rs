//! Traces by OTLP, where an endpoint is named: one for each pass, with its requests to the API server.

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::{Level, Subscriber};
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

use kthena_keda_core::api::metadata::OPERATOR;

/// How long sending the last spans may take: the process is ending.
const FLUSH: Duration = Duration::from_secs(1);

/// Collects spans and sends them; to be shut down at the end, or the last ones are lost.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Sends to `endpoint` by HTTP, in the name of `service`; what else there is to say is read from the standard variables (`OTEL_…`).
    /// Not to be called on an async runtime: spans are sent by a thread of their own.
    ///
    /// # Errors
    /// When the endpoint is no URL.
    pub fn start(endpoint: &str, service: Option<String>) -> Result<Self, ExporterBuildError> {
        let endpoint = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let exporter = SpanExporter::builder().with_http().with_endpoint(endpoint).build()?;
        let resource =
            Resource::builder().with_service_name(service.unwrap_or_else(|| OPERATOR.to_owned())).build();
        Ok(Self(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()))
    }

    /// The layer that collects: our own spans, those of each pass, and the requests to the API server.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let targets = Targets::new()
            .with_target("kthena_keda", Level::DEBUG)
            .with_target("kube_runtime::controller", Level::INFO)
            .with_target("kube_client::client", Level::DEBUG);
        tracing_opentelemetry::layer().with_tracer(self.0.tracer(OPERATOR)).with_filter(targets)
    }

    /// Sends what is left.
    pub fn shut_down(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the last traces were not sent");
        }
    }
}
