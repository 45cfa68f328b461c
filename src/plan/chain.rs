//! The chain from an annotation to pods, link by link: what `explain` shows.
//!
//! In: what is there, and the plan that was made of it. Out: a line for each link up to the one that is broken, by the same verdict as
//! the condition.

use super::{Explanation, Finding, Plan, Reason};
use crate::observed::{Observed, about};

/// One link of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What it is.
    pub name: &'static str,
    /// Whether it holds.
    pub state: LinkState,
    /// What is seen there, or what is wrong and what to do.
    pub says: String,
}

/// Whether a link holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// It does.
    Holds,
    /// It does not, and that is why the model is not scaled.
    Broken,
    /// It does not, because of something else that is broken, or beside it.
    Affected,
    /// Nobody can tell yet.
    Unknown,
}

/// Every link, in the order of the chain, and the reasons for which it is broken.
const LINKS: [(&str, &[Reason]); 10] = [
    ("annotations", &[Reason::InvalidConfiguration]),
    ("profile", &[Reason::ProfileNotFound, Reason::PrometheusNotConfigured]),
    ("demand", &[Reason::SharedModelName, Reason::CannotWakeFromZero]),
    ("other autoscalers", &[Reason::ConflictingAutoscaler, Reason::NameConflict]),
    ("cluster", &[Reason::KedaNotInstalled, Reason::ScaleSubresourceMissing]),
    ("selector", &[Reason::SelectorMismatch]),
    ("ScaledObject", &[Reason::ScaledObjectNotReady]),
    ("HPA", &[Reason::HpaNotScaling]),
    ("scraping", &[Reason::RouterNotScraped, Reason::EngineNotScraped]),
    ("model", &[Reason::ModelNotSeen]),
];

/// The links up to the first that is broken; all of them where none is.
pub fn chain(observed: &Observed, plan: &Plan, explanation: &Explanation) -> Vec<Link> {
    let wrong: Vec<&Finding> = plan.findings.iter().chain(&explanation.troubles).collect();
    let mut links = Vec::new();
    for (name, reasons) in LINKS {
        let found = wrong.iter().find(|finding| reasons.contains(&finding.reason));
        let link = match found {
            Some(finding) => {
                let is_it = finding.reason.as_str() == explanation.verdict.reason;
                let state = if is_it { LinkState::Broken } else { LinkState::Affected };
                Link { name, state, says: finding.message.clone() }
            }
            None => sound(name, observed, explanation),
        };
        let is_broken = link.state == LinkState::Broken;
        links.push(link);
        if is_broken {
            break;
        }
    }
    links
}

/// What there is to see of a link that nobody complains about.
fn sound(name: &'static str, observed: &Observed, explanation: &Explanation) -> Link {
    let holds = |says: String| Link { name, state: LinkState::Holds, says };
    let unknown = |says: &str| Link { name, state: LinkState::Unknown, says: says.to_owned() };
    let asked = explanation.asked.as_ref();
    let told = |kind| observed.scaled_object.as_ref().and_then(|found| about(&found.told, kind));
    match name {
        "annotations" => holds(format!("kthena.io/model-name: {}", observed.model_serving.model_names().collect::<Vec<_>>().join(","))),
        "profile" => match (&observed.profile, asked) {
            (Some(Ok(_)), _) => holds(format!("AutoscalingProfile {}", observed.model_serving.profile())),
            (None, Some(_)) => holds("built-in defaults".to_owned()),
            _ => unknown("not known"),
        },
        "demand" => match asked {
            Some(asked) => {
                let names: Vec<&str> = asked.triggers.questions.iter().map(|question| question.name.as_str()).collect();
                let replicas = asked.intent.replicas;
                holds(format!("{}, from {} to {} ServingGroups", names.join(", "), replicas.min(), replicas.max()))
            }
            None => unknown("not known"),
        },
        "other autoscalers" => holds("none".to_owned()),
        "cluster" => holds("serves ScaledObjects and modelservings/scale".to_owned()),
        "selector" => match observed.model_serving.label_selector() {
            Some(selector) => holds(selector.to_owned()),
            None => unknown("status.labelSelector is empty; it is filled before a ScaledObject is applied"),
        },
        "ScaledObject" => match told("Ready") {
            Some(ready) => holds(format!("KEDA says {}", ready.reason)),
            None => unknown("KEDA has not reported yet"),
        },
        "HPA" => match observed.hpa.as_ref().map(|hpa| about(&hpa.told, "ScalingActive")) {
            Some(Some(active)) => holds(format!("ScalingActive: {}", active.reason)),
            Some(None) => unknown("the HPA controller has not reported yet"),
            None => unknown("KEDA has not made it yet"),
        },
        "scraping" => match &explanation.check {
            Some(why) => unknown(why),
            None => holds("Prometheus has data of what is measured".to_owned()),
        },
        _ => match observed.routing.unrouted.as_slice() {
            [] if observed.routing.is_known => holds("a ModelRoute carries its name".to_owned()),
            [] => holds("the router was asked for it".to_owned()),
            some => holds(format!("no ModelRoute carries {}", some.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", "))),
        },
    }
}
