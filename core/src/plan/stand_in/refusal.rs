//! Causes for which a model has no stand-in although its profile asks for one.

use crate::{api::annotations::PREFIX, domain::Reason, plan::finding::listed};

/// Cause for which requests at zero are not held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StandInRefusal {
    /// The operator makes no stand-ins.
    NotEnabled,
    /// No ModelServer with a port selects the pods of the model.
    NoModelServer,
    /// The ModelServer of this name needs two pods for a request.
    Disaggregated(String),
    /// The router speaks TLS to the pods of the ModelServer of this name.
    Tls(String),
    /// A ModelServer selects a label that only pods of a ServingGroup may have.
    GroupLabel {
        /// The ModelServer.
        server: String,
        /// The label.
        label: String,
    },
    /// No pod has the labels that these ModelServers select.
    ConflictingLabels(String),
    /// These ModelServers select the entry pods of several roles.
    SeveralRoles(String),
    /// An object of another owner has the name of the stand-in.
    NameConflict {
        /// Kind of the object.
        kind: &'static str,
        /// Name of the object.
        name: String,
    },
    /// The API server or a webhook rejected the pod or the Service, with this error.
    Rejected(String),
    /// The model is in shadow, so that nothing wakes it.
    Shadow,
    /// Roles are scaled instead of ServingGroups, so that nothing wakes the model.
    ScalesRoles,
    /// The model is paused, so that nothing wakes it.
    Paused,
    /// The model is not scaled for this reason.
    NotScaled(Reason),
}

impl StandInRefusal {
    pub(super) fn conflicting_labels(servers: &[&str]) -> Self {
        Self::ConflictingLabels(listed(servers))
    }

    pub(super) fn several_roles(servers: &[&str]) -> Self {
        Self::SeveralRoles(listed(servers))
    }

    /// Cause and remedy.
    pub fn message(&self) -> String {
        match self {
            Self::NotEnabled => {
                "this operator makes no stand-in pods, which scaleToZero.hold of the AutoscalingProfile needs; set the chart value standIns.enabled".to_owned()
            }
            Self::NoModelServer => {
                "no ModelServer with a workloadPort selects the pods of this ModelServing; create one, with the label modelserving.volcano.sh/name in its selector".to_owned()
            }
            Self::Disaggregated(server) => format!(
                "the ModelServer {server} has a pdGroup, and a request needs a prefill and a decode pod there; set {PREFIX}min-replicas to at least 1 where no request may fail"
            ),
            Self::Tls(server) => format!(
                "the ModelServer {server} has workloadPort.protocol https, and a stand-in pod has no certificate; set {PREFIX}min-replicas to at least 1 where no request may fail"
            ),
            Self::GroupLabel { server, label } => format!(
                "the ModelServer {server} selects pods by {label}, which only pods of a ServingGroup may have; select pods by modelserving.volcano.sh/name and labels of the pod template"
            ),
            Self::ConflictingLabels(servers) => format!(
                "no pod has the labels that the ModelServers {servers} select together; let them select pods by the same labels"
            ),
            Self::SeveralRoles(servers) => format!(
                "the ModelServers {servers} select pods of several roles by modelserving.volcano.sh/entry, which do not differ from a stand-in pod; select pods by modelserving.volcano.sh/name and labels of the pod template"
            ),
            Self::NameConflict { kind, name } => format!(
                "{kind} {name} exists and has another owner, so the operator does not change it; rename or delete it"
            ),
            Self::Rejected(error) => format!("{error}; correct the cause, and the operator tries again"),
            Self::Shadow => "the model is in shadow, so nothing wakes it".to_owned(),
            Self::ScalesRoles => format!(
                "{PREFIX}roles scales the roles and keeps the number of ServingGroups, so nothing wakes the model at zero; set spec.replicas to at least 1"
            ),
            Self::Paused => "the model is paused, so nothing wakes it".to_owned(),
            Self::NotScaled(reason) => {
                format!("the model is not scaled, so nothing wakes it: {}", reason.as_str())
            }
        }
    }

    /// Notice for the condition; `None` where the condition reports the cause itself.
    pub(super) fn warning(&self) -> Option<String> {
        match self {
            Self::Shadow | Self::Paused | Self::ScalesRoles | Self::NotScaled(_) => None,
            Self::NotEnabled
            | Self::NoModelServer
            | Self::Disaggregated(_)
            | Self::Tls(_)
            | Self::GroupLabel { .. }
            | Self::ConflictingLabels(_)
            | Self::SeveralRoles(_)
            | Self::NameConflict { .. }
            | Self::Rejected(_) => Some(format!("requests at zero are not held: {}", self.message())),
        }
    }
}
