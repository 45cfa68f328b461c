//! A text format for objects that stays valid when the fuzzer changes bytes.
//!
//! Each line is a path and a value, such as `spec/replicas=2`, and sets that field of an object. A value is
//! JSON, or otherwise text in which `\n` is a line break.

use serde_json::{Map, Value};

/// Path and value of each line; lines without `=` are skipped.
pub fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once('='))
}

/// Sets the value at a path, and creates the parents.
pub fn set(object: &mut Value, path: &str, value: &str) {
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(text(value)));
    *path.split('/').fold(object, step) = value;
}

/// A value as text, even if it is valid JSON.
pub fn text(value: &str) -> String {
    value.replace("\\n", "\n")
}

/// Returns the child `name`; replaces or extends `into` if it cannot have that child.
fn step<'a>(into: &'a mut Value, name: &str) -> &'a mut Value {
    // `~1` stands for a slash, as in JSON pointers.
    let name = name.replace("~1", "/");
    match (&*into, name.parse::<usize>()) {
        (Value::Array(list), Ok(index)) if index < list.len() => {}
        (Value::Array(list), _) if list.len() < 16 => into.as_array_mut().expect("a list").push(Value::Null),
        (Value::Object(_), _) => {}
        (_, Ok(_)) => *into = Value::Array(vec![Value::Null]),
        (_, Err(_)) => *into = Value::Object(Map::new()),
    }
    match into {
        Value::Array(list) => {
            let end = list.len() - 1;
            &mut list[name.parse().unwrap_or(end).min(end)]
        }
        other => other.as_object_mut().expect("an object").entry(name).or_insert(Value::Null),
    }
}
