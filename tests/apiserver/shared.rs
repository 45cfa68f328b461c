//! One control plane and one operator, shared by all tests that do not affect each other.

use harness::{Crds, Namespace, Process, Settings, Stack};
use tokio::sync::OnceCell;

static STACK: OnceCell<(Stack, Process)> = OnceCell::const_new();

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_kthena-keda");

/// The shared stack, with Kthena v1.0.0.
pub async fn stack() -> &'static Stack {
    &shared().await.0
}

/// The log of the shared operator so far.
pub async fn log() -> String {
    shared().await.1.log()
}

async fn shared() -> &'static (Stack, Process) {
    STACK
        .get_or_init(|| async {
            let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
            let operator = stack.start_operator(&Settings::new(BINARY));
            (stack, operator)
        })
        .await
}

/// A new namespace in the shared stack.
pub async fn namespace() -> Namespace {
    stack().await.namespace().await
}
