//! Continues a dry run by the values that Prometheus recorded: after a restart, and for users who look from outside.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::timeout;

use super::{Target, simulated_now};
use crate::prometheus::{Querier, RangeQuery, query_ranges};
use kthena_keda_core::{
    domain::Key,
    foresight::{
        autoscaler::Autoscaler,
        history::Grid,
        hpa::DecisionReason,
        resume::{Beginning, Recorded, RecordedSeries},
        time::Time,
    },
    signals::shadow_replicas,
};

/// Limit of reading the values of one model back.
const LIMIT: Duration = Duration::from_secs(30);

/// The past of one dry run.
#[derive(Clone, Debug)]
pub struct Past {
    /// The model.
    pub key: Key,
    /// Its present number of ServingGroups, which stands in for an unknown one.
    pub replicas: i32,
    /// Beginning of the dry run; `None` if it is not known.
    pub since: Option<Timestamp>,
    /// Sync period of the HPA.
    pub period: Duration,
}

/// Present state of a dry run.
#[derive(Clone, Debug)]
pub struct Resumed {
    /// The simulation.
    pub autoscaler: Autoscaler,
    /// Rule that set the last decision; `None` without any step.
    pub reason: Option<DecisionReason>,
    /// `true` if Prometheus has a value of a signal in the time that was read.
    pub has_values: bool,
}

impl Past {
    /// The simulation after the recorded values; one that begins anew if they cannot be read.
    pub(super) async fn resumed(&self, prometheus: &Querier, target: Target) -> (Autoscaler, Target) {
        let (namespace, name) = &self.key;
        match self.read(prometheus, &target).await {
            Ok(Resumed { autoscaler, has_values, .. }) => {
                let replicas = autoscaler.replicas();
                tracing::debug!(namespace, name, replicas, has_values, "continued a dry run");
                (autoscaler, target)
            }
            Err(error) => {
                tracing::info!(namespace, name, error, "cannot read the past of a dry run; it begins anew");
                let period = Time::from_seconds_f64(self.period.as_secs_f64());
                (Autoscaler::new(target.spec.clone(), self.replicas, simulated_now(), period), target)
            }
        }
    }

    /// Reads the values of the time on which a decision depends, with one range query for each trigger and one for the
    /// number that was held, and decides on all of them.
    ///
    /// # Errors
    /// A text for users with the reason for which there are no values.
    pub async fn read(&self, prometheus: &Querier, target: &Target) -> Result<Resumed, String> {
        let now = Timestamp::now().as_second();
        let memory = now - i64::from(target.spec.memory());
        let start = self.since.map_or(memory, |since| since.as_second().max(memory));
        let step = u32::try_from(self.period.as_secs()).unwrap_or(1).max(1);
        let steps = usize::try_from((now - start) / i64::from(step)).unwrap_or(0).max(1);
        // The last step is the present moment.
        let first = now - i64::from(step) * i64::try_from(steps - 1).unwrap_or(0);
        let grid = Grid::new(first, step, steps).ok_or("the time of this computer is invalid")?;
        let settings = &*target.queries.prometheus;
        let mut recorded = Recorded::new(grid, target.queries.texts.len());
        let record = |series: &RecordedSeries, at, value| recorded.record(*series, at, value);
        let queries = self.queries(target);
        let reading = query_ranges(prometheus, settings, &queries, grid, |_, _| {}, record);
        let read = timeout(LIMIT, reading).await;
        read.map_err(|_| format!("Prometheus did not respond within {LIMIT:?}"))?
            .map_err(|error| error.to_string())?;
        let since = self.since.map_or(start, Timestamp::as_second);
        let since = Time::from_seconds(u64::try_from(since).unwrap_or(0));
        let beginning = Beginning { replicas: self.replicas, since };
        let has_values = !recorded.is_empty();
        let (autoscaler, decision) = recorded.resume(target.spec.clone(), beginning);
        Ok(Resumed { autoscaler, reason: decision.map(|decision| decision.reason), has_values })
    }

    fn queries(&self, target: &Target) -> Vec<RangeQuery<RecordedSeries>> {
        let (namespace, name) = &self.key;
        let held = shadow_replicas(namespace, name, &target.queries.prometheus.matchers);
        let held = RangeQuery { key: RecordedSeries::Held, query: held.to_string() };
        let triggers = target.queries.texts.iter().enumerate();
        let triggers = triggers
            .map(|(index, query)| RangeQuery { key: RecordedSeries::Trigger(index), query: query.clone() });
        triggers.chain([held]).collect()
    }
}
