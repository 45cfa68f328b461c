//! The part of a live object that the operator applied.
//!
//! Source: `fieldsV1` of structured-merge-diff (`fieldpath/serialize.go`): `f:` is a field, `k:` an element of a
//! list by its keys, `v:` an element by its value.

use serde_json::{Map, Value, json};

use crate::{
    api::{keda::pause_annotation, metadata::OPERATOR},
    domain::Pause,
};

/// The fields of a live ScaledObject that the operator applied, with this pause instead of its present one.
///
/// Applied under the same field manager and over the same version, it changes nothing but the pause.
pub fn with_pause(live: &Value, pause: Option<Pause>) -> Value {
    let own = applied_fields(live).and_then(|fields| held(live, fields));
    let mut own = object(own);
    let mut metadata = object(own.remove("metadata"));
    let mut annotations = object(metadata.remove("annotations"));
    annotations.retain(|key, _| Pause::ALL.iter().all(|pause| pause_annotation(*pause) != key));
    annotations.extend(pause.map(|pause| (pause_annotation(pause).to_owned(), json!("true"))));
    if !annotations.is_empty() {
        metadata.insert("annotations".to_owned(), annotations.into());
    }
    for field in ["name", "namespace", "uid", "resourceVersion"] {
        let value = live.pointer(&format!("/metadata/{field}"));
        metadata.extend(value.map(|value| (field.to_owned(), value.clone())));
    }
    own.insert("metadata".to_owned(), metadata.into());
    for field in ["apiVersion", "kind"] {
        own.extend(live.get(field).map(|value| (field.to_owned(), value.clone())));
    }
    own.into()
}

fn object(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// Managed fields of the operator's server-side applies.
fn applied_fields(live: &Value) -> Option<&Value> {
    let entries = live.pointer("/metadata/managedFields")?.as_array()?;
    let is_own = |entry: &&Value| {
        let is = |field: &str, value: &str| entry.get(field).is_some_and(|found| found == value);
        is("manager", OPERATOR) && is("operation", "Apply") && entry.get("subresource").is_none()
    };
    entries.iter().find(is_own)?.get("fieldsV1")
}

/// The part of a value in a set of managed fields; a set without members holds all of it.
fn held(value: &Value, set: &Value) -> Option<Value> {
    let members: Vec<(&String, &Value)> = set.as_object()?.iter().filter(|(name, _)| *name != ".").collect();
    if members.is_empty() {
        return Some(value.clone());
    }
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter_map(|(name, value)| {
                let below = set.get(format!("f:{name}"))?;
                Some((name.clone(), held(value, below)?))
            });
            Some(fields.collect::<Map<_, _>>().into())
        }
        Value::Array(list) => {
            let elements = list.iter().filter_map(|element| {
                let (_, below) = members.iter().find(|(name, _)| is_element(element, name))?;
                held(element, below)
            });
            Some(elements.collect())
        }
        _ => Some(value.clone()),
    }
}

fn is_element(element: &Value, name: &str) -> bool {
    if let Some(value) = name.strip_prefix("v:") {
        return serde_json::from_str::<Value>(value).is_ok_and(|value| value == *element);
    }
    let keys = name.strip_prefix("k:").and_then(|keys| serde_json::from_str::<Map<String, Value>>(keys).ok());
    keys.is_some_and(|keys| keys.iter().all(|(key, value)| element.get(key) == Some(value)))
}
