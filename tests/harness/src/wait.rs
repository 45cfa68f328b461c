//! Waiting by watch, with a limit, and a message that tells what was awaited and what was seen last.

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

/// How long anything may take; what is asked for usually happens within a tenth of a second.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Waits until an object, or its absence, is as `done` wants it.
///
/// # Panics
/// When that takes longer than [`LIMIT`].
pub async fn until(
    api: &Api<DynamicObject>,
    name: &str,
    what: &str,
    done: impl Fn(Option<&DynamicObject>) -> bool,
) -> Option<DynamicObject> {
    until_within(LIMIT, api, name, what, done).await
}

/// The same for what takes its time.
///
/// # Panics
/// When it takes longer than `time`.
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
            Err(why) => {
                panic!("waited {time:?} until {name} {what}; {why}; last seen:\n{}", yaml(last.as_ref()))
            }
        }
    }
}

async fn next<S>(states: &mut S, limit: Instant) -> Result<Option<DynamicObject>, String>
where
    S: Stream<Item = Result<Option<DynamicObject>, watcher::Error>> + Unpin,
{
    let mut why = "it never was".to_owned();
    loop {
        match timeout_at(limit, states.next()).await {
            Ok(Some(Ok(state))) => return Ok(state),
            Ok(Some(Err(error))) => {
                why = format!("the watch failed: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(None) | Err(_) => return Err(why),
        }
    }
}

/// Waits until a question that no watch answers has this answer; asks ten times a second.
///
/// # Panics
/// When that takes longer than [`LIMIT`].
pub async fn until_asked<T: Debug, F: Future<Output = T>>(
    what: &str,
    ask: impl Fn() -> F,
    done: impl Fn(&T) -> bool,
) -> T {
    until_asked_within(LIMIT, what, ask, done).await
}

/// The same for what takes its time.
///
/// # Panics
/// When it takes longer than `time`.
pub async fn until_asked_within<T: Debug, F: Future<Output = T>>(
    time: Duration,
    what: &str,
    ask: impl Fn() -> F,
    done: impl Fn(&T) -> bool,
) -> T {
    let limit = Instant::now() + time;
    loop {
        let answer = ask().await;
        if done(&answer) {
            return answer;
        }
        assert!(Instant::now() < limit, "waited {time:?} until {what}; last answer: {answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until something listens on this port of loopback.
///
/// # Panics
/// When that takes longer than [`LIMIT`].
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
