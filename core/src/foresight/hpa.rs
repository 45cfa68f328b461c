//! Decisions of the HPA controller for External metrics.
//!
//! Source: Kubernetes 1.36 `pkg/controller/podautoscaler/{horizontal,replica_calculator}.go`. The tests compare
//! every decision with recorded ones of that controller.

use super::{
    spec::{HpaSpec, Metric, Rules},
    time::Time,
};
use crate::{
    api::keda::MetricType,
    intent::{Policy, PolicyKind, Select},
};

/// Memory of the controller about one HPA. It is lost when the controller restarts and when the HPA is created
/// anew.
#[derive(Clone, Debug, Default)]
pub struct Hpa {
    /// Proposals before stabilization; `None` before the first sync.
    recommendations: Option<Vec<Recommendation>>,
    added: Events,
    removed: Events,
}

/// Proposal of one sync.
#[derive(Clone, Copy, Debug)]
struct Recommendation {
    replicas: i32,
    at: Time,
}

/// Changes of the number of replicas in one direction.
///
/// A new event takes the last slot whose event is older than all policies of its *own* direction, although
/// policies of the other direction may have a longer period and lose it thereby. The controller does so too.
#[derive(Clone, Debug, Default)]
struct Events(Vec<Event>);

/// One change of the number of replicas.
#[derive(Clone, Copy, Debug)]
struct Event {
    replicas: i32,
    at: Time,
}

/// Inputs of one sync.
#[derive(Clone, Copy, Debug)]
pub struct Sync<'a> {
    /// Time at which the metrics have been read.
    pub now: Time,
    /// `spec.replicas` of the scale.
    pub spec: i32,
    /// `status.replicas` of the scale.
    pub status: i32,
    /// Pods that are ready; `None` if the selector matches no pod. Only metrics of type `Value` use it.
    pub ready: Option<i32>,
    /// One value per metric, in thousandths; `None` is an error.
    pub values: &'a [Option<i64>],
}

/// Result of one sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// `spec.replicas` after the sync.
    pub replicas: i32,
    /// Replicas that the metrics ask for, before stabilization and limits; `None` if no metric was read.
    pub proposal: Option<i32>,
    /// The same after the stabilization windows.
    pub stabilized: Option<i32>,
    /// Rule that set the result.
    pub reason: DecisionReason,
}

/// Rule that set the result of a sync. The names are those of the HPA's conditions and events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
pub enum DecisionReason {
    /// KEDA pauses all scaling, and there is no HPA.
    Paused,
    /// 0 replicas: the HPA does nothing.
    ScalingDisabled,
    /// More replicas than the maximum: reduced at once, whatever the metrics are.
    AboveMaxReplicas,
    /// Fewer replicas than the minimum: raised at once, whatever the metrics are.
    BelowMinReplicas,
    /// All metrics failed, or one failed and the others ask for fewer replicas: nothing changes.
    FailedGetExternalMetric,
    /// A lower recommendation of the scale-up window applies.
    ScaleUpStabilized,
    /// A higher recommendation of the scale-down window applies.
    ScaleDownStabilized,
    /// A scale-up policy limits the change.
    ScaleUpLimit,
    /// The maximum limits the change.
    TooManyReplicas,
    /// A scale-down policy limits the change.
    ScaleDownLimit,
    /// The minimum limits the change.
    TooFewReplicas,
    /// The proposal applies as it is.
    DesiredWithinRange,
}

impl Hpa {
    /// One sync of the controller. A change is assumed to be written successfully.
    pub fn sync(&mut self, spec: &HpaSpec, input: Sync<'_>) -> Decision {
        // The controller takes the time before it reads the metrics, which differs by the duration of one query.
        self.recommendations
            .get_or_insert_with(|| vec![Recommendation { replicas: input.spec, at: input.now }]);
        let decision = self.decide(spec, input);
        self.record_change(spec, input.now, input.spec, decision.replicas);
        decision
    }

    fn decide(&mut self, spec: &HpaSpec, input: Sync<'_>) -> Decision {
        let at_once = |replicas, reason| Decision { replicas, proposal: None, stabilized: None, reason };
        if input.spec == 0 {
            return at_once(0, DecisionReason::ScalingDisabled);
        }
        if input.spec > spec.max() {
            return at_once(spec.max(), DecisionReason::AboveMaxReplicas);
        }
        if input.spec < spec.min() {
            return at_once(spec.min(), DecisionReason::BelowMinReplicas);
        }
        let Some(proposal) = proposal(spec, input) else {
            return at_once(input.spec, DecisionReason::FailedGetExternalMetric);
        };
        let stabilized = self.stabilize(spec, input, proposal);
        let (replicas, limit) = self.limit(spec, input, stabilized);
        let reason = match limit {
            Some(limit) => limit,
            None if stabilized == proposal => DecisionReason::DesiredWithinRange,
            None if proposal >= input.spec => DecisionReason::ScaleUpStabilized,
            None => DecisionReason::ScaleDownStabilized,
        };
        Decision { replicas, proposal: Some(proposal), stabilized: Some(stabilized), reason }
    }

    /// Brings the current number between the lowest recommendation of the scale-up window and the highest of the
    /// scale-down window, and records the proposal as it was.
    fn stabilize(&mut self, spec: &HpaSpec, input: Sync<'_>, proposal: i32) -> i32 {
        let windows = [&spec.scale_up, &spec.scale_down].map(|rules| Time::length(rules.window));
        let [up_window, down_window] = windows;
        let longest = up_window.max(down_window);
        let recommendations = self.recommendations.get_or_insert_default();
        let (mut up, mut down) = (proposal, proposal);
        let mut outdated = None;
        for recommendation in recommendations.iter_mut() {
            let age = input.now.since(recommendation.at);
            if age < up_window {
                up = up.min(recommendation.replicas);
            }
            if age < down_window {
                down = down.max(recommendation.replicas);
            }
            if age > longest {
                outdated = Some(recommendation);
            }
        }
        let recommendation = Recommendation { replicas: proposal, at: input.now };
        match outdated {
            Some(slot) => *slot = recommendation,
            None => recommendations.push(recommendation),
        }
        input.spec.max(up).min(down)
    }

    /// Applies the policies and the bounds.
    fn limit(&self, spec: &HpaSpec, input: Sync<'_>, desired: i32) -> (i32, Option<DecisionReason>) {
        if desired > input.spec {
            let limit = self.up_limit(&spec.scale_up, input).max(input.spec);
            let (allowed, reason) = if spec.max() > limit {
                (limit, DecisionReason::ScaleUpLimit)
            } else {
                (spec.max(), DecisionReason::TooManyReplicas)
            };
            return if desired > allowed { (allowed, Some(reason)) } else { (desired, None) };
        }
        if desired < input.spec {
            let limit = self.down_limit(&spec.scale_down, input).min(input.spec);
            let (allowed, reason) = if spec.min() < limit {
                (limit, DecisionReason::ScaleDownLimit)
            } else {
                (spec.min(), DecisionReason::TooFewReplicas)
            };
            return if desired < allowed { (allowed, Some(reason)) } else { (desired, None) };
        }
        (desired, None)
    }

    /// Highest number that the scale-up policies allow; may be below the current one.
    fn up_limit(&self, rules: &Rules, input: Sync<'_>) -> i32 {
        let limits = rules.policies.iter().map(|policy| {
            let start = self.period_start(policy, input);
            match policy.kind {
                PolicyKind::Pods => start.saturating_add(policy.value),
                PolicyKind::Percent => to_i32((f64::from(start) * (1.0 + percent(policy))).ceil()),
            }
        });
        match rules.select {
            Select::Disabled => input.spec,
            Select::Min => limits.min().unwrap_or(i32::MAX),
            Select::Max => limits.max().unwrap_or(i32::MIN),
        }
    }

    /// Lowest number that the scale-down policies allow; may be above the current one.
    fn down_limit(&self, rules: &Rules, input: Sync<'_>) -> i32 {
        let limits = rules.policies.iter().map(|policy| {
            let start = self.period_start(policy, input);
            match policy.kind {
                PolicyKind::Pods => start.saturating_sub(policy.value),
                PolicyKind::Percent => to_i32(f64::from(start) * (1.0 - percent(policy))),
            }
        });
        match rules.select {
            Select::Disabled => input.spec,
            Select::Min => limits.max().unwrap_or(i32::MIN),
            Select::Max => limits.min().unwrap_or(i32::MAX),
        }
    }

    /// Number of replicas at the start of a policy's period, by the events.
    fn period_start(&self, policy: &Policy, input: Sync<'_>) -> i32 {
        let added = self.added.within(policy.period, input.now);
        let removed = self.removed.within(policy.period, input.now);
        input.spec.saturating_sub(added).saturating_add(removed)
    }

    /// Records a change of the number of replicas that the controller made.
    pub(super) fn record_change(&mut self, spec: &HpaSpec, now: Time, before: i32, after: i32) {
        if after > before {
            self.added.record(&spec.scale_up, after.saturating_sub(before), now);
        } else if after < before {
            self.removed.record(&spec.scale_down, before.saturating_sub(after), now);
        }
    }
}

impl Events {
    /// Sum of the changes less than `seconds` ago.
    fn within(&self, seconds: i32, now: Time) -> i32 {
        let recent = self.0.iter().filter(|event| event.at.is_within(seconds, now));
        recent.fold(0, |sum, event| sum.saturating_add(event.replicas))
    }

    fn record(&mut self, rules: &Rules, replicas: i32, now: Time) {
        let longest = rules.policies.iter().map(|policy| policy.period).max().unwrap_or(0);
        let event = Event { replicas, at: now };
        match self.0.iter_mut().rfind(|old| old.at.is_before(longest, now)) {
            Some(slot) => *slot = event,
            None => self.0.push(event),
        }
    }
}

/// Replicas that the metrics ask for: the maximum over the metrics. `None` if all metrics fail, or if one fails
/// and the others ask for fewer than there are.
fn proposal(spec: &HpaSpec, input: Sync<'_>) -> Option<i32> {
    let mut replicas = 0;
    let mut failed = 0;
    for (index, metric) in spec.metrics().iter().enumerate() {
        let value = input.values.get(index).copied().flatten();
        match value.and_then(|value| metric_proposal(spec, metric, value, input)) {
            Some(proposed) if replicas == 0 || proposed > replicas => replicas = proposed,
            Some(_) => {}
            None => failed += 1,
        }
    }
    let is_failure = failed >= spec.metrics().len() || (failed > 0 && replicas < input.spec);
    (!is_failure).then_some(replicas.max(0))
}

/// Replicas that each metric asks for, in the order of the metrics.
pub fn proposals(spec: &HpaSpec, input: Sync<'_>) -> Vec<Option<i32>> {
    let value = |index: usize| input.values.get(index).copied().flatten();
    let metrics = spec.metrics().iter().enumerate();
    metrics.map(|(index, metric)| metric_proposal(spec, metric, value(index)?, input)).collect()
}

/// Replicas that one metric asks for; `None` if a `Value` metric finds no pods.
fn metric_proposal(spec: &HpaSpec, metric: &Metric, value: i64, input: Sync<'_>) -> Option<i32> {
    let (usage, target) = (to_f64(value), to_f64(metric.target));
    match metric.kind {
        MetricType::AverageValue => Some(replicas_for_total(spec, usage, target, input.status)),
        MetricType::Value => {
            let ratio = usage / target;
            if spec.is_tolerated(ratio) {
                return Some(input.spec);
            }
            Some(to_i32((ratio * f64::from(input.ready?)).ceil()))
        }
    }
}

/// Replicas that a total asks for, of which each carries `target`: `status.replicas`, unless the ratio to what those
/// carry is outside the tolerance.
pub fn replicas_for_total(spec: &HpaSpec, total: f64, target: f64, status: i32) -> i32 {
    let is_within = spec.is_tolerated(total / (target * f64::from(status)));
    if is_within { status } else { to_i32((total / target).ceil()) }
}

fn percent(policy: &Policy) -> f64 {
    f64::from(policy.value) / 100.0
}

#[allow(clippy::cast_precision_loss, reason = "the controller computes in float64 as well")]
fn to_f64(value: i64) -> f64 {
    value as f64
}

/// Truncates; saturates at the bounds.
#[allow(clippy::cast_possible_truncation, reason = "the cast saturates")]
fn to_i32(value: f64) -> i32 {
    value as i32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde::Deserialize;
    use strum::VariantArray as _;

    use super::*;
    use crate::api::keda;

    /// One line of the recorded scenarios.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Scenario {
        min: i32,
        max: i32,
        scale_up: RecordedRules,
        scale_down: RecordedRules,
        metrics: Vec<RecordedMetric>,
        syncs: Vec<RecordedSync>,
    }

    #[derive(Deserialize)]
    struct RecordedRules {
        #[serde(flatten)]
        rules: keda::Rules,
        tolerance: Option<f64>,
    }

    #[derive(Deserialize)]
    struct RecordedMetric {
        r#type: MetricType,
        target: i64,
    }

    /// Time in milliseconds, `spec` and `status` before, ready pods, values, and the answer.
    type RecordedSync = (u64, i32, i32, Option<i32>, Option<Vec<Option<i64>>>, i32);

    fn spec(scenario: &Scenario) -> HpaSpec {
        let rules = |recorded: &RecordedRules, defaults| {
            let mut rules = Rules::from_keda(&recorded.rules, defaults).unwrap();
            rules.tolerance = recorded.tolerance.unwrap_or(rules.tolerance);
            rules
        };
        let metrics = scenario.metrics.iter().map(|m| Metric { kind: m.r#type, target: m.target }).collect();
        let (up, down) = (Rules::default_up(), Rules::default_down());
        HpaSpec::new(
            scenario.min,
            scenario.max,
            rules(&scenario.scale_up, up),
            rules(&scenario.scale_down, down),
            metrics,
        )
        .unwrap()
    }

    /// The same answer as the real controller's in every recorded sync; `make hpa-scenarios` records them.
    #[test]
    fn decides_as_the_controller_does() {
        let (count, reasons) = compare(include_str!("scenarios/hpa.jsonl"));
        assert_eq!(count, 60_000);
        // While KEDA pauses all scaling, there is no controller to compare with.
        let of_controller =
            DecisionReason::VARIANTS.iter().filter(|reason| **reason != DecisionReason::Paused);
        let all: BTreeSet<&str> = of_controller.map(Into::into).collect();
        assert_eq!(reasons, all, "every rule sets a result");
    }

    /// The same in the file that `HPA_SCENARIOS` names, if it does; `make hpa-differential` records new ones each time.
    #[test]
    fn decides_as_the_controller_does_in_new_scenarios() {
        let Some(file) = std::env::var_os("HPA_SCENARIOS") else { return };
        let (count, _) = compare(&std::fs::read_to_string(file).unwrap());
        assert!(count > 0);
    }

    /// Compares all decisions; their number, and the reasons that occur.
    fn compare(scenarios: &str) -> (usize, BTreeSet<&'static str>) {
        let (mut count, mut reasons) = (0, BTreeSet::new());
        for (number, line) in scenarios.lines().enumerate() {
            let scenario: Scenario = serde_json::from_str(line).unwrap();
            let (spec, mut hpa) = (spec(&scenario), Hpa::default());
            for (at, replicas, status, ready, values, answer) in &scenario.syncs {
                let input = Sync {
                    now: Time::from_millis(*at),
                    spec: *replicas,
                    status: *status,
                    ready: *ready,
                    values: values.as_deref().unwrap_or_default(),
                };
                let decision = hpa.sync(&spec, input);
                assert_eq!(decision.replicas, *answer, "line {}, {input:?}: {decision:?}", number + 1);
                reasons.insert(<&str>::from(decision.reason));
                count += 1;
            }
        }
        (count, reasons)
    }

    fn any_rules() -> impl Strategy<Value = Rules> {
        let policy = (any::<bool>(), any::<i32>(), any::<i32>()).prop_map(|(pods, value, period)| Policy {
            kind: if pods { PolicyKind::Pods } else { PolicyKind::Percent },
            value,
            period,
        });
        let select = prop_oneof![Just(Select::Max), Just(Select::Min), Just(Select::Disabled)];
        (any::<i32>(), select, prop::collection::vec(policy, 0..4), any::<f64>())
            .prop_map(|(window, select, policies, tolerance)| Rules { window, select, policies, tolerance })
    }

    proptest! {
        /// Any settings and inputs: no panic, and replicas within the bounds unless they are 0.
        #[test]
        fn stays_within_the_bounds(
            (min, more) in (1..i32::MAX / 2, 0..i32::MAX / 2),
            up in any_rules(),
            down in any_rules(),
            targets in prop::collection::vec((any::<bool>(), 1..i64::MAX), 1..4),
            syncs in prop::collection::vec(
                (any::<u64>(), any::<i32>(), any::<i32>(), any::<Option<i32>>(), any::<[Option<i64>; 3]>()),
                0..20,
            ),
        ) {
            let metric = |(average, target)| Metric {
                kind: if average { MetricType::AverageValue } else { MetricType::Value },
                target,
            };
            let metrics = targets.into_iter().map(metric).collect();
            let spec = HpaSpec::new(min, min + more, up, down, metrics).unwrap();
            let mut hpa = Hpa::default();
            for (at, replicas, status, ready, values) in syncs {
                let now = Time::from_millis(at);
                let decision = hpa.sync(&spec, Sync { now, spec: replicas, status, ready, values: &values });
                if replicas == 0 {
                    prop_assert_eq!(decision.replicas, 0);
                } else {
                    prop_assert!((min..=min + more).contains(&decision.replicas), "{:?}", decision);
                }
            }
        }
    }
}
