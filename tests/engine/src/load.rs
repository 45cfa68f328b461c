//! Clients that keep a given number of requests in flight, through the real router.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
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
    time::sleep,
};

use crate::{background::Background, counted::Counted};

/// The addresses that test networks have besides loopback (RFC 5737).
const TEST_NETWORK: [u8; 3] = [192, 0, 2];

/// How long a client that was refused waits before it asks again.
const RETRY: Duration = Duration::from_millis(500);

/// What is asked, and how often at the most.
#[derive(Clone, Debug)]
pub struct LoadSettings {
    /// The router's address, such as `http://127.0.0.1:8080`.
    pub router: String,
    /// The model.
    pub model: String,
    /// How long each answer is.
    pub tokens: u32,
    /// How many requests are sent in all; then no more.
    pub most_requests: u64,
}

/// What became of the requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent so far.
    pub sent: u64,
    /// Answered in full with 200.
    pub served: u64,
    /// Everything else.
    pub failed: u64,
    /// Under way.
    pub in_flight: usize,
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    served: AtomicU64,
    failed: AtomicU64,
    in_flight: AtomicUsize,
}

/// Running clients.
#[derive(Debug)]
pub struct Load {
    wanted: watch::Sender<usize>,
    counters: Arc<Counters>,
    _background: Background,
}

impl Load {
    /// Starts with nothing in flight.
    ///
    /// # Panics
    /// When the address is not this machine's own.
    pub fn start(settings: LoadSettings) -> Self {
        assert_own(&settings.router);
        let (wanted, watched) = watch::channel(0);
        let counters = Arc::new(Counters::default());
        let background = Background::run(keep(settings, watched, counters.clone()));
        Self { wanted, counters, _background: background }
    }

    /// Keeps this many requests in flight from now on; those that are too many are dropped at once, as clients do that give up.
    pub fn hold(&self, requests: usize) {
        self.wanted.send_replace(requests);
    }

    /// What became of the requests so far.
    pub fn counts(&self) -> Counts {
        Counts {
            sent: self.counters.sent.load(Ordering::Relaxed),
            served: self.counters.served.load(Ordering::Relaxed),
            failed: self.counters.failed.load(Ordering::Relaxed),
            in_flight: self.counters.in_flight.load(Ordering::Relaxed),
        }
    }
}

/// Load is never sent anywhere else than to this machine.
fn assert_own(router: &str) {
    let uri: Uri = router.parse().expect("an address");
    let host: IpAddr = uri.host().and_then(|host| host.parse().ok()).expect("an IP address");
    let in_test_network = |address: Ipv4Addr| address.octets().starts_with(&TEST_NETWORK);
    assert!(host.is_loopback() || matches!(host, IpAddr::V4(address) if in_test_network(address)), "{router} is not of a test network");
}

async fn keep(settings: LoadSettings, mut wanted: watch::Receiver<usize>, counters: Arc<Counters>) {
    let asker = Asker { client: Client::builder(TokioExecutor::new()).build_http(), settings: Arc::new(settings), counters };
    let mut clients = JoinSet::new();
    let mut handles = Vec::new();
    while wanted.changed().await.is_ok() {
        let count = *wanted.borrow_and_update();
        handles.drain(count.min(handles.len())..).for_each(|client: AbortHandle| client.abort());
        while handles.len() < count {
            handles.push(clients.spawn(asker.clone().ask_on()));
        }
    }
}

/// One client, which asks again as soon as it is answered.
#[derive(Clone)]
struct Asker {
    client: Client<HttpConnector, Full<Bytes>>,
    settings: Arc<LoadSettings>,
    counters: Arc<Counters>,
}

impl Asker {
    async fn ask_on(self) {
        while self.counters.sent.fetch_add(1, Ordering::Relaxed) < self.settings.most_requests {
            let served = {
                let _flying = Counted::new(&self.counters.in_flight);
                self.ask().await.unwrap_or(false)
            };
            let count = if served { &self.counters.served } else { &self.counters.failed };
            count.fetch_add(1, Ordering::Relaxed);
            if !served {
                sleep(RETRY).await;
            }
        }
        // The one that was counted and not sent.
        self.counters.sent.fetch_sub(1, Ordering::Relaxed);
    }

    async fn ask(&self) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        let LoadSettings { router, model, tokens, .. } = &*self.settings;
        let body = json!({"model": model, "stream": true, "max_tokens": tokens, "messages": [{"role": "user", "content": "x"}]});
        let request = Request::post(format!("{router}/v1/chat/completions"))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::from(body.to_string()))?;
        let response = self.client.request(request).await?;
        let served = response.status() == StatusCode::OK;
        response.into_body().collect().await?;
        Ok(served)
    }
}
