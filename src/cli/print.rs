//! Output of the commands that print one text.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

/// Prints to standard output.
pub(super) fn bytes(text: &[u8]) -> ExitCode {
    match io::stdout().lock().write_all(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Reports that standard output cannot be written to.
pub(super) fn failed(error: &io::Error) -> ExitCode {
    let _ = writeln!(io::stderr(), "error: cannot write to standard output: {error}");
    ExitCode::FAILURE
}
