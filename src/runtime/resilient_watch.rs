//! Watches that retry forever, and list again when their resource version has expired.

use std::{fmt::Debug, mem};

use futures::{Stream, StreamExt as _, future, stream};
use http_body_util::LengthLimitError;
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt as _, watcher},
};
use serde::de::DeserializeOwned;

use super::{backoff::WatchBackoff, delays::WATCH_SECONDS};

/// Objects per page of a list. A page is held twice while it is decoded, as bytes and as objects, and a
/// ModelServing has 10 KB.
const PAGE_SIZE: u32 = 100;
/// Divisor of the page size after a page that was too long.
const SHORTER: u32 = 10;

/// The configuration of every watch.
pub fn watch_config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE_SIZE).timeout(WATCH_SECONDS)
}

/// A watch that retries after errors, and lists again when its resource version is rejected as too old, and
/// after it was forbidden or not served: only a complete list shows that everything is known again. After a page
/// that exceeds the client's limit it lists again in shorter pages.
///
/// kube lists again only where an established watch receives the error of an old version, and otherwise
/// requests the rejected version forever (kube-runtime `watcher.rs`, `State::InitListed`); client-go lists
/// again in both cases.
pub fn resilient_watch<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let events = stream::unfold((api, config, None), async |(api, mut config, current)| {
        let mut watch = current.unwrap_or_else(|| watcher(api.clone(), config.clone()).boxed());
        let event = watch.next().await?;
        let is_too_long = is_page_too_long(&event);
        if is_too_long {
            config.page_size = config.page_size.map(|size| (size / SHORTER).max(1));
        }
        let current = (!is_too_long && !needs_list(&event)).then_some(watch);
        Some((event, (api, config, current)))
    });
    events.backoff(WatchBackoff::default())
}

fn needs_list<K>(event: &Result<watcher::Event<K>, watcher::Error>) -> bool {
    matches!(event, Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) if matches!(status.code, 403 | 404 | 410))
}

fn is_page_too_long<K>(event: &Result<watcher::Event<K>, watcher::Error>) -> bool {
    matches!(event, Err(watcher::Error::InitialListFailed(kube::Error::Service(error))) if error.is::<LengthLimitError>())
}

/// Drops errors, which the watch recovers from by itself, and objects without a name. Logs the first of
/// several errors in a row.
pub fn log_and_skip_errors<K: Resource<DynamicType = ()>>(
    events: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>>,
) -> impl Stream<Item = watcher::Event<K>> {
    log_errors(events).filter_map(|event| future::ready(event.ok()))
}

/// Logs the first of several errors in a row, and drops objects without a name.
pub fn log_errors<K: Resource<DynamicType = ()>>(
    events: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>>,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> {
    let (mut is_failing, mut has_warned) = (false, false);
    events.filter(move |event| {
        let begins_row = begins_row(event, &mut is_failing);
        let is_kept = match event {
            Ok(event) => is_identifiable(event, &mut has_warned),
            Err(error) => {
                if begins_row {
                    let error = error as &dyn std::error::Error;
                    tracing::warn!(kind = %K::kind(&()), error, "watch failed; retrying");
                }
                true
            }
        };
        future::ready(is_kept)
    })
}

/// `true` for the first of several errors in a row.
fn begins_row<K>(event: &Result<watcher::Event<K>, watcher::Error>, is_failing: &mut bool) -> bool {
    match event {
        // Every try to list begins with this event, before the request.
        Ok(watcher::Event::Init) => false,
        Ok(_) => {
            *is_failing = false;
            false
        }
        Err(_) => !mem::replace(is_failing, true),
    }
}

/// `true` if the object of the event has a name; logs the first one that has none.
///
/// The API server gives every object a name. An object whose metadata could not be decoded has none, and
/// would be mistaken for others of its kind.
fn is_identifiable<K: Resource<DynamicType = ()>>(event: &watcher::Event<K>, has_warned: &mut bool) -> bool {
    let (watcher::Event::Apply(object) | watcher::Event::InitApply(object) | watcher::Event::Delete(object)) =
        event
    else {
        return true;
    };
    let metadata = object.meta();
    let has_name = metadata.name.as_ref().is_some_and(|name| !name.is_empty());
    if !has_name && !*has_warned {
        *has_warned = true;
        let (namespace, uid) = (metadata.namespace.as_deref(), metadata.uid.as_deref());
        tracing::warn!(
            kind = %K::kind(&()),
            namespace,
            uid,
            "ignored an object whose metadata cannot be decoded"
        );
    }
    has_name
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Service;

    fn service(name: Option<&str>) -> Service {
        serde_json::from_value(serde_json::json!({"metadata": {"name": name, "namespace": "n"}})).unwrap()
    }

    #[test]
    fn a_try_to_list_does_not_end_a_row_of_errors() {
        let failed = || Err(watcher::Error::NoResourceVersion);
        let init = || Ok(watcher::Event::Init);
        let events: [Result<watcher::Event<Service>, _>; 7] =
            [init(), failed(), init(), failed(), init(), Ok(watcher::Event::InitDone), failed()];
        let mut is_failing = false;
        let begins = events.map(|event| begins_row(&event, &mut is_failing));
        assert_eq!(begins, [false, true, false, false, false, false, true]);
    }

    /// kube-runtime's store panics at an object without a name.
    #[test]
    fn objects_without_a_name_are_skipped_with_one_warning() {
        let mut has_warned = false;
        for event in [
            watcher::Event::Apply(service(None)),
            watcher::Event::InitApply(service(Some(""))),
            watcher::Event::Delete(service(None)),
        ] {
            assert!(!is_identifiable(&event, &mut has_warned));
            assert!(has_warned);
        }
        for event in
            [watcher::Event::Apply(service(Some("s"))), watcher::Event::Init, watcher::Event::InitDone]
        {
            assert!(is_identifiable(&event, &mut has_warned));
        }
    }
}
