//! The `kthena-keda` executable; everything is in the library crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    kthena_keda::cli::main()
}
