//! `crds`: prints the CRD of AutoscalingProfile, as the folder `crds` holds it.

use std::{io, process::ExitCode};

use kube::CustomResourceExt as _;

use super::print;
use kthena_keda_core::api::profile::AutoscalingProfile;

pub(super) fn run() -> ExitCode {
    match serde_saphyr::to_string(&AutoscalingProfile::crd()) {
        Ok(text) => print::bytes(text.as_bytes()),
        Err(error) => print::failed(&io::Error::other(error)),
    }
}
