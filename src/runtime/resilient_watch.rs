//! Watches that retry for ever, and list anew when their resource version has expired.

use std::fmt::Debug;

use futures::{Stream, StreamExt as _, future, stream};
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt as _, watcher},
};
use serde::de::DeserializeOwned;

use super::backoff::WatchBackoff;

/// How long the API server lets a watch stand, in seconds: a connection that fell silent is replaced soon after.
const WATCH_SECONDS: u32 = 60;

/// How many objects are listed at a time. A page is held twice while it is read, as bytes and as objects, and ModelServings have 10 KB.
const PAGE: u32 = 100;

/// How everything is watched.
pub fn watch_config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE).timeout(WATCH_SECONDS)
}

/// A watch that lasts, and lists anew when it is refused as too old.
///
/// kube's own does that only where a watch that stands is told so, and asks for ever from a version that is refused (kube-runtime
/// `watcher.rs`, `State::InitListed`); client-go lists anew in both cases.
pub fn resilient_watch<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let begin = |(api, config): &(Api<K>, watcher::Config)| watcher(api.clone(), config.clone()).boxed();
    let events = stream::unfold(((api, config), None), move |(way, under_way)| async move {
        let mut watch = under_way.unwrap_or_else(|| begin(&way));
        let event = watch.next().await?;
        let goes_on = !is_too_old(&event);
        Some((event, (way, goes_on.then_some(watch))))
    });
    events.backoff(WatchBackoff::default())
}

fn is_too_old<K>(event: &Result<watcher::Event<K>, watcher::Error>) -> bool {
    matches!(event, Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) if status.code == 410)
}

/// Drops errors, which the watch itself recovers from, and objects without a name; tells the first of several in a row.
pub fn log_and_skip_errors<K: Resource<DynamicType = ()>>(
    events: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>>,
) -> impl Stream<Item = watcher::Event<K>> {
    let mut failing = false;
    let mut nameless = false;
    events.filter_map(move |event| {
        let event = event
            .inspect_err(|error| {
                if !failing {
                    tracing::warn!(kind = %K::kind(&()), error = error as &dyn std::error::Error, "the watch failed; trying on");
                }
            })
            .ok();
        failing = event.is_none();
        future::ready(event.filter(|event| has_a_name(event, &mut nameless)))
    })
}

/// Whether an event speaks of something that can be told from others; says so of the first that does not.
///
/// The API server gives every object a name. One whose metadata could not be read has none, and would be taken for others of its kind.
fn has_a_name<K: Resource<DynamicType = ()>>(event: &watcher::Event<K>, said: &mut bool) -> bool {
    let (watcher::Event::Apply(object) | watcher::Event::InitApply(object) | watcher::Event::Delete(object)) =
        event
    else {
        return true;
    };
    let metadata = object.meta();
    let has = metadata.name.as_ref().is_some_and(|name| !name.is_empty());
    if !has && !*said {
        *said = true;
        let (namespace, uid) = (metadata.namespace.as_deref(), metadata.uid.as_deref());
        tracing::warn!(kind = %K::kind(&()), namespace, uid, "the metadata of an object cannot be read; left out");
    }
    has
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Service;

    fn service(name: Option<&str>) -> Service {
        serde_json::from_value(serde_json::json!({"metadata": {"name": name, "namespace": "n"}})).unwrap()
    }

    /// The store of kube-runtime panics at an object without a name.
    #[test]
    fn what_has_no_name_is_left_out_and_said_once() {
        let mut said = false;
        for event in [
            watcher::Event::Apply(service(None)),
            watcher::Event::InitApply(service(Some(""))),
            watcher::Event::Delete(service(None)),
        ] {
            assert!(!has_a_name(&event, &mut said));
            assert!(said);
        }
        for event in
            [watcher::Event::Apply(service(Some("s"))), watcher::Event::Init, watcher::Event::InitDone]
        {
            assert!(has_a_name(&event, &mut said));
        }
    }
}
