//! Leaves a control plane and the operator running for somebody to try things out, until Ctrl-C.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "it talks to a person")]

use harness::{Crds, Identity, Settings, Stack, control_plane::binary};

#[tokio::main]
async fn main() {
    let operator = std::env::args_os().nth(1).expect("usage: playground OPERATOR-BINARY");
    println!("starting a control plane with Kthena's, KEDA's and the Prometheus Operator's definitions ...");
    let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let operator = stack.start_operator(&Settings::new(operator));
    let kubeconfig = stack.control_plane.kubeconfig(&Identity::Admin);
    println!("the operator runs; its log is {}\n", operator.log_path().display());
    println!("  export KUBECONFIG={}", kubeconfig.display());
    println!("  {} apply --server-side -f config/samples/model-serving.yaml", binary("kubectl").display());
    println!("  {} get scaledobjects -A\n\nCtrl-C ends everything.", binary("kubectl").display());
    tokio::signal::ctrl_c().await.expect("a signal");
}
