//! One sync of the HPA, rule by rule.

use std::fmt::Write as _;

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::rounded;
use crate::{
    domain::printable,
    foresight::{backtest::Pass, hpa::DecisionReason, settings::Settings},
};

/// One sync of the HPA, rule by rule.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// Time of the sync.
    pub at: String,
    /// `spec.replicas` before.
    pub spec: i32,
    /// `status.replicas`.
    pub status: i32,
    /// Triggers.
    pub triggers: Vec<TriggerPass>,
    /// Greatest proposal; `None` if no metric counts.
    pub proposal: Option<i32>,
    /// The same after the stabilization windows.
    pub stabilized: Option<i32>,
    /// Rule that set the result.
    pub reason: &'static str,
    /// Result.
    pub result: i32,
}

/// A trigger in one sync.
#[derive(Clone, Debug, Serialize)]
pub struct TriggerPass {
    /// Name.
    pub name: String,
    /// Value; `None` is an error of the query.
    pub value: Option<f64>,
    /// Amount that one ServingGroup carries.
    pub target: f64,
    /// ServingGroups that it asks for.
    pub proposal: Option<i32>,
}

impl Explained {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_wrap, reason = "bounded")]
    pub(in crate::foresight) fn new(pass: &Pass, settings: &Settings, start: i64) -> Self {
        let millis = start.saturating_mul(1000).saturating_add(pass.at.millis() as i64);
        let triggers = settings.triggers.iter().zip(settings.hpa.metrics()).enumerate();
        let trigger =
            |(index, (trigger, metric)): (usize, (&crate::foresight::settings::TriggerModel, _))| {
                let metric: &crate::foresight::spec::Metric = metric;
                TriggerPass {
                    name: trigger.name.clone(),
                    value: pass.values.get(index).copied().flatten().map(|value| rounded(value, 3)),
                    target: metric.target as f64 / 1000.0,
                    proposal: pass.proposals.get(index).copied().flatten(),
                }
            };
        Self {
            at: if start >= super::DATES {
                Timestamp::from_millisecond(millis).map(|time| time.to_string()).unwrap_or_default()
            } else {
                format!("{} s", pass.at.seconds() + start as f64)
            },
            spec: pass.spec,
            status: pass.status,
            triggers: triggers.map(trigger).collect(),
            proposal: pass.decision.proposal,
            stabilized: pass.decision.stabilized,
            reason: pass.decision.reason.into(),
            result: pass.decision.replicas,
        }
    }

    /// The sync as lines of text.
    pub fn text(&self) -> String {
        let mut text = format!("sync of the HPA at {}\n", self.at);
        let _ = writeln!(text, "  replicas      spec {}, status {}", self.spec, self.status);
        for trigger in &self.triggers {
            let value = trigger.value.map_or("no value".to_owned(), |value| value.to_string());
            let proposal = trigger.proposal.map_or("nothing".to_owned(), |it| it.to_string());
            let _ = writeln!(
                text,
                "  trigger       {}: {value}, target {} → {proposal}",
                printable(&trigger.name),
                trigger.target
            );
        }
        let number = |value: Option<i32>| value.map_or("none".to_owned(), |it| it.to_string());
        let _ = writeln!(text, "  proposal      {}", number(self.proposal));
        let _ = writeln!(text, "  stabilized    {}", number(self.stabilized));
        let _ = writeln!(text, "  limited by    {} ({})", self.reason, meaning(self.reason));
        let _ = writeln!(text, "  result        {}", self.result);
        text
    }
}

/// Meaning of a [`DecisionReason`] in words.
fn meaning(reason: &str) -> &'static str {
    let reasons = [
        (DecisionReason::Paused, "KEDA pauses all scaling, so there is no HPA"),
        (DecisionReason::ScalingDisabled, "the HPA leaves 0 replicas to KEDA"),
        (DecisionReason::AboveMaxReplicas, "above the maximum"),
        (DecisionReason::BelowMinReplicas, "below the minimum"),
        (DecisionReason::FailedGetExternalMetric, "a value is missing, so nothing changes"),
        (DecisionReason::ScaleUpStabilized, "a lower proposal within the scale-up window"),
        (DecisionReason::ScaleDownStabilized, "a higher proposal within the scale-down window"),
        (DecisionReason::ScaleUpLimit, "a scale-up policy"),
        (DecisionReason::TooManyReplicas, "the maximum"),
        (DecisionReason::ScaleDownLimit, "a scale-down policy"),
        (DecisionReason::TooFewReplicas, "the minimum"),
        (DecisionReason::DesiredWithinRange, "nothing"),
    ];
    let found = reasons.iter().find(|(found, _)| <&str>::from(*found) == reason);
    found.map_or("", |(_, meaning)| *meaning)
}
