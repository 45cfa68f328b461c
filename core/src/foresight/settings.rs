//! Settings of one model's autoscaling, read back from its ScaledObject.

use super::{
    fleet::Queue,
    law::Law,
    spec::{HpaSpec, KedaSpec, UnsupportedSpec},
};
use crate::{
    api::keda::{ScaledObject, Trigger},
    domain::{ACTIVATION, Backlog, Demand, Pause, Saturation, Signal},
};

/// Ranges that the HPA accepts (Kubernetes `pkg/apis/autoscaling/validation`), in seconds.
const WINDOW: std::ops::RangeInclusive<i32> = 0..=3600;
const PERIOD: std::ops::RangeInclusive<i32> = 1..=1800;

/// Settings of the HPA, of KEDA's scale loop and of the signals.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The HPA that KEDA makes; one metric per trigger.
    pub hpa: HpaSpec,
    /// KEDA's scale loop.
    pub keda: KedaSpec,
    /// Triggers, in their order.
    pub triggers: Vec<TriggerModel>,
    /// `true` if KEDA replaces missing data by a number of replicas, which is not simulated.
    pub has_fallback: bool,
}

/// One trigger, and its value in a simulation.
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerModel {
    /// Name, unique within the ScaledObject.
    pub name: String,
    /// PromQL.
    pub query: String,
    /// Computation of its value from simulated requests.
    pub signal: SignalModel,
}

/// Computation of a trigger's value from simulated requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SignalModel {
    /// Requests in flight, or a part of them.
    ActiveRequests(Law),
    /// Requests that ended, per second.
    RequestRate,
    /// Tokens that were generated, per second.
    OutputTokens,
    /// Requests that wait in this place.
    Waiting(Queue),
    /// Requests that run.
    Running,
    /// Requests that arrived within two minutes.
    Activation,
    /// The value does not follow from requests: a custom query, the use of the KV cache, or a latency.
    Unknown {
        /// `true` if it is that of the fleet that runs, whether requests wait or not: a latency multiplies the ready ServingGroups.
        is_of_fleet: bool,
    },
}

impl Settings {
    /// Settings of a ScaledObject. `backlog` is the bound that the query of `active-requests` has.
    ///
    /// # Errors
    /// If the object has settings that the simulation does not support.
    pub fn from_scaled_object(object: &ScaledObject, backlog: Backlog) -> Result<Self, UnsupportedSpec> {
        let triggers = &object.spec.triggers;
        let reads_engines = |trigger: &Trigger| {
            let signal = trigger.name.as_deref().and_then(Signal::from_name);
            matches!(signal, Some(Signal::Saturation(_) | Signal::Latency(_)))
        };
        let law = Law::from_backlog(backlog);
        // The query has them where the engines are scraped for another signal.
        let law = if triggers.iter().any(reads_engines) { law.with_running() } else { law };
        let hpa = HpaSpec::from_scaled_object(object)?;
        check_times(&hpa)?;
        Ok(Self {
            hpa,
            keda: KedaSpec::from_scaled_object(object),
            triggers: triggers.iter().map(|trigger| TriggerModel::of(trigger, law)).collect(),
            has_fallback: object.spec.fallback.is_some(),
        })
    }

    /// The triggers whose values do not follow from requests.
    pub fn unknown_signals(&self) -> impl Iterator<Item = &TriggerModel> {
        self.triggers.iter().filter(|trigger| matches!(trigger.signal, SignalModel::Unknown { .. }))
    }

    /// The same without a pause of all scaling.
    #[must_use]
    pub(super) fn resumed(mut self) -> Self {
        self.keda.pause.take_if(|pause| *pause == Pause::All);
        self
    }

    /// `true` if a value is that of the fleet that runs.
    pub fn has_signal_of_fleet(&self) -> bool {
        self.triggers.iter().any(|trigger| trigger.signal == SignalModel::Unknown { is_of_fleet: true })
    }

    /// Requests in flight that one ServingGroup is to carry: the target of `active-requests` or of `engine-running`;
    /// `None` without such a trigger.
    #[allow(clippy::cast_precision_loss, reason = "targets are below 2^53")]
    pub fn requests_per_group(&self) -> Option<f64> {
        let is_of_requests =
            |signal: SignalModel| matches!(signal, SignalModel::ActiveRequests(_) | SignalModel::Running);
        let index = self.triggers.iter().position(|trigger| is_of_requests(trigger.signal))?;
        self.hpa.metrics().get(index).map(|metric| metric.target as f64 / 1000.0)
    }

    /// Minimum number of ServingGroups, which may be 0.
    pub const fn min(&self) -> i32 {
        self.keda.min
    }
}

/// Checks windows and periods as the API server does, so that the memory of the HPA is bounded.
fn check_times(hpa: &HpaSpec) -> Result<(), UnsupportedSpec> {
    let rules = [&hpa.scale_up, &hpa.scale_down];
    let windows = rules.iter().map(|rules| (rules.window, WINDOW));
    let periods = rules.iter().flat_map(|rules| &rules.policies).map(|policy| (policy.period, PERIOD));
    match windows.chain(periods).find(|(time, range)| !range.contains(time)) {
        Some((time, _)) => Err(UnsupportedSpec::Value(time.to_string())),
        None => Ok(()),
    }
}

impl TriggerModel {
    fn of(trigger: &Trigger, law: Law) -> Self {
        let name = trigger.name.clone().unwrap_or_default();
        let signal = match Signal::from_name(&name) {
            Some(Signal::Demand(Demand::ActiveRequests)) => SignalModel::ActiveRequests(law),
            Some(Signal::Demand(Demand::RequestRate)) => SignalModel::RequestRate,
            Some(Signal::Demand(Demand::OutputTokens)) => SignalModel::OutputTokens,
            Some(Signal::Demand(Demand::QueuedRequests)) => SignalModel::Waiting(Queue::Router),
            Some(Signal::Saturation(Saturation::Queue)) => SignalModel::Waiting(Queue::Engine),
            Some(Signal::Saturation(Saturation::Running)) => SignalModel::Running,
            None if name == ACTIVATION => SignalModel::Activation,
            Some(Signal::Latency(_)) => SignalModel::Unknown { is_of_fleet: true },
            Some(Signal::Saturation(Saturation::KvCache)) | None => {
                SignalModel::Unknown { is_of_fleet: false }
            }
        };
        Self { query: trigger.metadata.get("query").cloned().unwrap_or_default(), name, signal }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        observed::fixture::Fixture,
        plan::{Desired, plan},
    };

    /// Targets, bounds and signals of a simulation are those that a plan writes.
    #[test]
    fn settings_are_read_back_from_a_plan() {
        let fixture = Fixture::model("llama")
            .annotated("min-replicas", "0")
            .annotated("signals", "active-requests=8,request-rate=2,queued-requests=3");
        let Desired::Apply(object) =
            plan(&fixture.observed(), fixture.capabilities, &fixture.defaults).scaled_object
        else {
            panic!("no ScaledObject")
        };
        let backlog = Backlog { service_time: "5s".parse().unwrap(), ..Backlog::default() };
        let settings = Settings::from_scaled_object(&object, backlog).unwrap();
        let signals: Vec<SignalModel> = settings.triggers.iter().map(|trigger| trigger.signal).collect();
        let expected = [
            SignalModel::ActiveRequests(Law::from_backlog(backlog)),
            SignalModel::RequestRate,
            SignalModel::Waiting(Queue::Router),
            SignalModel::Activation,
        ];
        assert_eq!(signals, expected);
        assert_eq!((settings.min(), settings.hpa.min(), settings.requests_per_group()), (0, 1, Some(8.0)));
        assert!(settings.triggers.iter().all(|trigger| trigger.query.contains("kthena_router_")));
        assert_eq!(settings.unknown_signals().count(), 0);
    }
}
