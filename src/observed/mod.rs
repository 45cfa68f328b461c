//! What is there: one [`Observed`] per ModelServing, whatever source it came from.
//!
//! In: objects as the API server sends them. Out: digests that keep only what plans and reports depend on.

mod scaled_object;

pub use scaled_object::{LiveScaledObject, ScaledObjectDigest};

use crate::{api::kthena::ModelServing, signals::RouterSeries};

/// What there is of one ModelServing.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The ModelServing itself.
    pub model_serving: ModelServing,
    /// What stands under the name of its ScaledObject.
    pub scaled_object: Option<ScaledObjectDigest>,
    /// How the router's series are found.
    pub router: RouterSeries,
}

/// Whose the object is that stands under a name which we would use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// There is none.
    Nothing,
    /// We made it, or may adopt it.
    Ours,
    /// Ours, and being deleted.
    Leaving,
    /// Somebody else's.
    Foreign,
}

impl Observed {
    /// Whose the object under the name of its ScaledObject is.
    pub fn existing(&self) -> Existing {
        self.scaled_object.as_ref().map_or(Existing::Nothing, |digest| digest.existing(self.model_serving.metadata.uid.as_deref()))
    }
}
