//! The requests that wait for an engine, in the order of their arrival.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::{
    engines::{Engines, Lease},
    refusal::Refusal,
};

type Grant = Result<Lease, Refusal>;

#[derive(Debug)]
struct Waiting {
    /// Address at which the request came in.
    own: IpAddr,
    grant: oneshot::Sender<Grant>,
}

#[derive(Debug, Default)]
struct State {
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    arrived: Notify,
}

/// Outcome of [`Queue::grant_first`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// A request has an engine.
    One,
    /// No request waits.
    NoRequest,
    /// No engine is ready.
    NoEngine,
}

impl Queue {
    /// Takes a position at the end.
    pub fn position(self: &Arc<Self>) -> Position {
        let mut state = self.state.lock();
        state.next += 1;
        Position { number: state.next, queue: self.clone() }
    }

    /// Waits until a request waits.
    pub async fn until_waiting(&self) {
        loop {
            let arrived = self.arrived.notified();
            if !self.is_empty() {
                return;
            }
            arrived.await;
        }
    }

    /// `true` if no request waits.
    pub fn is_empty(&self) -> bool {
        self.state.lock().waiting.is_empty()
    }

    /// Gives the first request the least busy engine.
    pub fn grant_first(&self, engines: &Engines) -> Granted {
        let mut state = self.state.lock();
        let mut no_engine = false;
        let found = state.waiting.iter().find_map(|(number, waiting)| {
            let lease = engines.least_busy(waiting.own);
            no_engine |= lease.is_none();
            Some((*number, lease?))
        });
        let Some((number, lease)) = found else {
            return if no_engine { Granted::NoEngine } else { Granted::NoRequest };
        };
        let waiting = state.waiting.remove(&number);
        drop(state);
        // The receiver is gone if the client has just left; the lease then ends here.
        if let Some(waiting) = waiting {
            let _ = waiting.grant.send(Ok(lease));
        }
        Granted::One
    }

    /// Refuses all requests that wait.
    pub fn refuse_all(&self, refusal: Refusal) {
        let waiting = std::mem::take(&mut self.state.lock().waiting);
        for (_, waiting) in waiting {
            let _ = waiting.grant.send(Err(refusal));
        }
    }

    fn wait(&self, number: u64, own: IpAddr) -> oneshot::Receiver<Grant> {
        let (grant, granted) = oneshot::channel();
        self.state.lock().waiting.insert(number, Waiting { own, grant });
        self.arrived.notify_one();
        granted
    }
}

/// Position of a request, which it keeps when an engine refuses the connection. The drop leaves the queue.
#[derive(Debug)]
pub struct Position {
    number: u64,
    queue: Arc<Queue>,
}

impl Position {
    /// Waits for an engine for a request that came in at the address `own`.
    ///
    /// # Errors
    /// If the process ends.
    pub async fn engine(&self, own: IpAddr) -> Grant {
        let granted = self.queue.wait(self.number, own);
        granted.await.unwrap_or(Err(Refusal::Stopping))
    }
}

impl Drop for Position {
    fn drop(&mut self) {
        self.queue.state.lock().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::collections::BTreeSet;

    const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn engines() -> Engines {
        let engines = Engines::default();
        engines.replace(&BTreeSet::from([IpAddr::from([192, 0, 2, 1])]));
        engines
    }

    #[test]
    fn requests_go_in_the_order_of_their_arrival_and_a_refused_one_keeps_its_position() {
        let (queue, engines) = (Arc::new(Queue::default()), engines());
        let positions = [queue.position(), queue.position()];
        let (mut first, mut second) =
            (Box::pin(positions[0].engine(OWN)), Box::pin(positions[1].engine(OWN)));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(first.as_mut().now_or_never().is_none());
        assert_eq!(queue.grant_first(&engines), Granted::One);
        let lease = first.now_or_never().unwrap().unwrap();
        assert!(second.as_mut().now_or_never().is_none());
        lease.refused();
        engines.replace(&BTreeSet::from([IpAddr::from([192, 0, 2, 1])]));
        let mut again = Box::pin(positions[0].engine(OWN));
        assert!(again.as_mut().now_or_never().is_none());
        queue.grant_first(&engines);
        assert!(again.now_or_never().is_some());
    }

    #[test]
    fn a_client_that_leaves_is_not_in_the_queue() {
        let (queue, engines) = (Arc::new(Queue::default()), engines());
        let position = queue.position();
        assert!(position.engine(OWN).now_or_never().is_none());
        drop(position);
        assert_eq!(queue.grant_first(&engines), Granted::NoRequest);
    }

    #[test]
    fn nothing_is_granted_without_an_engine() {
        let queue = Arc::new(Queue::default());
        let position = queue.position();
        let mut waiting = Box::pin(position.engine(OWN));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(queue.grant_first(&Engines::default()), Granted::NoEngine);
        queue.refuse_all(Refusal::Stopping);
        assert_eq!(waiting.now_or_never().unwrap().unwrap_err(), Refusal::Stopping);
    }
}
