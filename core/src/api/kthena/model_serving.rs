//! `ModelServing`: the workload that serves a model; `spec.replicas` is the number of its ServingGroups.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};
use kube_core::Resource;
use serde::{
    Deserialize,
    de::{MapAccess, SeqAccess},
};

use super::AutoscalingReady;
use crate::{
    api::{
        Exists, Lenient, LenientDe,
        annotations::{self, AnnotationKey, DEFAULT_PROFILE, MODEL_NAME, PROFILE, ROLES, is_own},
        fields,
        metadata::{KEDA_PAUSED, LeanMetadata, OPERATOR, SmallMap},
    },
    domain::{VerdictReason, distinct_names, names},
};

/// Roles of a ServingGroup that are kept; Kthena's CRD allows four.
const ROLES_MAX: usize = 16;
/// Labels of a role's pod template that are kept, the first by key.
pub(crate) const LABELS_MAX: usize = 64;

/// Type of the operator's condition on a ModelServing.
pub const AUTOSCALING_READY: &str = "AutoscalingReady";

/// The part of a ModelServing that autoscaling depends on.
///
/// Source: Kthena `pkg/apis/workload/v1alpha1/model_serving_types.go`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "LenientDe<Wire>")]
pub struct ModelServing {
    /// Name, identity and owners.
    pub metadata: ObjectMeta,
    /// The operator's and KEDA's annotations on the ModelServing itself; see [`Self::effective_annotations`].
    pub annotations: SmallMap,
    has_oversized_annotations: bool,
    /// The ModelBooster that controls it. Decoding leaves its annotations unread; see [`Self::inherit`].
    pub booster: Option<Box<Booster>>,
    /// Desired state, from its users.
    pub spec: ModelServingSpec,
    /// Current state, from Kthena.
    pub status: ModelServingStatus,
    /// `true` if the object has a status.
    pub has_status: bool,
    /// `true` if the operator owns `status.labelSelector`.
    pub selector_is_ours: bool,
    /// Last writer of `spec.replicas`.
    pub replicas_set_by: ReplicasWriter,
    /// Field manager that owns `spec.template.roles`; kept only of opted-in models.
    pub roles_set_by: Option<Box<str>>,
}

/// The ModelBooster that controls a ModelServing, and whose annotations count for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booster {
    /// Name, in the namespace of the ModelServing.
    pub name: String,
    /// UID.
    pub uid: String,
    /// The operator's annotations on it.
    pub annotations: Result<Inherited, Unread>,
}

/// The operator's annotations on a ModelBooster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// Values, sorted by key.
    pub annotations: SmallMap,
    /// `true` if they are larger than allowed; see [`ModelServing::has_oversized_annotations`].
    pub are_oversized: bool,
}

impl Inherited {
    /// The value of an annotation.
    pub fn get(&self, key: &str) -> Option<&str> {
        value_of(&self.annotations, key)
    }
}

/// The value of a key in entries that are sorted by key.
fn value_of<'a>(sorted: &'a [(String, String)], key: &str) -> Option<&'a str> {
    let index = sorted.binary_search_by(|(found, _)| found.as_str().cmp(key)).ok()?;
    sorted.get(index).map(|(_, value)| value.as_str())
}

/// Cause for which the annotations of a ModelBooster are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// They could not be listed yet, or the cluster does not serve them.
    NotListed,
    /// The operator may not list ModelBoosters.
    Forbidden,
    /// No ModelBooster has the name and UID: it was deleted, or is not in the cache yet.
    Absent,
}

/// Last writer of the number of ServingGroups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ReplicasWriter {
    /// No field manager owns the field.
    #[default]
    Unknown,
    /// An autoscaler or a user, through the scale subresource.
    Scale,
    /// The client with this field manager, in the ModelServing itself.
    Manager(String),
}

/// Desired state of a ModelServing.
#[derive(Clone, Debug, Default)]
pub struct ModelServingSpec {
    /// Number of ServingGroups; absent for 1.
    pub replicas: Option<i32>,
    /// Template of each ServingGroup.
    pub template: ServingGroupTemplate,
    /// Rollout of changes.
    pub rollout: RolloutStrategy,
}

fields!(ModelServingSpec {
    "replicas" => replicas,
    "template" => template as WireTemplate,
    "rolloutStrategy" => rollout,
});

/// Rollout of changes of the template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RolloutStrategy {
    /// ServingGroups that are kept at an older revision.
    configuration: RollingUpdate,
}

fields!(RolloutStrategy { "rollingUpdateConfiguration" => configuration });

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct RollingUpdate {
    partition: Bound,
}

fields!(RollingUpdate { "partition" => partition });

impl RolloutStrategy {
    /// `true` if a partition keeps ServingGroups at an older revision, with the numbers of the roles of that one.
    pub fn has_partition(&self) -> bool {
        self.configuration.partition.is_positive()
    }
}

/// A number, or a percentage of the replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bound {
    /// Not set, or not understood.
    #[default]
    Unset,
    /// A number.
    Number(i32),
    /// A percentage.
    Percent(i32),
}

impl Bound {
    const fn is_positive(self) -> bool {
        match self {
            Self::Unset => false,
            Self::Number(bound) | Self::Percent(bound) => bound > 0,
        }
    }
}

impl Lenient for Bound {
    fn of_text(text: &str) -> Self {
        text.strip_suffix('%').and_then(|percent| percent.parse().ok()).map_or(Self::Unset, Self::Percent)
    }

    fn of_number(number: i64) -> Self {
        number.try_into().map_or(Self::Unset, Self::Number)
    }
}

/// Template of each ServingGroup.
#[derive(Clone, Debug, Default)]
pub struct ServingGroupTemplate {
    /// Roles; Kthena's own label selector selects pods of the first. Shared with the digests that keep them,
    /// too.
    pub roles: Arc<[Role]>,
    /// Numbers of the same roles, in the same order. They change when a role is scaled, which concerns no other model.
    pub counts: Box<[RoleCount]>,
}

/// Number of instances of a role in each ServingGroup, and the limits of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleCount {
    /// Number of instances; 1 by default.
    pub replicas: i32,
    /// Least number that gang scheduling needs, below which Kthena's webhook rejects the ModelServing.
    pub gang_min: i32,
    /// Instances that may be unavailable in an update; Kthena's webhook rejects a bound that is 0 or above the number.
    pub max_unavailable: Bound,
    /// `true` if a partition keeps instances at an older revision.
    pub has_partition: bool,
}

#[derive(Default)]
struct WireTemplate {
    roles: Vec<WireRole>,
    gang: GangPolicy,
}

fields!(WireTemplate { "roles" => roles, "gangPolicy" => gang });

#[derive(Default)]
struct GangPolicy {
    min: Minimums,
}

fields!(GangPolicy { "minRoleReplicas" => min });

/// Numbers by role.
#[derive(Default)]
struct Minimums(BTreeMap<String, i32>);

impl Lenient for Minimums {
    fn of_object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        let mut minimums = BTreeMap::new();
        while let Some((role, LenientDe(min))) = object.next_entry::<String, LenientDe<Option<i32>>>()? {
            if minimums.len() < ROLES_MAX {
                minimums.extend(min.map(|min| (role, min)));
            }
        }
        Ok(Self(minimums))
    }
}

#[derive(Default)]
struct WireRole {
    name: String,
    labels: SmallMap,
    replicas: Option<i32>,
    max_unavailable: Bound,
    partition: Bound,
}

fields!(WireRole {
    "name" => name,
    "entryTemplate" => labels as EntryTemplate,
    "replicas" => replicas,
    "maxUnavailable" => max_unavailable,
    "partition" => partition,
});

impl From<WireTemplate> for ServingGroupTemplate {
    fn from(WireTemplate { mut roles, gang: GangPolicy { min: Minimums(minimums) } }: WireTemplate) -> Self {
        roles.truncate(ROLES_MAX);
        let count = |role: &WireRole| RoleCount {
            replicas: role.replicas.unwrap_or(1),
            gang_min: minimums.get(&role.name).copied().unwrap_or_default(),
            max_unavailable: role.max_unavailable,
            has_partition: role.partition.is_positive(),
        };
        let counts = roles.iter().map(count).collect();
        let roles = roles.into_iter().map(|WireRole { name, labels, .. }| Role { name, labels });
        Self { roles: roles.collect(), counts }
    }
}

impl ServingGroupTemplate {
    /// The role of this name: its index and its number.
    pub fn role(&self, name: &str) -> Option<(usize, RoleCount)> {
        let index = self.roles.iter().position(|role| role.name == name)?;
        Some((index, *self.counts.get(index)?))
    }
}

/// One role of a ServingGroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// Name, unique within the ServingGroup.
    pub name: String,
    /// Labels of its entry pods, without those that Kthena adds.
    pub labels: SmallMap,
}

impl Role {
    /// Value of a label of the template, which replaces that of Kthena.
    fn label(&self, key: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|(found, _)| found.as_str().cmp(key)).ok()?;
        self.labels.get(at).map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
struct EntryTemplate {
    metadata: EntryMetadata,
}

fields!(EntryTemplate { "metadata" => metadata });

#[derive(Default)]
struct EntryMetadata {
    labels: BTreeMap<String, String>,
}

fields!(EntryMetadata { "labels" => labels });

impl From<EntryTemplate> for SmallMap {
    /// Sorted by key, and at most [`LABELS_MAX`].
    fn from(template: EntryTemplate) -> Self {
        template.metadata.labels.into_iter().take(LABELS_MAX).collect()
    }
}

/// Current state of a ModelServing.
#[derive(Clone, Debug, Default)]
pub struct ModelServingStatus {
    /// Selector of one pod per ServingGroup; without it the HPA does not scale.
    pub label_selector: Option<String>,
    /// Number of ServingGroups, including those that start or terminate.
    pub replicas: Option<i32>,
    /// Number of available ServingGroups.
    pub available_replicas: Option<i32>,
    /// Conditions.
    pub conditions: Conditions,
}

/// The list of conditions, reduced to the operator's own and its index; the other conditions belong to their
/// writers.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// `true` if the status has a list of conditions.
    pub exists: bool,
    /// Index of the operator's condition in the list.
    pub index: Option<usize>,
    /// The operator's condition, if it exists and is complete.
    pub autoscaling_ready: Option<AutoscalingReady>,
}

fields!(ModelServingStatus {
    "labelSelector" => label_selector,
    "replicas" => replicas,
    "availableReplicas" => available_replicas,
    "conditions" => conditions,
});

/// A status, if the object has one.
#[derive(Default)]
struct Status(Option<ModelServingStatus>);

impl Lenient for Status {
    fn of_object<'de, A: MapAccess<'de>>(object: A) -> Result<Self, A::Error> {
        ModelServingStatus::of_object(object).map(Some).map(Self)
    }
}

impl Lenient for Conditions {
    fn of_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let (mut ours, mut length) = (None, 0);
        while let Some(LenientDe(found)) = list.next_element::<LenientDe<AnyCondition>>()? {
            if ours.is_none() && found.kind == AUTOSCALING_READY {
                ours = Some((length, found));
            }
            length += 1;
        }
        let (index, found) = ours.unzip();
        Ok(Self { exists: true, index, autoscaling_ready: found.and_then(AnyCondition::complete) })
    }
}

#[derive(Default)]
struct AnyCondition {
    kind: String,
    status: Option<String>,
    reason: Option<String>,
    message: Option<String>,
    since: Option<Time>,
}

fields!(AnyCondition {
    "type" => kind,
    "status" => status,
    "reason" => reason,
    "message" => message,
    "lastTransitionTime" => since,
});

impl AnyCondition {
    /// The condition, if it has all required fields.
    fn complete(self) -> Option<AutoscalingReady> {
        Some(AutoscalingReady {
            status: self.status?,
            reason: self.reason?,
            message: self.message?.into(),
            last_transition_time: self.since?,
        })
    }
}

/// A ModelServing as the API server sends it.
#[derive(Default)]
struct Wire {
    metadata: LeanMetadata<ManagedFields>,
    spec: ModelServingSpec,
    status: Status,
}

fields!(Wire { "metadata" => metadata, "spec" => spec, "status" => status });

/// Selected fields of a field manager: the label selector and the number of ServingGroups.
#[derive(Default)]
struct ManagedFields {
    status: ManagedSelector,
    spec: ManagedReplicas,
}

fields!(ManagedFields { "f:status" => status, "f:spec" => spec });

#[derive(Default)]
struct ManagedReplicas {
    replicas: Exists,
    template: ManagedRoles,
}

fields!(ManagedReplicas { "f:replicas" => replicas, "f:template" => template });

#[derive(Default)]
struct ManagedRoles {
    roles: Exists,
}

fields!(ManagedRoles { "f:roles" => roles });

#[derive(Default)]
struct ManagedSelector {
    label_selector: Exists,
}

fields!(ManagedSelector { "f:labelSelector" => label_selector });

impl From<LenientDe<Wire>> for ModelServing {
    fn from(LenientDe(mut wire): LenientDe<Wire>) -> Self {
        let selector_is_ours = wire.metadata.fields_of(OPERATOR).any(|fields| fields.status.label_selector.0);
        let replicas_set_by = wire.metadata.writers().find(|(_, _, fields)| fields.spec.replicas.0);
        let replicas_set_by = match replicas_set_by {
            None => ReplicasWriter::Unknown,
            Some((_, Some("scale"), _)) => ReplicasWriter::Scale,
            Some((manager, ..)) => ReplicasWriter::Manager(manager.to_owned()),
        };
        let roles_set_by = wire.metadata.writers().find(|(.., fields)| fields.spec.template.roles.0);
        let roles_set_by = roles_set_by.map(|(manager, ..)| manager.to_owned());
        let Status(status) = wire.status;
        let has_status = status.is_some();
        let status = status.unwrap_or_default();
        let (annotations, has_oversized_annotations) = wire.metadata.take_annotations();
        let metadata: ObjectMeta = wire.metadata.into();
        let booster = metadata.owner_references.iter().flatten().find(|owner| is_controlling_booster(owner));
        Self {
            booster: booster.map(Booster::unread).map(Box::new),
            metadata,
            has_oversized_annotations,
            spec: wire.spec,
            status,
            has_status,
            selector_is_ours,
            replicas_set_by,
            roles_set_by: roles_set_by
                .filter(|_| value_of(&annotations, MODEL_NAME).is_some())
                .map(Into::into),
            annotations,
        }
    }
}

impl Booster {
    fn unread(owner: &OwnerReference) -> Self {
        let OwnerReference { name, uid, .. } = owner;
        Self { name: name.clone(), uid: uid.clone(), annotations: Err(Unread::NotListed) }
    }
}

fn is_controlling_booster(owner: &OwnerReference) -> bool {
    let group = owner.api_version.split('/').next();
    owner.controller == Some(true) && owner.kind == "ModelBooster" && group == Some(ModelServing::GROUP)
}

impl ModelServing {
    /// Name; empty without one in the metadata, which the API server never sends.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Name of its ScaledObject.
    pub fn scaled_object_name(&self) -> String {
        names::scaled_object(self.name())
    }

    /// Name of the HPA that KEDA creates for its ScaledObject.
    pub fn hpa_name(&self) -> String {
        names::hpa(self.name())
    }

    /// Name of the PodMonitor of its engines.
    pub fn pod_monitor_name(&self) -> String {
        names::pod_monitor(self.name())
    }

    /// Name of its stand-in pod, and of that pod's Service.
    pub fn stand_in_name(&self) -> String {
        names::stand_in(self.name())
    }

    /// API group.
    pub const GROUP: &'static str = "workload.serving.volcano.sh";
    /// API version within the group.
    pub const VERSION: &'static str = "v1alpha1";
    /// Kind.
    pub const KIND: &'static str = "ModelServing";
    /// Name of the resource in API paths and RBAC rules.
    pub const PLURAL: &'static str = "modelservings";
    /// Group and version, as in `apiVersion`.
    pub const API_VERSION: &'static str = "workload.serving.volcano.sh/v1alpha1";

    /// Sets the annotations of the ModelBooster that controls it. Every source of ModelServings calls this before anything reads
    /// annotations; until then the ModelBooster counts as unread, which keeps everything as it is.
    pub fn inherit(&mut self, read: impl FnOnce(&Booster) -> Result<Inherited, Unread>) {
        if let Some(booster) = &mut self.booster {
            booster.annotations = read(booster);
        }
    }

    /// The ModelBooster that controls it, and the cause for which its annotations are not known.
    pub fn unread_booster(&self) -> Option<(&str, Unread)> {
        let booster = self.booster.as_deref()?;
        Some((booster.name.as_str(), *booster.annotations.as_ref().err()?))
    }

    fn inherited(&self) -> Option<&Inherited> {
        self.booster.as_deref()?.annotations.as_ref().ok()
    }

    fn inherited_annotations(&self) -> &[(String, String)] {
        self.inherited().map(|found| &*found.annotations).unwrap_or_default()
    }

    /// `true` if the operator's annotations on it or on its ModelBooster are larger than allowed; then only short ones are kept, and
    /// the model name is empty.
    pub fn has_oversized_annotations(&self) -> bool {
        self.has_oversized_annotations || self.inherited().is_some_and(|found| found.are_oversized)
    }

    /// Sets one of the operator's annotations on the ModelServing itself.
    pub fn annotate(&mut self, key: &str, value: &str) {
        let mut annotations = std::mem::take(&mut self.annotations).into_vec();
        annotations.retain(|(found, _)| found != key);
        annotations.push((key.to_owned(), value.to_owned()));
        // Lookups expect them sorted by key.
        annotations.sort();
        self.annotations = annotations.into_boxed_slice();
    }

    /// Its annotations over those of the ModelBooster that controls it, key by key.
    pub fn effective_annotations(&self) -> BTreeMap<String, String> {
        self.inherited_annotations().iter().chain(&self.annotations).cloned().collect()
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        value_of(&self.annotations, name).or_else(|| self.inherited()?.get(name))
    }

    /// Keys of the annotations that a rewrite of the ModelServing by its ModelBooster would change: those that the ModelBooster does
    /// not carry with the same value.
    pub fn erasable_annotations(&self) -> Vec<&str> {
        let Some(inherited) = self.inherited() else { return Vec::new() };
        let differs = |own: &&(String, String)| inherited.get(&own.0) != Some(own.1.as_str());
        let own = self.annotations.iter().filter(|own| is_own(&own.0)).filter(differs);
        own.map(|(key, _)| key.as_str()).collect()
    }

    /// `true` if an annotation asks for its roles to be scaled, valid or not.
    pub fn has_roles_annotation(&self) -> bool {
        self.annotation(ROLES).is_some()
    }

    /// Desired number of ServingGroups.
    pub fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    /// Instances of all roles in all ServingGroups, desired or existing, at most `i64::MAX`; `of_role` gives those of a role in one
    /// ServingGroup, from its name and number.
    pub fn instances(&self, of_role: impl Fn(&str, i32) -> i32) -> i64 {
        let groups = self.replicas().max(self.status.replicas.unwrap_or_default()).max(1);
        let ServingGroupTemplate { roles, counts } = &self.spec.template;
        let in_group = roles.iter().zip(counts).map(|(role, count)| of_role(&role.name, count.replicas));
        in_group.map(|count| i64::from(count.max(0)) * i64::from(groups)).fold(0, i64::saturating_add)
    }

    /// `true` if fewer ServingGroups are available than it asks for.
    pub fn lags(&self) -> bool {
        self.status.available_replicas.unwrap_or_default() < self.replicas()
    }

    /// `true` if it or its ModelBooster opts in to autoscaling, with valid annotations or not.
    pub fn is_opted_in(&self) -> bool {
        self.annotation(MODEL_NAME).is_some()
    }

    /// `true` if it is opted in, or was when its ModelBooster was last read: its condition says so.
    pub fn is_managed(&self) -> bool {
        self.is_opted_in() || (self.unread_booster().is_some() && self.status.conditions.index.is_some())
    }

    /// `true` if it opts in by its own annotation, not by that of its ModelBooster.
    pub fn has_own_model_name(&self) -> bool {
        value_of(&self.annotations, MODEL_NAME).is_some()
    }

    /// An annotation that has no effect without [`MODEL_NAME`], or is probably meant to be it; `None` if the
    /// ModelServing is opted in.
    pub fn mistyped_opt_in(&self) -> Option<&str> {
        let mut keys = self.annotations.iter().map(|(key, _)| key.as_str());
        let is_mistyped = |key: &&str| annotations::is_own(key) || annotations::resembles_model_name(key);
        // Sorted by key, so that a near miss comes after the others.
        let all: Vec<&str> = keys.by_ref().filter(is_mistyped).collect();
        all.last().copied().filter(|_| !self.is_opted_in() && self.unread_booster().is_none())
    }

    /// KEDA's annotation that pauses a ScaledObject and does nothing on a ModelServing.
    pub fn misplaced_pause(&self) -> Option<&str> {
        let mut keys = self.annotations.iter().map(|(key, _)| key.as_str());
        keys.find(|key| key.starts_with(KEDA_PAUSED))
    }

    /// Name of its AutoscalingProfile.
    pub fn profile(&self) -> &str {
        self.annotation(PROFILE).unwrap_or(DEFAULT_PROFILE)
    }

    /// Signals that it sets, valid or not.
    pub fn signals(&self) -> Option<&str> {
        self.annotation(&AnnotationKey::Signals.to_string())
    }

    /// Service time that it sets, valid or not.
    pub fn service_time(&self) -> Option<&str> {
        self.annotation(&AnnotationKey::ServiceTime.to_string())
    }

    /// `true` if it asks for a dry run, whether or not its other annotations are valid.
    pub fn is_in_shadow(&self) -> bool {
        self.is_opted_in() && self.annotation(&AnnotationKey::Shadow.to_string()) == Some("true")
    }

    /// Different model names in the annotation, at most 16; invalid ones too, unless they are empty or too
    /// long.
    pub fn model_names(&self) -> impl Iterator<Item = &str> {
        self.annotation(MODEL_NAME).into_iter().flat_map(distinct_names)
    }

    /// `true` if entry pods of a role have this label.
    ///
    /// Kthena adds labels that differ between ServingGroups and revisions; their value may be that of any
    /// pod. Source: Kthena `pkg/model-serving-controller/utils/utils.go`.
    pub fn labels_entry_pods(&self, role: &Role, key: &str, value: &str) -> bool {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        if let Some(of) = role.label(key) {
            return of == value;
        }
        match key.strip_prefix("modelserving.volcano.sh/") {
            Some("name") => value == name,
            Some("entry") => value == "true",
            Some("role") => value == role.name,
            Some("role-id") => is_instance(value, &role.name),
            Some("group-name") => is_instance(value, name),
            Some("revision" | "role-template-hash") => true,
            _ => false,
        }
    }

    /// Value of a label that all entry pods of a role have in common; `None` if they do not have it.
    pub fn entry_pod_label<'a>(&'a self, role: &'a Role, key: &str) -> Option<&'a str> {
        role.label(key).or_else(|| match key.strip_prefix("modelserving.volcano.sh/") {
            Some("name") => Some(self.name()),
            Some("entry") => Some("true"),
            Some("role") => Some(&role.name),
            _ => None,
        })
    }

    /// The operator's condition, if it exists and is complete.
    pub fn condition(&self) -> Option<&AutoscalingReady> {
        self.status.conditions.autoscaling_ready.as_ref()
    }

    /// Drops the text of the operator's condition unless it is read back: the range of a dry run, or a warning about its ModelBooster.
    pub fn drop_unread_text(&mut self) {
        if let Some(condition) = &mut self.status.conditions.autoscaling_ready
            && self.booster.is_none()
            && condition.reason != VerdictReason::Shadow.as_str()
        {
            condition.message.drop_text();
        }
    }

    /// Label selector in the status, which the scale subresource publishes; `None` if it is empty.
    pub fn label_selector(&self) -> Option<&str> {
        self.status.label_selector.as_deref().filter(|selector| !selector.is_empty())
    }
}

/// `true` for `<name>-<number>`.
fn is_instance(value: &str, name: &str) -> bool {
    value.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')).is_some_and(is_number)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl Resource for ModelServing {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Self::KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        Self::GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        Self::VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        Self::PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keeps_selected_fields_and_ignores_malformed_ones() {
        let read: ModelServing = serde_json::from_value(json!({
            "metadata": {
                "name": "chat", "namespace": "models", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"team": "a"},
                "annotations": {"kthena.io/model-name": "llama", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
                "managedFields": [
                    {"manager": "kubectl", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                    {"manager": "kthena-keda", "operation": "Update", "subresource": "status", "fieldsV1": {"f:status": {"f:labelSelector": {}}}},
                ],
            },
            "spec": {"replicas": "many", "template": {"roles": [{"name": "prefill", "entryTemplate": {}}]}},
            "status": {"labelSelector": "a=b", "conditions": [{"type": "Available"}, {
                "type": "AutoscalingReady", "status": "Unknown", "reason": "Pending", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        }))
        .unwrap();
        assert_eq!(read.annotations.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["kthena.io/model-name"]);
        assert_eq!((read.metadata.labels.as_ref(), read.metadata.managed_fields.as_ref()), (None, None));
        assert_eq!(read.replicas(), 1);
        assert_eq!(
            (read.has_status, read.status.conditions.exists, read.status.conditions.index),
            (true, true, Some(1))
        );
        assert_eq!(read.label_selector(), Some("a=b"));
        assert!(read.selector_is_ours);
        assert_eq!(read.condition().unwrap().reason, "Pending");
    }

    /// A dry run continues with the range in its text, and a warning about the ModelBooster is not repeated.
    #[test]
    fn keeps_the_text_of_a_condition_that_a_plan_reads_back() {
        let read = |reason: &str, owners: serde_json::Value| {
            let mut read: ModelServing = serde_json::from_value(json!({
                "metadata": {"name": "chat", "ownerReferences": owners},
                "status": {"conditions": [{
                    "type": "AutoscalingReady", "status": "True", "reason": reason, "message": "a text",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }]},
            }))
            .unwrap();
            assert_eq!(read.condition().unwrap().message.text(), Some("a text"));
            read.drop_unread_text();
            let message = &read.condition().unwrap().message;
            assert_eq!((message.is("a text"), message.is("another")), (true, false));
            message.text().map(str::to_owned)
        };
        let booster = json!([{
            "apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelBooster", "name": "chat", "uid": "u", "controller": true,
        }]);
        assert_eq!(read("Scaling", json!([])), None);
        assert_eq!(read("Scaling", booster).as_deref(), Some("a text"));
        assert_eq!(read("Shadow", json!([])).as_deref(), Some("a text"));
    }

    #[test]
    fn a_selector_of_kthena_is_not_owned() {
        let read: ModelServing = serde_json::from_value(json!({
            "metadata": {"name": "chat", "managedFields": [
                {"manager": "kthena-controller-manager", "operation": "Update", "fieldsV1": {"f:status": {"f:labelSelector": {}}}},
                {"manager": "kthena-keda", "operation": "Update", "fieldsV1": {"f:status": {"f:conditions": {}}}},
            ]},
        }))
        .unwrap();
        assert!(!read.selector_is_ours);
    }
}
