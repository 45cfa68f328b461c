//! The way of one request to an engine.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA},
    request::Parts,
    uri::{PathAndQuery, Uri},
};
use http_body_util::Full;
use hyper::{
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

use super::{admission::Place, engines::Lease, metrics::Metrics, queue::Position, refusal::Refusal};

/// Longest time until an engine accepts a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// Most that is read from an engine ahead of the client, in bytes.
const READ_AHEAD: usize = 64 << 10;
/// Name of a stand-in in the header `Via`, by which it recognizes its own requests.
pub const VIA_NAME: &str = "kthena-keda-hold";

/// A complete request that waits for an engine. Its drop leaves the queue, or ends the connection to the engine.
#[derive(Debug)]
pub struct Delivery {
    pub head: Parts,
    pub body: Bytes,
    /// Address and port at which it came in.
    pub local: (IpAddr, u16),
    pub arrived: Instant,
    /// End of the wait.
    pub deadline: Instant,
    pub place: Place,
    pub position: Position,
    pub metrics: Metrics,
}

impl Delivery {
    /// Waits for an engine and sends it the request, once.
    ///
    /// # Errors
    /// If no engine is ready in time, or the engine ends the connection before the head of its response.
    pub async fn run(mut self) -> Result<Response<EngineBody>, Refusal> {
        let (connection, lease) = self.connect().await?;
        self.place.stop_waiting();
        self.metrics.handed_over(self.arrived.elapsed());
        let Self { head, body, local, place, .. } = self;
        let request = request(head, body, (lease.address, local.1))?;
        let response = send(connection, lease, request).await;
        drop(place);
        response
    }

    /// Connects to the first engine that accepts. Until then nothing was sent, so the next engine may be tried.
    async fn connect(&self) -> Result<(TcpStream, Lease), Refusal> {
        let (own, port) = self.local;
        loop {
            let lease = timeout_at(self.deadline, self.position.engine(own)).await;
            let lease = lease.map_err(|_| Refusal::Timeout)??;
            match connect(lease.address, port).await {
                Ok(connection) => return Ok((connection, lease)),
                Err(error) => {
                    tracing::debug!(engine = %lease.address, %error, "the engine accepted no connection");
                    lease.refused();
                }
            }
        }
    }
}

async fn connect(address: IpAddr, port: u16) -> io::Result<TcpStream> {
    let connection = timeout(CONNECT, TcpStream::connect((address, port))).await??;
    connection.set_nodelay(true)?;
    Ok(connection)
}

fn request(head: Parts, body: Bytes, engine: (IpAddr, u16)) -> Result<Request<Full<Bytes>>, Refusal> {
    let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = head.method;
    *request.uri_mut() = Uri::from(path);
    let headers = request.headers_mut();
    *headers = end_to_end(head.headers);
    headers.remove(CONTENT_LENGTH);
    headers.remove(EXPECT);
    let host = std::net::SocketAddr::from(engine).to_string();
    headers.insert(HOST, HeaderValue::from_str(&host).map_err(|_| Refusal::InvalidBody)?);
    headers.append(VIA, HeaderValue::from_static("1.1 kthena-keda-hold"));
    Ok(request)
}

/// Removes the headers that belong to one connection (RFC 9110, section 7.6.1).
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let always = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
    let others = ["keep-alive", "proxy-connection"].map(HeaderName::from_static);
    for name in named.into_iter().chain(always).chain(others) {
        headers.remove(name);
    }
    headers
}

async fn send(
    connection: TcpStream,
    lease: Lease,
    request: Request<Full<Bytes>>,
) -> Result<Response<EngineBody>, Refusal> {
    let mut builder = http1::Builder::new();
    let handshake = builder.max_buf_size(READ_AHEAD).handshake(TokioIo::new(connection)).await;
    let (mut sender, connection) = handshake.map_err(|_| Refusal::EngineFailed)?;
    let connection = Connection(tokio::spawn(async move { drop(connection.await) }));
    let response = sender.send_request(request).await.map_err(|_| Refusal::EngineFailed)?;
    let (mut head, body) = response.into_parts();
    head.headers = end_to_end(head.headers);
    Ok(Response::from_parts(head, EngineBody { body, _connection: connection, _lease: lease }))
}

/// The connection to an engine, which ends with the drop.
#[derive(Debug)]
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Body of an engine's response. It is read only as fast as the client reads; its drop ends the connection to the engine.
#[derive(Debug)]
pub struct EngineBody {
    body: Incoming,
    _connection: Connection,
    _lease: Lease,
}

impl Body for EngineBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_gets_the_path_and_the_end_to_end_headers() {
        let (head, ()) = Request::post("http://router/v1/completions?x=1")
            .header("authorization", "Bearer secret")
            .header("connection", "keep-alive, x-hop")
            .header("x-hop", "1")
            .header("transfer-encoding", "chunked")
            .header("content-length", "99")
            .header("expect", "100-continue")
            .header("host", "router")
            .body(())
            .unwrap()
            .into_parts();
        let request = request(head, Bytes::from_static(b"{}"), (IpAddr::from([192, 0, 2, 1]), 8000)).unwrap();
        assert_eq!(request.uri(), "/v1/completions?x=1");
        let mut headers: Vec<(&str, &str)> =
            request.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        headers.sort_unstable();
        let expected =
            [("authorization", "Bearer secret"), ("host", "192.0.2.1:8000"), ("via", "1.1 kthena-keda-hold")];
        assert_eq!(headers, expected);
    }
}
