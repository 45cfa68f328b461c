//! Shows the whole chain at work: live in a terminal, and as a picture of what was recorded.
#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "it talks to a person, and stops with the reason when something is not as it should be"
)]

mod picture;
mod recorder;
mod shell;
mod view;

pub use picture::{Picture, draw};
pub use recorder::{Recorder, Sample};
pub use shell::{Shell, say};
pub use view::View;
