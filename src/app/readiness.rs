//! Readiness of the process: what it still waits for.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;

use crate::{cluster::discovery::ServedApis, sources::Caches, telemetry::server};

/// Ready once the initial lists are complete; a follower is always ready. Once ready, it stays ready.
#[derive(Clone, Debug)]
pub(super) struct Readiness {
    is_leader: Arc<AtomicBool>,
    was_ready: Arc<AtomicBool>,
    caches: Arc<Caches>,
    served: watch::Receiver<Option<ServedApis>>,
}

impl Readiness {
    /// Readiness of a follower.
    pub(super) fn follower(caches: Arc<Caches>, served: watch::Receiver<Option<ServedApis>>) -> Self {
        Self { is_leader: Arc::default(), was_ready: Arc::default(), caches, served }
    }

    /// From now on the initial lists count.
    pub(super) fn become_leader(&self) {
        self.is_leader.store(true, Ordering::Relaxed);
    }
}

impl server::Readiness for Readiness {
    fn missing(&self) -> Vec<String> {
        if !self.is_leader.load(Ordering::Relaxed) || self.was_ready.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let Some(served) = self.served.borrow().clone() else { return vec!["served APIs".to_owned()] };
        let missing = self.caches.waiting_for(&served);
        self.was_ready.store(missing.is_empty(), Ordering::Relaxed);
        missing
    }
}
