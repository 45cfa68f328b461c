//! The small HTTP server: `/metrics`, `/healthz` and `/readyz`.
//!
//! `/healthz` answers as long as the process does. `/readyz` is about what the process has seen so far; neither says anything of
//! neighbours, since a restart of ours cures none of theirs.

use std::{
    fmt,
    io::{self, ErrorKind},
    net::{Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{net::TcpListener, sync::watch};

use crate::{cluster::capabilities::Served, observed::Stores};

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
                Err(error) if error.kind() != ErrorKind::AddrInUse => TcpListener::bind(("0.0.0.0", port)).await,
                opened => opened,
            },
        }
    }
}

/// Whether everything has been seen that is needed.
#[derive(Clone, Debug)]
pub struct Readiness {
    leads: Arc<AtomicBool>,
    was_ready: Arc<AtomicBool>,
    stores: Arc<Stores>,
    served: watch::Receiver<Option<Served>>,
}

impl Readiness {
    /// Of a process that waits for its turn: it needs nothing, and is ready.
    pub fn waiting(stores: Arc<Stores>, served: watch::Receiver<Option<Served>>) -> Self {
        Self { leads: Arc::default(), was_ready: Arc::default(), stores, served }
    }

    /// From now on it needs what the watches see.
    pub fn leads(&self) {
        self.leads.store(true, Ordering::Relaxed);
    }

    /// What has not been seen yet; nothing once everything was, whatever comes and goes afterwards.
    fn missing(&self) -> Vec<&'static str> {
        if !self.leads.load(Ordering::Relaxed) || self.was_ready.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let Some(served) = *self.served.borrow() else { return vec!["what the cluster serves"] };
        let missing = self.stores.unseen(served);
        self.was_ready.store(missing.is_empty(), Ordering::Relaxed);
        missing
    }
}

#[derive(Clone)]
struct Shown {
    registry: Arc<Registry>,
    readiness: Readiness,
}

/// Serves for life.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(listener: TcpListener, registry: Arc<Registry>, readiness: Readiness) -> io::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(Shown { registry, readiness });
    axum::serve(listener, routes).await
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &shown.registry) {
        Ok(()) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready(State(shown): State<Shown>) -> Response {
    match shown.readiness.missing() {
        missing if missing.is_empty() => "ok\n".into_response(),
        missing => (StatusCode::SERVICE_UNAVAILABLE, format!("not seen yet: {}\n", missing.join(", "))).into_response(),
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
