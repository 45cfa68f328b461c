//! Waits with a time limit; on timeout, the message names the expected and the last observed state.

use std::{fmt::Debug, pin::pin, time::Duration};

use futures::{Stream, StreamExt as _};
use kube::{
    Api,
    api::DynamicObject,
    runtime::watcher::{self, watch_object},
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

/// Default time limit; most conditions are met within 100 ms.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Watches an object until `done` accepts its state; `None` means that it does not exist. `what` completes
/// "waited until NAME …" in the failure message.
///
/// # Panics
/// After [`LIMIT`].
pub async fn until(
    api: &Api<DynamicObject>,
    name: &str,
    what: &str,
    done: impl Fn(Option<&DynamicObject>) -> bool,
) -> Option<DynamicObject> {
    until_within(LIMIT, api, name, what, done).await
}

/// [`until`] with another time limit.
///
/// # Panics
/// After `time`.
pub async fn until_within(
    time: Duration,
    api: &Api<DynamicObject>,
    name: &str,
    what: &str,
    done: impl Fn(Option<&DynamicObject>) -> bool,
) -> Option<DynamicObject> {
    let limit = Instant::now() + time;
    let mut states = pin!(watch_object(api.clone(), name));
    let mut last = None;
    loop {
        match next(&mut states, limit).await {
            Ok(state) if done(state.as_ref()) => return state,
            Ok(state) => last = state,
            Err(error) => {
                panic!("waited {time:?} until {name} {what}; {error}; last state:\n{}", yaml(last.as_ref()))
            }
        }
    }
}

async fn next<S>(states: &mut S, limit: Instant) -> Result<Option<DynamicObject>, String>
where
    S: Stream<Item = Result<Option<DynamicObject>, watcher::Error>> + Unpin,
{
    let mut failure = "timeout".to_owned();
    loop {
        match timeout_at(limit, states.next()).await {
            Ok(Some(Ok(state))) => return Ok(state),
            Ok(Some(Err(error))) => {
                failure = format!("the watch failed: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(None) | Err(_) => return Err(failure),
        }
    }
}

/// Polls `ask` every 100 ms until `done` accepts its result, for states that cannot be watched.
///
/// # Panics
/// After [`LIMIT`].
pub async fn until_asked<T: Debug, F: Future<Output = T>>(
    what: &str,
    ask: impl Fn() -> F,
    done: impl Fn(&T) -> bool,
) -> T {
    until_asked_within(LIMIT, what, ask, done).await
}

/// [`until_asked`] with another time limit.
///
/// # Panics
/// After `time`.
pub async fn until_asked_within<T: Debug, F: Future<Output = T>>(
    time: Duration,
    what: &str,
    ask: impl Fn() -> F,
    done: impl Fn(&T) -> bool,
) -> T {
    let limit = Instant::now() + time;
    loop {
        let result = ask().await;
        if done(&result) {
            return result;
        }
        assert!(Instant::now() < limit, "waited {time:?} until {what}; last result: {result:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until a process listens on a loopback port.
///
/// # Panics
/// After [`LIMIT`].
pub async fn until_listening(what: &str, port: u16) {
    let connect =
        async || TcpStream::connect(("127.0.0.1", port)).await.map(drop).map_err(|error| error.to_string());
    until_asked(&format!("{what} listens"), connect, Result::is_ok).await.expect("a listener");
}

fn yaml(object: Option<&DynamicObject>) -> String {
    let mut object = object.cloned();
    if let Some(object) = &mut object {
        object.metadata.managed_fields = None;
    }
    object.map_or("nothing".to_owned(), |object| serde_saphyr::to_string(&object).unwrap_or_default())
}
