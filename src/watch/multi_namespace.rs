//! Merges the watches of one kind in several namespaces into one: a single list of everything, and then
//! changes.
//!
//! In: the events of each watch. Out: the same events, without the lists that a single watch starts again; an
//! object that is absent from such a list is deleted by an event. A watch that cannot list delays the others
//! only until it is known not to list soon.

use std::{collections::BTreeSet, mem};

use kube::{
    Resource,
    runtime::{
        reflector::{ObjectRef, Store},
        watcher::Event,
    },
};

use kthena_keda_core::domain::{Key, key};

/// State of the merge.
#[derive(Debug)]
pub(super) struct MultiNamespace<K> {
    watches: Vec<Watch<K>>,
    /// Objects of the merged list while the first list of a watch is awaited; `None` afterwards.
    pending: Option<Vec<K>>,
}

/// State of one watch.
#[derive(Debug)]
struct Watch<K> {
    /// Objects of the list in progress.
    listing: Vec<K>,
    known: BTreeSet<Key>,
    list: FirstList,
}

/// State of the first list of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FirstList {
    Awaited,
    Complete,
    /// It may still become complete, but nothing waits for it.
    Skipped,
}

impl<K> Default for Watch<K> {
    fn default() -> Self {
        Self { listing: Vec::new(), known: BTreeSet::new(), list: FirstList::Awaited }
    }
}

impl<K> MultiNamespace<K>
where
    K: Resource<DynamicType = ()> + Clone,
{
    /// The initial state for this number of watches.
    pub(super) fn of(watches: usize) -> Self {
        Self { watches: (0..watches).map(|_| Watch::default()).collect(), pending: Some(Vec::new()) }
    }

    /// Takes an event of the watch with this index; returns the merged events. `store` holds the objects of
    /// all merged events so far.
    pub(super) fn take(&mut self, watch: usize, event: Event<K>, store: &Store<K>) -> Vec<Event<K>> {
        let Some(watch) = self.watches.get_mut(watch) else { return Vec::new() };
        match event {
            Event::Init => {
                watch.listing.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                watch.listing.push(object);
                Vec::new()
            }
            Event::InitDone => {
                let listed = mem::take(&mut watch.listing);
                let known = listed.iter().map(key).collect();
                let absent: Vec<Key> =
                    mem::replace(&mut watch.known, known).difference(&watch.known).cloned().collect();
                watch.list = FirstList::Complete;
                self.complete_list(listed, &absent, store)
            }
            Event::Apply(object) => {
                watch.known.insert(key(&object));
                self.emit(vec![Event::Apply(object)])
            }
            Event::Delete(object) => {
                watch.known.remove(&key(&object));
                self.emit(vec![Event::Delete(object)])
            }
        }
    }

    /// Lets the merged list become complete without this watch, which cannot list: the namespace or its role binding was deleted,
    /// for example. At least one list is awaited. Objects that the watch listed before stay.
    pub(super) fn skip(&mut self, watch: usize) -> Vec<Event<K>> {
        let Some(watch) = self.watches.get_mut(watch) else { return Vec::new() };
        if watch.list == FirstList::Awaited {
            watch.list = FirstList::Skipped;
        }
        self.complete_merged_list()
    }

    /// Takes the complete list of one watch: part of the merged list until that is complete, changes
    /// thereafter. `absent` are the keys that the list no longer has.
    fn complete_list(&mut self, listed: Vec<K>, absent: &[Key], store: &Store<K>) -> Vec<Event<K>> {
        if let Some(pending) = &mut self.pending {
            let relisted: BTreeSet<Key> = listed.iter().map(key).collect();
            pending.retain(|object| !absent.contains(&key(object)) && !relisted.contains(&key(object)));
        }
        let deleted =
            absent.iter().filter_map(|(namespace, name)| store.get(&ObjectRef::new(name).within(namespace)));
        let deleted = deleted.map(|object| Event::Delete((*object).clone()));
        let changes = self.emit(listed.into_iter().map(Event::Apply).chain(deleted).collect());
        // Changes are part of the merged list, or come after it.
        if self.pending.is_some() { self.complete_merged_list() } else { changes }
    }

    /// The merged list, once no watch is awaited any longer.
    fn complete_merged_list(&mut self) -> Vec<Event<K>> {
        let has = |list| self.watches.iter().any(|watch| watch.list == list);
        let is_complete = has(FirstList::Complete) && !has(FirstList::Awaited);
        let Some(pending) = self.pending.take_if(|_| is_complete) else { return Vec::new() };
        [Event::Init]
            .into_iter()
            .chain(pending.into_iter().map(Event::InitApply))
            .chain([Event::InitDone])
            .collect()
    }

    /// Passes changes on, or applies them to the merged list while it is incomplete.
    fn emit(&mut self, events: Vec<Event<K>>) -> Vec<Event<K>> {
        let Some(pending) = &mut self.pending else { return events };
        for event in events {
            match event {
                Event::Apply(object) => pending.push(object),
                Event::Delete(deleted) => pending.retain(|object| key(object) != key(&deleted)),
                Event::Init | Event::InitApply(_) | Event::InitDone => {}
            }
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Service;
    use kube::{ResourceExt as _, runtime::reflector};

    fn service(namespace: &str, name: &str) -> Service {
        serde_json::from_value(serde_json::json!({"metadata": {"name": name, "namespace": namespace}}))
            .unwrap()
    }

    fn list(objects: Vec<Service>) -> Vec<Event<Service>> {
        [Event::Init]
            .into_iter()
            .chain(objects.into_iter().map(Event::InitApply))
            .chain([Event::InitDone])
            .collect()
    }

    fn name(object: &Service) -> String {
        format!("{}/{}", object.namespace().unwrap(), object.name_any())
    }

    fn shorthand(event: &Event<Service>) -> String {
        match event {
            Event::Init => "init".to_owned(),
            Event::InitApply(object) => format!("={}", name(object)),
            Event::InitDone => "done".to_owned(),
            Event::Apply(object) => format!("+{}", name(object)),
            Event::Delete(object) => format!("-{}", name(object)),
        }
    }

    #[test]
    fn first_lists_are_merged_into_one_and_later_lists_become_changes() {
        let (store, mut writer) = reflector::store::<Service>();
        let mut merged = MultiNamespace::of(2);
        let mut take = |watch, events: Vec<Event<Service>>| -> Vec<String> {
            let events: Vec<_> =
                events.into_iter().flat_map(|event| merged.take(watch, event, &store)).collect();
            for event in &events {
                writer.apply_watcher_event(event);
            }
            events.iter().map(shorthand).collect()
        };
        assert!(take(0, list(vec![service("a", "1"), service("a", "2")])).is_empty());
        // Changes before the other watch has listed are part of the merged list.
        assert!(take(0, vec![Event::Delete(service("a", "2")), Event::Apply(service("a", "3"))]).is_empty());
        // A list that starts again meanwhile is, too.
        assert!(take(0, vec![Event::Apply(service("a", "4"))]).is_empty());
        assert!(take(0, list(vec![service("a", "1"), service("a", "3")])).is_empty());
        assert_eq!(take(1, list(vec![service("b", "1")])), ["init", "=a/1", "=a/3", "=b/1", "done"]);
        assert_eq!(take(1, vec![Event::Apply(service("b", "2"))]), ["+b/2"]);
        // A list that starts again deletes the objects that it lacks, and none of the other watch.
        assert_eq!(take(1, list(vec![service("b", "2")])), ["+b/2", "-b/1"]);
        assert_eq!(store.len(), 3);
    }

    #[test]
    fn a_namespace_that_cannot_be_listed_does_not_delay_the_others() {
        let (store, _) = reflector::store::<Service>();
        let mut merged = MultiNamespace::of(2);
        let shorthands = |events: Vec<_>| -> Vec<String> { events.iter().map(shorthand).collect() };
        assert!(merged.skip(1).is_empty(), "one list is awaited");
        let events = list(vec![service("a", "1")]);
        let first = events.into_iter().flat_map(|event| merged.take(0, event, &store)).collect();
        assert_eq!(shorthands(first), ["init", "=a/1", "done"]);
        assert!(merged.skip(1).is_empty(), "the merged list is complete once");
        let events = list(vec![service("b", "1")]);
        let late = events.into_iter().flat_map(|event| merged.take(1, event, &store)).collect();
        assert_eq!(shorthands(late), ["+b/1"]);
    }

    #[test]
    fn the_last_list_may_be_the_one_that_fails() {
        let (store, _) = reflector::store::<Service>();
        let mut merged = MultiNamespace::of(2);
        for event in list(vec![service("a", "1")]) {
            assert!(merged.take(0, event, &store).is_empty());
        }
        assert_eq!(merged.skip(1).len(), 3);
    }
}
