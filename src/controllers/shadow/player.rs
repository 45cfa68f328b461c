//! The dry run of one model: when its queries are due, and the simulation that decides on their values.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use crate::prometheus::Querier;
use kthena_keda_core::{
    api::keda::ScaledObject,
    foresight::{
        autoscaler::{Autoscaler, AutoscalerSpec, sync_interval},
        spec::UnsupportedSpec,
        time::Time,
    },
    intent::PrometheusSettings,
};

/// Distance of a poll and a sync up to which they share their queries.
const SHARED: Duration = Duration::from_millis(500);

/// Settings of a dry run, as a planned ScaledObject states them.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub(super) spec: AutoscalerSpec,
    pub(super) queries: Queries,
}

/// The query of each trigger, and the Prometheus that answers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Queries {
    pub(super) prometheus: Arc<PrometheusSettings>,
    pub(super) texts: Arc<[String]>,
}

/// Value of each trigger; `None` is an error, as KEDA sees it.
pub(super) type Values = Vec<Option<f64>>;

/// The part of a round that its values are for.
#[derive(Clone, Copy, Debug)]
struct Steps {
    at: Time,
    polls: bool,
    syncs: bool,
}

/// The dry run of one model.
#[derive(Debug)]
pub(super) struct Player {
    uid: String,
    /// Simulation and queries; `None` before the first complete plan.
    simulation: Option<(Autoscaler, Queries)>,
    next_sync: Instant,
    next_poll: Instant,
    in_flight: Option<InFlight>,
}

/// Queries that have not been answered.
#[derive(Clone, Copy, Debug)]
enum InFlight {
    /// Values for these steps.
    Values(Steps),
    /// The values of the last minutes, after a restart.
    History,
}

/// Time between two syncs of the HPA.
fn interval(period: Duration) -> Duration {
    Duration::from_millis(sync_interval(Time::from_seconds_f64(period.as_secs_f64())).millis())
}

impl Target {
    /// Settings of a ScaledObject, whose queries go to this Prometheus.
    ///
    /// # Errors
    /// If the object has settings that the simulation does not support.
    pub fn new(object: &ScaledObject, prometheus: PrometheusSettings) -> Result<Self, UnsupportedSpec> {
        let query = |metadata: &std::collections::BTreeMap<String, String>| {
            metadata.get("query").cloned().unwrap_or_default()
        };
        let texts = object.spec.triggers.iter().map(|trigger| query(&trigger.metadata)).collect();
        let queries = Queries { prometheus: Arc::new(prometheus), texts };
        Ok(Self { spec: AutoscalerSpec::from_scaled_object(object)?, queries })
    }
}

impl Queries {
    /// Runs one query after the other, each within the time that KEDA waits for it.
    pub(super) async fn run(&self, prometheus: &Querier) -> Values {
        let mut values = Values::new();
        for text in &*self.texts {
            let answer =
                timeout(self.prometheus.kedas_limit(), prometheus.query_text(&self.prometheus, text));
            let value = match answer.await {
                Ok(Ok(samples)) => match samples.as_slice() {
                    [sample] => Some(sample.value).filter(|value| value.is_finite()),
                    _ => None,
                },
                Ok(Err(_)) | Err(_) => None,
            };
            values.push(value);
        }
        values
    }
}

impl Player {
    /// A dry run whose first queries are due at `start`.
    pub(super) fn new(uid: String, start: Instant) -> Self {
        Self { uid, simulation: None, next_sync: start, next_poll: start, in_flight: None }
    }

    pub(super) fn is_of(&self, uid: &str) -> bool {
        self.uid == uid
    }

    /// Time of the next round; `None` while queries are in flight.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.in_flight.is_some() {
            return None;
        }
        let polls_before = self.polls_alone() && self.next_poll + SHARED < self.next_sync;
        Some(if polls_before { self.next_poll } else { self.next_sync })
    }

    /// `true` if the model may be at zero. Polls of any other change nothing that a sync does not, so they share its values.
    fn polls_alone(&self) -> bool {
        let simulation = self.simulation.as_ref();
        simulation.is_some_and(|(it, _)| it.spec().keda.min == 0 || it.replicas() == 0)
    }

    /// Begins the simulation with `replicas`, or changes its settings, on which KEDA polls at once.
    pub(super) fn set_target(&mut self, target: Target, replicas: i32, now: Time, period: Duration) {
        let Target { spec, queries } = target;
        match &mut self.simulation {
            None => {
                let period = Time::from_seconds_f64(period.as_secs_f64());
                self.simulation = Some((Autoscaler::new(spec, replicas, now, period), queries));
            }
            Some((autoscaler, known)) => {
                if *autoscaler.spec() != spec {
                    autoscaler.set_spec(spec);
                    self.next_poll = Instant::now();
                }
                *known = queries;
            }
        }
    }

    /// Begins the round that is due; `None` before the first complete plan.
    pub(super) fn begin(&mut self, now: Instant, at: Time, period: Duration) -> Option<Queries> {
        let Some((_, queries)) = &self.simulation else {
            (self.next_sync, self.next_poll) = (now + period, now + period);
            return None;
        };
        let queries = queries.clone();
        let polls = self.next_poll <= now + SHARED;
        let syncs = self.next_sync <= now;
        if polls {
            self.next_poll = now + self.polling_interval();
        }
        if syncs {
            self.next_sync = now + interval(period);
        }
        self.in_flight = Some(InFlight::Values(Steps { at, polls, syncs }));
        Some(queries)
    }

    fn polling_interval(&self) -> Duration {
        let seconds = self.simulation.as_ref().map(|(autoscaler, _)| autoscaler.spec().keda.polling_interval);
        Duration::from_secs(seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(1).max(1))
    }

    /// `true` before the simulation begins.
    pub(super) const fn is_new(&self) -> bool {
        self.simulation.is_none()
    }

    /// Waits for the values of the last minutes.
    pub(super) const fn await_history(&mut self) {
        self.in_flight = Some(InFlight::History);
    }

    /// Continues a simulation that a restart interrupted, with a query round at once. Returns the number that the model would hold.
    pub(super) fn resume(&mut self, autoscaler: Autoscaler, target: Target) -> Option<i32> {
        let Some(InFlight::History) = self.in_flight else { return None };
        self.in_flight = None;
        let replicas = autoscaler.replicas();
        self.simulation = Some((autoscaler, target.queries));
        Some(replicas)
    }

    /// Decides on the values of the round. Returns the number that the model would hold.
    pub(super) fn end(&mut self, values: &Values) -> Option<i32> {
        let InFlight::Values(Steps { at, polls, syncs }) = self.in_flight? else { return None };
        self.in_flight = None;
        let (autoscaler, _) = self.simulation.as_mut()?;
        if polls {
            autoscaler.poll(at, values);
        }
        if syncs {
            autoscaler.sync(at, values);
        }
        Some(autoscaler.replicas())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use kthena_keda_core::{
        domain::PrometheusUrl,
        foresight::spec::{HpaSpec, KedaSpec, Metric},
        intent::Profile,
    };

    const PERIOD: Duration = Duration::from_secs(15);

    fn target(min: i32, polling_interval: i32, max: i32) -> Target {
        let mut profile = Profile::built_in();
        profile.polling_interval = polling_interval;
        let replicas = kthena_keda_core::domain::ReplicaBounds::new(min, max).unwrap();
        let metrics =
            vec![Metric { kind: serde_json::from_value(json!("AverageValue")).unwrap(), target: 10_000 }];
        let hpa = HpaSpec::from_intent(replicas, &profile.behavior, metrics).unwrap();
        let url: PrometheusUrl = "http://prometheus:9090".parse().unwrap();
        let queries = Queries {
            prometheus: Arc::new(PrometheusSettings::from(url)),
            texts: Arc::new(["q".to_owned()]),
        };
        Target { spec: AutoscalerSpec { hpa, keda: KedaSpec::from_intent(replicas, &profile) }, queries }
    }

    /// Rounds of one hour whose queries take no time.
    fn rounds(min: i32, polling_interval: i32) -> usize {
        let start = Instant::now();
        let mut player = Player::new("u".to_owned(), start);
        player.set_target(target(min, polling_interval, 10), 2, Time::default(), PERIOD);
        let mut rounds = 0;
        loop {
            let now = player.due().unwrap();
            if now >= start + Duration::from_hours(1) {
                return rounds;
            }
            player.begin(now, Time::default(), PERIOD).unwrap();
            player.end(&vec![Some(15.0)]);
            rounds += 1;
        }
    }

    #[rstest]
    #[case::usual(1, 15, 240)]
    #[case::may_be_at_zero(0, 15, 240)]
    #[case::frequent_polls_of_a_model_that_never_sleeps(1, 5, 240)]
    #[case::frequent_polls(0, 5, 718)]
    #[case::rare_polls(0, 60, 240)]
    fn queries_once_in_a_period(#[case] min: i32, #[case] polling_interval: i32, #[case] expected: usize) {
        assert_eq!(rounds(min, polling_interval), expected);
    }

    /// A Prometheus behind the API server's service proxy that responds with these samples after this time.
    fn prometheus(delay: Duration, samples: &'static str) -> Querier {
        let api_server = move |_: http::Request<kube::client::Body>| async move {
            tokio::time::sleep(delay).await;
            let body =
                format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{samples}]}}}}"#);
            Ok::<_, kube::Error>(http::Response::new(kube::client::Body::from(body.into_bytes())))
        };
        Querier::Proxied(kube::Client::new(tower::service_fn(api_server), "models"))
    }

    /// KEDA takes each of these for an error, too.
    #[rstest]
    #[case::value(0, r#"{"metric":{},"value":[1,"2.5"]}"#, Some(2.5))]
    #[case::no_series(0, "", None)]
    #[case::two_series(0, r#"{"metric":{"a":"1"},"value":[1,"1"]},{"metric":{},"value":[1,"1"]}"#, None)]
    #[case::not_a_number(0, r#"{"metric":{},"value":[1,"NaN"]}"#, None)]
    #[case::too_late(3100, r#"{"metric":{},"value":[1,"2.5"]}"#, None)]
    #[tokio::test(start_paused = true)]
    async fn reads_a_value_as_keda_does(
        #[case] delay: u64,
        #[case] samples: &'static str,
        #[case] expected: Option<f64>,
    ) {
        let url: PrometheusUrl = "http://prometheus.monitoring.svc:9090".parse().unwrap();
        let queries = Queries {
            prometheus: Arc::new(PrometheusSettings::from(url)),
            texts: Arc::new(["q".to_owned()]),
        };
        let begun = Instant::now();
        let values = queries.run(&prometheus(Duration::from_millis(delay), samples)).await;
        assert_eq!(values, [expected]);
        assert!(begun.elapsed() <= Duration::from_millis(3001), "the time that KEDA waits bounds a round");
    }

    #[test]
    fn has_one_round_in_flight() {
        let start = Instant::now();
        let mut player = Player::new("u".to_owned(), start);
        assert_eq!(player.due(), Some(start));
        assert!(player.begin(start, Time::default(), PERIOD).is_none());
        let later = start + PERIOD;
        player.set_target(target(1, 15, 10), 2, Time::default(), PERIOD);
        assert!(player.begin(later, Time::default(), PERIOD).is_some());
        assert_eq!(player.due(), None, "a slow Prometheus gets no second query");
        assert_eq!(player.end(&vec![None]), Some(2));
        assert_eq!(player.due(), Some(later + interval(PERIOD)));
    }

    /// The real ones keep the number and the recommendations of the last ten minutes, too.
    #[test]
    fn new_settings_keep_the_simulation() {
        let start = Instant::now();
        let mut player = Player::new("u".to_owned(), start);
        let mut step = |settings: Target, seconds: u64, value: f64| {
            let now = start + Duration::from_secs(seconds);
            // The number of ServingGroups that others set counts at the beginning alone.
            player.set_target(settings, 9, Time::from_seconds(seconds), PERIOD);
            player.begin(now, Time::from_seconds(seconds), PERIOD).unwrap();
            player.end(&vec![Some(value)])
        };
        assert_eq!(step(target(1, 15, 6), 0, 60.0), Some(6));
        assert_eq!(step(target(1, 15, 20), 15, 10.0), Some(6));
        assert_eq!(step(target(1, 15, 4), 30, 10.0), Some(4));
    }
}
