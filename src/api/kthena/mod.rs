//! Kthena's kinds, which we read.

mod model_serving;

pub use model_serving::{AUTOSCALING_READY, ModelServing, ModelServingSpec, ModelServingStatus, Role, ServingGroupTemplate};
