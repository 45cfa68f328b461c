//! The ready engines, and the number of requests that each has received from here.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use parking_lot::Mutex;

#[derive(Debug, Default)]
struct Engine {
    /// Requests in progress.
    active: u32,
    /// Number of the last hand-over, so that equals take turns.
    last: u64,
    /// It refused a connection after the last lookup.
    has_refused: bool,
    /// The last lookup found it.
    is_ready: bool,
}

#[derive(Debug, Default)]
struct EngineSet {
    engines: BTreeMap<IpAddr, Engine>,
    leases: u64,
}

impl EngineSet {
    fn replace(&mut self, ready: &BTreeSet<IpAddr>) {
        for (address, engine) in &mut self.engines {
            engine.is_ready = ready.contains(address);
            engine.has_refused = false;
        }
        for address in ready {
            self.engines.entry(*address).or_default().is_ready = true;
        }
        self.engines.retain(|_, engine| engine.is_ready || engine.active > 0);
    }

    fn least_busy(&mut self, own: IpAddr) -> Option<IpAddr> {
        let candidates = self
            .engines
            .iter_mut()
            .filter(|(address, engine)| engine.is_ready && !engine.has_refused && **address != own);
        let (address, engine) = candidates.min_by_key(|(_, engine)| (engine.active, engine.last))?;
        self.leases += 1;
        engine.active += 1;
        engine.last = self.leases;
        Some(*address)
    }

    fn count(&self) -> usize {
        self.engines.values().filter(|engine| engine.is_ready && !engine.has_refused).count()
    }
}

/// The engines. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Engines(Arc<Mutex<EngineSet>>);

impl Engines {
    /// Replaces the ready engines by those that a lookup found.
    pub fn replace(&self, ready: &BTreeSet<IpAddr>) {
        self.0.lock().replace(ready);
    }

    /// Number of ready engines that accept connections, as far as known.
    pub fn count(&self) -> usize {
        self.0.lock().count()
    }

    /// Leases the ready engine with the fewest requests, except at the address `own`, at which the request itself came in.
    pub fn least_busy(&self, own: IpAddr) -> Option<Lease> {
        let address = self.0.lock().least_busy(own)?;
        Some(Lease { address, engines: self.clone() })
    }
}

/// A request's share of an engine, until its drop.
#[derive(Debug)]
pub struct Lease {
    /// Address of the engine.
    pub address: IpAddr,
    engines: Engines,
}

impl Lease {
    /// Records that the engine accepted no connection; it gets no request until the next lookup.
    pub fn refused(self) {
        if let Some(engine) = self.engines.0.lock().engines.get_mut(&self.address) {
            engine.has_refused = true;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut set = self.engines.0.lock();
        let Some(engine) = set.engines.get_mut(&self.address) else { return };
        engine.active -= 1;
        if !engine.is_ready && engine.active == 0 {
            set.engines.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn ready(addresses: &[u8]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|last| address(*last)).collect()
    }

    const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn the_least_busy_engine_is_next_and_equals_take_turns() {
        let engines = Engines::default();
        engines.replace(&ready(&[1, 2]));
        let first = engines.least_busy(OWN).unwrap();
        let second = engines.least_busy(OWN).unwrap();
        assert_ne!(first.address, second.address);
        let busy = first.address;
        drop(second);
        for _ in 0..3 {
            assert_ne!(engines.least_busy(OWN).unwrap().address, busy);
        }
        drop(first);
        // Both are free, and this one has waited for longer.
        assert_eq!(engines.least_busy(OWN).unwrap().address, busy);
    }

    #[test]
    fn an_engine_that_is_not_ready_any_more_gets_nothing_and_keeps_its_count() {
        let engines = Engines::default();
        engines.replace(&ready(&[1, 2]));
        let leases: Vec<Lease> = (0..4).map(|_| engines.least_busy(OWN).unwrap()).collect();
        engines.replace(&ready(&[2]));
        assert_eq!(engines.least_busy(OWN).unwrap().address, address(2));
        engines.replace(&ready(&[1, 2, 3]));
        let order: Vec<IpAddr> = leases.iter().map(|_| engines.least_busy(OWN).unwrap().address).collect();
        assert_eq!(order, vec![address(3); 4]);
        engines.replace(&ready(&[]));
        drop(leases);
        assert!(engines.0.lock().engines.is_empty());
    }

    #[test]
    fn an_engine_that_refused_gets_nothing_until_the_next_lookup() {
        let engines = Engines::default();
        engines.replace(&ready(&[1]));
        engines.least_busy(OWN).unwrap().refused();
        assert_eq!(engines.count(), 0);
        assert!(engines.least_busy(OWN).is_none());
        engines.replace(&ready(&[1]));
        assert!(engines.least_busy(OWN).is_some());
    }

    #[test]
    fn the_address_of_the_request_is_no_engine() {
        let engines = Engines::default();
        engines.replace(&ready(&[1]));
        assert!(engines.least_busy(address(1)).is_none());
        engines.replace(&ready(&[1, 2]));
        assert_eq!(engines.least_busy(address(1)).unwrap().address, address(2));
    }
}
