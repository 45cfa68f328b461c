//! One control plane and one operator for all tests that do not disturb each other.

use harness::{Crds, Namespace, Process, Settings, Stack};
use tokio::sync::OnceCell;

static STACK: OnceCell<(Stack, Process)> = OnceCell::const_new();

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_kthena-keda");

/// The stack that these tests share, with Kthena v1.0.0.
pub async fn stack() -> &'static Stack {
    &shared().await.0
}

/// What their operator logged.
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

/// A namespace of it.
pub async fn namespace() -> Namespace {
    stack().await.namespace().await
}
