//! Standard output of the commands that print one text.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

pub(super) fn bytes(text: &[u8]) -> ExitCode {
    match io::stdout().lock().write_all(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

pub(super) fn failed(error: &io::Error) -> ExitCode {
    let _ = writeln!(io::stderr(), "error: cannot print: {error}");
    ExitCode::FAILURE
}
