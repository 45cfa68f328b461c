//! The `kthena-keda` executable; everything is in the library crate.

use std::process::ExitCode;

/// Allocator of the static binary. With that of musl, a restart takes two fifths more CPU time.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    kthena_keda::cli::main()
}
