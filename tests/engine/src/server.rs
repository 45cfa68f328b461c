//! A mock OpenAI-compatible engine, which takes time and responds with filler text.
//!
//! It listens on every address of the machine and is a separate engine on each, because each pod has its own
//! address.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, TcpListener},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{ConnectInfo, State, connect_info::Connected},
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::IncomingStream,
};
use futures::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

use crate::{
    background::Background,
    counted::Counted,
    metrics::{Dialect, Utilization},
};

/// Settings of an engine.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Model name in its metrics.
    pub model: String,
    /// Names of its metrics.
    pub dialect: Dialect,
    /// Maximum number of requests that it processes at a time; others wait in its queue.
    pub concurrency: usize,
    /// Time per token.
    pub token_time: Duration,
    /// Further metrics in the Prometheus text format.
    pub extra_metrics: String,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            model: "mock".to_owned(),
            dialect: Dialect::Vllm,
            concurrency: 8,
            token_time: Duration::from_millis(10),
            extra_metrics: String::new(),
        }
    }
}

/// Running engines, one for each address of this machine.
#[derive(Debug)]
pub struct Engine {
    /// Port on which they listen.
    pub port: u16,
    /// Names of their metrics.
    pub dialect: Dialect,
    _background: Background,
}

impl Engine {
    /// Starts the engines on a free port.
    pub fn start(settings: EngineSettings) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").expect("a free port");
        listener.set_nonblocking(true).expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        Self { port, dialect: settings.dialect, _background: Background::run(serve(listener, settings)) }
    }
}

async fn serve(listener: TcpListener, settings: EngineSettings) {
    let state = Arc::new(Pods { settings, pods: Mutex::default() });
    let router = Router::new()
        .route("/v1/chat/completions", post(complete))
        .route("/v1/completions", post(complete))
        .route("/v1/models", get(models))
        .route("/metrics", get(metrics))
        .route("/health", get(|| async { "" }))
        .with_state(state);
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    let _ = axum::serve(listener, router.into_make_service_with_connect_info::<LocalAddress>()).await;
}

/// Address to which a client has connected.
#[derive(Clone, Copy)]
struct LocalAddress(IpAddr);

impl Connected<IncomingStream<'_, tokio::net::TcpListener>> for LocalAddress {
    fn connect_info(stream: IncomingStream<'_, tokio::net::TcpListener>) -> Self {
        Self(stream.io().local_addr().map_or(IpAddr::from([0, 0, 0, 0]), |address| address.ip()))
    }
}

struct Pods {
    settings: EngineSettings,
    pods: Mutex<HashMap<IpAddr, Arc<Pod>>>,
}

struct Pod {
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Pod {
    fn new(concurrency: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(concurrency)), waiting: AtomicUsize::new(0) }
    }
}

impl Pods {
    fn get(&self, address: IpAddr) -> Arc<Pod> {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.entry(address).or_insert_with(|| Arc::new(Pod::new(self.settings.concurrency))).clone()
    }
}

#[derive(Deserialize)]
struct CompletionRequest {
    #[serde(default)]
    stream: bool,
    #[serde(default = "default_max_tokens")]
    max_tokens: u32,
}

const fn default_max_tokens() -> u32 {
    10
}

async fn complete(
    ConnectInfo(LocalAddress(address)): ConnectInfo<LocalAddress>,
    State(pods): State<Arc<Pods>>,
    Json(request): Json<CompletionRequest>,
) -> Response {
    let pod = pods.get(address);
    let waiting = Counted::new(&pod.waiting);
    // The semaphore is never closed.
    let Ok(slot) = pod.slots.clone().acquire_owned().await else {
        return http::StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    drop(waiting);
    if request.stream {
        return streamed(request.max_tokens, pods.settings.token_time, slot);
    }
    sleep(pods.settings.token_time * request.max_tokens).await;
    Json(completion(request.max_tokens)).into_response()
}

/// Server-sent events, one per token. The slot is released when the stream ends or is dropped.
fn streamed(tokens: u32, token_time: Duration, slot: OwnedSemaphorePermit) -> Response {
    let events = stream::unfold((0, slot), move |(sent, slot)| async move {
        if sent > tokens {
            return None;
        }
        if sent == tokens {
            let last = json!({"object": "chat.completion.chunk", "choices": [], "usage": usage(tokens)});
            return Some((
                Ok::<_, Infallible>(format!("data: {last}\n\ndata: [DONE]\n\n")),
                (sent + 1, slot),
            ));
        }
        sleep(token_time).await;
        let chunk =
            json!({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "x "}}]});
        Some((Ok(format!("data: {chunk}\n\n")), (sent + 1, slot)))
    });
    ([(http::header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}

fn completion(tokens: u32) -> Value {
    let message = json!({"role": "assistant", "content": "x"});
    json!({
        "id": "mock", "object": "chat.completion", "model": "mock", "usage": usage(tokens),
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    })
}

fn usage(tokens: u32) -> Value {
    json!({"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1})
}

async fn models(State(pods): State<Arc<Pods>>) -> Json<Value> {
    Json(json!({"object": "list", "data": [{"id": pods.settings.model, "object": "model"}]}))
}

async fn metrics(
    ConnectInfo(LocalAddress(address)): ConnectInfo<LocalAddress>,
    State(pods): State<Arc<Pods>>,
) -> String {
    let (pod, settings) = (pods.get(address), &pods.settings);
    let running = settings.concurrency - pod.slots.available_permits();
    let utilization =
        Utilization { waiting: pod.waiting.load(Ordering::Relaxed), running, limit: settings.concurrency };
    settings.dialect.expose(&settings.model, utilization) + &settings.extra_metrics
}
