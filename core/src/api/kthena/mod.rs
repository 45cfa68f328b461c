//! Kthena's kinds. The operator reads them, and writes only the status of ModelServings.

mod autoscaling_policy;
mod autoscaling_ready;
mod model_booster;
mod model_route;
mod model_server;
mod model_serving;

pub use autoscaling_policy::{
    AutoscalingPolicy, AutoscalingPolicyBinding, AutoscalingPolicyBindingSpec, PolicyTargets,
};
pub use autoscaling_ready::{AutoscalingReady, Message};
pub use model_booster::ModelBooster;
pub use model_route::{ModelRoute, ModelRouteSpec, RouteRule, TargetModel, UriMatch};
pub use model_server::{ModelServer, ModelServerSpec, WorkloadPort, WorkloadSelector};
pub(crate) use model_serving::LABELS_MAX;
pub use model_serving::{
    AUTOSCALING_READY, Booster, Bound, Conditions, Inherited, ModelServing, ModelServingSpec,
    ModelServingStatus, ReplicasWriter, Role, RoleCount, RolloutStrategy, ServingGroupTemplate, Unread,
};
