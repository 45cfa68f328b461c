//! A client that reads responses piece by piece.

use std::{net::IpAddr, time::Duration};

use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

/// Port of the stand-in and of every engine.
pub const PORT: u16 = 8000;

/// Longest wait for a response or a piece of it; a test that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(30);

/// A response whose body is read on demand. Its drop ends the connection.
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    connection: JoinHandle<()>,
}

impl Drop for Response {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Response {
    /// The next piece of the body; `None` at its end.
    pub async fn next(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        let frame = timeout(LIMIT, self.body.frame()).await.expect("a piece of the body in time")?;
        Some(frame.map(|frame| frame.into_data().expect("data")))
    }

    /// The rest of the body, as text.
    pub async fn text(&mut self) -> Result<String, hyper::Error> {
        let mut text = Vec::new();
        while let Some(piece) = self.next().await {
            text.extend_from_slice(&piece?);
        }
        Ok(String::from_utf8(text).expect("text"))
    }
}

/// A connection that ends with the value.
struct Closing(Option<JoinHandle<()>>);

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.abort();
        }
    }
}

/// Sends a request on a connection of its own.
pub async fn send(to: IpAddr, request: Request<Full<Bytes>>) -> Result<Response, hyper::Error> {
    let stream = TcpStream::connect((to, PORT)).await.expect("a connection");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut closing = Closing(Some(tokio::spawn(async move { drop(connection.await) })));
    let (head, body) =
        timeout(LIMIT, sender.send_request(request)).await.expect("a response in time")?.into_parts();
    let connection = closing.0.take().expect("a connection");
    Ok(Response { status: head.status, headers: head.headers, body, connection })
}

/// A POST request with this body.
pub fn request(body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post("/v1/completions")
        .header("host", "model")
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .unwrap()
}

/// Sends a request for the model `chat`, which an engine of the tests answers with its `id`.
pub async fn ask(to: IpAddr, id: &str, streams: bool) -> Result<Response, hyper::Error> {
    send(to, request(json!({"model": "chat", "id": id, "stream": streams}).to_string())).await
}

/// Sends a GET request.
pub async fn get(to: IpAddr, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).header("host", "model").body(Full::default()).unwrap();
    let mut response = send(to, request).await.expect("a response");
    (response.status, response.text().await.expect("a body"))
}
