//! Logs on standard error, as text for people or as JSON for machines, one line for each decision.

use std::io::{IsTerminal as _, stderr};

use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, Layer, registry::LookupSpan};

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// The layer that writes them.
pub fn layer<S>(format: Format, filter: EnvFilter) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(stderr);
    match format {
        Format::Text => layer.with_ansi(stderr().is_terminal()).with_filter(filter).boxed(),
        Format::Json => layer.json().with_filter(filter).boxed(),
    }
}
