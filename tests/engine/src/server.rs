//! An OpenAI-compatible engine that takes time and answers with nothing of interest.
//!
//! It listens on every address and is a different engine on each: a pod is an address.

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
    metrics::{Dialect, Doing},
};

/// How an engine works.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// The name that its metrics carry.
    pub model: String,
    /// Whose metrics it has.
    pub dialect: Dialect,
    /// How many requests it works on at a time; the others queue.
    pub concurrency: usize,
    /// How long one token takes.
    pub token_time: Duration,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            model: "mock".to_owned(),
            dialect: Dialect::Vllm,
            concurrency: 8,
            token_time: Duration::from_millis(10),
        }
    }
}

/// Running engines, one on each address of this machine.
#[derive(Debug)]
pub struct Engine {
    /// The port that they listen on.
    pub port: u16,
    /// Whose metrics they have.
    pub dialect: Dialect,
    _background: Background,
}

impl Engine {
    /// Starts them on a free port.
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
    let _ = axum::serve(listener, router.into_make_service_with_connect_info::<Local>()).await;
}

/// The address that a client connected to.
#[derive(Clone, Copy)]
struct Local(IpAddr);

impl Connected<IncomingStream<'_, tokio::net::TcpListener>> for Local {
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

impl Pods {
    fn at(&self, address: IpAddr) -> Arc<Pod> {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            Arc::new(Pod {
                slots: Arc::new(Semaphore::new(self.settings.concurrency)),
                waiting: AtomicUsize::new(0),
            })
        };
        pods.entry(address).or_insert_with(new).clone()
    }
}

#[derive(Deserialize)]
struct Ask {
    #[serde(default)]
    stream: bool,
    #[serde(default = "few")]
    max_tokens: u32,
}

const fn few() -> u32 {
    10
}

async fn complete(
    ConnectInfo(Local(address)): ConnectInfo<Local>,
    State(pods): State<Arc<Pods>>,
    Json(ask): Json<Ask>,
) -> Response {
    let pod = pods.at(address);
    let waiting = Counted::new(&pod.waiting);
    // The semaphore is never closed.
    let Ok(slot) = pod.slots.clone().acquire_owned().await else {
        return http::StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    drop(waiting);
    if ask.stream {
        return streamed(ask.max_tokens, pods.settings.token_time, slot);
    }
    sleep(pods.settings.token_time * ask.max_tokens).await;
    Json(answer(ask.max_tokens)).into_response()
}

/// A token at a time, as server-sent events; the slot is free again when the stream ends or is dropped.
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

fn answer(tokens: u32) -> Value {
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

async fn metrics(ConnectInfo(Local(address)): ConnectInfo<Local>, State(pods): State<Arc<Pods>>) -> String {
    let (pod, settings) = (pods.at(address), &pods.settings);
    let running = settings.concurrency - pod.slots.available_permits();
    let doing = Doing { waiting: pod.waiting.load(Ordering::Relaxed), running, limit: settings.concurrency };
    settings.dialect.expose(&settings.model, doing)
}
