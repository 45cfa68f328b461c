//! Traces by OTLP over HTTP, if an endpoint is set: one for each reconcile, with its requests to the API
//! server.

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::{Level, Subscriber};
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

use kthena_keda_core::api::metadata::OPERATOR;

/// Limit of sending the last spans at shutdown.
const FLUSH: Duration = Duration::from_secs(1);

/// Collects and sends spans, until [`shut_down`](Self::shut_down) sends the last ones.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Sends spans to `endpoint`, by default under the operator's name as service. The standard variables
    /// (`OTEL_…`) set everything else. Call it outside an async runtime: a thread of its own sends the spans.
    ///
    /// # Errors
    /// If the endpoint is not a URL.
    pub fn start(endpoint: &str, service: Option<String>) -> Result<Self, ExporterBuildError> {
        let endpoint = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let exporter = SpanExporter::builder().with_http().with_endpoint(endpoint).build()?;
        let resource =
            Resource::builder().with_service_name(service.unwrap_or_else(|| OPERATOR.to_owned())).build();
        Ok(Self(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()))
    }

    /// The layer that collects the operator's own spans, those of each reconcile, and requests to the API
    /// server.
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

    /// Sends the remaining spans.
    pub fn shut_down(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot send the last traces; they are lost"
            );
        }
    }
}
