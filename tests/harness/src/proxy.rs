//! A proxy between the operator and the real API server that injects faults.

use std::{
    collections::HashMap,
    convert::Infallible,
    error::Error,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use kube::Client;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

use crate::{
    certificates::Identity,
    control_plane::{ControlPlane, kubeconfig},
    random::Random,
};

type Body = UnsyncBoxBody<Bytes, kube::Error>;
type Frames = BodyStream<kube::client::Body>;

/// Age of a watch at which [`Fault::ExpiredMidway`] ends it.
const WATCH_AGE: Duration = Duration::from_millis(500);

/// Fault that the proxy injects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Requests are forwarded.
    None,
    /// Requests are forwarded after a delay.
    Delay(Duration),
    /// Requests are accepted and get no response; open watches fall silent.
    Hang,
    /// Writes are accepted and get no response; reads are forwarded.
    HangWrites,
    /// Responses start without ever sending their bodies, even after this fault ends; open watches fall
    /// silent.
    HangBodies,
    /// Open connections are cut, and new ones are closed at once.
    Close,
    /// Requests fail with this HTTP status.
    Status(u16),
    /// Requests fail with 429 and this `Retry-After`.
    Busy(Duration),
    /// Watches fail with 410, because their resource version is too old; other requests are forwarded. The
    /// first version that is rejected for a path stays too old after this fault ends.
    Expired,
    /// Open watches end with a 410 event in their stream; other requests are forwarded.
    ExpiredMidway,
    /// This seed selects a fault for each request: 429 with a `Retry-After` of one second, 500, 503, a delay,
    /// a response that is lost after the request took effect, or none.
    Mixed(u64),
}

/// A proxy that serves until it is dropped.
pub struct FaultProxy {
    state: Arc<State>,
    port: u16,
    accepting: JoinHandle<()>,
    folder: PathBuf,
}

struct State {
    client: Client,
    fault: watch::Sender<Fault>,
    /// Number of calls of [`FaultProxy::give_up_watches`].
    given_up: watch::Sender<usize>,
    /// Number of calls of [`FaultProxy::cut`].
    cuts: watch::Sender<usize>,
    requests: AtomicUsize,
    injected: AtomicUsize,
    hanging: AtomicUsize,
    /// Resource version that stays too old, by path of the watch.
    too_old: Mutex<HashMap<String, String>>,
}

impl State {
    /// `true` for a watch from a resource version that [`Fault::Expired`] rejects or has rejected.
    fn is_too_old(&self, request: &Request<Incoming>, now: Fault) -> bool {
        if !is_watch(request) {
            return false;
        }
        let query = request.uri().query().unwrap_or_default();
        let version = query.split('&').find(|part| part.starts_with("resourceVersion=")).unwrap_or_default();
        let mut too_old = self.too_old.lock().expect("a lock");
        if now == Fault::Expired {
            too_old.entry(request.uri().path().to_owned()).or_insert_with(|| version.to_owned());
            return true;
        }
        too_old.get(request.uri().path()).is_some_and(|found| found == version)
    }

    fn failure(&self, code: u16) -> Response<Body> {
        self.count_fault();
        failure(code)
    }

    fn busy(&self, retry_after: Duration) -> Response<Body> {
        self.count_fault();
        busy(retry_after)
    }

    /// Counts a fault and never returns.
    async fn never<T>(&self) -> T {
        self.count_fault();
        std::future::pending().await
    }

    fn count_fault(&self) {
        self.injected.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts of requests and faults since the fault was last set.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    /// Number of requests.
    pub asked: usize,
    /// Number of requests or responses with an injected fault.
    pub spoiled: usize,
}

impl FaultProxy {
    /// Starts a proxy that connects to the API server with this identity.
    pub async fn start(control_plane: &ControlPlane, identity: &Identity, fault: Fault) -> Self {
        let client = control_plane.client(identity).await;
        Self::before(client, control_plane.folder.clone(), fault).await
    }

    /// Starts a proxy in front of another server, such as a Prometheus.
    ///
    /// # Panics
    /// If this is no address.
    pub async fn before_url(url: &str, fault: Fault) -> Self {
        let config = kube::Config::new(url.parse().expect("an address"));
        Self::before(Client::try_from(config).expect("a client"), PathBuf::new(), fault).await
    }

    async fn before(client: Client, folder: PathBuf, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State {
            client,
            fault: watch::Sender::new(fault),
            given_up: watch::Sender::new(0),
            cuts: watch::Sender::new(0),
            requests: AtomicUsize::new(0),
            injected: AtomicUsize::new(0),
            hanging: AtomicUsize::new(0),
            too_old: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, state.clone()));
        Self { state, port, accepting, folder }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Sets the fault, also for open connections; returns the counts since the last call.
    pub fn set(&self, fault: Fault) -> Passed {
        self.state.fault.send_replace(fault);
        Passed {
            asked: self.state.requests.swap(0, Ordering::Relaxed),
            spoiled: self.state.injected.swap(0, Ordering::Relaxed),
        }
    }

    /// Cuts all open connections; new ones are served.
    pub fn cut(&self) {
        self.state.cuts.send_modify(|times| *times += 1);
    }

    /// Silences all open watches for good, like a network that has lost their connections; new ones are
    /// served.
    pub fn give_up_watches(&self) {
        self.state.given_up.send_modify(|times| *times += 1);
    }

    /// Number of writes that [`Fault::HangWrites`] has left without a response.
    pub fn hanging(&self) -> usize {
        self.state.hanging.load(Ordering::Relaxed)
    }

    /// Kubeconfig that connects through the proxy.
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

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        let Ok((connection, _)) = listener.accept().await else { continue };
        if *state.fault.borrow() != Fault::Close {
            tokio::spawn(serve(connection, state.clone()));
        }
    }
}

async fn serve(connection: TcpStream, state: Arc<State>) {
    let (mut fault, mut cuts) = (state.fault.subscribe(), state.cuts.subscribe());
    let service = service_fn(move |request| respond(request, state.clone()));
    let serving = http1::Builder::new().serve_connection(TokioIo::new(connection), service);
    tokio::select! {
        _ = serving => {}
        _ = fault.wait_for(|fault| *fault == Fault::Close) => {}
        _ = cuts.changed() => {}
    }
}

async fn respond(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, Infallible> {
    let number = state.requests.fetch_add(1, Ordering::Relaxed);
    let now = *state.fault.borrow();
    match now {
        Fault::Hang => state.never().await,
        Fault::HangWrites if request.method() != http::Method::GET => {
            state.hanging.fetch_add(1, Ordering::Relaxed);
            state.never::<()>().await;
        }
        Fault::Delay(time) => sleep(time).await,
        Fault::Status(code) => return Ok(state.failure(code)),
        Fault::Busy(retry_after) => return Ok(state.busy(retry_after)),
        _ if state.is_too_old(&request, now) => return Ok(state.failure(410)),
        Fault::Mixed(seed) => return Ok(mixed(request, &state, Random::of(seed ^ number as u64)).await),
        Fault::None
        | Fault::Close
        | Fault::Expired
        | Fault::ExpiredMidway
        | Fault::HangWrites
        | Fault::HangBodies => {}
    }
    Ok(forward(request, &state).await)
}

fn is_watch<B>(request: &Request<B>) -> bool {
    request.uri().query().is_some_and(|query| query.contains("watch=true"))
}

/// Forwards more than half of the requests, so that the operator makes progress.
async fn mixed(request: Request<Incoming>, state: &Arc<State>, mut random: Random) -> Response<Body> {
    match random.below(10) {
        0 => state.busy(Duration::from_secs(1)),
        1 => state.failure(500),
        2 => state.failure(503),
        3 => {
            sleep(random.millis(100, 1500)).await;
            forward(request, state).await
        }
        4 => {
            drop(forward(request, state).await);
            state.failure(504)
        }
        _ => forward(request, state).await,
    }
}

async fn forward(request: Request<Incoming>, state: &Arc<State>) -> Response<Body> {
    let is_watch = is_watch(&request);
    match send(request, &state.client).await {
        Ok(response) => response.map(|body| Streamed::new(body, is_watch, state).into_body()),
        Err(_) => failure(502),
    }
}

async fn send(
    request: Request<Incoming>,
    client: &Client,
) -> Result<Response<kube::client::Body>, Box<dyn Error>> {
    let (mut head, body) = request.into_parts();
    head.headers.remove(http::header::HOST);
    let body = kube::client::Body::from(body.collect().await?.to_bytes());
    Ok(client.send(Request::from_parts(head, body)).await?)
}

/// Body of a forwarded response; that of a watch has no end.
struct Streamed {
    frames: Frames,
    is_watch: bool,
    state: Arc<State>,
    fault: watch::Receiver<Fault>,
    given_up: watch::Receiver<usize>,
    is_between_lines: bool,
    has_ended: bool,
}

impl Streamed {
    fn new(body: kube::client::Body, is_watch: bool, state: &Arc<State>) -> Self {
        let (fault, given_up) = (state.fault.subscribe(), state.given_up.subscribe());
        Self {
            frames: BodyStream::new(body),
            is_watch,
            state: state.clone(),
            fault,
            given_up,
            is_between_lines: true,
            has_ended: false,
        }
    }

    fn into_body(self) -> Body {
        let frames =
            stream::unfold(self, |mut this| async move { this.next().await.map(|frame| (frame, this)) });
        StreamBody::new(Box::pin(frames)).boxed_unsync()
    }

    async fn next(&mut self) -> Option<Result<Frame<Bytes>, kube::Error>> {
        if self.has_ended {
            return None;
        }
        let can_expire = self.is_watch && self.is_between_lines;
        let frame = tokio::select! {
            frame = self.frames.next() => frame,
            () = expired(self.fault.clone()), if can_expire => {
                self.has_ended = true;
                self.state.count_fault();
                return Some(Ok(Frame::data(too_old())));
            }
        };
        let is_lost = !self.is_watch && *self.fault.borrow() == Fault::HangBodies;
        if is_lost || self.is_watch && self.given_up.has_changed().unwrap_or_default() {
            self.state.never::<()>().await;
        }
        let _ = self.fault.wait_for(|fault| !matches!(fault, Fault::Hang | Fault::HangBodies)).await;
        if let Some(Ok(frame)) = &frame {
            self.is_between_lines = frame.data_ref().is_none_or(|data| data.ends_with(b"\n"));
        }
        frame
    }
}

async fn expired(mut fault: watch::Receiver<Fault>) {
    let _ = fault.wait_for(|fault| *fault == Fault::ExpiredMidway).await;
    sleep(WATCH_AGE).await;
}

fn too_old() -> Bytes {
    Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": status(410)})))
}

fn status(code: u16) -> Value {
    let reason = StatusCode::from_u16(code)
        .ok()
        .and_then(|code| code.canonical_reason())
        .unwrap_or_default()
        .replace(' ', "");
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "injected by the fault proxy"})
}

fn failure(code: u16) -> Response<Body> {
    error_response(code, "application/json", status(code).to_string())
}

/// Response of an overloaded API server: plain text and a header instead of a `Status` object (Kubernetes
/// `staging/src/k8s.io/apiserver/pkg/server/filters/priority-and-fairness.go`).
fn busy(retry_after: Duration) -> Response<Body> {
    let mut response = error_response(
        429,
        "text/plain; charset=utf-8",
        "Too many requests, please try again later.\n".to_owned(),
    );
    response.headers_mut().insert(http::header::RETRY_AFTER, retry_after.as_secs().into());
    response
}

fn error_response(code: u16, content: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Full::from(body).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content));
    response
}
