//! `ModelBooster`: creates the ModelServing, ModelServer and ModelRoute of a model.
//!
//! Source: Kthena `pkg/apis/workload/v1alpha1/model_booster_types.go`.

use kube_derive::CustomResource;
use serde::{Deserialize, Serialize};

/// No field of the spec is read: the operator depends on the metadata alone.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    crates(kube_core = "::kube_core"),
    group = "workload.serving.volcano.sh",
    version = "v1alpha1",
    kind = "ModelBooster",
    plural = "modelboosters",
    namespaced,
    schema = "disabled"
)]
pub struct ModelBoosterSpec {}
