//! The pause of a ScaledObject that otherwise stays as it is: it is carried out although nothing else is applied.

use super::{Desired, scaled_object};
use crate::{
    api::keda::ScaledObject,
    domain::{Keda, Pause},
    intent::requested_pause,
    observed::{Observed, Ownership},
};

/// A change of nothing but the pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PauseChange(pub Option<Pause>);

/// Change of the pause of an owned ScaledObject that is kept; `None` if it is as the annotation asks, or if the
/// annotation is invalid.
pub(super) fn change(
    observed: &Observed,
    scaled_object: &Desired<Box<ScaledObject>>,
    keda: Option<Keda>,
) -> Option<PauseChange> {
    let requested = requested(observed, keda?)?;
    let found = observed.scaled_object.as_ref()?;
    let is_kept =
        matches!(scaled_object, Desired::Keep) && observed.scaled_object_ownership() == Ownership::Owned;
    let is_as_requested = found.own_pauses == requested.0.as_slice();
    (is_kept && !is_as_requested).then_some(requested)
}

/// The pause that the annotation asks for; `None` if it is unknown, or if the installed KEDA would ignore it.
pub(super) fn requested(observed: &Observed, keda: Keda) -> Option<PauseChange> {
    let model_serving = &observed.model_serving;
    let requested = requested_pause(&model_serving.effective_annotations()).ok()?;
    // The annotation may be among those that were dropped, or on a ModelBooster that could not be read.
    let may_be_hidden = requested.is_none()
        && (model_serving.has_oversized_annotations() || model_serving.unread_booster().is_some());
    let is_supported = requested.is_none_or(|pause| scaled_object::supports_pause(keda, pause));
    (is_supported && !may_be_hidden).then_some(PauseChange(requested))
}
