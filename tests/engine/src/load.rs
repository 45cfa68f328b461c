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
    time::{interval, sleep},
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
    /// Under way, or waiting for the next try.
    pub in_flight: usize,
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    served: AtomicU64,
    failed: AtomicU64,
    in_flight: AtomicUsize,
}

/// How clients come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern {
    /// So many at a time, each asking again as soon as it is answered.
    Held(usize),
    /// One after each pause, whatever became of the others, unless so many wait already.
    Arriving { pause: Duration, most: usize },
}

/// Running clients.
#[derive(Debug)]
pub struct Load {
    wanted: watch::Sender<Pattern>,
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
        let (wanted, watched) = watch::channel(Pattern::Held(0));
        let counters = Arc::new(Counters::default());
        let background = Background::run(keep(settings, watched, counters.clone()));
        Self { wanted, counters, _background: background }
    }

    /// Keeps this many requests in flight from now on; those that are too many are dropped at once, as clients do that give up.
    pub fn hold(&self, requests: usize) {
        self.wanted.send_replace(Pattern::Held(requests));
    }

    /// Has so many clients come a second from now on, while fewer than `most` wait; each asks until it is served. What was held is
    /// dropped.
    pub fn arrive(&self, per_second: u32, most: usize) {
        self.wanted
            .send_replace(Pattern::Arriving { pause: Duration::from_secs(1) / per_second.max(1), most });
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
    assert!(
        host.is_loopback() || matches!(host, IpAddr::V4(address) if in_test_network(address)),
        "{router} is not of a test network"
    );
}

async fn keep(settings: LoadSettings, mut wanted: watch::Receiver<Pattern>, counters: Arc<Counters>) {
    let asker = Asker {
        client: Client::builder(TokioExecutor::new()).build_http(),
        settings: Arc::new(settings),
        counters,
    };
    let mut clients = JoinSet::new();
    let mut held = Vec::new();
    while wanted.changed().await.is_ok() {
        let pattern = *wanted.borrow_and_update();
        let count = match pattern {
            Pattern::Held(count) => count,
            Pattern::Arriving { .. } => 0,
        };
        held.drain(count.min(held.len())..).for_each(|client: AbortHandle| client.abort());
        while held.len() < count {
            held.push(clients.spawn(asker.clone().ask_on()));
        }
        if let Pattern::Arriving { pause, most } = pattern {
            tokio::select! {
                () = asker.arrive(&mut clients, pause, most) => {}
                _ = wanted.changed() => {}
            }
            // For the next turn to see.
            wanted.mark_changed();
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
        while let Some(served) = self.ask_once().await {
            if !served {
                sleep(RETRY).await;
            }
        }
    }

    async fn arrive(&self, clients: &mut JoinSet<()>, pause: Duration, most: usize) {
        let mut ticks = interval(pause);
        loop {
            ticks.tick().await;
            if self.counters.in_flight.load(Ordering::Relaxed) < most {
                clients.spawn(self.clone().ask_until_served());
            }
            while clients.try_join_next().is_some() {}
        }
    }

    /// A client that waits, whether for an answer or for its next try, counts all the time.
    async fn ask_until_served(self) {
        let _waiting = Counted::new(&self.counters.in_flight);
        while self.send().await == Some(false) {
            sleep(RETRY).await;
        }
    }

    async fn ask_once(&self) -> Option<bool> {
        let _flying = Counted::new(&self.counters.in_flight);
        self.send().await
    }

    /// Whether it was served; none when everything that may be sent was sent.
    async fn send(&self) -> Option<bool> {
        if self.counters.sent.fetch_add(1, Ordering::Relaxed) >= self.settings.most_requests {
            self.counters.sent.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let served = self.ask().await.unwrap_or(false);
        let count = if served { &self.counters.served } else { &self.counters.failed };
        count.fetch_add(1, Ordering::Relaxed);
        Some(served)
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
