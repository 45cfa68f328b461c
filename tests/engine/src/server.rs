//! A mock OpenAI-compatible engine, which takes time and responds with filler text.
//!
//! It listens on every address of the machine and is a separate engine on each, because each pod has its own
//! address. Therefore it never refuses connections, unlike a real engine that loads its model.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
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
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

use crate::{
    background::Background,
    counted::Counted,
    metrics::{Dialect, Latencies, Utilization},
};

/// Model name of an engine with default settings.
pub const MODEL: &str = "mock";

/// Tokens per block of the KV cache.
const BLOCK: usize = 16;

/// Settings of an engine.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Model name in its metrics and in requests.
    pub model: String,
    /// LoRA adapters, whose names requests may have, too.
    pub adapters: Vec<String>,
    /// Names of its metrics.
    pub dialect: Dialect,
    /// Maximum number of requests that it processes at a time; others wait in its queue.
    pub concurrency: usize,
    /// Time per token.
    pub token_time: Duration,
    /// Size of the KV cache, in blocks of 16 tokens. Usage stays at the maximum when all are used; a real engine
    /// would preempt requests.
    pub kv_blocks: usize,
    /// Maximum number of tokens of a prompt and its response.
    pub context: usize,
    /// Further metrics in the Prometheus text format.
    pub extra_metrics: String,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            model: MODEL.to_owned(),
            adapters: Vec::new(),
            dialect: Dialect::Vllm,
            concurrency: 8,
            token_time: Duration::from_millis(10),
            kv_blocks: 8192,
            context: 131_072,
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
        Self::start_at((IpAddr::from([0, 0, 0, 0]), 0).into(), settings)
    }

    /// Starts one engine at the address of a pod. Other processes may listen on the same port of other addresses.
    pub fn start_at(address: SocketAddr, settings: EngineSettings) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
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
    blocks: AtomicUsize,
    latencies: Mutex<Latencies>,
}

impl Pod {
    fn new(concurrency: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(concurrency)),
            waiting: AtomicUsize::new(0),
            blocks: AtomicUsize::new(0),
            latencies: Mutex::default(),
        }
    }

    fn latencies(&self) -> MutexGuard<'_, Latencies> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
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
    model: Option<String>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    stream_options: StreamOptions,
    #[serde(default = "default_max_tokens")]
    max_tokens: u32,
    #[serde(default)]
    messages: Vec<Message>,
    #[serde(default)]
    prompt: String,
}

#[derive(Default, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Deserialize)]
struct Message {
    content: String,
}

const fn default_max_tokens() -> u32 {
    10
}

impl CompletionRequest {
    /// Length of the prompt, with one token per word.
    fn prompt_tokens(&self) -> usize {
        let texts = self.messages.iter().map(|message| &message.content).chain([&self.prompt]);
        texts.map(|text| text.split_whitespace().count()).sum()
    }
}

/// A request that holds a slot and blocks of the KV cache, until it is dropped.
struct Running {
    pod: Arc<Pod>,
    _slot: OwnedSemaphorePermit,
    prompt_tokens: usize,
    tokens: usize,
    arrived: Instant,
    started: Instant,
    last_token: Instant,
}

impl Running {
    /// Waits in the queue for a slot.
    async fn admit(pod: Arc<Pod>, prompt_tokens: usize) -> Option<Self> {
        let arrived = Instant::now();
        let waiting = Counted::new(&pod.waiting);
        let slot = pod.slots.clone().acquire_owned().await.ok()?;
        drop(waiting);
        let started = Instant::now();
        pod.blocks.fetch_add(prompt_tokens.div_ceil(BLOCK), Ordering::Relaxed);
        Some(Self { pod, _slot: slot, prompt_tokens, tokens: 0, arrived, started, last_token: started })
    }

    fn blocks(&self) -> usize {
        (self.prompt_tokens + self.tokens).div_ceil(BLOCK)
    }

    async fn generate(&mut self, token_time: Duration) {
        sleep(token_time).await;
        let (before, now) = (self.blocks(), Instant::now());
        self.tokens += 1;
        self.pod.blocks.fetch_add(self.blocks() - before, Ordering::Relaxed);
        let mut latencies = self.pod.latencies();
        if self.tokens == 1 {
            latencies.first_token.observe(now - self.arrived);
        } else {
            latencies.inter_token.observe(now - self.last_token);
        }
        drop(latencies);
        self.last_token = now;
    }

    fn finish(&self) {
        let mut latencies = self.pod.latencies();
        latencies.request.observe(self.arrived.elapsed());
        latencies.queue.observe(self.started - self.arrived);
        latencies.inference.observe(self.started.elapsed());
    }

    fn usage(&self) -> Value {
        let (prompt, tokens) = (self.prompt_tokens, self.tokens);
        json!({"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens})
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.pod.blocks.fetch_sub(self.blocks(), Ordering::Relaxed);
    }
}

async fn complete(
    ConnectInfo(LocalAddress(address)): ConnectInfo<LocalAddress>,
    State(pods): State<Arc<Pods>>,
    Json(request): Json<CompletionRequest>,
) -> Response {
    let EngineSettings { model, adapters, token_time, context, .. } = &pods.settings;
    if request.model.as_ref().is_some_and(|name| name != model && !adapters.contains(name)) {
        return (StatusCode::NOT_FOUND, "the model does not exist").into_response();
    }
    let prompt_tokens = request.prompt_tokens();
    if prompt_tokens + request.max_tokens as usize > *context {
        return (StatusCode::BAD_REQUEST, "max_tokens exceeds the context").into_response();
    }
    // The semaphore is never closed.
    let Some(mut running) = Running::admit(pods.get(address), prompt_tokens).await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    if request.stream {
        return streamed(&request, *token_time, running);
    }
    for _ in 0..request.max_tokens {
        running.generate(*token_time).await;
    }
    running.finish();
    Json(completion(model, &running)).into_response()
}

/// Server-sent events, one per token.
fn streamed(request: &CompletionRequest, token_time: Duration, running: Running) -> Response {
    let (max_tokens, include_usage) = (request.max_tokens as usize, request.stream_options.include_usage);
    let events = stream::unfold(Some(running), move |running| async move {
        let mut running = running?;
        if running.tokens < max_tokens {
            running.generate(token_time).await;
            let choice = json!({"index": 0, "delta": {"content": "x "}});
            let chunk = json!({"object": "chat.completion.chunk", "choices": [choice]});
            return Some((Ok::<_, Infallible>(format!("data: {chunk}\n\n")), Some(running)));
        }
        running.finish();
        let usage = json!({"object": "chat.completion.chunk", "choices": [], "usage": running.usage()});
        let usage = if include_usage { format!("data: {usage}\n\n") } else { String::new() };
        Some((Ok(format!("{usage}data: [DONE]\n\n")), None))
    });
    ([(http::header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}

fn completion(model: &str, running: &Running) -> Value {
    let message = json!({"role": "assistant", "content": "x"});
    json!({
        "id": "mock", "object": "chat.completion", "model": model, "usage": running.usage(),
        "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
    })
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
    let kv_cache = pod.blocks.load(Ordering::Relaxed) as f64 / settings.kv_blocks.max(1) as f64;
    let utilization =
        Utilization { waiting: pod.waiting.load(Ordering::Relaxed), running, kv_cache: kv_cache.min(1.0) };
    settings.dialect.expose(&settings.model, utilization, &pod.latencies()) + &settings.extra_metrics
}
