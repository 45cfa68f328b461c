//! Settings of the HPA and of KEDA's scale loop, as a ScaledObject states them.

use crate::{
    api::keda::{self, MetricType, ScaledObject, Trigger, pause_annotation},
    domain::{Pause, ReplicaBounds},
    intent::{Behavior, Direction, Policy, PolicyKind, Profile, Select},
};

/// Default of kube-controller-manager's `--horizontal-pod-autoscaler-tolerance`.
const TOLERANCE: f64 = 0.1;
/// Default of kube-controller-manager's `--horizontal-pod-autoscaler-downscale-stabilization`, in seconds.
const DOWN_WINDOW: i32 = 300;
/// Defaults of KEDA (`apis/keda/v1alpha1/scaledobject_types.go`), in seconds and replicas.
const POLLING_INTERVAL: i32 = 30;
const COOLDOWN: i32 = 300;
const MAX_REPLICAS: i32 = 100;

/// Settings of one HPA: 1 <= min <= max, and at least one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct HpaSpec {
    min: i32,
    max: i32,
    /// Adding replicas.
    pub scale_up: Rules,
    /// Removing replicas.
    pub scale_down: Rules,
    metrics: Vec<Metric>,
}

/// Scaling speed in one direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Time over which recommendations count, in seconds.
    pub window: i32,
    /// Choice among the policies.
    pub select: Select,
    /// Limits of the change within a period.
    pub policies: Vec<Policy>,
    /// Relative distance from the target that changes nothing.
    pub tolerance: f64,
}

/// Target of one External metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Meaning of the value.
    pub kind: MetricType,
    /// Target in thousandths, above 0.
    pub target: i64,
}

/// Settings of KEDA's scale loop.
#[derive(Clone, Debug, PartialEq)]
pub struct KedaSpec {
    /// Time between polls, in seconds.
    pub polling_interval: i32,
    /// Time without activity before scaling to zero, in seconds.
    pub cooldown: i32,
    /// The same before the first activity, in seconds.
    pub initial_cooldown: i32,
    /// Minimum number of replicas, 0 or more.
    pub min: i32,
    /// Value above which a trigger is active, one per trigger.
    pub activation: Vec<f64>,
    /// Pause that an annotation sets.
    pub pause: Option<Pause>,
}

/// Settings of a ScaledObject that the simulation does not support.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedSpec {
    /// The HPA's code without behavior differs; the operator always writes one.
    #[error("advanced.horizontalPodAutoscalerConfig.behavior is missing")]
    Behavior,
    /// An enum value that Kubernetes does not define.
    #[error("invalid value {0:?} in behavior")]
    Value(String),
    /// A signal with a query of its own, or with an objective, which only the profile or the annotation has.
    #[error(
        "signal {0:?} cannot be planned from a history, which has its query and not its settings; use the model itself with its profile"
    )]
    Signal(String),
    /// No replicas within the bounds.
    #[error("invalid bounds {0} to {1}: expected 0 <= min <= max and max >= 1")]
    Bounds(i32, i32),
    /// No trigger, or a target that is not a positive number.
    #[error("invalid threshold {0:?}: expected a number above 0")]
    Threshold(String),
}

impl HpaSpec {
    /// Checks bounds and targets.
    ///
    /// # Errors
    /// If the bounds are empty, there is no metric, or a target is not above 0.
    pub fn new(
        min: i32,
        max: i32,
        scale_up: Rules,
        scale_down: Rules,
        metrics: Vec<Metric>,
    ) -> Result<Self, UnsupportedSpec> {
        if min < 1 || max < min {
            return Err(UnsupportedSpec::Bounds(min, max));
        }
        if let Some(metric) = metrics.iter().find(|metric| metric.target <= 0) {
            return Err(UnsupportedSpec::Threshold(metric.target.to_string()));
        }
        if metrics.is_empty() {
            return Err(UnsupportedSpec::Threshold(String::new()));
        }
        Ok(Self { min, max, scale_up, scale_down, metrics })
    }

    /// The HPA that KEDA makes of a ScaledObject.
    ///
    /// # Errors
    /// If the object has settings that the simulation does not support.
    pub fn from_scaled_object(object: &ScaledObject) -> Result<Self, UnsupportedSpec> {
        let spec = &object.spec;
        let config = spec.advanced.as_ref().and_then(|it| it.horizontal_pod_autoscaler_config.as_ref());
        let behavior = config.and_then(|it| it.behavior.as_ref()).ok_or(UnsupportedSpec::Behavior)?;
        let mut up = rules(behavior.scale_up.as_ref(), Rules::default_up())?;
        let mut down = rules(behavior.scale_down.as_ref(), Rules::default_down())?;
        match pause(object) {
            Some(Pause::ScaleIn) => down.select = Select::Disabled,
            Some(Pause::ScaleOut) => up.select = Select::Disabled,
            Some(Pause::All) | None => {}
        }
        let metrics = spec.triggers.iter().map(metric).collect::<Result<_, _>>()?;
        // KEDA never writes a minimum of 0 to the HPA (`controllers/keda/hpa.go`).
        let min = spec.min_replica_count.unwrap_or(0).max(1);
        Self::new(min, spec.max_replica_count.unwrap_or(MAX_REPLICAS), up, down, metrics)
    }

    /// The HPA of a plan with these settings: KEDA never writes a minimum of 0 to it.
    ///
    /// # Errors
    /// If there is no metric, or a target is not above 0.
    pub fn from_intent(
        replicas: ReplicaBounds,
        behavior: &Behavior,
        metrics: Vec<Metric>,
    ) -> Result<Self, UnsupportedSpec> {
        let up = Rules::from_intent(&behavior.scale_up);
        let down = Rules::from_intent(&behavior.scale_down);
        Self::new(replicas.min().max(1), replicas.max(), up, down, metrics)
    }

    /// Minimum number of replicas, 1 or more.
    pub const fn min(&self) -> i32 {
        self.min
    }

    /// Maximum number of replicas.
    pub const fn max(&self) -> i32 {
        self.max
    }

    /// Metrics; at least one.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    /// `true` if a ratio of usage to target changes nothing; both ends are included.
    pub(super) fn is_tolerated(&self, ratio: f64) -> bool {
        (1.0 - self.scale_down.tolerance..=1.0 + self.scale_up.tolerance).contains(&ratio)
    }
}

impl Rules {
    /// Rules for adding replicas that the API server fills in.
    pub fn default_up() -> Self {
        let policies = vec![
            Policy { kind: PolicyKind::Pods, value: 4, period: 15 },
            Policy { kind: PolicyKind::Percent, value: 100, period: 15 },
        ];
        Self { window: 0, select: Select::Max, policies, tolerance: TOLERANCE }
    }

    /// Rules for removing replicas that the API server fills in.
    pub fn default_down() -> Self {
        let policies = vec![Policy { kind: PolicyKind::Percent, value: 100, period: 15 }];
        Self { window: DOWN_WINDOW, select: Select::Max, policies, tolerance: TOLERANCE }
    }

    fn from_intent(direction: &Direction) -> Self {
        Self {
            window: direction.stabilization_window,
            select: direction.select,
            policies: direction.policies.clone(),
            tolerance: TOLERANCE,
        }
    }

    /// Rules of a ScaledObject, with `defaults` for fields that are not set.
    pub(super) fn from_keda(rules: &keda::Rules, defaults: Self) -> Result<Self, UnsupportedSpec> {
        let select = match rules.select_policy.as_deref() {
            None => defaults.select,
            Some("Max") => Select::Max,
            Some("Min") => Select::Min,
            Some("Disabled") => Select::Disabled,
            Some(other) => return Err(UnsupportedSpec::Value(other.to_owned())),
        };
        let policies = if rules.policies.is_empty() {
            defaults.policies
        } else {
            rules.policies.iter().map(policy).collect::<Result<_, _>>()?
        };
        let window = rules.stabilization_window_seconds.unwrap_or(defaults.window);
        Ok(Self { window, select, policies, tolerance: defaults.tolerance })
    }
}

impl KedaSpec {
    /// `true` while all scaling is paused.
    pub fn is_paused(&self) -> bool {
        self.pause == Some(Pause::All)
    }

    /// The scale loop of a plan with these settings and one trigger.
    pub fn from_intent(replicas: ReplicaBounds, profile: &Profile) -> Self {
        Self {
            polling_interval: profile.polling_interval,
            cooldown: profile.cooldown,
            initial_cooldown: profile.initial_cooldown,
            min: replicas.min(),
            activation: vec![0.0],
            pause: None,
        }
    }

    /// Settings of the scale loop of a ScaledObject.
    pub fn from_scaled_object(object: &ScaledObject) -> Self {
        let spec = &object.spec;
        Self {
            polling_interval: spec.polling_interval.unwrap_or(POLLING_INTERVAL).max(1),
            cooldown: spec.cooldown_period.unwrap_or(COOLDOWN),
            initial_cooldown: spec.initial_cooldown_period.unwrap_or(0),
            min: spec.min_replica_count.unwrap_or(0).max(0),
            activation: spec.triggers.iter().map(activation).collect(),
            pause: pause(object),
        }
    }
}

fn rules(rules: Option<&keda::Rules>, defaults: Rules) -> Result<Rules, UnsupportedSpec> {
    match rules {
        Some(rules) => Rules::from_keda(rules, defaults),
        None => Ok(defaults),
    }
}

fn policy(policy: &keda::ScalingPolicy) -> Result<Policy, UnsupportedSpec> {
    let kind = match policy.kind.as_str() {
        "Pods" => PolicyKind::Pods,
        "Percent" => PolicyKind::Percent,
        other => return Err(UnsupportedSpec::Value(other.to_owned())),
    };
    Ok(Policy { kind, value: policy.value, period: policy.period_seconds })
}

fn metric(trigger: &Trigger) -> Result<Metric, UnsupportedSpec> {
    let text = trigger.metadata.get("threshold").map_or("", String::as_str);
    let target = text.parse().ok().and_then(quantity).filter(|target| *target > 0);
    let target = target.ok_or_else(|| UnsupportedSpec::Threshold(text.to_owned()))?;
    Ok(Metric { kind: trigger.metric_type.unwrap_or_default(), target })
}

fn activation(trigger: &Trigger) -> f64 {
    trigger.metadata.get("activationThreshold").and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

fn pause(object: &ScaledObject) -> Option<Pause> {
    let annotations = object.metadata.annotations.as_ref()?;
    [Pause::All, Pause::ScaleIn, Pause::ScaleOut]
        .into_iter()
        .find(|pause| annotations.get(pause_annotation(*pause)).is_some_and(|value| value == "true"))
}

/// Thousandths of a value as KEDA formats it for the HPA (`%.3f`); negative values count as 0 and others that are
/// not finite as `None`.
///
/// KEDA turns NaN and infinity into 0 (`pkg/scalers/scaler.go`), but its Prometheus scaler returns an error for
/// them before.
#[allow(clippy::cast_possible_truncation, reason = "the cast saturates")]
pub fn quantity(value: f64) -> Option<i64> {
    value.is_finite().then(|| (value * 1000.0).round_ties_even().max(0.0) as i64)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::{
        observed::fixture::Fixture,
        plan::{Desired, plan},
    };

    fn planned(fixture: &Fixture) -> ScaledObject {
        let plan = plan(&fixture.observed(), fixture.capabilities, &fixture.defaults);
        let Desired::Apply(object) = plan.scaled_object else { panic!("{:?}", plan.findings) };
        *object
    }

    /// The settings that are simulated are those that a plan writes.
    #[test]
    fn the_built_in_settings_are_those_of_a_plan() {
        let object = planned(&Fixture::model("llama"));
        let profile = Profile::built_in();
        let metrics = vec![Metric { kind: MetricType::AverageValue, target: 10_000 }];
        assert_eq!(
            HpaSpec::from_scaled_object(&object),
            HpaSpec::from_intent(profile.replicas, &profile.behavior, metrics)
        );
        let keda = KedaSpec::from_scaled_object(&object);
        let expected = KedaSpec::from_intent(profile.replicas, &profile);
        assert_eq!((keda.polling_interval, keda.min), (expected.polling_interval, expected.min));
    }

    #[rstest]
    #[case("scale-in", Select::Max, Select::Disabled)]
    #[case("scale-out", Select::Disabled, Select::Max)]
    fn a_pause_disables_a_direction(#[case] pause: &str, #[case] up: Select, #[case] down: Select) {
        let spec = HpaSpec::from_scaled_object(&planned(&Fixture::model("llama").annotated("paused", pause)));
        assert_eq!(spec.map(|spec| (spec.scale_up.select, spec.scale_down.select)), Ok((up, down)));
    }

    #[rstest]
    #[case::behavior("/advanced", json!(null), UnsupportedSpec::Behavior)]
    #[case::bounds("/maxReplicaCount", json!(0), UnsupportedSpec::Bounds(1, 0))]
    #[case::threshold("/triggers/0/metadata/threshold", json!("0"), UnsupportedSpec::Threshold("0".to_owned()))]
    #[case::no_trigger("/triggers", json!([]), UnsupportedSpec::Threshold(String::new()))]
    #[case::select(
        "/advanced/horizontalPodAutoscalerConfig/behavior/scaleUp/selectPolicy",
        json!("Most"),
        UnsupportedSpec::Value("Most".to_owned())
    )]
    fn unsupported_settings_are_refused(
        #[case] pointer: &str,
        #[case] value: serde_json::Value,
        #[case] error: UnsupportedSpec,
    ) {
        let mut object = planned(&Fixture::model("llama"));
        let mut spec = serde_json::to_value(&object.spec).unwrap();
        *spec.pointer_mut(pointer).unwrap() = value;
        object.spec = serde_json::from_value(spec).unwrap();
        assert_eq!(HpaSpec::from_scaled_object(&object), Err(error));
    }

    #[rstest]
    #[case(1.0005, Some(1000))]
    #[case(1.0006, Some(1001))]
    #[case(-3.0, Some(0))]
    #[case(f64::NAN, None)]
    #[case(f64::INFINITY, None)]
    fn quantities_have_three_decimals(#[case] value: f64, #[case] expected: Option<i64>) {
        assert_eq!(quantity(value), expected);
    }
}
