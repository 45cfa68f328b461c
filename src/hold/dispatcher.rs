//! Gives the requests of the queue to engines, at a pace.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    engines::Engines,
    pace::Pace,
    queue::{Granted, Queue},
    refusal::Refusal,
    resolve::Resolve,
};

/// Time between two lookups of the engines while requests wait or come in. There are none at rest.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(1);

/// The dispatcher of one queue.
#[derive(Debug)]
pub struct Dispatcher<R> {
    resolve: R,
    queue: Arc<Queue>,
    engines: Engines,
    pace: Pace,
    looked_up: Option<Instant>,
    stopped: watch::Receiver<bool>,
}

impl<R: Resolve> Dispatcher<R> {
    pub fn new(resolve: R, queue: Arc<Queue>, stopped: watch::Receiver<bool>) -> Self {
        let pace = Pace::new(Instant::now());
        Self { resolve, queue, engines: Engines::default(), pace, looked_up: None, stopped }
    }

    /// Runs until it is dropped; it can then run again.
    pub async fn run(&mut self) {
        self.looked_up = None;
        loop {
            self.queue.until_waiting().await;
            let next_lookup = self.look_up_if_due().await;
            if self.engines.count() > 0 {
                sleep_until(self.pace.next(Instant::now(), self.engines.count())).await;
            }
            match self.queue.grant_first(&self.engines) {
                Granted::One | Granted::NoRequest => {}
                Granted::NoEngine if *self.stopped.borrow() => self.queue.refuse_all(Refusal::Stopping),
                Granted::NoEngine => sleep_until(next_lookup).await,
            }
        }
    }

    /// Looks the engines up unless that was done a moment ago; returns the time of the next lookup.
    async fn look_up_if_due(&mut self) -> Instant {
        if let Some(next) = self.looked_up.map(|at| at + LOOKUP_INTERVAL)
            && Instant::now() < next
        {
            return next;
        }
        let had_engines = self.engines.count() > 0;
        let found = self.resolve.resolve().await;
        // After an error no address is known to be an engine's: another pod may have it by now.
        let ready = found.as_ref().map_or_else(|_| BTreeSet::new(), Clone::clone);
        self.engines.replace(&ready);
        match (had_engines, ready.len(), found) {
            (false, 0, Err(error)) => tracing::debug!(%error, "no engine is ready"),
            (true, 0, _) => tracing::info!("no engine is ready; requests are held"),
            (false, engines @ 1.., _) => {
                tracing::info!(engines, "engines are ready; requests are handed over");
            }
            _ => {}
        }
        let now = Instant::now();
        self.looked_up = Some(now);
        now + LOOKUP_INTERVAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::{
        io,
        net::IpAddr,
        sync::atomic::{AtomicUsize, Ordering},
    };
    use tokio::time::{sleep, timeout};

    const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const ENGINE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[derive(Clone, Default)]
    struct Names(Arc<Mutex<Option<BTreeSet<IpAddr>>>>, Arc<AtomicUsize>);

    impl Names {
        fn set(&self, ready: &[IpAddr]) {
            *self.0.lock() = Some(ready.iter().copied().collect());
        }

        fn lookups(&self) -> usize {
            self.1.load(Ordering::Relaxed)
        }
    }

    impl Resolve for Names {
        async fn resolve(&self) -> io::Result<BTreeSet<IpAddr>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.lock().clone().ok_or_else(|| io::Error::other("no such name"))
        }
    }

    /// Runs a dispatcher; the sender tells it to stop.
    fn started(names: &Names) -> (Arc<Queue>, watch::Sender<bool>) {
        let (queue, (stop, stopped)) = (Arc::new(Queue::default()), watch::channel(false));
        let mut dispatcher = Dispatcher::new(names.clone(), queue.clone(), stopped);
        tokio::spawn(async move { dispatcher.run().await });
        (queue, stop)
    }

    #[tokio::test(start_paused = true)]
    async fn looks_engines_up_once_a_second_while_requests_wait_and_never_at_rest() {
        let names = Names::default();
        let (queue, _stop) = started(&names);
        sleep(Duration::from_secs(100)).await;
        assert_eq!(names.lookups(), 0);
        let position = queue.position();
        assert!(timeout(Duration::from_millis(10_500), position.engine(OWN)).await.is_err());
        assert_eq!(names.lookups(), 11);
        drop(position);
        sleep(Duration::from_secs(100)).await;
        assert!(names.lookups() <= 12, "{}", names.lookups());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_beside_a_ready_engine_goes_at_once() {
        let names = Names::default();
        names.set(&[ENGINE]);
        let (queue, _stop) = started(&names);
        for _ in 0..2 {
            sleep(Duration::from_mins(1)).await;
            let before = Instant::now();
            assert_eq!(queue.position().engine(OWN).await.unwrap().address, ENGINE);
            assert_eq!(before.elapsed(), Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn held_requests_go_within_a_second_of_readiness_at_a_pace() {
        let names = Names::default();
        let (queue, _stop) = started(&names);
        let requests: Vec<_> = (0..50)
            .map(|_| {
                let position = queue.position();
                tokio::spawn(async move {
                    let lease = position.engine(OWN).await.unwrap();
                    (Instant::now(), lease)
                })
            })
            .collect();
        sleep(Duration::from_secs(30)).await;
        names.set(&[ENGINE]);
        let ready = Instant::now();
        let mut delays = Vec::new();
        for request in requests {
            let (at, lease) = request.await.unwrap();
            delays.push(at - ready);
            drop(lease);
        }
        assert!(delays[49] >= delays[0] + Duration::from_millis(800), "{delays:?}");
        assert!(delays[49] <= Duration::from_secs(2), "{delays:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_lookup_leaves_no_engine() {
        let names = Names::default();
        names.set(&[ENGINE]);
        let (queue, _stop) = started(&names);
        drop(queue.position().engine(OWN).await.unwrap());
        *names.0.lock() = None;
        sleep(Duration::from_secs(5)).await;
        let position = queue.position();
        assert!(timeout(Duration::from_secs(5), position.engine(OWN)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_refused_is_tried_again_after_the_next_lookup() {
        let names = Names::default();
        names.set(&[ENGINE]);
        let (queue, _stop) = started(&names);
        let position = queue.position();
        position.engine(OWN).await.unwrap().refused();
        let before = Instant::now();
        position.engine(OWN).await.unwrap();
        assert!(before.elapsed() >= Duration::from_millis(900), "{:?}", before.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopping_process_hands_over_to_a_ready_engine_and_refuses_without_one() {
        let names = Names::default();
        let (queue, stop) = started(&names);
        let position = queue.position();
        assert!(timeout(Duration::from_secs(3), position.engine(OWN)).await.is_err());
        stop.send_replace(true);
        assert_eq!(position.engine(OWN).await.unwrap_err(), Refusal::Stopping);
        names.set(&[ENGINE]);
        sleep(Duration::from_secs(2)).await;
        assert!(position.engine(OWN).await.is_ok());
    }
}
