//! Decisions of [`plan`], as tables over a [`Fixture`].

mod booster;
mod hostile;
mod latency;
mod objects;
mod pause;
mod reasons;
mod roles;
mod routing;
mod scaled_object;
mod service_time;
mod shadow;
mod stand_in;
mod triggers;
mod unread;
mod verdicts;

use super::{Desired, Explanation, Plan, Verdict, plan};
use crate::{api::keda::ScaledObject, observed::fixture::Fixture};

fn planned(fixture: &Fixture) -> Plan {
    plan(&fixture.observed(), fixture.capabilities, &fixture.defaults)
}

fn explained(fixture: &Fixture) -> (Plan, Explanation) {
    let plan = planned(fixture);
    let explanation = plan.explanation.clone().unwrap();
    (plan, explanation)
}

fn verdict(fixture: &Fixture) -> Verdict {
    explained(fixture).1.verdict
}

fn applied(fixture: &Fixture) -> Box<ScaledObject> {
    let plan = planned(fixture);
    match plan.scaled_object {
        Desired::Apply(scaled_object) => scaled_object,
        Desired::Keep | Desired::Remove => panic!("no ScaledObject is applied: {:?}", plan.findings),
    }
}

/// `apply`, `keep` or `remove`.
pub(super) const fn action<T>(desired: &Desired<T>) -> &'static str {
    match desired {
        Desired::Apply(_) => "apply",
        Desired::Keep => "keep",
        Desired::Remove => "remove",
    }
}
