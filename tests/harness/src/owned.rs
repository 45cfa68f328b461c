//! What of an object stands under one field manager, read from its managed fields.

use kube::{ResourceExt as _, api::DynamicObject};
use serde_json::{Map, Value};

/// The part of an object that `manager` applied, its kind and name included: what it would send again.
pub fn owned(object: &DynamicObject, manager: &str) -> Value {
    let whole = serde_json::to_value(object).expect("an object");
    let mut owned = serde_json::json!({
        "apiVersion": whole["apiVersion"], "kind": whole["kind"],
        "metadata": {"name": object.name_any(), "namespace": object.namespace()},
    });
    for entry in object.managed_fields().iter().filter(|entry| entry.manager.as_deref() == Some(manager)) {
        if let Some(fields) = &entry.fields_v1 {
            merge(&mut owned, select(&whole, &fields.0));
        }
    }
    owned
}

/// The values that a set of fields speaks of; a field without fields of its own stands for everything in it.
fn select(value: &Value, fields: &Value) -> Value {
    let Some(fields) = fields.as_object().filter(|fields| fields.keys().any(|key| key != ".")) else {
        return value.clone();
    };
    match value {
        Value::Array(items) => {
            items.iter().filter_map(|item| Some(select(item, fields.get(&key_of(item, fields)?)?))).collect()
        }
        _ => fields
            .iter()
            .filter_map(|(field, below)| {
                let name = field.strip_prefix("f:")?;
                Some((name.to_owned(), select(value.get(name)?, below)))
            })
            .collect::<Map<_, _>>()
            .into(),
    }
}

/// The key `k:{…}` under which a list's element is spoken of.
fn key_of(item: &Value, fields: &Map<String, Value>) -> Option<String> {
    let matches = |key: &str| {
        let wanted: Map<String, Value> = serde_json::from_str(key.strip_prefix("k:")?).ok()?;
        wanted.iter().all(|(field, value)| item.get(field) == Some(value)).then_some(())
    };
    fields.keys().find(|key| matches(key).is_some()).cloned()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
