//! One chain for all tests that do not disturb each other.

use std::time::Duration;

use harness::{Chain, ChainSettings, chain::is_in_namespace};
use tokio::sync::OnceCell;

static CHAIN: OnceCell<Chain> = OnceCell::const_new();

/// Longer than a few polls of everybody at these settings: whoever would still move has moved by then.
pub const SETTLED: Duration = Duration::from_secs(7);

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_kthena-keda");

/// Whether the chain can run here; says so where it cannot, which in CI is a failure.
pub fn can_run() -> bool {
    let can = is_in_namespace();
    if !can {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} needs a network namespace, and none can be made here");
        eprintln!("SKIPPED {test}: it needs a network namespace; run `make test`, or see what `make doctor` says of it");
    }
    can
}

/// The chain that these tests share; none where it cannot run.
pub async fn chain() -> Option<&'static Chain> {
    if !can_run() {
        return None;
    }
    Some(CHAIN.get_or_init(async || Chain::start(&ChainSettings::quick(BINARY)).await).await)
}
