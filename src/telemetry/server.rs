//! HTTP server of `/metrics`, `/healthz` and `/readyz`.
//!
//! `/healthz` is 200 as long as the process responds. `/readyz` is 200 once the initial lists are complete.
//! Neither depends on the health of other components, since a restart of the operator would not repair them.

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

/// Media type of the `OpenMetrics` 1.0 text format.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// This port on all addresses of the machine, IPv4 and IPv6.
    Everywhere(u16),
    /// One address and port.
    At(SocketAddr),
}

/// Text that is not an address to listen on.
#[derive(Debug, thiserror::Error)]
#[error("expected ADDRESS:PORT, such as 127.0.0.1:8080 or [::1]:8080, or :PORT for all addresses")]
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
    /// Binds the port.
    ///
    /// # Errors
    /// If the port is taken, or the address is not one of this machine.
    pub async fn open(self) -> io::Result<TcpListener> {
        match self {
            Self::At(address) => TcpListener::bind(address).await,
            // On Linux this accepts IPv4 connections, too. A kernel without IPv6 has only IPv4.
            Self::Everywhere(port) => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
                Err(error) if error.kind() != ErrorKind::AddrInUse => {
                    TcpListener::bind(("0.0.0.0", port)).await
                }
                bound => bound,
            },
        }
    }
}

/// Source of the state that `/readyz` reports.
pub trait Readiness: Clone + Send + Sync + 'static {
    /// Names of the initial lists that are incomplete; empty when the process is ready.
    fn missing(&self) -> Vec<String>;
}

#[derive(Clone)]
struct ServerState<R> {
    registry: Arc<Registry>,
    readiness: R,
}

/// Serves until the process ends.
///
/// # Errors
/// If the listener fails permanently.
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
            let text = format!("waiting for the initial list of {}\n", missing.join(", "));
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_parse_to_what_they_display() {
        for text in [":8080", "127.0.0.1:0", "[::1]:8080"] {
            assert_eq!(text.parse::<Listen>().map(|listen| listen.to_string()).ok().as_deref(), Some(text));
        }
        for text in ["8080", "", ":", ":70000", "localhost:8080", "127.0.0.1"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}
