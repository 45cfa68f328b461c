//! One chain, shared by all tests that do not affect each other.

use std::{path::Path, time::Duration};

use harness::{Chain, ChainSettings, Identity, Model, chain::can_run, stack::resource, wait::until_asked};
use kube::api::{DynamicObject, ListParams};
use tokio::sync::OnceCell;

static CHAIN: OnceCell<Chain> = OnceCell::const_new();

/// Longer than a few polls of every component at these settings, after which no further scaling is expected.
pub const SETTLED: Duration = Duration::from_secs(7);

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_kthena-keda");

/// The shared chain; `None` where it cannot run.
pub async fn chain() -> Option<&'static Chain> {
    if !can_run() {
        return None;
    }
    Some(CHAIN.get_or_init(async || Chain::start(&ChainSettings::quick(BINARY)).await).await)
}

/// Output of `explain` for the model, and its exit code.
pub fn explain(chain: &harness::Chain, chat: &Model) -> (serde_json::Value, Option<i32>) {
    let kubeconfig = chain.stack.control_plane.kubeconfig(&Identity::Admin);
    let model = format!("{}/chat", chat.serving.namespace.name);
    let url = format!("--prometheus-url={}", chain.prometheus.url);
    let (report, code) = harness::explain(Path::new(BINARY), &kubeconfig, &[&model, &url]);
    (report.unwrap_or_else(|error| panic!("{error}")), code)
}

/// Waits until `explain` and the condition report `reason`, checks that `link` is the only broken link, and
/// returns the output of `explain`.
pub async fn agree(
    chain: &harness::Chain,
    chat: &Model,
    reason: &str,
    link: Option<&str>,
) -> serde_json::Value {
    let observe = async || {
        let ((found, code), live) = (explain(chain, chat), chat.serving.get().await);
        let condition = harness::condition(&live).cloned().unwrap_or_default();
        (found, code, condition)
    };
    let agree = |(found, _, condition): &(serde_json::Value, Option<i32>, serde_json::Value)| {
        found["reason"] == reason && condition["reason"] == reason && condition["status"] == found["status"]
    };
    let (found, code, _) =
        until_asked(&format!("explain and the condition report {reason}"), observe, agree).await;
    let broken: Vec<&str> = found["links"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|link| link["state"] == "broken")
        .filter_map(|link| link["name"].as_str())
        .collect();
    assert_eq!(broken, link.into_iter().collect::<Vec<_>>(), "{found}");
    assert_eq!(
        code,
        Some(match found["status"].as_str() {
            Some("True") => 0,
            Some("False") => 3,
            _ => 4,
        })
    );
    found
}

/// Waits for an event in the model's namespace whose note contains `note`.
pub async fn event(chat: &Model, kind: &str, reason: &str, note: &str) {
    let api = chat.serving.namespace.api(&resource("events.k8s.io", "v1", "Event", "events"));
    let found = async || api.list(&ListParams::default()).await.unwrap().items;
    let matches = |event: &DynamicObject| {
        event.data["type"] == kind
            && event.data["reason"] == reason
            && event.data["note"].as_str().is_some_and(|text| text.contains(note))
    };
    until_asked(&format!("the event {reason} exists: {note}"), found, |events| events.iter().any(matches))
        .await;
}
