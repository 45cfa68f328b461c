//! A terminal demo of the complete chain, and a chart of its recording.
#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "prints to the terminal, and panics with the reason if a step fails"
)]

mod picture;
mod recorder;
mod shell;
mod view;

pub use picture::{Picture, draw, draw_beside};
pub use recorder::{Recorder, Sample};
pub use shell::{Shell, print_heading};
pub use view::View;
