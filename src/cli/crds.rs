//! `crds`: prints the CRDs, as the folder `crds` holds them.

use std::{io, process::ExitCode};

use clap::Args;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

use super::print;
use kthena_keda_core::api::{model_serving_role::ModelServingRole, profile::AutoscalingProfile};

#[derive(Args)]
pub(super) struct Crds {
    /// Print only the CRD of this resource, such as modelservingroles.
    #[arg(long, value_name = "RESOURCE", value_parser = ["autoscalingprofiles", "modelservingroles"])]
    only: Option<String>,
}

impl Crds {
    pub(super) fn run(&self) -> ExitCode {
        let is_printed = |crd: &CustomResourceDefinition| {
            self.only.as_ref().is_none_or(|plural| *plural == crd.spec.names.plural)
        };
        let crds = [AutoscalingProfile::crd(), ModelServingRole::crd()];
        let texts: Result<Vec<String>, _> =
            crds.iter().filter(|crd| is_printed(crd)).map(serde_saphyr::to_string).collect();
        match texts {
            Ok(texts) => print::bytes(texts.join("---\n").as_bytes()),
            Err(error) => print::failed(&io::Error::other(error)),
        }
    }
}
