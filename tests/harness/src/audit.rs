//! What the API server's audit log says about one client: the proof of "no writes" and of "no right too many".

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::PathBuf,
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use serde::Deserialize;

use crate::{certificates::Identity, control_plane::ControlPlane};

/// One request that was answered.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// `get`, `list`, `watch`, `create`, `patch`, …
    pub verb: String,
    stage: String,
    stage_timestamp: MicroTime,
    user: User,
    /// What it was about; none for discovery.
    #[serde(default)]
    pub object_ref: Object,
    #[serde(default)]
    response_status: Status,
}

#[derive(Clone, Debug, Deserialize)]
struct User {
    username: String,
}

/// What a request was about.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Object {
    /// Plural name.
    #[serde(default)]
    pub resource: String,
    /// Such as `status`.
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
    /// The answer's HTTP status.
    pub fn code(&self) -> u16 {
        self.response_status.code
    }

    /// When it was answered; a watch when it began.
    pub fn at(&self) -> Timestamp {
        self.stage_timestamp.0
    }

    /// Whether it asks for a change.
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    /// Such as `patch modelservings/status models/chat`.
    pub fn describe(&self) -> String {
        let Object { resource, subresource, namespace, name } = &self.object_ref;
        let subresource = if subresource.is_empty() { String::new() } else { format!("/{subresource}") };
        format!("{} {resource}{subresource} {namespace}/{name}", self.verb)
    }
}

/// Every request of this client so far, once each.
pub fn requests(control_plane: &ControlPlane, of: &Identity) -> Vec<Request> {
    Log::of(control_plane, of).fresh()
}

/// The requests of one client as they come.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    user: String,
    read: u64,
}

impl Log {
    /// From the first request on.
    pub fn of(control_plane: &ControlPlane, client: &Identity) -> Self {
        Self { path: control_plane.folder.join("audit.log"), user: client.user(), read: 0 }
    }

    /// The requests since the last time, once each.
    pub fn fresh(&mut self) -> Vec<Request> {
        let mut text = String::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.read))?;
            file.read_to_string(&mut text)
        });
        let complete = read.ok().and_then(|_| text.rfind('\n')).map_or(0, |end| end + 1);
        text.truncate(complete);
        self.read += complete as u64;
        // Most lines are other clients', and not worth to be understood.
        let lines = text.lines().filter(|line| line.contains(&self.user));
        let requests = lines.filter_map(|line| serde_json::from_str::<Request>(line).ok());
        requests.filter(|request| request.user.username == self.user && is_counted(request)).collect()
    }
}

/// A watch is written down when it begins and when it ends, everything else when it is complete.
fn is_counted(request: &Request) -> bool {
    match request.verb.as_str() {
        "watch" => request.stage == "ResponseStarted",
        _ => request.stage == "ResponseComplete",
    }
}

/// How often each was asked for, for messages.
pub fn summary(requests: &[Request]) -> BTreeMap<String, usize> {
    requests.iter().fold(BTreeMap::new(), |mut counts, request| {
        *counts.entry(request.describe()).or_default() += 1;
        counts
    })
}
