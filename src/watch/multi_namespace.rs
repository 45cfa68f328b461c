//! Several watches of one kind, told as one: whoever listens sees one list, of everything, and then changes.
//!
//! In: what each watch tells. Out: the same without the lists that a single watch begins anew; what such a list lacks is told as deleted.

use std::{collections::BTreeSet, mem};

use kube::{
    Resource,
    runtime::{
        reflector::{ObjectRef, Store},
        watcher::Event,
    },
};

use kthena_keda_core::domain::{Key, key};

/// What has been told of several watches.
#[derive(Debug)]
pub(super) struct MultiNamespace<K> {
    watches: Vec<Watch<K>>,
    /// What was listed while others have yet to list; none once all have.
    held: Option<Vec<K>>,
}

#[derive(Debug)]
struct Watch<K> {
    listing: Vec<K>,
    known: BTreeSet<Key>,
    has_listed: bool,
}

impl<K> MultiNamespace<K>
where
    K: Resource<DynamicType = ()> + Clone,
{
    /// Nothing told yet of so many watches.
    pub(super) fn of(watches: usize) -> Self {
        let watch = || Watch { listing: Vec::new(), known: BTreeSet::new(), has_listed: false };
        Self { watches: (0..watches).map(|_| watch()).collect(), held: Some(Vec::new()) }
    }

    /// Takes what one of them tells; answers what is to be told. `store` holds what was told so far.
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
                let gone: Vec<Key> =
                    mem::replace(&mut watch.known, known).difference(&watch.known).cloned().collect();
                watch.has_listed = true;
                self.list(listed, &gone, store)
            }
            Event::Apply(object) => {
                watch.known.insert(key(&object));
                self.tell(vec![Event::Apply(object)])
            }
            Event::Delete(object) => {
                watch.known.remove(&key(&object));
                self.tell(vec![Event::Delete(object)])
            }
        }
    }

    /// A watch has listed everything: it is held until all have, and told as changes thereafter.
    fn list(&mut self, listed: Vec<K>, gone: &[Key], store: &Store<K>) -> Vec<Event<K>> {
        if let Some(held) = &mut self.held {
            let again: BTreeSet<Key> = listed.iter().map(key).collect();
            held.retain(|object| !gone.contains(&key(object)) && !again.contains(&key(object)));
        }
        let changes = listed.into_iter().map(Event::Apply);
        let gone =
            gone.iter().filter_map(|(namespace, name)| store.get(&ObjectRef::new(name).within(namespace)));
        let told = self.tell(changes.chain(gone.map(|object| Event::Delete((*object).clone()))).collect());
        if !self.watches.iter().all(|watch| watch.has_listed) {
            return told;
        }
        match self.held.take() {
            None => told,
            Some(held) => [Event::Init]
                .into_iter()
                .chain(held.into_iter().map(Event::InitApply))
                .chain([Event::InitDone])
                .collect(),
        }
    }

    fn tell(&mut self, events: Vec<Event<K>>) -> Vec<Event<K>> {
        let Some(held) = &mut self.held else { return events };
        for event in events {
            match event {
                Event::Apply(object) => held.push(object),
                Event::Delete(gone) => held.retain(|object| key(object) != key(&gone)),
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

    fn words(events: Vec<Event<Service>>) -> Vec<String> {
        let name = |object: Service| format!("{}/{}", object.namespace().unwrap(), object.name_any());
        let word = |event| match event {
            Event::Init => "init".to_owned(),
            Event::InitApply(object) => format!("={}", name(object)),
            Event::InitDone => "done".to_owned(),
            Event::Apply(object) => format!("+{}", name(object)),
            Event::Delete(object) => format!("-{}", name(object)),
        };
        events.into_iter().map(word).collect()
    }

    #[test]
    fn several_lists_are_told_as_one_and_later_ones_as_changes() {
        let (store, mut writer) = reflector::store::<Service>();
        let mut merge = MultiNamespace::of(2);
        let mut tell = |watch, events: Vec<Event<Service>>| -> Vec<String> {
            let told: Vec<_> =
                events.into_iter().flat_map(|event| merge.take(watch, event, &store)).collect();
            for event in &told {
                writer.apply_watcher_event(event);
            }
            words(told)
        };
        assert!(tell(0, list(vec![service("a", "1"), service("a", "2")])).is_empty());
        // Changes before the other watch has listed are part of the one list.
        assert!(tell(0, vec![Event::Delete(service("a", "2")), Event::Apply(service("a", "3"))]).is_empty());
        // And so is a list that begins anew meanwhile.
        assert!(tell(0, vec![Event::Apply(service("a", "4"))]).is_empty());
        assert!(tell(0, list(vec![service("a", "1"), service("a", "3")])).is_empty());
        assert_eq!(tell(1, list(vec![service("b", "1")])), ["init", "=a/1", "=a/3", "=b/1", "done"]);
        assert_eq!(tell(1, vec![Event::Apply(service("b", "2"))]), ["+b/2"]);
        // A list that begins anew takes away what it lacks, and nothing of the other watch.
        assert_eq!(tell(1, list(vec![service("b", "2")])), ["+b/2", "-b/1"]);
        assert_eq!(store.len(), 3);
    }
}
