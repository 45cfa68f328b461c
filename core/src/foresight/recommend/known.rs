//! Measurements of a record that does not suffice for a recommendation.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;

use super::{
    Recommend, Refused,
    evidence::TARGET,
    objective::{CALM_FACTOR, Objective},
    value::short,
    windows::Windows,
};
use crate::{
    domain::printable,
    foresight::{
        backtest::Source,
        history::{HISTORY_API_VERSION, History, SeriesName},
        report::Slo,
    },
};

/// A measurement with its source. It holds for what was recorded, and supports no recommendation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Known {
    /// Name of the measurement.
    pub name: &'static str,
    /// Value in words.
    pub value: String,
    /// Source of the value.
    pub evidence: String,
}

/// Load of one step.
#[derive(Clone, Copy, Debug)]
struct Load {
    in_flight: f64,
    /// Requests that arrive per second.
    rate: Option<f64>,
    /// Requests in flight for each ready ServingGroup.
    per_group: Option<f64>,
}

/// Everything that a short record shows.
pub(super) fn known(ask: &Recommend<'_>, windows: &Windows) -> Vec<Known> {
    let Source::History(history) = ask.source else { return Vec::new() };
    let loads: Vec<Load> = loads(history).collect();
    let target = ask.current.requests_per_group();
    let service_time = ask.plant.service_time.is_none().then(|| service_time(&loads, target)).flatten();
    let found = [greatest_load(&loads), need(&loads, target), service_time, carried(ask, windows)];
    found.into_iter().flatten().collect()
}

fn loads(history: &History) -> impl Iterator<Item = Load> {
    let value = |name: SeriesName, step| history.series(&name).and_then(|series| series.get(step));
    (0..history.grid().steps()).filter_map(move |step| {
        let in_flight = value(SeriesName::InFlight, step).filter(|requests| *requests > 0.0)?;
        let ready = value(SeriesName::Ready, step).filter(|ready| *ready >= 1.0);
        let rate = value(SeriesName::Arrivals, step);
        Some(Load { in_flight, rate, per_group: ready.map(|ready| in_flight / ready) })
    })
}

fn greatest(values: impl Iterator<Item = f64>) -> Option<f64> {
    values.reduce(f64::max)
}

fn greatest_load(loads: &[Load]) -> Option<Known> {
    let most = greatest(loads.iter().map(|load| load.in_flight))?;
    let per_group = greatest(loads.iter().filter_map(|load| load.per_group));
    let for_each = match per_group {
        Some(per_group) => format!(", and {} for each ready ServingGroup", short(per_group)),
        None => "; the ready ServingGroups are not known".to_owned(),
    };
    Some(Known {
        name: "load",
        value: format!("up to {} requests in flight{for_each}", short(most)),
        evidence: format!("{} steps with requests", loads.len()),
    })
}

fn need(loads: &[Load], target: Option<f64>) -> Option<Known> {
    let target = target?;
    let most = greatest(loads.iter().map(|load| load.in_flight))?;
    Some(Known {
        name: "need",
        value: format!("up to {} ServingGroups", (most / target).ceil()),
        evidence: format!("requests in flight / {}, the target in force", short(target)),
    })
}

/// By Little's law, over the steps with at most the target for each ServingGroup.
fn service_time(loads: &[Load], target: Option<f64>) -> Option<Known> {
    let is_calm = |load: &&Load| load.per_group.zip(target).is_none_or(|(load, target)| load <= target);
    let calm = || loads.iter().filter(is_calm).filter_map(|load| Some((load.in_flight, load.rate?)));
    let (in_flight, rate) = calm().fold((0.0, 0.0), |sum, load| (sum.0 + load.0, sum.1 + load.1));
    (rate > 0.0).then(|| Known {
        name: "serviceTime",
        value: format!("about {} s", short(in_flight / rate)),
        evidence: format!(
            "requests in flight / arrivals in {} steps with at most the target; the rest of requests that still run is not in it",
            calm().count()
        ),
    })
}

/// Target by the capacity that is given, or by the greatest load up to which every window keeps the objective.
fn carried(ask: &Recommend<'_>, windows: &Windows) -> Option<Known> {
    if let Some(capacity) = ask.plant.slots {
        return Some(Known {
            name: "target",
            value: short(TARGET * capacity).to_string(),
            evidence: format!("0.8 of the capacity of {}, by --capacity", short(capacity)),
        });
    }
    let tail = |window: &super::windows::Window| window.per_group().zip(window.tail);
    let mut points: Vec<(f64, f64)> = windows.all.iter().filter_map(tail).collect();
    points.retain(|(load, tail)| *load > 0.0 && *tail > 0.0);
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (_, calm) = *points.first()?;
    let seconds = ask.objective.map_or(CALM_FACTOR * calm, Objective::seconds);
    let kept = points.iter().take_while(|(_, tail)| *tail <= seconds);
    let count = kept.clone().count();
    let (load, _) = *kept.last()?;
    let share = ask.objective.map_or(Slo::default().share, Objective::share) * 100.0;
    Some(Known {
        name: "target",
        value: format!("at least {}", short(TARGET * load)),
        evidence: format!(
            "0.8 of the load of {} for each ServingGroup, up to which p{share:.0} was {} s or less in all {count} windows",
            short(load),
            short(seconds)
        ),
    })
}

impl Refused {
    /// The measurements as text, with the remark that they are not enough.
    pub fn table(&self, model: &str) -> String {
        let mut text = format!("{}  known so far, not enough for a recommendation\n", printable(model));
        for Known { name, value, evidence } in &self.known {
            let _ = writeln!(text, "  {name}: {value} ({evidence})");
        }
        text
    }

    /// The reasons and the measurements as JSON.
    ///
    /// # Errors
    /// If they cannot be serialized.
    pub fn json(&self, model: &str) -> serde_json::Result<String> {
        serde_json::to_string_pretty(&json!({
            "apiVersion": HISTORY_API_VERSION, "kind": "Recommendation", "model": model,
            "refused": self.reasons, "known": self.known,
        }))
    }
}
