//! The `kthena-keda` executable; everything is in the library crate.

use std::process::ExitCode;

/// In the image; that of musl takes half as much CPU time again.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    kthena_keda::cli::main()
}
