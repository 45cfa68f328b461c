//! Stands between the operator and the real API server, and spoils what passes as it is told.

use std::{
    convert::Infallible,
    error::Error,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use kube::Client;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use crate::{
    certificates::Identity,
    control_plane::{ControlPlane, kubeconfig},
};

type Body = UnsyncBoxBody<Bytes, kube::Error>;

/// What happens to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They pass.
    None,
    /// They pass after a while.
    Delay(Duration),
    /// They are taken and never answered; watches that stand fall silent.
    Hang,
    /// Those that would change something are taken and never answered; everything else passes.
    HangWrites,
    /// Connections are cut, and new ones closed at once.
    Close,
    /// They are answered with this status.
    Status(u16),
    /// Watches are told that their resource version is too old; everything else passes.
    Expired,
}

/// A proxy that serves until it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    fault: Arc<watch::Sender<Fault>>,
    hanging: Arc<AtomicUsize>,
    port: u16,
    accepting: JoinHandle<()>,
    folder: PathBuf,
}

impl FaultProxy {
    /// Starts one that speaks to the API server with this identity.
    pub async fn start(control_plane: &ControlPlane, identity: &Identity, fault: Fault) -> Self {
        let client = control_plane.client(identity).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let fault = Arc::new(watch::Sender::new(fault));
        let hanging = Arc::new(AtomicUsize::new(0));
        let accepting = tokio::spawn(accept(listener, client, fault.clone(), hanging.clone()));
        Self { fault, hanging, port, accepting, folder: control_plane.folder.clone() }
    }

    /// Spoils from now on, connections that stand included.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// How many requests were taken and are not answered.
    pub fn hanging(&self) -> usize {
        self.hanging.load(Ordering::Relaxed)
    }

    /// A kubeconfig that leads through the proxy.
    pub fn kubeconfig(&self) -> PathBuf {
        let cluster = json!({"server": format!("http://127.0.0.1:{}", self.port)});
        kubeconfig(self.folder.join(format!("proxy-{}.kubeconfig", self.port)), &cluster, &json!({}))
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, client: Client, fault: Arc<watch::Sender<Fault>>, hanging: Arc<AtomicUsize>) {
    loop {
        let Ok((connection, _)) = listener.accept().await else { continue };
        if *fault.borrow() != Fault::Close {
            tokio::spawn(serve(connection, client.clone(), fault.subscribe(), hanging.clone()));
        }
    }
}

async fn serve(connection: TcpStream, client: Client, mut fault: watch::Receiver<Fault>, hanging: Arc<AtomicUsize>) {
    let state = fault.clone();
    let service = service_fn(move |request| answer(request, client.clone(), state.clone(), hanging.clone()));
    let serving = http1::Builder::new().serve_connection(TokioIo::new(connection), service);
    tokio::select! {
        _ = serving => {}
        _ = fault.wait_for(|fault| *fault == Fault::Close) => {}
    }
}

async fn answer(
    request: Request<Incoming>,
    client: Client,
    mut fault: watch::Receiver<Fault>,
    hanging: Arc<AtomicUsize>,
) -> Result<Response<Body>, Infallible> {
    let now = *fault.borrow_and_update();
    let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
    match now {
        Fault::Hang => std::future::pending().await,
        Fault::HangWrites if request.method() != http::Method::GET => {
            hanging.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
        }
        Fault::Delay(time) => tokio::time::sleep(time).await,
        Fault::Status(code) => return Ok(status(code)),
        Fault::Expired if is_watch => return Ok(status(410)),
        Fault::None | Fault::Close | Fault::Expired | Fault::HangWrites => {}
    }
    Ok(forward(request, &client, fault).await.unwrap_or_else(|_| status(502)))
}

async fn forward(request: Request<Incoming>, client: &Client, fault: watch::Receiver<Fault>) -> Result<Response<Body>, Box<dyn Error>> {
    let (mut head, body) = request.into_parts();
    head.headers.remove(http::header::HOST);
    let body = kube::client::Body::from(body.collect().await?.to_bytes());
    let answer = client.send(Request::from_parts(head, body)).await?;
    Ok(answer.map(|body| silent_while_hanging(body, fault)))
}

/// A watch's answer goes on for ever; it falls silent with everything else.
fn silent_while_hanging(body: kube::client::Body, fault: watch::Receiver<Fault>) -> Body {
    let frames = stream::unfold((BodyStream::new(body), fault), |(mut frames, mut fault)| async move {
        let frame = frames.next().await?;
        let _ = fault.wait_for(|fault| *fault != Fault::Hang).await;
        Some((frame, (frames, fault)))
    });
    StreamBody::new(Box::pin(frames)).boxed_unsync()
}

fn status(code: u16) -> Response<Body> {
    let reason = StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason()).unwrap_or_default().replace(' ', "");
    let body =
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "spoiled on purpose"});
    let mut response = Response::new(Full::from(body.to_string()).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
