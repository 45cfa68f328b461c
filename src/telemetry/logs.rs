//! Logs on standard error, as text or JSON, one line for each decision.

use std::io::{IsTerminal as _, stderr};

use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, Layer, registry::LookupSpan};

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text, in colour on a terminal.
    Text,
    /// One JSON object per line.
    Json,
}

/// The layer that writes log lines which `filter` accepts.
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
