//! Documents of manifest files.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use serde_json::Value;

/// A document and its place in the input, for error messages.
pub(super) struct Document {
    pub(super) place: String,
    pub(super) object: Value,
}

/// The documents of a file that are not empty.
pub(super) fn read(file: &Path) -> Result<Vec<Document>, String> {
    let name = file.display();
    let mut text = String::new();
    let result = if file.as_os_str() == "-" {
        io::stdin().read_to_string(&mut text).map(drop)
    } else {
        fs::read_to_string(file).map(|content| text = content)
    };
    result.map_err(|error| format!("{name}: {error}"))?;
    let on_one_line = serde_saphyr::options! { with_snippet: false };
    let values: Vec<Value> = serde_saphyr::from_multiple_with_options(&text, on_one_line)
        .map_err(|error| format!("{name}: {error}"))?;
    let documents = values.into_iter().enumerate().filter(|(_, object)| !object.is_null());
    let documents: Vec<Document> =
        documents.flat_map(|(i, object)| items(format!("{name}, document {}", i + 1), object)).collect();
    match documents.iter().find(|document| document.object.get("kind").is_none()) {
        Some(Document { place, .. }) => {
            Err(format!("{place}: not a Kubernetes object, since it has no kind; pass files with manifests"))
        }
        None => Ok(documents),
    }
}

/// The objects of a `List`, or the object itself.
fn items(place: String, mut object: Value) -> Vec<Document> {
    match object.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items
            .into_iter()
            .enumerate()
            .map(|(i, object)| Document { place: format!("{place}, item {}", i + 1), object })
            .collect(),
        _ => vec![Document { place, object }],
    }
}
