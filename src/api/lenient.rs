//! Decoding that never fails for a field that we only look at.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};

/// Decodes a field, or leaves it empty if it does not have the expected type.
///
/// One odd object must not stop the watch of all others.
pub(crate) fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}
