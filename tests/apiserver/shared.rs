//! One control plane and one operator, shared by all tests that do not affect each other.

use harness::{Crds, ModelServing, Namespace, Process, Settings, Stack, stack::resource, wait};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::api::DynamicObject;
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

/// The metrics of the shared operator.
pub async fn metrics() -> String {
    harness::ask(&shared().await.1, "/metrics").await.1
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

/// Rules without one resource.
pub fn without<'a>(rules: impl IntoIterator<Item = &'a PolicyRule>, plural: &str) -> Vec<PolicyRule> {
    let others = rules.into_iter().cloned().map(|mut rule| {
        rule.resources.iter_mut().for_each(|resources| resources.retain(|found| found != plural));
        rule
    });
    others.filter(|rule| rule.resources.iter().flatten().next().is_some()).collect()
}

/// A new namespace in the shared stack.
pub async fn namespace() -> Namespace {
    stack().await.namespace().await
}

/// Waits for an event about the ModelServing whose note contains `note`.
pub async fn has_event(chat: &ModelServing, kind: &str, reason: &str, note: &str) {
    let api = chat.namespace.api(&resource("events.k8s.io", "v1", "Event", "events"));
    let found = async || api.list(&kube::api::ListParams::default()).await.unwrap().items;
    let matches = |event: &DynamicObject| {
        event.data["type"] == kind
            && event.data["reason"] == reason
            && event.data["regarding"]["name"] == chat.name
            && event.data["note"].as_str().is_some_and(|text| text.contains(note))
    };
    wait::until_asked(&format!("the event {reason} exists: {note}"), found, |events| {
        events.iter().any(matches)
    })
    .await;
}
