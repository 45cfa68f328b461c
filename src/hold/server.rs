//! Connections of kthena-router.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::sleep,
};

use super::service::Service;
use crate::telemetry::server::Listen;

/// Longest time until a connection has sent the head of its next request. The router closes idle connections after 90 s; if the
/// stand-in were first, it could miss a request.
const IDLE: Duration = Duration::from_mins(2);
/// Most that is read from a connection, or kept until it reads, in bytes.
const BUFFER: usize = 64 << 10;
/// Connections in addition to two for each request that may wait: those that poll, or are idle.
const SPARE_CONNECTIONS: usize = 256;
/// Time for which connections are accepted after the signal to stop: the router learns at the same time that the pod goes.
const LINGER: Duration = Duration::from_secs(1);
/// Pause after a connection could not be accepted, for example because no file descriptor is free.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Opens the ports.
///
/// # Errors
/// If one is taken.
pub async fn bind(address: Option<IpAddr>, ports: &[u16]) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for port in ports {
        let listen = address.map_or(Listen::Everywhere(*port), |ip| Listen::At(SocketAddr::new(ip, *port)));
        let opened = listen.open().await;
        let opened = opened
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on port {port}: {error}")));
        listeners.push(opened?);
    }
    Ok(listeners)
}

/// The open ports.
#[derive(Debug)]
pub struct Serving {
    accepting: JoinSet<()>,
    connections: Arc<Semaphore>,
    most: u32,
}

impl Serving {
    /// Serves until the value is dropped. After `stopped`, each connection ends with its present response.
    pub fn start(
        listeners: Vec<TcpListener>,
        service: &Arc<Service>,
        max_requests: usize,
        stopped: &watch::Receiver<bool>,
    ) -> Self {
        let most = max_requests.saturating_mul(2).saturating_add(SPARE_CONNECTIONS);
        let most = u32::try_from(most).unwrap_or(u32::MAX).min(1 << 20);
        let connections = Arc::new(Semaphore::new(most as usize));
        let mut accepting = JoinSet::new();
        for listener in listeners {
            let acceptor = Acceptor {
                service: service.clone(),
                connections: connections.clone(),
                stopped: stopped.clone(),
            };
            accepting.spawn(acceptor.run(listener));
        }
        Self { accepting, connections, most }
    }

    /// Waits until the last connection has ended.
    pub async fn finish(mut self) {
        sleep(LINGER).await;
        self.accepting.shutdown().await;
        // The semaphore is never closed.
        let _ = self.connections.acquire_many(self.most).await;
    }
}

struct Acceptor {
    service: Arc<Service>,
    connections: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

impl Acceptor {
    async fn run(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.serve(stream),
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn serve(&self, stream: TcpStream) {
        let Ok(permit) = self.connections.clone().try_acquire_owned() else {
            tracing::debug!("too many connections; closing the latest");
            return;
        };
        let Ok(local) = stream.local_addr() else { return };
        let _ = stream.set_nodelay(true);
        let local = (local.ip().to_canonical(), local.port());
        tokio::spawn(serve(stream, local, self.service.clone(), self.stopped.clone(), permit));
    }
}

async fn serve(
    stream: TcpStream,
    local: (IpAddr, u16),
    service: Arc<Service>,
    mut stopped: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
) {
    let respond = service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(service.respond(local, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(BUFFER);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), respond));
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopped.wait_for(|stopped| *stopped) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
