//! Specs of generated objects, compared as a whole: every field of them is the operator's.
//!
//! Empty values count as absent, because KEDA's own updates write `scalingModifiers: {}` into every
//! ScaledObject. Fields without a field manager do too: a default of the CRD or a mutating webhook set them, and
//! would set them again after each removal (Kubernetes `pkg/endpoints/handlers/create.go` and `patch.go` track
//! managers before admission).

use serde::Serialize;
use serde_json::{Map, Value};

use super::owned_object::OwnedObject;
use crate::api::metadata::{LeanMetadata, ManagedMetadata};

/// Fields of one object that are listed at most.
const LISTED: usize = 8;

/// Spec of a live object: what field managers hold, and the paths of the other fields.
#[derive(Clone, Debug, Default)]
pub struct LiveSpec {
    value: Value,
    defaulted: Vec<String>,
}

/// A live object whose spec is the operator's.
pub trait LiveObject {
    /// Its spec.
    fn spec(&self) -> &LiveSpec;

    /// Its owner and fingerprint.
    fn owned_object(&self) -> OwnedObject;
}

/// Fields in which a live spec differs from the desired one, as JSON pointers into the object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecDifference {
    /// Fields that the desired spec does not have.
    pub added: Vec<String>,
    /// Fields that have another value, or are missing.
    pub changed: Vec<String>,
}

impl SpecDifference {
    /// `true` if the two are equal.
    pub const fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty()
    }
}

impl LiveSpec {
    /// Splits a spec by the managed fields of its object. An object without any is taken as a whole.
    pub(super) fn new(mut spec: Value, metadata: &LeanMetadata<ManagedMetadata>) -> Self {
        let held: Vec<&Value> = metadata.held_spec_fields().collect();
        let mut defaulted = Vec::new();
        if let Value::Object(fields) = &mut spec {
            drop_empty(fields);
            if !held.is_empty() && held.iter().all(|set| has_fields(set)) {
                take_defaulted(fields, &held, "/spec", &mut defaulted);
                drop_empty(fields);
            }
        }
        defaulted.truncate(LISTED);
        Self { value: spec, defaulted }
    }

    /// Fields that a field manager holds, without empty values.
    pub(super) const fn value(&self) -> &Value {
        &self.value
    }

    /// The value at a JSON pointer into the object, such as `/spec/maxReplicaCount`.
    pub fn value_at(&self, pointer: &str) -> Option<&Value> {
        self.value.pointer(pointer.strip_prefix("/spec")?)
    }

    /// JSON pointers to the other fields, at most [`LISTED`].
    pub(super) fn defaulted(&self) -> &[String] {
        &self.defaulted
    }

    /// Difference to a desired spec, as [`desired_spec`] returns it.
    pub fn difference(&self, desired: &Value) -> SpecDifference {
        let mut difference = SpecDifference::default();
        compare(&self.value, desired, "/spec", &mut difference);
        difference
    }
}

/// A desired spec without empty values.
pub fn desired_spec<S: Serialize>(spec: &S) -> Value {
    // These types have no maps with keys other than strings, so serialization to JSON cannot fail.
    let mut spec = serde_json::to_value(spec).unwrap_or_default();
    if let Value::Object(fields) = &mut spec {
        drop_empty(fields);
    }
    spec
}

/// Drops fields whose value is null, or an object, list or string without content.
fn drop_empty(fields: &mut Map<String, Value>) {
    fields.retain(|_, value| {
        drop_empty_within(value);
        match value {
            Value::Null => false,
            Value::Object(fields) => !fields.is_empty(),
            Value::Array(list) => !list.is_empty(),
            Value::String(text) => !text.is_empty(),
            Value::Bool(_) | Value::Number(_) => true,
        }
    });
}

fn drop_empty_within(value: &mut Value) {
    match value {
        Value::Object(fields) => drop_empty(fields),
        Value::Array(list) => list.iter_mut().for_each(drop_empty_within),
        _ => {}
    }
}

/// Moves fields that none of these sets of managed fields holds to `defaulted`.
fn take_defaulted(
    fields: &mut Map<String, Value>,
    held: &[&Value],
    pointer: &str,
    defaulted: &mut Vec<String>,
) {
    fields.retain(|name, value| {
        let key = format!("f:{name}");
        let below: Vec<&Value> = held.iter().filter_map(|set| set.get(&key)).collect();
        let pointer = child(pointer, name);
        if below.is_empty() {
            defaulted.push(pointer);
            return false;
        }
        if let Value::Object(fields) = value
            && below.iter().all(|set| has_fields(set))
        {
            take_defaulted(fields, &below, &pointer, defaulted);
        }
        true
    });
}

/// `false` for a set that holds a value as a whole: a scalar, a list, or an atomic object.
fn has_fields(set: &Value) -> bool {
    set.as_object().is_some_and(|set| set.keys().any(|key| key.starts_with("f:")))
}

fn compare(live: &Value, desired: &Value, pointer: &str, difference: &mut SpecDifference) {
    let (Value::Object(live), Value::Object(desired)) = (live, desired) else {
        if live != desired {
            difference.changed.push(pointer.to_owned());
        }
        return;
    };
    for (name, value) in live {
        let pointer = child(pointer, name);
        match desired.get(name) {
            Some(desired) => compare(value, desired, &pointer, difference),
            None => difference.added.push(pointer),
        }
    }
    let missing = desired.keys().filter(|name| !live.contains_key(*name));
    difference.changed.extend(missing.map(|name| child(pointer, name)));
}

/// JSON pointer to a field (RFC 6901).
fn child(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}
