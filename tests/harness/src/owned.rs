//! The fields of an object that one field manager owns, read from `metadata.managedFields`.

use kube::{ResourceExt as _, api::DynamicObject};
use serde_json::{Map, Value};

/// Kind, name and all fields that `manager` owns: the object that it would apply again.
pub fn owned(object: &DynamicObject, manager: &str) -> Value {
    let object_json = serde_json::to_value(object).expect("an object");
    let mut owned = serde_json::json!({
        "apiVersion": object_json["apiVersion"], "kind": object_json["kind"],
        "metadata": {"name": object.name_any(), "namespace": object.namespace()},
    });
    for entry in object.managed_fields().iter().filter(|entry| entry.manager.as_deref() == Some(manager)) {
        if let Some(fields) = &entry.fields_v1 {
            merge(&mut owned, select(&object_json, &fields.0));
        }
    }
    owned
}

/// Values in a field set; a field without subfields selects its complete value.
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

/// The key `k:{…}` of a list item in a field set.
fn key_of(item: &Value, fields: &Map<String, Value>) -> Option<String> {
    fields.keys().find(|key| matches_key(item, key)).cloned()
}

fn matches_key(item: &Value, key: &str) -> bool {
    let fields = key.strip_prefix("k:").and_then(|key| serde_json::from_str::<Map<String, Value>>(key).ok());
    fields.is_some_and(|fields| fields.iter().all(|(field, value)| item.get(field) == Some(value)))
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
