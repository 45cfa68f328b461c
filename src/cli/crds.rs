//! `crds`: prints the definition of our kind, as `crds/` holds it.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use kube::CustomResourceExt as _;

use kthena_keda_core::api::profile::AutoscalingProfile;

pub(super) fn run() -> ExitCode {
    match print() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: cannot print: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print() -> io::Result<()> {
    let text = serde_saphyr::to_string(&AutoscalingProfile::crd()).map_err(io::Error::other)?;
    write!(io::stdout().lock(), "{text}")
}
