//! The workqueue of a controller: it releases a bounded number of objects at a time, and serves namespaces in turn.
//!
//! kube's scheduler serves due requests in no order, so an object may wait for all others, again and again. In front of it, this queue
//! releases a few more requests than may run at once, and those that kube has called start in turn by namespace.

use std::{
    collections::{HashMap, hash_map::Entry},
    mem,
    sync::Arc,
};

use futures::{Stream, stream};
use kthena_keda_core::domain::Key;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::round_robin::RoundRobin;

/// Objects that are released and wait, for each one that may run: kube's scheduler hands over what is due once a millisecond, and reconciles
/// that write nothing end sooner.
const AHEAD: usize = 3;

/// Requests to reconcile objects, each object once.
#[derive(Debug)]
pub struct FairQueue {
    /// Greatest number of objects that run.
    concurrency: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: RoundRobin<Key>,
    /// Every object that waits, is released or is reconciled.
    requests: HashMap<Key, Request>,
    running: usize,
    /// Turns that wait until fewer run.
    starting: RoundRobin<oneshot::Sender<Running>>,
    is_closed: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Request {
    /// In `waiting`.
    Waiting,
    /// Released, and not begun.
    Released { is_requested_again: bool },
    /// Waits for its start, or is being reconciled.
    Begun { is_requested_again: bool },
}

impl FairQueue {
    /// An empty queue that has at most `concurrency` objects reconciled at a time.
    pub fn new(concurrency: u16) -> Self {
        Self { concurrency: concurrency.into(), state: Mutex::default(), changed: Notify::new() }
    }

    /// From now on, no reconcile starts; those that run are finished.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.starting = RoundRobin::default();
    }

    /// Requests a reconcile. One that is running is followed by another, since it may have read older state.
    pub fn push(&self, key: Key) {
        self.state.lock().push(key);
        self.changed.notify_one();
    }

    /// Begins the turn of an object that was released, which lasts until the returned value is dropped. Any other is requested: a retry has
    /// to wait for its turn too.
    pub fn begin(self: &Arc<Self>, key: Key) -> Option<Turn> {
        let mut state = self.state.lock();
        if let Some(request @ Request::Released { .. }) = state.requests.get_mut(&key) {
            *request = Request::Begun { is_requested_again: false };
            return Some(Turn { queue: self.clone(), key });
        }
        drop(state);
        self.push(key);
        None
    }

    /// Ends a released request whose object is gone.
    pub fn discard(&self, key: &Key) {
        let mut state = self.state.lock();
        if matches!(state.requests.get(key), Some(Request::Released { .. })) {
            state.finish(key);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The objects to reconcile now. For one consumer.
    pub fn released(self: Arc<Self>) -> impl Stream<Item = Key> {
        stream::unfold(self, |queue| async {
            loop {
                if let Some(key) = queue.release() {
                    return Some((key, queue));
                }
                queue.changed.notified().await;
            }
        })
    }

    fn release(&self) -> Option<Key> {
        let mut state = self.state.lock();
        let unfinished = state.requests.len() - state.waiting.len();
        if unfinished >= self.concurrency * (1 + AHEAD) {
            return None;
        }
        let key = state.waiting.pop()?;
        state.requests.insert(key.clone(), Request::Released { is_requested_again: false });
        Some(key)
    }
}

impl State {
    fn push(&mut self, key: Key) {
        match self.requests.entry(key) {
            Entry::Vacant(vacant) => {
                let (namespace, _) = vacant.key();
                self.waiting.push(namespace, vacant.key().clone());
                vacant.insert(Request::Waiting);
            }
            Entry::Occupied(mut request) => match request.get_mut() {
                Request::Waiting => {}
                Request::Released { is_requested_again } | Request::Begun { is_requested_again } => {
                    *is_requested_again = true;
                }
            },
        }
    }

    fn finish(&mut self, key: &Key) {
        if let Some(
            Request::Released { is_requested_again: true } | Request::Begun { is_requested_again: true },
        ) = self.requests.remove(key)
        {
            self.push(key.clone());
        }
        if self.requests.is_empty() {
            // Gives back the memory of a long queue.
            self.requests = HashMap::new();
        }
    }
}

/// A reconcile that runs, or waits until fewer run.
#[derive(Debug)]
pub struct Turn {
    queue: Arc<FairQueue>,
    key: Key,
}

/// The place of a reconcile that runs, until it is dropped.
#[derive(Debug)]
pub struct Running {
    queue: Arc<FairQueue>,
}

impl Turn {
    /// Waits until the reconcile may run; `None` once the queue is closed. It has to read the object after that: it serves every request
    /// that came before.
    pub async fn start(&self) -> Option<Running> {
        let running = match self.place()? {
            Place::Free(running) => running,
            Place::Awaited(place) => place.await.ok()?,
        };
        let mut state = self.queue.state.lock();
        if let Some(Request::Begun { is_requested_again }) = state.requests.get_mut(&self.key) {
            *is_requested_again = false;
        }
        Some(running)
    }

    fn place(&self) -> Option<Place> {
        let mut state = self.queue.state.lock();
        if state.is_closed {
            return None;
        }
        if state.running < self.queue.concurrency {
            state.running += 1;
            return Some(Place::Free(Running { queue: self.queue.clone() }));
        }
        let (sender, receiver) = oneshot::channel();
        state.starting.push(&self.key.0, sender);
        Some(Place::Awaited(receiver))
    }
}

enum Place {
    Free(Running),
    Awaited(oneshot::Receiver<Running>),
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        let Some(next) = state.starting.pop() else {
            state.running -= 1;
            return;
        };
        drop(state);
        // If the next one is gone, its place is dropped here and so passed on.
        drop(next.send(Self { queue: self.queue.clone() }));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.queue.state.lock().finish(&mem::take(&mut self.key));
        self.queue.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;

    fn key(namespace: &str, name: &str) -> Key {
        (namespace.to_owned(), name.to_owned())
    }

    fn queue(concurrency: u16) -> (Arc<FairQueue>, impl Stream<Item = Key> + Unpin) {
        let queue = Arc::new(FairQueue::new(concurrency));
        (queue.clone(), Box::pin(queue.released()))
    }

    /// The objects that are released now.
    fn released(stream: &mut (impl Stream<Item = Key> + Unpin)) -> Vec<Key> {
        std::iter::from_fn(|| stream.next().now_or_never().flatten()).collect()
    }

    /// The turns of all that is released now.
    fn begun(queue: &Arc<FairQueue>, stream: &mut (impl Stream<Item = Key> + Unpin)) -> Vec<Turn> {
        released(stream).into_iter().map(|key| queue.begin(key).unwrap()).collect()
    }

    /// A queue that lets one object run, and the turns of three.
    fn three_turns() -> (Arc<FairQueue>, [Turn; 3]) {
        let (queue, mut stream) = queue(1);
        (0..3).for_each(|i| queue.push(key("a", &i.to_string())));
        let turns = begun(&queue, &mut stream);
        (queue, turns.try_into().unwrap())
    }

    #[test]
    fn a_namespace_with_many_requests_delays_another_by_one_turn() {
        let (queue, mut stream) = queue(8);
        (0..300).for_each(|i| queue.push(key("a", &i.to_string())));
        let turns = begun(&queue, &mut stream);
        assert_eq!(turns.len(), 8 * (1 + AHEAD));
        queue.push(key("b", "chat"));
        assert_eq!(released(&mut stream), []);
        drop(turns);
        let next = released(&mut stream);
        assert_eq!((next.len(), &next[1]), (8 * (1 + AHEAD), &key("b", "chat")));
    }

    #[test]
    fn what_is_released_starts_in_turn_by_namespace() {
        let (queue, mut stream) = queue(2);
        (0..7).for_each(|i| queue.push(key("a", &i.to_string())));
        let many = begun(&queue, &mut stream);
        let mut starts: Vec<_> = many.iter().map(|turn| Box::pin(turn.start())).collect();
        let mut running: Vec<_> =
            starts.iter_mut().filter_map(|start| start.as_mut().now_or_never()).collect();
        assert_eq!((many.len(), running.len()), (7, 2));
        queue.push(key("b", "chat"));
        let other = begun(&queue, &mut stream);
        let mut start = Box::pin(other[0].start());
        assert!(start.as_mut().now_or_never().is_none());
        // One of `a` was in front of it, and no more.
        running.clear();
        assert!(start.now_or_never().is_some());
    }

    #[test]
    fn a_turn_that_is_gone_takes_no_place() {
        let (_, turns) = three_turns();
        let running = turns[0].start().now_or_never();
        let mut gone = Box::pin(turns[1].start());
        let mut next = Box::pin(turns[2].start());
        assert!(gone.as_mut().now_or_never().is_none() && next.as_mut().now_or_never().is_none());
        drop(gone);
        drop(running);
        assert!(next.now_or_never().is_some());
    }

    #[test]
    fn nothing_starts_after_the_end() {
        let (queue, turns) = three_turns();
        let running = turns[0].start().now_or_never().flatten();
        let mut waiting = Box::pin(turns[1].start());
        assert!(running.is_some() && waiting.as_mut().now_or_never().is_none());
        queue.close();
        assert!(waiting.now_or_never().is_some_and(|start| start.is_none()));
        assert!(turns[2].start().now_or_never().is_some_and(|start| start.is_none()));
    }

    #[test]
    fn a_request_is_served_by_a_later_start() {
        let (queue, mut stream) = queue(1);
        queue.push(key("a", "chat"));
        let [turn] = begun(&queue, &mut stream).try_into().unwrap();
        queue.push(key("a", "chat"));
        let running = turn.start().now_or_never().flatten();
        drop((running, turn));
        assert_eq!(released(&mut stream), []);
        queue.push(key("a", "chat"));
        let [turn] = begun(&queue, &mut stream).try_into().unwrap();
        let running = turn.start().now_or_never().flatten();
        queue.push(key("a", "chat"));
        drop((running, turn));
        assert_eq!(released(&mut stream), [key("a", "chat")]);
    }

    #[test]
    fn a_request_is_served_once_and_again_if_it_came_while_it_ran() {
        let (queue, mut stream) = queue(8);
        (0..3).for_each(|_| queue.push(key("a", "chat")));
        assert_eq!(released(&mut stream), [key("a", "chat")]);
        // Begins only now, and reads what this request is about.
        queue.push(key("a", "chat"));
        let turn = queue.begin(key("a", "chat"));
        drop(turn);
        assert_eq!(released(&mut stream), []);
        queue.push(key("a", "chat"));
        assert_eq!(released(&mut stream), [key("a", "chat")]);
        let turn = queue.begin(key("a", "chat"));
        (0..3).for_each(|_| queue.push(key("a", "chat")));
        assert_eq!(released(&mut stream), []);
        drop(turn);
        assert_eq!(released(&mut stream), [key("a", "chat")]);
    }

    #[test]
    fn a_retry_waits_for_its_turn() {
        let (queue, mut stream) = queue(1);
        (0..=AHEAD).for_each(|i| queue.push(key("a", &i.to_string())));
        let turns = begun(&queue, &mut stream);
        assert!(queue.begin(key("a", "retried")).is_none());
        assert_eq!(released(&mut stream), []);
        drop(turns);
        assert_eq!(released(&mut stream), [key("a", "retried")]);
        assert!(queue.begin(key("a", "retried")).is_some());
    }

    #[test]
    fn an_object_that_is_gone_keeps_no_place_and_returns_with_a_later_request() {
        let (queue, mut stream) = queue(1);
        queue.push(key("a", "gone"));
        assert_eq!(released(&mut stream), [key("a", "gone")]);
        // Created again before the result of the first request arrives.
        queue.push(key("a", "gone"));
        queue.discard(&key("a", "gone"));
        assert_eq!(released(&mut stream), [key("a", "gone")]);
        queue.discard(&key("a", "gone"));
        queue.discard(&key("a", "unknown"));
        queue.push(key("a", "chat"));
        assert_eq!(released(&mut stream), [key("a", "chat")]);
    }
}
