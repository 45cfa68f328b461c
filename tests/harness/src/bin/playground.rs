//! Runs a control plane and the operator for manual experiments, until Ctrl-C.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "prints instructions for the user")]

use harness::{Crds, Identity, Settings, Stack, control_plane::binary};

#[tokio::main]
async fn main() {
    let operator = std::env::args_os().nth(1).expect("usage: playground OPERATOR-BINARY");
    println!("Starting a control plane with the CRDs of Kthena, KEDA and the Prometheus Operator ...");
    let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let operator = stack.start_operator(&Settings::new(operator));
    let kubeconfig = stack.control_plane.kubeconfig(&Identity::Admin);
    println!("The operator is running; its log is {}.\n", operator.log_path().display());
    println!("  export KUBECONFIG={}", kubeconfig.display());
    println!("  {} apply --server-side -f config/samples/model-serving.yaml", binary("kubectl").display());
    println!("  {} get scaledobjects -A\n\nPress Ctrl-C to stop everything.", binary("kubectl").display());
    tokio::signal::ctrl_c().await.expect("a signal");
}
