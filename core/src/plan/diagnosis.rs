//! The chain from an annotation to pods, link by link, as `explain` shows it.
//!
//! In: [`Observed`] and its [`Plan`]. Out: a line for each link up to the broken one, from the same findings
//! as the condition.

use strum::VariantArray as _;

use super::{
    Explanation, Finding, Plan, ResolvedIntent, StandInState, booster, demand::depends_on_names,
    external_status, finding::listed, roles, shadow, verdict,
};
use crate::{
    api::annotations::MODEL_NAME,
    domain::{ChainLink, VerdictReason, cut, printable, shortened},
    intent::Intent,
    observed::{ConditionDigest, Observed, ShadowState, find_condition},
};

/// Longest evidence of one link, in bytes.
const DETAIL_MAX: usize = 1400;

/// One link of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Place in the chain.
    pub link: ChainLink,
    /// State of the link.
    pub state: LinkState,
    /// Evidence that it holds, or the problem and its remedy.
    pub detail: String,
}

/// State of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// The link holds.
    Holds,
    /// The link is broken, and its reason is that of the condition.
    Broken,
    /// The link is broken as well: by the same cause, or by another one.
    Affected,
    /// The state is not known yet.
    Unknown,
}

/// The links up to the first broken one; all of them where none is broken.
pub fn diagnose(observed: &Observed, plan: &Plan, explanation: &Explanation) -> Vec<Link> {
    let mut links = Vec::new();
    for link in ChainLink::VARIANTS {
        if *link == ChainLink::StandIn && plan.stand_in.state == StandInState::Off {
            continue;
        }
        if let Some(of_roles) = links_of_roles(*link, observed, plan, explanation) {
            let is_broken = of_roles.iter().any(|link| link.state == LinkState::Broken);
            links.extend(of_roles);
            if is_broken {
                break;
            }
            continue;
        }
        let mut findings = plan.findings.iter().chain(&explanation.runtime_findings);
        let link = match findings.find(|finding| finding.reason.link() == *link) {
            Some(finding) => broken(*link, finding, explanation),
            None => describe_healthy(*link, observed, plan, explanation),
        };
        let is_broken = link.state == LinkState::Broken;
        links.push(link);
        if is_broken {
            break;
        }
    }
    links
}

/// A link for the ScaledObject and for the HPA of each role; `None` for the links that all roles share, and where a problem
/// concerns all of them.
fn links_of_roles(
    link: ChainLink,
    observed: &Observed,
    plan: &Plan,
    explanation: &Explanation,
) -> Option<Vec<Link>> {
    let intent = &explanation.resolved.as_ref()?.intent;
    let is_of_each = matches!(link, ChainLink::ScaledObject | ChainLink::Hpa);
    if intent.roles.is_none() || !is_of_each || !plan.findings.is_empty() || observed.rejection.is_some() {
        return None;
    }
    let of_role = |(role, view): (String, Observed)| {
        let mut findings = external_status::runtime_findings(&view, false).into_iter();
        if let Some(finding) = findings.find(|finding| finding.reason.link() == link) {
            return broken(link, &finding.of_role(&role), explanation);
        }
        let healthy = describe_healthy(link, &view, plan, explanation);
        Link { detail: format!("role {}: {}", shortened(&role), healthy.detail), ..healthy }
    };
    Some(roles::views(observed, intent).into_iter().map(of_role).collect())
}

fn broken(link: ChainLink, finding: &Finding, explanation: &Explanation) -> Link {
    let is_the_reason = explanation.verdict.reason == VerdictReason::from(finding.reason);
    let state = match is_the_reason {
        _ if finding.reason.is_unknown() => LinkState::Unknown,
        true => LinkState::Broken,
        false => LinkState::Affected,
    };
    Link { link, state, detail: finding.message.clone() }
}

/// The evidence that a link without a finding holds.
fn describe_healthy(link: ChainLink, observed: &Observed, plan: &Plan, explanation: &Explanation) -> Link {
    let is_shadowed = observed.model_serving.is_in_shadow();
    let (state, detail) = match link {
        ChainLink::ScaledObject if is_shadowed => holds("none on purpose, in shadow"),
        ChainLink::Hpa if is_shadowed => in_shadow(observed),
        ChainLink::Annotations => annotations(observed),
        ChainLink::Profile => profile(observed, explanation.resolved.as_ref()),
        ChainLink::Demand => demand(explanation.resolved.as_ref()),
        ChainLink::OtherAutoscalers => other_autoscalers(observed),
        ChainLink::Cluster => holds("the cluster serves ScaledObjects and modelservings/scale"),
        ChainLink::Selector => selector(observed),
        ChainLink::ScaledObject => scaled_object(observed),
        ChainLink::Hpa => hpa(observed, explanation.resolved.as_ref().map(|resolved| &resolved.intent)),
        ChainLink::Scraping => scraping(explanation),
        ChainLink::Model => model(observed, explanation),
        ChainLink::StandIn => stand_in(observed, &plan.stand_in.state),
    };
    Link { link, state, detail: cut(&printable(&detail), DETAIL_MAX).into_owned() }
}

fn holds(detail: impl Into<String>) -> (LinkState, String) {
    (LinkState::Holds, detail.into())
}

fn unknown(detail: impl Into<String>) -> (LinkState, String) {
    (LinkState::Unknown, detail.into())
}

fn annotations(observed: &Observed) -> (LinkState, String) {
    let model_serving = &observed.model_serving;
    if let Some(unread) = booster::unread(model_serving) {
        return unknown(unread.message);
    }
    let names = model_serving.model_names().map(shortened).collect::<Vec<_>>().join(",");
    let booster = model_serving.booster.as_deref().filter(|_| !model_serving.has_own_model_name());
    let source = booster.map(|booster| format!(", from the ModelBooster {}", shortened(&booster.name)));
    holds(format!("{MODEL_NAME}: {names}{}", source.unwrap_or_default()))
}

fn profile(observed: &Observed, resolved: Option<&ResolvedIntent>) -> (LinkState, String) {
    if let (None, Some(unread)) = (&observed.profile, observed.readable.unread_profiles()) {
        return unknown(format!("not known: {} could not be read", unread.plural));
    }
    match (&observed.profile, resolved) {
        (Some(Ok(_)), _) => holds(format!("AutoscalingProfile {}", observed.model_serving.profile())),
        (None, Some(_)) => holds("built-in defaults"),
        _ => unknown("not known: annotations or profile are invalid"),
    }
}

fn demand(resolved: Option<&ResolvedIntent>) -> (LinkState, String) {
    let Some(ResolvedIntent { intent, triggers, .. }) = resolved else {
        return unknown("not known: the settings are invalid or could not be read");
    };
    if let Some(roles) = &intent.roles {
        return holds(roles::basis(roles));
    }
    let names: Vec<&str> = triggers.triggers.iter().map(|trigger| trigger.name.as_str()).collect();
    holds(format!(
        "{}; {} to {} ServingGroups",
        names.join(", "),
        intent.replicas.min(),
        intent.replicas.max()
    ))
}

fn other_autoscalers(observed: &Observed) -> (LinkState, String) {
    let unread: Vec<String> =
        observed.readable.unread_conflicts().map(|unread| unread.plural.into_owned()).collect();
    if observed.model_serving.is_in_shadow()
        && let scaling = shadow::scaled_by(observed)
        && !scaling.is_empty()
    {
        return holds(format!("in shadow beside {}", shadow::names(&scaling)));
    }
    if unread.is_empty() {
        return holds("no other autoscaler");
    }
    unknown(format!("none found, but {} could not be read", unread.join(", ")))
}

fn selector(observed: &Observed) -> (LinkState, String) {
    match observed.model_serving.label_selector() {
        Some(selector) => holds(selector),
        None => {
            unknown("status.labelSelector is empty; the operator fills it before it applies the ScaledObject")
        }
    }
}

/// The simulation in place of an HPA.
fn in_shadow(observed: &Observed) -> (LinkState, String) {
    match observed.shadow {
        ShadowState::Observed(range) => {
            holds(format!("the operator decides in its place: would have held {range}"))
        }
        state @ ShadowState::BeyondLimit(_) => unknown(state.to_string()),
        ShadowState::Starting => unknown("the operator has decided nothing in its place yet"),
    }
}

fn scaled_object(observed: &Observed) -> (LinkState, String) {
    if observed.scaled_object.is_none() {
        return match observed.readable.unread_scaled_objects() {
            Some(unread) => unknown(format!("not known: {} could not be read", unread.plural)),
            None => unknown("there is no ScaledObject yet"),
        };
    }
    match observed.scaled_object.as_ref().and_then(|found| find_condition(&found.conditions, "Ready")) {
        Some(ready) => holds(format!("KEDA reports Ready: {}", ready.reason)),
        None => unknown("KEDA has not reported yet"),
    }
}

fn hpa(observed: &Observed, intent: Option<&Intent>) -> (LinkState, String) {
    // KEDA deletes the HPA of a paused ScaledObject.
    if let Some(pause) = verdict::pause(observed, intent) {
        return holds(pause);
    }
    let Some(hpa) = &observed.hpa else {
        return match observed.readable.unread_hpas() {
            Some(unread) => unknown(format!("not known: {} could not be read", unread.plural)),
            None => unknown("KEDA has not created the HPA yet"),
        };
    };
    match find_condition(&hpa.conditions, "ScalingActive") {
        Some(ConditionDigest { reason, .. }) => holds(format!("the HPA reports ScalingActive: {reason}")),
        None => unknown("the HPA controller has not reported yet"),
    }
}

fn scraping(explanation: &Explanation) -> (LinkState, String) {
    match &explanation.probe_error {
        Some(error) => unknown(error),
        None => holds(
            "Prometheus scrapes the router, and the engines if signals need them; custom queries are not checked",
        ),
    }
}

fn stand_in(observed: &Observed, state: &StandInState) -> (LinkState, String) {
    let name = observed.model_serving.stand_in_name();
    let pod = observed.stand_in.pod.as_ref();
    match (state, pod) {
        (StandInState::Off, _) => holds("the settings ask for none"),
        (StandInState::Refused(refusal), _) => {
            (LinkState::Affected, format!("requests at zero are not held: {}", refusal.message()))
        }
        (StandInState::Kept(reason), _) => unknown(reason),
        (StandInState::Idle, None) => holds("ServingGroups serve the requests"),
        (StandInState::Idle, Some(_)) => {
            holds(format!("ServingGroups serve the requests, and the pod {name} goes soon"))
        }
        (StandInState::Holds, None) => unknown(format!("there is no pod {name} yet")),
        (StandInState::Holds, Some(pod)) if pod.is_ready => {
            holds(format!("the pod {name} holds requests until a ServingGroup is ready"))
        }
        (StandInState::Holds, Some(pod)) if pod.is_running => {
            unknown(format!("the pod {name} runs, and is not ready yet"))
        }
        (StandInState::Holds, Some(_)) => unknown(format!("the pod {name} does not run yet")),
    }
}

fn model(observed: &Observed, explanation: &Explanation) -> (LinkState, String) {
    let routing = &observed.routing;
    let here: Vec<&str> =
        routing.names.iter().filter(|name| name.leads_here()).map(|name| name.name.as_str()).collect();
    if !here.is_empty() {
        return holds(format!("ModelRoutes lead requests for {} to this model", listed(&here)));
    }
    let depends = explanation.resolved.as_ref().is_none_or(|resolved| depends_on_names(&resolved.intent));
    match routing.unrouted().as_slice() {
        _ if !depends => holds("no signal depends on the model name"),
        [] if routing.is_known => holds("a ModelRoute carries the model name"),
        [] if explanation.probe_error.is_some() => {
            unknown("no ModelRoute kind is served, and Prometheus did not answer")
        }
        [] => holds("the router has received requests for the model name"),
        unrouted => {
            let names: Vec<String> = unrouted.iter().map(|name| shortened(&name.name)).collect();
            let names = names.join(", ");
            match explanation.probe_error {
                Some(_) => unknown(format!("no ModelRoute carries {names}, and Prometheus did not answer")),
                None => holds(format!("requests are answered, although no ModelRoute carries {names}")),
            }
        }
    }
}
