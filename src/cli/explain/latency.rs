//! Measurements of a latency signal.

use serde::Serialize;

use super::{PrometheusRoute, signals::value};
use kthena_keda_core::{
    intent::PrometheusSettings,
    plan::{ResolvedIntent, TriggerSpec},
    signals::{LatencySignal, Signal},
};

/// Measurements of a latency signal at this moment.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Latency {
    /// The duration that nine of ten requests are not to exceed.
    objective: String,
    /// The same in seconds.
    #[serde(skip)]
    objective_seconds: f64,
    /// Seconds that nine of ten requests took at most; absent without requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    p90_seconds: Option<f64>,
    /// ServingGroups that were ready throughout the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<f64>,
    /// ServingGroups that Prometheus knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<f64>,
    /// Lowest P90 of the last day while the engines had little to do, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    lowest_p90_seconds: Option<f64>,
}

impl Latency {
    /// `None` for a signal of another kind.
    pub(super) async fn measure(
        trigger: &TriggerSpec,
        resolved: &ResolvedIntent,
        settings: &PrometheusSettings,
        route: &PrometheusRoute,
    ) -> Option<Self> {
        let is_of_trigger =
            |signal: &&LatencySignal| trigger.name == Signal::Latency(signal.objective.latency()).name();
        let signal = resolved.triggers.latencies.iter().find(is_of_trigger)?;
        Some(Self {
            objective: signal.objective.to_string(),
            objective_seconds: f64::from(signal.objective.millis()) / 1000.0,
            p90_seconds: value(&signal.p90, settings, route).await,
            ready: value(&signal.ready, settings, route).await,
            groups: value(&signal.groups, settings, route).await,
            lowest_p90_seconds: value(&signal.lowest, settings, route).await,
        })
    }

    /// Lines of the text output.
    pub(super) fn describe(&self) -> Vec<String> {
        let p90 = self
            .p90_seconds
            .map_or_else(|| "no latency within the window".to_owned(), |p90| format!("P90 {p90:.3} s"));
        let (ready, groups) = (self.ready.unwrap_or_default(), self.groups.unwrap_or_default());
        let now = format!(
            "{p90}, objective {}; {ready} of {groups} ServingGroups ready throughout the window",
            self.objective
        );
        [Some(now), self.unattainable()].into_iter().flatten().collect()
    }

    /// The count stays at half of the objective, so an engine with one request must be faster than that.
    fn unattainable(&self) -> Option<String> {
        let lowest = self.lowest_p90_seconds.filter(|lowest| *lowest > self.objective_seconds / 2.0)?;
        Some(format!(
            "with little to do, the P90 was {lowest:.3} s or more in the last day, which is above half of the objective, so the model grows under any load; set the objective to {:.3} s or more",
            3.0 * lowest
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn measured(p90: Option<f64>, lowest: Option<f64>) -> Latency {
        Latency {
            objective: "2s".to_owned(),
            objective_seconds: 2.0,
            p90_seconds: p90,
            ready: Some(3.0),
            groups: Some(4.0),
            lowest_p90_seconds: lowest,
        }
    }

    #[rstest]
    #[case::fast(Some(1.0), "P90 0.500 s, objective 2s; 3 of 4 ServingGroups ready throughout the window")]
    #[case::never_with_little_to_do(
        None,
        "P90 0.500 s, objective 2s; 3 of 4 ServingGroups ready throughout the window"
    )]
    #[case::too_slow(
        Some(1.1),
        "P90 0.500 s, objective 2s; 3 of 4 ServingGroups ready throughout the window\nwith little to do, the P90 was 1.100 s or more in the last day, which is above half of the objective, so the model grows under any load; set the objective to 3.300 s or more"
    )]
    fn describes_a_latency(#[case] lowest: Option<f64>, #[case] expected: &str) {
        assert_eq!(measured(Some(0.5), lowest).describe().join("\n"), expected);
    }

    #[test]
    fn describes_an_unknown_latency() {
        let expected =
            "no latency within the window, objective 2s; 3 of 4 ServingGroups ready throughout the window";
        assert_eq!(measured(None, None).describe(), [expected]);
    }
}
