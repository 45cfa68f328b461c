//! Labels, annotations and conditions of stand-in pods: pods that hold the requests for a model at zero.

/// Label of stand-in pods and their Services, by which the operator watches them.
pub const STAND_IN: &str = "autoscaling.kthena.io/stand-in";
/// Value of [`STAND_IN`].
pub const IS_STAND_IN: &str = "true";
/// Annotation with the hash of the pod's spec.
pub(crate) const SPEC_HASH: &str = "autoscaling.kthena.io/stand-in-hash";
/// Condition of the readiness gate of a stand-in: True while the router is to send it requests.
pub const TAKES_REQUESTS: &str = "autoscaling.kthena.io/takes-requests";
