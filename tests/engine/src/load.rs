//! A load generator that sends requests to the router, either a fixed number at a time or at a fixed rate.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::body::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::json;
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{interval, sleep},
};

use crate::{background::Background, counted::Counted};

/// Prefix of the addresses that are allowed besides loopback (TEST-NET-1 of RFC 5737).
const TEST_NETWORK: [u8; 3] = [192, 0, 2];

/// Delay before a client retries a failed request.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Target and limits of a load generator.
#[derive(Clone, Debug)]
pub struct LoadSettings {
    /// URL of the router, such as `http://127.0.0.1:8080`.
    pub router: String,
    /// Model name in requests.
    pub model: String,
    /// Length of each response, in tokens.
    pub tokens: u32,
    /// Maximum number of requests in all; no more are sent afterwards.
    pub most_requests: u64,
}

/// Counts of requests by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent so far.
    pub sent: u64,
    /// Completed with status 200.
    pub served: u64,
    /// Failed in any way.
    pub failed: u64,
    /// In flight, or waiting for a retry.
    pub in_flight: usize,
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    served: AtomicU64,
    failed: AtomicU64,
    in_flight: AtomicUsize,
    waits: Mutex<Vec<Duration>>,
}

/// Arrival pattern of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern {
    /// This many clients, each of which sends its next request as soon as the last one completes.
    Held(usize),
    /// A new client after each `pause`, regardless of the others, while fewer than `limit` wait.
    Arriving { pause: Duration, limit: usize },
}

/// A running load generator.
#[derive(Debug)]
pub struct Load {
    pattern: watch::Sender<Pattern>,
    counters: Arc<Counters>,
    _background: Background,
}

impl Load {
    /// Starts a load generator with no requests in flight.
    ///
    /// # Panics
    /// If the URL is not an address of loopback or of the test network.
    pub fn start(settings: LoadSettings) -> Self {
        Self::with_prompts(settings, 1)
    }

    /// [`Self::start`] with prompts of this number of words. All prompts differ, so that an engine cannot reuse
    /// its KV cache.
    ///
    /// # Panics
    /// If the URL is not an address of loopback or of the test network.
    pub fn with_prompts(settings: LoadSettings, words: usize) -> Self {
        assert_local(&settings.router);
        let (pattern, changes) = watch::channel(Pattern::Held(0));
        let counters = Arc::new(Counters::default());
        let background = Background::run(run(settings, words, changes, counters.clone()));
        Self { pattern, counters, _background: background }
    }

    /// Keeps this many requests in flight from now on; surplus requests are cancelled at once.
    pub fn hold(&self, requests: usize) {
        self.pattern.send_replace(Pattern::Held(requests));
    }

    /// Starts `per_second` clients per second from now on, while fewer than `limit` wait. Each retries until
    /// its request succeeds. Requests of [`Self::hold`] are cancelled.
    pub fn arrive(&self, per_second: u32, limit: usize) {
        self.arrive_every(Duration::from_secs(1) / per_second.max(1), limit);
    }

    /// [`Self::arrive`] with this time between two clients.
    pub fn arrive_every(&self, pause: Duration, limit: usize) {
        self.pattern.send_replace(Pattern::Arriving { pause, limit });
    }

    /// Counts so far.
    pub fn counts(&self) -> Counts {
        Counts {
            sent: self.counters.sent.load(Ordering::Relaxed),
            served: self.counters.served.load(Ordering::Relaxed),
            failed: self.counters.failed.load(Ordering::Relaxed),
            in_flight: self.counters.in_flight.load(Ordering::Relaxed),
        }
    }
}

impl Load {
    /// Times from the arrival of a client, including retries, to the first data of its response, so far; of clients
    /// of [`Self::arrive`] only, in the order of these data.
    pub fn waits(&self) -> Vec<Duration> {
        self.counters.waits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Panics unless the load stays on this machine.
fn assert_local(router: &str) {
    let uri: Uri = router.parse().expect("an address");
    let host: IpAddr = uri.host().and_then(|host| host.parse().ok()).expect("an IP address");
    assert!(host.is_loopback() || is_in_test_network(host), "{router} is not in a test network");
}

fn is_in_test_network(host: IpAddr) -> bool {
    matches!(host, IpAddr::V4(address) if address.octets().starts_with(&TEST_NETWORK))
}

async fn run(
    settings: LoadSettings,
    words: usize,
    mut pattern: watch::Receiver<Pattern>,
    counters: Arc<Counters>,
) {
    let generator = Generator {
        client: Client::builder(TokioExecutor::new()).build_http(),
        settings: Arc::new(settings),
        words,
        counters,
    };
    let mut clients = JoinSet::new();
    let mut held = Vec::new();
    while pattern.changed().await.is_ok() {
        let current = *pattern.borrow_and_update();
        let count = match current {
            Pattern::Held(count) => count,
            Pattern::Arriving { .. } => 0,
        };
        held.drain(count.min(held.len())..).for_each(|client: AbortHandle| client.abort());
        while held.len() < count {
            held.push(clients.spawn(generator.clone().send_repeatedly()));
        }
        if let Pattern::Arriving { pause, limit } = current {
            tokio::select! {
                () = generator.arrive(&mut clients, pause, limit) => {}
                _ = pattern.changed() => {}
            }
            // The next iteration reads the new pattern.
            pattern.mark_changed();
        }
    }
}

/// Sender of requests; a clone of it is one client.
#[derive(Clone)]
struct Generator {
    client: Client<HttpConnector, Full<Bytes>>,
    settings: Arc<LoadSettings>,
    /// Length of prompts.
    words: usize,
    counters: Arc<Counters>,
}

impl Generator {
    async fn send_repeatedly(self) {
        while let Some(served) = self.send_counted().await {
            if !served {
                sleep(RETRY_DELAY).await;
            }
        }
    }

    async fn arrive(&self, clients: &mut JoinSet<()>, pause: Duration, limit: usize) {
        let mut ticks = interval(pause);
        loop {
            ticks.tick().await;
            if self.counters.in_flight.load(Ordering::Relaxed) < limit {
                clients.spawn(self.clone().send_until_served());
            }
            while clients.try_join_next().is_some() {}
        }
    }

    /// Sends until the request succeeds. The client counts as in flight during requests and retry delays.
    async fn send_until_served(self) {
        let _waiting = Counted::new(&self.counters.in_flight);
        let arrived = Some(Instant::now());
        while self.send(arrived).await == Some(false) {
            sleep(RETRY_DELAY).await;
        }
    }

    async fn send_counted(&self) -> Option<bool> {
        let _in_flight = Counted::new(&self.counters.in_flight);
        self.send(None).await
    }

    /// Sends one request; returns `true` if it succeeded, or `None` once the maximum number of requests is
    /// reached.
    async fn send(&self, arrived: Option<Instant>) -> Option<bool> {
        if self.counters.sent.fetch_add(1, Ordering::Relaxed) >= self.settings.most_requests {
            self.counters.sent.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let served = self.request(arrived).await.unwrap_or(false);
        let count = if served { &self.counters.served } else { &self.counters.failed };
        count.fetch_add(1, Ordering::Relaxed);
        Some(served)
    }

    async fn request(
        &self,
        arrived: Option<Instant>,
    ) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        let LoadSettings { router, model, tokens, .. } = &*self.settings;
        let word = format!("{} ", self.counters.sent.load(Ordering::Relaxed));
        let messages = json!([{"role": "user", "content": word.repeat(self.words)}]);
        let body = json!({"model": model, "stream": true, "max_tokens": tokens, "messages": messages});
        let request = Request::post(format!("{router}/v1/chat/completions"))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::from(body.to_string()))?;
        let response = self.client.request(request).await?;
        let served = response.status() == StatusCode::OK;
        let mut body = response.into_body();
        let first = body.frame().await.transpose()?;
        if let (true, Some(_), Some(arrived)) = (served, first, arrived) {
            self.counters.waits.lock().unwrap_or_else(PoisonError::into_inner).push(arrived.elapsed());
        }
        body.collect().await?;
        Ok(served)
    }
}
