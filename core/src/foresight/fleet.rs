//! Engines, the router in front of them, and clients that ask again.
//!
//! Every request is simulated by itself; see [`FleetSpec`] for what is modelled.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use super::{load::Arrival, time::Time};

/// Time after which Kthena creates the pods of a new ServingGroup; 3 to 6 s were measured.
const CREATION: Time = Time::from_seconds(5);
/// Time after which a client whose stream was cut asks again.
const RECONNECT: Time = Time::from_seconds(1);

/// Properties of a model's fleet.
///
/// The router sends a request to the ready engine of the lowest score (`least_request.go` of Kthena 1.0): requests
/// in flight, and 100 for each that is not yet reported as running. Engines report once per second. A request
/// stays with the engine that it was sent to. Batches do not slow an engine down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FleetSpec {
    /// Requests that one ServingGroup serves at the same time; the others wait.
    pub slots: usize,
    /// Time from the creation of a ServingGroup until it is ready.
    pub loading: Time,
    /// Place where requests wait.
    pub queue: Queue,
    /// Waiting requests at which the router passes over an engine; 10 in the router's default configuration. It
    /// refuses a request if it passes over all engines.
    pub waiting_limit: Option<usize>,
    /// Reaction of clients.
    pub clients: Clients,
}

/// Place where requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// In the engine that the router chose: groups that are added later do not help them.
    Engine,
    /// In the router, until an engine has a free slot.
    Router,
}

/// Reaction of clients to a refusal, and to waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clients {
    /// Time after which a client asks again when it was refused; `None` if it gives up.
    pub retry: Option<Time>,
    /// Time without an answer after which a client gives up; `None` if it never does.
    pub patience: Option<Time>,
}

/// Events of requests, in sums since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that ended after they were sent to an engine, in whichever way.
    pub ended: u64,
    /// Refusals by the router; a client that asks again may be refused more than once.
    pub refused: u64,
    /// Clients that gave up.
    pub lost: u64,
    /// Streams that ended with the removal of their ServingGroup.
    pub cut: u64,
}

/// Time that one request waited until it was served, or until its client gave up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) arrived: Time,
    pub(super) waited: Time,
    /// Time in the engine; `None` if it was not served.
    pub(super) served: Option<Time>,
}

#[derive(Debug)]
struct Engine {
    ordinal: u64,
    is_ready: bool,
    running: Vec<Id>,
    /// Requests in the order of their arrival, with some that are no longer there.
    waiting: VecDeque<Ticket>,
    waiting_count: usize,
    reported_running: usize,
    reported_waiting: usize,
}

/// Index of a request.
type Id = usize;

/// A request at one stage; void once the request has left the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ticket {
    id: Id,
    stage: u32,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    /// Arrival, or the time at which its stream was cut.
    arrived: Time,
    service: Time,
    stage: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before it is sent to an engine.
    Away,
    /// Waits in the engine of this ordinal.
    Waiting(u64),
    /// Waits in the router.
    Queued,
    /// Runs in the engine of this ordinal.
    Running(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// An engine becomes ready.
    Ready(u64),
    /// A request was served.
    Served(Ticket),
    /// A client gives up.
    GivesUp(Ticket),
    /// A client asks again.
    AsksAgain(Ticket),
}

/// A model's ServingGroups and its requests.
#[derive(Debug)]
pub(super) struct Fleet {
    spec: FleetSpec,
    /// In the order of their ordinals.
    engines: Vec<Engine>,
    next_ordinal: u64,
    requests: Vec<Request>,
    free: Vec<Id>,
    queue: VecDeque<Ticket>,
    queued: usize,
    events: BinaryHeap<Reverse<(Time, Event)>>,
    in_flight: u64,
    counts: Counts,
    waits: Vec<Wait>,
}

impl Fleet {
    /// A fleet with `groups` that are ready.
    pub(super) fn new(spec: FleetSpec, groups: usize) -> Self {
        let mut fleet = Self {
            spec,
            engines: Vec::new(),
            next_ordinal: 0,
            requests: Vec::new(),
            free: Vec::new(),
            queue: VecDeque::new(),
            queued: 0,
            events: BinaryHeap::new(),
            in_flight: 0,
            counts: Counts::default(),
            waits: Vec::new(),
        };
        (0..groups).for_each(|_| fleet.add(true));
        fleet
    }

    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    /// Requests between the router's first look at them and their end.
    pub(super) const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    pub(super) const fn groups(&self) -> usize {
        self.engines.len()
    }

    pub(super) fn ready(&self) -> usize {
        self.engines.iter().filter(|engine| engine.is_ready).count()
    }

    /// Requests that run in the engines.
    pub(super) fn running(&self) -> usize {
        self.engines.iter().map(|engine| engine.running.len()).sum()
    }

    pub(super) fn waiting(&self) -> usize {
        self.queued + self.engines.iter().map(|engine| engine.waiting_count).sum::<usize>()
    }

    /// Waits that have ended, in the order of their ends.
    pub(super) fn waits(&self) -> &[Wait] {
        &self.waits
    }

    /// Waits of all requests so far; those that still wait have waited until `now`.
    pub(super) fn into_waits(self, now: Time) -> Vec<Wait> {
        let still =
            self.requests.iter().filter(|request| matches!(request.state, State::Waiting(_) | State::Queued));
        let still = still.map(|request| Wait {
            arrived: request.arrived,
            waited: now.since(request.arrived),
            served: None,
        });
        let mut waits = self.waits;
        waits.extend(still);
        waits
    }

    /// Reports of all engines to the router.
    pub(super) fn report(&mut self) {
        for engine in &mut self.engines {
            engine.reported_running = engine.running.len();
            engine.reported_waiting = engine.waiting_count;
        }
    }

    /// Creates or removes ServingGroups at once. Kthena removes those that are not ready first, then those of the
    /// highest ordinal.
    pub(super) fn scale(&mut self, now: Time, groups: usize) {
        while self.engines.len() < groups {
            let ordinal = self.next_ordinal;
            self.add(false);
            let ready = now.after(CREATION).after(self.spec.loading);
            self.events.push(Reverse((ready, Event::Ready(ordinal))));
        }
        while self.engines.len() > groups {
            let loading = self.engines.iter().rposition(|engine| !engine.is_ready);
            let index = loading.unwrap_or(self.engines.len().saturating_sub(1));
            let engine = self.engines.remove(index);
            self.cut(now, &engine);
        }
    }

    fn add(&mut self, is_ready: bool) {
        self.engines.push(Engine {
            ordinal: self.next_ordinal,
            is_ready,
            running: Vec::new(),
            waiting: VecDeque::new(),
            waiting_count: 0,
            reported_running: 0,
            reported_waiting: 0,
        });
        self.next_ordinal += 1;
    }

    /// Ends the requests of an engine that is removed. Their clients ask again.
    fn cut(&mut self, now: Time, engine: &Engine) {
        for id in &engine.running {
            self.counts.cut += 1;
            self.leave(*id);
            if let Some(request) = self.requests.get_mut(*id) {
                request.arrived = now;
            }
            self.ask_again(now, *id, Some(RECONNECT));
        }
        for ticket in &engine.waiting {
            if self.is_valid(*ticket) {
                self.leave(ticket.id);
                self.ask_again(now, ticket.id, Some(RECONNECT));
            }
        }
    }

    /// Handles everything that happens until `until`, with the arrivals of that time.
    pub(super) fn advance(
        &mut self,
        until: Time,
        arrivals: &mut std::iter::Peekable<impl Iterator<Item = Arrival>>,
    ) {
        loop {
            let event = self.events.peek().map(|Reverse((at, _))| *at).filter(|at| *at <= until);
            let arrival = arrivals.peek().map(|arrival| arrival.at).filter(|at| *at <= until);
            match (event, arrival) {
                (None, None) => return,
                (Some(event), arrival) if arrival.is_none_or(|arrival| event <= arrival) => self.next_event(),
                _ => {
                    if let Some(arrival) = arrivals.next() {
                        self.arrive(arrival);
                    }
                }
            }
        }
    }

    fn next_event(&mut self) {
        let Some(Reverse((now, event))) = self.events.pop() else { return };
        match event {
            Event::Ready(ordinal) => self.ready_at(now, ordinal),
            Event::Served(ticket) if self.is_valid(ticket) => {
                self.leave_engine(now, ticket.id);
                self.free.push(ticket.id);
            }
            Event::GivesUp(ticket) if self.is_valid(ticket) => self.give_up(now, ticket.id),
            Event::AsksAgain(ticket) if self.is_valid(ticket) => self.send(now, ticket.id),
            Event::Served(_) | Event::GivesUp(_) | Event::AsksAgain(_) => {}
        }
    }

    fn ready_at(&mut self, now: Time, ordinal: u64) {
        let Some(index) = self.index(ordinal) else { return };
        if let Some(engine) = self.engines.get_mut(index) {
            engine.is_ready = true;
        }
        self.fill(now, index);
    }

    fn arrive(&mut self, arrival: Arrival) {
        let Arrival { at, service } = arrival;
        let id = self.free.pop().unwrap_or(self.requests.len());
        let stage = self.requests.get(id).map_or(0, |request| request.stage);
        let request = Request { arrived: at, service, stage, state: State::Away };
        match self.requests.get_mut(id) {
            Some(slot) => *slot = request,
            None => self.requests.push(request),
        }
        self.send(at, id);
    }

    /// The router's decision about a request.
    fn send(&mut self, now: Time, id: Id) {
        let Some(index) = self.choose() else { return self.refuse(now, id) };
        self.in_flight += 1;
        let Some(engine) = self.engines.get_mut(index) else { return };
        let ordinal = engine.ordinal;
        if engine.running.len() < self.spec.slots {
            return self.start(now, id, index);
        }
        let state = match self.spec.queue {
            Queue::Engine => State::Waiting(ordinal),
            Queue::Router => State::Queued,
        };
        let Some(ticket) = self.enter(id, state) else { return };
        if let Some(patience) = self.spec.clients.patience {
            self.events.push(Reverse((self.deadline(id, patience), Event::GivesUp(ticket))));
        }
        match (self.spec.queue, self.engines.get_mut(index)) {
            (Queue::Engine, Some(engine)) => {
                engine.waiting.push_back(ticket);
                engine.waiting_count += 1;
            }
            (Queue::Router, _) => {
                self.queue.push_back(ticket);
                self.queued += 1;
            }
            (Queue::Engine, None) => {}
        }
    }

    /// Index of the engine for the next request; `None` if the router refuses it.
    fn choose(&self) -> Option<usize> {
        let limit = self.spec.waiting_limit.unwrap_or(usize::MAX);
        let candidates = self.engines.iter().enumerate();
        candidates
            .filter(|(_, engine)| engine.is_ready && engine.reported_waiting < limit)
            .min_by_key(|(_, engine)| self.score(engine))
            .map(|(index, _)| index)
    }

    /// Preference of the router; the lowest is best. With a queue in the router an engine with a free slot is best.
    const fn score(&self, engine: &Engine) -> usize {
        let in_flight = engine.running.len() + engine.waiting_count;
        match self.spec.queue {
            Queue::Engine => in_flight + 100 * in_flight.saturating_sub(engine.reported_running),
            Queue::Router => in_flight,
        }
    }

    fn start(&mut self, now: Time, id: Id, index: usize) {
        let Some(engine) = self.engines.get_mut(index) else { return };
        engine.running.push(id);
        let ordinal = engine.ordinal;
        let Some(ticket) = self.enter(id, State::Running(ordinal)) else { return };
        let Some(request) = self.requests.get(id) else { return };
        self.events.push(Reverse((now.after(request.service), Event::Served(ticket))));
        let (arrived, served) = (request.arrived, Some(request.service));
        self.waits.push(Wait { arrived, waited: now.since(arrived), served });
    }

    /// Moves waiting requests into the free slots of an engine.
    fn fill(&mut self, now: Time, index: usize) {
        while self.engines.get(index).is_some_and(|engine| engine.running.len() < self.spec.slots) {
            let Some(ticket) = self.next_waiting(index) else { return };
            if !self.is_valid(ticket) {
                continue;
            }
            match self.engines.get_mut(index) {
                Some(engine) if self.spec.queue == Queue::Engine => engine.waiting_count -= 1,
                _ => self.queued -= 1,
            }
            self.start(now, ticket.id, index);
        }
    }

    fn next_waiting(&mut self, index: usize) -> Option<Ticket> {
        match self.spec.queue {
            Queue::Engine => self.engines.get_mut(index)?.waiting.pop_front(),
            Queue::Router => self.queue.pop_front(),
        }
    }

    /// Ends a running request, and gives its slot to the next one.
    fn leave_engine(&mut self, now: Time, id: Id) {
        let state = self.requests.get(id).map(|request| request.state);
        self.leave(id);
        let Some(State::Running(ordinal)) = state else { return };
        let Some(index) = self.index(ordinal) else { return };
        if let Some(engine) = self.engines.get_mut(index)
            && let Some(position) = engine.running.iter().position(|running| *running == id)
        {
            engine.running.swap_remove(position);
        }
        self.fill(now, index);
    }

    /// Ends the stay of a request in the router and the engine.
    fn leave(&mut self, id: Id) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.counts.ended += 1;
        self.enter(id, State::Away);
    }

    fn give_up(&mut self, now: Time, id: Id) {
        match self.requests.get(id).map(|request| request.state) {
            Some(State::Waiting(ordinal)) => {
                let index = self.index(ordinal);
                if let Some(engine) = index.and_then(|index| self.engines.get_mut(index)) {
                    engine.waiting_count = engine.waiting_count.saturating_sub(1);
                }
                self.leave(id);
            }
            Some(State::Queued) => {
                self.queued = self.queued.saturating_sub(1);
                self.leave(id);
            }
            Some(State::Away | State::Running(_)) | None => {}
        }
        self.lose(now, id);
    }

    fn refuse(&mut self, now: Time, id: Id) {
        self.counts.refused += 1;
        self.ask_again(now, id, self.spec.clients.retry);
    }

    /// Has a client ask again after some time, unless its patience ends before.
    fn ask_again(&mut self, now: Time, id: Id, after: Option<Time>) {
        let again = after.map_or(Time::MAX, |after| now.after(after));
        let patience = self.spec.clients.patience.unwrap_or(Time::MAX);
        if after.is_none() || again > self.deadline(id, patience) {
            return self.lose(now, id);
        }
        if let Some(ticket) = self.enter(id, State::Away) {
            self.events.push(Reverse((again, Event::AsksAgain(ticket))));
        }
    }

    fn lose(&mut self, now: Time, id: Id) {
        self.counts.lost += 1;
        if let Some(request) = self.requests.get(id) {
            self.waits.push(Wait {
                arrived: request.arrived,
                waited: now.since(request.arrived),
                served: None,
            });
        }
        self.enter(id, State::Away);
        self.free.push(id);
    }

    fn deadline(&self, id: Id, patience: Time) -> Time {
        self.requests.get(id).map_or(Time::MAX, |request| request.arrived.after(patience))
    }

    /// Begins the next stage of a request, which makes its earlier tickets void.
    fn enter(&mut self, id: Id, state: State) -> Option<Ticket> {
        let request = self.requests.get_mut(id)?;
        request.stage = request.stage.wrapping_add(1);
        request.state = state;
        Some(Ticket { id, stage: request.stage })
    }

    fn is_valid(&self, ticket: Ticket) -> bool {
        self.requests.get(ticket.id).is_some_and(|request| request.stage == ticket.stage)
    }

    fn index(&self, ordinal: u64) -> Option<usize> {
        self.engines.binary_search_by_key(&ordinal, |engine| engine.ordinal).ok()
    }
}
