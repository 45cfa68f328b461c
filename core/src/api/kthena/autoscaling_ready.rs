//! The operator's condition on a ModelServing, as it is kept: the message of most is needed only to see whether it changes.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The condition `AutoscalingReady`.
#[derive(Clone, Debug)]
pub struct AutoscalingReady {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Reason of the status.
    pub reason: String,
    /// Text for people.
    pub message: Message,
    /// Time of the last change of the status.
    pub last_transition_time: Time,
}

/// Text of a condition, or only its fingerprint.
#[derive(Clone, Debug)]
pub struct Message {
    fingerprint: u64,
    text: Option<Box<str>>,
}

impl Message {
    /// `true` if this is the text, up to a collision of fingerprints.
    pub fn is(&self, text: &str) -> bool {
        self.fingerprint == fingerprint(text)
    }

    /// The text, unless it was dropped.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Keeps the fingerprint alone.
    pub(super) fn drop_text(&mut self) {
        self.text = None;
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self { fingerprint: fingerprint(&text), text: Some(text.into()) }
    }
}

fn fingerprint(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
