//! kube-controller-manager: the HPA, the garbage collector, endpoint slices and service accounts.

use std::process::Command;

use super::Program;
use crate::{
    certificates::Identity,
    control_plane::{ControlPlane, binary, free_port},
};

const CONTROLLERS: &str = "horizontal-pod-autoscaler-controller,garbage-collector-controller,namespace-controller,serviceaccount-controller,serviceaccount-token-controller,root-ca-certificate-publisher-controller,endpointslice-controller,deployment-controller,replicaset-controller";

/// The running kube-controller-manager.
#[derive(Debug)]
pub struct ControllerManager {
    /// The program.
    pub program: Program,
}

impl ControllerManager {
    /// Starts it with an HPA sync period in seconds. The CRDs of scaled kinds must be installed already,
    /// because it rarely repeats its discovery of kinds.
    pub fn start(control_plane: &ControlPlane, hpa_sync_seconds: u32) -> Self {
        let kubeconfig = control_plane.kubeconfig(&Identity::User("system:kube-controller-manager"));
        let mut command = Command::new(binary("kube-controller-manager"));
        for flag in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
            command.arg(format!("--{flag}={}", kubeconfig.display()));
        }
        command
            .arg(format!("--service-account-private-key-file={}", control_plane.signing_key().display()))
            .arg(format!("--root-ca-file={}", control_plane.certificate_authority().display()))
            .arg(format!("--secure-port={}", free_port()))
            .arg(format!("--horizontal-pod-autoscaler-sync-period={hpa_sync_seconds}s"))
            .arg(format!("--controllers={CONTROLLERS}"))
            .args([
                "--bind-address=127.0.0.1",
                "--leader-elect=false",
                "--use-service-account-credentials=true",
            ]);
        Self { program: Program::new("kube-controller-manager", &control_plane.folder, command) }
    }
}
