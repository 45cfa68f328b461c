//! Bounds of the requests and bytes that a stand-in holds.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{metrics::Metrics, refusal::Refusal};

/// Bounds of what a stand-in holds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of requests that wait.
    pub max_requests: usize,
    /// Maximum size of one body, in bytes.
    pub max_body: usize,
    /// Maximum size of all bodies together, in bytes.
    pub max_bodies: usize,
}

#[derive(Debug, Default)]
struct Held {
    requests: usize,
    bytes: usize,
}

/// The requests and bytes that are held. Clones share them.
#[derive(Clone, Debug)]
pub struct Admission {
    limits: Limits,
    held: Arc<Mutex<Held>>,
    metrics: Metrics,
}

impl Admission {
    pub fn new(limits: Limits, metrics: Metrics) -> Self {
        Self { limits, held: Arc::default(), metrics }
    }

    /// Takes a place for a request without a body.
    ///
    /// # Errors
    /// If all places are taken.
    pub fn admit(&self) -> Result<Place, Refusal> {
        let mut held = self.held.lock();
        if held.requests >= self.limits.max_requests {
            return Err(Refusal::TooManyRequests);
        }
        held.requests += 1;
        self.metrics.held(held.requests);
        Ok(Place { admission: self.clone(), waits: true, bytes: 0 })
    }

    fn release(&self, requests: usize, bytes: usize) {
        let mut held = self.held.lock();
        held.requests -= requests;
        held.bytes -= bytes;
        self.metrics.held(held.requests);
    }
}

/// The place of a request. Its drop frees it, also when the client leaves.
#[derive(Debug)]
pub struct Place {
    admission: Admission,
    waits: bool,
    bytes: usize,
}

impl Place {
    /// Adds bytes of the body.
    ///
    /// # Errors
    /// If this body, or all together, would be too long.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let Limits { max_body, max_bodies, .. } = self.admission.limits;
        if bytes > max_body.saturating_sub(self.bytes) {
            return Err(Refusal::BodyTooLarge);
        }
        let mut held = self.admission.held.lock();
        if bytes > max_bodies.saturating_sub(held.bytes) {
            return Err(Refusal::TooManyBytes);
        }
        held.bytes += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// Frees the place in the queue for another request; the bytes stay until the drop.
    pub fn stop_waiting(&mut self) {
        if std::mem::take(&mut self.waits) {
            self.admission.release(1, 0);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.release(self.waits.into(), self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;

    fn admission() -> Admission {
        let limits = Limits { max_requests: 2, max_body: 10, max_bodies: 15 };
        Admission::new(limits, Metrics::new(&mut Registry::default()))
    }

    #[test]
    fn a_place_is_free_after_its_drop() {
        let admission = admission();
        let (first, _second) = (admission.admit().unwrap(), admission.admit().unwrap());
        assert_eq!(admission.admit().unwrap_err(), Refusal::TooManyRequests);
        drop(first);
        admission.admit().unwrap();
    }

    #[test]
    fn a_request_that_is_handed_over_leaves_its_place_but_keeps_its_bytes() {
        let admission = admission();
        let (mut first, _second) = (admission.admit().unwrap(), admission.admit().unwrap());
        first.grow(10).unwrap();
        first.stop_waiting();
        first.stop_waiting();
        let mut third = admission.admit().unwrap();
        assert_eq!(third.grow(6), Err(Refusal::TooManyBytes));
        drop(first);
        third.grow(6).unwrap();
    }

    #[test]
    fn bodies_are_bounded_alone_and_together() {
        let admission = admission();
        let (mut first, mut second) = (admission.admit().unwrap(), admission.admit().unwrap());
        first.grow(10).unwrap();
        assert_eq!(first.grow(1), Err(Refusal::BodyTooLarge));
        assert_eq!(second.grow(usize::MAX), Err(Refusal::BodyTooLarge));
        assert_eq!(second.grow(6), Err(Refusal::TooManyBytes));
        second.grow(5).unwrap();
        assert_eq!(second.grow(1), Err(Refusal::TooManyBytes));
        drop(first);
        second.grow(5).unwrap();
    }
}
