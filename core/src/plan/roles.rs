//! Roles: a ModelServingRole and a ScaledObject for each, and the numbers that the ModelServing gets.
//!
//! The number of ServingGroups stays as it is meanwhile. Source of the limits: Kthena
//! `pkg/model-serving-controller/webhook/validator.go` and `controller/model_serving_controller.go`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};

use super::{
    Desired, Finding, PauseChange, ResolvedIntent, external_status, owner, pause, removal, scaled_object,
    triggers::{RoleScope, Triggers, triggers_of},
    verdict::joined,
};
use crate::{
    api::{
        annotations::AnnotationKey,
        keda::{ScaleTargetRef, ScaledObject},
        kthena::{Bound, RoleCount},
        metadata::{MANAGED_BY, OPERATOR},
        model_serving_role::{APPLIED, ModelServingRole, ModelServingRoleSpec},
    },
    domain::{Capabilities, Keda, ReplicaBounds, Status, names, quoted, shortened},
    intent::{Intent, RoleTarget, Roles},
    observed::{INSTANCES_MAX, InstanceCount, Observed, ObservedRole, Ownership, RoleDigest},
};

/// Settings and triggers of one role.
#[derive(Clone, Debug)]
pub struct ResolvedRole {
    /// Name of the role.
    pub name: String,
    /// Name of its ModelServingRole and of its ScaledObject.
    pub object_name: String,
    /// Settings, with the bounds of the number of instances in each ServingGroup.
    pub intent: Intent,
    /// Queries, with targets for all ServingGroups together.
    pub triggers: Triggers,
}

/// Desired state of the roles of a ModelServing.
#[derive(Clone, Debug, Default)]
pub struct RolesPlan {
    /// Objects of each role.
    pub roles: Vec<RolePlan>,
    /// Numbers in the ModelServing that differ from those that the roles are to have.
    pub changes: Vec<RoleChange>,
}

/// Desired state of the objects of one role.
#[derive(Clone, Debug)]
pub struct RolePlan {
    /// Name of the role.
    pub name: String,
    /// Name of both objects.
    pub object_name: String,
    /// The scale target.
    pub object: Desired<Box<ModelServingRole>>,
    /// Status of the scale target; never removed.
    pub status: Desired<Box<RoleStatus>>,
    /// The ScaledObject.
    pub scaled_object: Desired<Box<ScaledObject>>,
    /// Change of the pause of a ScaledObject that otherwise stays as it is.
    pub pause: Option<PauseChange>,
}

/// Status of a ModelServingRole, without times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleStatus {
    /// Number of instances in the ServingGroup that has the fewest.
    pub replicas: i32,
    /// Selector of the entry pods of the role.
    pub selector: String,
    /// The condition [`APPLIED`].
    pub applied: (Status, &'static str, String),
}

/// A number of one role to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleChange {
    /// Index of the role in the template.
    pub index: usize,
    /// Name of the role at this index, without which nothing is written.
    pub name: String,
    /// Number of instances in each ServingGroup.
    pub replicas: i32,
}

impl RoleStatus {
    /// `true` if the object has this status.
    pub fn is_written(&self, found: &RoleDigest) -> bool {
        let (status, reason, message) = &self.applied;
        let is_applied = |condition: &Condition| {
            condition.status == status.as_str()
                && condition.reason == *reason
                && condition.message == *message
        };
        found.status.replicas == self.replicas
            && found.status.selector == self.selector
            && found.condition(APPLIED).is_some_and(is_applied)
    }
}

/// Number of ServingGroups by which the targets are multiplied.
fn groups(observed: &Observed) -> u32 {
    observed.model_serving.replicas().max(1).unsigned_abs()
}

/// Triggers of each role, and all of them together under names that hold the role.
///
/// # Errors
/// All problems that keep a signal from being measured.
pub(super) fn triggers(
    observed: &Observed,
    intent: &Intent,
    roles: &Roles,
) -> Result<(Triggers, Vec<ResolvedRole>), Vec<Finding>> {
    let mut resolved: Vec<ResolvedRole> = Vec::new();
    let mut all: Option<Triggers> = None;
    for role in roles.iter() {
        let (of_role, scope) =
            (intent.of_role(role), RoleScope { name: &role.name, groups: groups(observed) });
        let triggers = triggers_of(observed, &of_role, Some(scope))?;
        all = Some(together(all, &role.name, &triggers));
        resolved.push(ResolvedRole {
            name: role.name.clone(),
            object_name: names::role(observed.model_serving.name(), &role.name),
            intent: of_role,
            triggers,
        });
    }
    all.map(|all| (all, resolved)).ok_or_else(Vec::new)
}

fn together(all: Option<Triggers>, role: &str, of_role: &Triggers) -> Triggers {
    let mut named = of_role.clone();
    for trigger in &mut named.triggers {
        trigger.name = format!("{role}/{}", trigger.name);
    }
    let Some(mut all) = all else { return named };
    all.triggers.extend(named.triggers);
    all.latencies.extend(named.latencies);
    all.engines = all.engines.or(named.engines);
    all.warnings.extend(
        named.warnings.into_iter().filter(|warning| !all.warnings.contains(warning)).collect::<Vec<_>>(),
    );
    all
}

/// Problems that keep roles from being scaled.
pub(super) fn findings(observed: &Observed, capabilities: Capabilities, roles: &Roles) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !observed.may_scale_roles {
        findings.push(Finding::roles_not_enabled());
    } else if !capabilities.roles {
        findings.push(Finding::roles_not_served());
    }
    if let Some(unread) = observed.readable.unread_roles().filter(|_| capabilities.roles) {
        findings.push(Finding::unread(&unread, "the scale targets of its roles are unknown"));
    }
    if observed.role_instances == InstanceCount::Forbidden {
        findings.push(Finding::instances_unreadable());
    }
    if !observed.role_autoscalers.is_empty() {
        findings.push(Finding::roles_scaled_by_others(&observed.role_autoscalers));
    }
    if let Some(booster) = observed.model_serving.booster.as_deref() {
        findings.push(Finding::roles_of_booster(&booster.name));
    }
    if observed.model_serving.spec.rollout.has_partition() {
        findings.push(Finding::role_unfit(
            "spec.rolloutStrategy.rollingUpdateConfiguration.partition keeps ServingGroups at an older revision, which keep the number of each role of that revision, so a part of the groups would not follow; remove the partition",
        ));
    }
    findings.extend(too_many(observed, roles));
    for role in roles.iter() {
        findings.extend(unfit(observed, role));
    }
    findings
}

/// More instances at the maximum of each role than the operator counts.
fn too_many(observed: &Observed, roles: &Roles) -> Option<Finding> {
    let most = observed.model_serving.instances(|name, replicas| {
        let role = roles.iter().find(|role| role.name == name);
        role.map_or(replicas, |role| role.bounds.max().max(replicas))
    });
    (most > INSTANCES_MAX.into()).then(|| {
        Finding::role_unfit(&format!(
            "the ServingGroups can have more than {INSTANCES_MAX} instances of all roles together, which is as many as the operator counts for one model, so no role is scaled; lower the maxima of the roles or spec.replicas, or scale ServingGroups"
        ))
    })
}

/// Settings of a role that Kthena would reject or ignore.
fn unfit(observed: &Observed, role: &RoleTarget) -> Vec<Finding> {
    let (name, template) = (quoted(&role.name), &observed.model_serving.spec.template);
    let Some((_, count)) = template.role(&role.name) else {
        let found: Vec<&str> = template.roles.iter().map(|role| role.name.as_str()).collect();
        let found: Vec<String> = found.into_iter().map(shortened).collect();
        return vec![Finding::role_unfit(&format!(
            "the ModelServing has no role {name}, so it cannot be scaled; its roles are {}, so correct {}",
            found.join(", "),
            AnnotationKey::Roles
        ))];
    };
    let mut findings = Vec::new();
    let (min, max) = (role.bounds.min(), role.bounds.max());
    if count.gang_min > min {
        findings.push(Finding::role_unfit(&format!(
            "min={min} of the role {name} is below spec.template.gangPolicy.minRoleReplicas, which is {} and cannot change, so Kthena rejects such a number; set min to at least {}",
            count.gang_min, count.gang_min
        )));
    }
    if count.has_partition {
        findings.push(Finding::role_unfit(&format!(
            "a partition of the role {name} keeps instances at an older revision with the number of that one, so a part of them would not follow; remove the partition"
        )));
    }
    findings.extend(unavailable(&name, count, min).map(|problem| Finding::role_unfit(&problem)));
    let is_creation = observed.roles.iter().all(|found| found.name != role.name || found.object.is_none());
    if is_creation && count.replicas > max && !observed.model_serving.has_roles_annotation() {
        findings.push(Finding::role_unfit(&format!(
            "the role {name} has {} instances and its maximum in the AutoscalingProfile is {max}, so opting in would remove the difference at once; set {} with a maximum of at least {}, or with a lower one to accept the reduction",
            count.replicas, AnnotationKey::Roles, count.replicas
        )));
    }
    findings
}

/// A bound of unavailable instances that Kthena's webhook rejects at the minimum.
fn unavailable(name: &str, count: RoleCount, min: i32) -> Option<String> {
    match count.max_unavailable {
        Bound::Number(bound) if bound > min => Some(format!(
            "maxUnavailable of the role {name} is {bound}, above min={min}, so Kthena rejects fewer than {bound} instances; set min to at least {bound}, or lower maxUnavailable"
        )),
        // Kthena rounds down, and rejects 0.
        Bound::Percent(percent) if i64::from(percent) * i64::from(min) < 100 => Some(format!(
            "maxUnavailable of the role {name} is {percent} %, which is less than one of min={min} instances, so Kthena rejects that number; raise min, or set maxUnavailable to a number"
        )),
        _ => None,
    }
}

/// `true` if an object of a ModelServing with scaled roles is the operator's.
fn is_owned(observed: &Observed, role: &ObservedRole) -> bool {
    let ownership = role.object.as_ref().map(|found| observed.ownership_of(Some(&found.owned)));
    ownership == Some(Ownership::Owned)
}

/// Foreign objects with the names of generated ones.
pub(super) fn conflicts(observed: &Observed, resolved: &[ResolvedRole]) -> Vec<Finding> {
    let of = |role: &ResolvedRole| {
        let found = observed.roles.iter().find(|found| found.name == role.name)?;
        let object = observed.ownership_of(found.object.as_ref().map(|object| &object.owned));
        let scaled_object = observed.ownership_of(found.scaled_object.as_ref().map(|object| &object.owned));
        Finding::ownership::<ModelServingRole>(object, &role.object_name)
            .or_else(|| Finding::ownership::<ScaledObject>(scaled_object, &role.object_name))
    };
    resolved.iter().filter_map(of).collect()
}

/// `true` while the ScaledObject or the HPA of the ServingGroups exists: two HPAs that select the same pods stop each other.
fn groups_are_scaled(observed: &Observed) -> bool {
    observed.scaled_object.is_some() || observed.hpa.is_some()
}

/// `true` while a scale target of a role exists, and so the HPA of it may: the ServingGroups wait for its end.
pub(super) fn are_scaled(observed: &Observed) -> bool {
    observed.roles.iter().any(|role| is_owned(observed, role) || is_terminating(observed, role))
}

fn is_terminating(observed: &Observed, role: &ObservedRole) -> bool {
    let ownership = role.object.as_ref().map(|found| observed.ownership_of(Some(&found.owned)));
    ownership == Some(Ownership::Terminating)
}

/// Removes the objects of all roles. Their numbers stay as they are.
pub(super) fn removed(observed: &Observed) -> RolesPlan {
    RolesPlan {
        roles: observed.roles.iter().map(|role| remove(observed, role)).collect(),
        changes: Vec::new(),
    }
}

/// The ScaledObject goes first, and its target with KEDA's HPA: by the target the operator finds both.
fn remove(observed: &Observed, role: &ObservedRole) -> RolePlan {
    let scaled_object = removal(observed, role.scaled_object.as_ref().map(|found| &found.owned));
    let is_last = role.hpa.is_none() && role.scaled_object.is_none();
    let object = removal(observed, role.object.as_ref().map(|found| &found.owned));
    RolePlan {
        name: role.name.clone(),
        object_name: role.object_name.clone(),
        object: if is_last { object } else { Desired::Keep },
        status: Desired::Keep,
        scaled_object,
        pause: None,
    }
}

/// Keeps the objects of all roles. The status, by which the HPA computes, still follows the pods.
pub(super) fn kept(observed: &Observed, findings: &[Finding], keda: Option<Keda>) -> RolesPlan {
    let keep = |role: &ObservedRole| {
        let view = observed.of_role(role);
        let status = is_owned(observed, role).then(|| {
            let reason = findings.first().map_or("Unknown", |finding| finding.reason.as_str());
            let message =
                "the number is not carried over; see the condition AutoscalingReady of the ModelServing";
            status(observed, role, (Status::False, reason, message.to_owned()))
        });
        RolePlan {
            name: role.name.clone(),
            object_name: role.object_name.clone(),
            object: Desired::Keep,
            status: status.unwrap_or(Desired::Keep),
            scaled_object: Desired::Keep,
            pause: pause::change(&view, &Desired::Keep, keda),
        }
    };
    RolesPlan { roles: observed.roles.iter().map(keep).collect(), changes: Vec::new() }
}

/// Applies the objects of the resolved roles, and removes those of others.
pub(super) fn applied(
    observed: &Observed,
    resolved: &ResolvedIntent,
    roles: &Roles,
    keda: Keda,
) -> RolesPlan {
    let numbers = Numbers::of(observed, roles);
    let mut plans: Vec<RolePlan> =
        resolved.roles.iter().map(|role| apply(observed, role, &numbers, keda)).collect();
    let is_gone = |role: &&ObservedRole| resolved.roles.iter().all(|resolved| resolved.name != role.name);
    plans.extend(observed.roles.iter().filter(is_gone).map(|role| remove(observed, role)));
    RolesPlan { roles: plans, changes: numbers.changes() }
}

fn apply(observed: &Observed, role: &ResolvedRole, numbers: &Numbers, keda: Keda) -> RolePlan {
    let absent = ObservedRole {
        name: role.name.clone(),
        object_name: role.object_name.clone(),
        object: None,
        scaled_object: None,
        hpa: None,
        keda_is_silent: false,
    };
    let found = observed.roles.iter().find(|found| found.name == role.name).unwrap_or(&absent);
    let ownership = observed.ownership_of(found.object.as_ref().map(|object| &object.owned));
    let object = match ownership {
        Ownership::Absent | Ownership::Owned => {
            Desired::Apply(Box::new(target(observed, role, numbers.asked(&role.name))))
        }
        Ownership::Terminating | Ownership::Orphaned | Ownership::Foreign => Desired::Keep,
    };
    let is_terminating = observed.ownership_of(found.scaled_object.as_ref().map(|found| &found.owned))
        == Ownership::Terminating;
    let waits = groups_are_scaled(observed) || is_terminating || !matches!(object, Desired::Apply(_));
    let built = || {
        let target = ScaleTargetRef {
            api_version: ModelServingRole::API_VERSION.to_owned(),
            kind: ModelServingRole::KIND.to_owned(),
            name: role.object_name.clone(),
        };
        scaled_object::build(&observed.model_serving, target, &role.intent, &role.triggers, keda)
    };
    let scaled_object = if waits { Desired::Keep } else { built().map_or(Desired::Keep, Desired::Apply) };
    let pause = pause::change(&observed.of_role(found), &scaled_object, Some(keda));
    let status = match object {
        Desired::Apply(_) => status(observed, found, numbers.report(observed, &role.name)),
        Desired::Keep | Desired::Remove => Desired::Keep,
    };
    RolePlan {
        name: role.name.clone(),
        object_name: role.object_name.clone(),
        object,
        status,
        scaled_object,
        pause,
    }
}

fn target(observed: &Observed, role: &ResolvedRole, replicas: i32) -> ModelServingRole {
    let model_serving = &observed.model_serving;
    ModelServingRole {
        metadata: ObjectMeta {
            name: Some(role.object_name.clone()),
            namespace: model_serving.metadata.namespace.clone(),
            labels: Some(BTreeMap::from([(MANAGED_BY.to_owned(), OPERATOR.to_owned())])),
            owner_references: owner(model_serving).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: ModelServingRoleSpec {
            model_serving: model_serving.name().to_owned(),
            role: role.name.clone(),
            replicas,
        },
        status: None,
    }
}

/// The status, if it differs. Instances that were not counted stay as they were.
fn status(
    observed: &Observed,
    role: &ObservedRole,
    applied: (Status, &'static str, String),
) -> Desired<Box<RoleStatus>> {
    let Some(replicas) = observed.instances_of(role) else { return Desired::Keep };
    let status =
        RoleStatus { replicas, selector: selector(observed.model_serving.name(), &role.name), applied };
    if role.object.as_ref().is_some_and(|found| status.is_written(found)) {
        return Desired::Keep;
    }
    Desired::Apply(Box::new(status))
}

/// Selects the entry pod of each instance of a role, in all ServingGroups.
fn selector(model_serving: &str, role: &str) -> String {
    let label = |key: &str, value: &str| format!("modelserving.volcano.sh/{key}={value}");
    [label("entry", "true"), label("name", model_serving), label("role", role)].join(",")
}

/// The number of each role: in the ModelServing, as its scale target asks for it, and as it is to be.
struct Numbers(Vec<Number>);

struct Number {
    name: String,
    index: usize,
    current: i32,
    asked: i32,
    wanted: i32,
    is_known: bool,
}

impl Numbers {
    fn of(observed: &Observed, roles: &Roles) -> Self {
        let mut numbers: Vec<Number> = roles.iter().filter_map(|role| Number::of(observed, role)).collect();
        let asked: Vec<i32> = numbers.iter().map(|number| number.asked).collect();
        for (number, wanted) in numbers.iter_mut().zip(roles.within_bounds(&asked)) {
            number.wanted = wanted;
        }
        Self(numbers)
    }

    fn get(&self, role: &str) -> Option<&Number> {
        self.0.iter().find(|number| number.name == role)
    }

    /// Content of `spec.replicas` of the scale target, which the HPA alone changes once it exists.
    fn asked(&self, role: &str) -> i32 {
        self.get(role).map_or(1, |number| number.asked)
    }

    /// Numbers to write: none before the scale target of each role exists.
    fn changes(&self) -> Vec<RoleChange> {
        let is_known = self.0.iter().all(|number| number.is_known);
        let changed = self.0.iter().filter(|number| is_known && number.current != number.wanted);
        changed
            .map(|number| RoleChange {
                index: number.index,
                name: number.name.clone(),
                replicas: number.wanted,
            })
            .collect()
    }

    fn report(&self, observed: &Observed, role: &str) -> (Status, &'static str, String) {
        if let Some(rejection) = &observed.rejection {
            return (Status::False, "Rejected", rejection.clone());
        }
        let Some(number) = self.get(role) else {
            return (Status::Unknown, "Pending", "the role is not known".to_owned());
        };
        if number.current != number.wanted {
            let message = "the number is being carried over to the ModelServing".to_owned();
            return (Status::Unknown, "Pending", message);
        }
        let message = if number.wanted == number.asked {
            "the ModelServing has the number of the role"
        } else {
            "the ModelServing has another number than the HPA asks for, because of the bounds of the role or the ratio"
        };
        (Status::True, APPLIED, message.to_owned())
    }
}

impl Number {
    fn of(observed: &Observed, role: &RoleTarget) -> Option<Self> {
        let (index, count) = observed.model_serving.spec.template.role(&role.name)?;
        let found = observed.roles.iter().find(|found| found.name == role.name);
        let found = found.filter(|found| is_owned(observed, found));
        let asked = found.and_then(|found| found.object.as_ref()?.replicas);
        Some(Self {
            name: role.name.clone(),
            index,
            current: count.replicas,
            asked: asked.unwrap_or(count.replicas.max(1)),
            wanted: count.replicas,
            is_known: asked.is_some(),
        })
    }
}

/// The same model from the point of view of each role's ScaledObject.
pub(super) fn views(observed: &Observed, intent: &Intent) -> Vec<(String, Observed)> {
    let Some(roles) = &intent.roles else { return Vec::new() };
    let view = |role: &RoleTarget| {
        let absent = Observed { scaled_object: None, hpa: None, rejection: None, ..observed.clone() };
        let found = observed.roles.iter().find(|found| found.name == role.name);
        (role.name.clone(), found.map_or(absent, |found| observed.of_role(found)))
    };
    roles.iter().map(view).collect()
}

/// Rejections by the API server, and bad conditions of the ScaledObjects and HPAs of the roles.
pub(super) fn runtime_findings(observed: &Observed, intent: &Intent) -> Vec<Finding> {
    let rejection = observed.rejection.as_deref().map(Finding::rejected);
    let of_roles = views(observed, intent).into_iter().flat_map(|(role, view)| {
        let found = external_status::runtime_findings(&view, false);
        found.into_iter().map(move |finding| finding.of_role(&role))
    });
    rejection.into_iter().chain(of_roles).collect()
}

/// Notices of scaled roles.
pub(super) fn warnings(observed: &Observed) -> Vec<String> {
    let mut warnings = Vec::new();
    if groups_are_scaled(observed) {
        warnings.push(
            "the roles wait for the end of the ScaledObject and the HPA of the ServingGroups, because two HPAs that select the same pods stop each other".to_owned(),
        );
    }
    if let Some(manager) = &observed.roles_writer {
        let manager = shortened(manager);
        warnings.push(format!(
            "{manager} set spec.template.roles after their scaling began, which reverts the HPA's changes for a moment and deletes pods; leave replicas out of what {manager} writes, see docs/roles.md"
        ));
    }
    if observed.model_serving.replicas() == 0 {
        warnings.push(
            "spec.replicas is 0, so there is no ServingGroup whose roles could be scaled; set it to at least 1".to_owned(),
        );
    }
    warnings
}

/// Signals and bounds of roles.
pub(super) fn basis(roles: &Roles) -> String {
    let of = |role: &RoleTarget| {
        let names: Vec<&str> = role.signals.iter().map(|signal| signal.source.name()).collect();
        let (bounds, name): (ReplicaBounds, _) = (role.bounds, &role.name);
        format!("{name} on {}, from {} to {}", joined(&names), bounds.min(), bounds.max())
    };
    let parts: Vec<String> = roles.iter().map(of).collect();
    format!("the roles of each ServingGroup: {}", parts.join("; "))
}
