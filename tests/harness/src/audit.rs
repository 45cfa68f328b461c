//! Requests of one client, read from the API server's audit log.
//!
//! They prove that the operator writes nothing at rest and has no permission that it does not use.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::PathBuf,
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use serde::Deserialize;

use crate::{certificates::Identity, control_plane::ControlPlane};

/// A completed request, or a watch that has started.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// `get`, `list`, `watch`, `create`, `patch`, …
    pub verb: String,
    stage: String,
    stage_timestamp: MicroTime,
    user: User,
    /// Object of the request; empty for discovery.
    #[serde(default)]
    pub object_ref: Object,
    #[serde(default)]
    response_status: Status,
}

#[derive(Clone, Debug, Deserialize)]
struct User {
    username: String,
}

/// Reference to the object of a request.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Object {
    /// Plural name, such as `modelservings`.
    #[serde(default)]
    pub resource: String,
    /// Such as `status`; empty for the object itself.
    #[serde(default)]
    pub subresource: String,
    /// Empty for requests that span namespaces.
    #[serde(default)]
    pub namespace: String,
    /// Empty for collections.
    #[serde(default)]
    pub name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

impl Request {
    /// HTTP status code of the response; 0 if the log has none.
    pub fn code(&self) -> u16 {
        self.response_status.code
    }

    /// Time of the response; for a watch, its start.
    pub fn at(&self) -> Timestamp {
        self.stage_timestamp.0
    }

    /// `true` for verbs that change objects.
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    /// Verb, resource and object, such as `patch modelservings/status models/chat`.
    pub fn describe(&self) -> String {
        let Object { resource, subresource, namespace, name } = &self.object_ref;
        let subresource = if subresource.is_empty() { String::new() } else { format!("/{subresource}") };
        format!("{} {resource}{subresource} {namespace}/{name}", self.verb)
    }
}

/// All requests of a client so far, each once.
pub fn requests(control_plane: &ControlPlane, client: &Identity) -> Vec<Request> {
    Log::of(control_plane, client).fresh()
}

/// Incremental reader of one client's requests.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    user: String,
    offset: u64,
}

impl Log {
    /// Creates a reader that starts at the first request.
    pub fn of(control_plane: &ControlPlane, client: &Identity) -> Self {
        Self { path: control_plane.folder.join("audit.log"), user: client.user(), offset: 0 }
    }

    /// Requests logged since the last call, each once.
    pub fn fresh(&mut self) -> Vec<Request> {
        let mut text = String::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.offset))?;
            file.read_to_string(&mut text)
        });
        let complete = read.ok().and_then(|_| text.rfind('\n')).map_or(0, |end| end + 1);
        text.truncate(complete);
        self.offset += complete as u64;
        // Most lines belong to other clients; skip them before JSON is parsed.
        let lines = text.lines().filter(|line| line.contains(&self.user));
        let requests = lines.filter_map(|line| serde_json::from_str::<Request>(line).ok());
        requests.filter(|request| request.user.username == self.user && is_counted(request)).collect()
    }
}

/// Selects one line per request: the log has a line for the start and the end of a watch, and one line for
/// any other completed request.
fn is_counted(request: &Request) -> bool {
    match request.verb.as_str() {
        "watch" => request.stage == "ResponseStarted",
        _ => request.stage == "ResponseComplete",
    }
}

/// Number of requests by description, for failure messages.
pub fn summary(requests: &[Request]) -> BTreeMap<String, usize> {
    requests.iter().fold(BTreeMap::new(), |mut counts, request| {
        *counts.entry(request.describe()).or_default() += 1;
        counts
    })
}
