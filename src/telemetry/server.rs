//! The small HTTP server: `/metrics`, `/healthz` and `/readyz`.
//!
//! `/healthz` answers as long as the process does. `/readyz` is about what the process has seen so far; neither says anything of
//! neighbours, since a restart of ours cures none of theirs.

use std::{
    fmt,
    io::{self, ErrorKind},
    net::{Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::TcpListener;

/// The format's own media type (`OpenMetrics` 1.0).
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where to listen: one address, or all of the machine's, of both families, where none is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// All addresses, at this port.
    Everywhere(u16),
    /// This one.
    At(SocketAddr),
}

/// Text that is no address to listen on.
#[derive(Debug, thiserror::Error)]
#[error("write ADDRESS:PORT, such as 127.0.0.1:8080 or [::1]:8080, or :8080 for all addresses")]
pub struct ListenError;

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        match text.strip_prefix(':') {
            Some(port) => port.parse().map(Self::Everywhere).map_err(|_| ListenError),
            None => text.parse().map(Self::At).map_err(|_| ListenError),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everywhere(port) => write!(f, ":{port}"),
            Self::At(address) => address.fmt(f),
        }
    }
}

impl Listen {
    /// Opens the port.
    ///
    /// # Errors
    /// When it is taken, or the address is not this machine's.
    pub async fn open(self) -> io::Result<TcpListener> {
        match self {
            Self::At(address) => TcpListener::bind(address).await,
            // Linux takes connections of IPv4 there, too; where it was built without IPv6 there is nothing but IPv4.
            Self::Everywhere(port) => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
                Err(error) if error.kind() != ErrorKind::AddrInUse => {
                    TcpListener::bind(("0.0.0.0", port)).await
                }
                opened => opened,
            },
        }
    }
}

/// What `/readyz` depends on.
pub trait Readiness: Clone + Send + Sync + 'static {
    /// Names of what the process still waits for; empty when it is ready.
    fn missing(&self) -> Vec<String>;
}

#[derive(Clone)]
struct ServerState<R> {
    registry: Arc<Registry>,
    readiness: R,
}

/// Serves for life.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    registry: Arc<Registry>,
    readiness: impl Readiness,
) -> io::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(ServerState { registry, readiness });
    axum::serve(listener, routes).await
}

async fn metrics<R>(State(server): State<ServerState<R>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &server.registry) {
        Ok(()) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready<R: Readiness>(State(server): State<ServerState<R>>) -> Response {
    match server.readiness.missing() {
        missing if missing.is_empty() => "ok\n".into_response(),
        missing => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", missing.join(", "))).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in [":8080", "127.0.0.1:0", "[::1]:8080"] {
            assert_eq!(text.parse::<Listen>().map(|listen| listen.to_string()).ok().as_deref(), Some(text));
        }
        for text in ["8080", "", ":", ":70000", "localhost:8080", "127.0.0.1"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}
