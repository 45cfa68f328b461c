//! Kthena's kinds, which we read.

mod model_serving;

pub use model_serving::{ModelServing, ModelServingSpec, ModelServingStatus, Role, ServingGroupTemplate};
