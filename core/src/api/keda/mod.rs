//! KEDA's kinds, which the operator writes.

mod scaled_object;

pub use scaled_object::{
    Advanced, AuthenticationReference, Behavior, Fallback, FallbackBehavior, HpaConfig, MetricType, Rules,
    ScaleTargetRef, ScaledObject, ScaledObjectSpec, ScalingPolicy, Trigger, pause_annotation,
};
