//! Recommendation: settings that the past of a model speaks for.
//!
//! In: a history or a load, the settings in force and a function that plans changes of them. Out: a [`Recommendation`] with
//! each value, its evidence and its confidence, and a backtest of the settings that the search has chosen; or the reasons
//! for which there is none.

mod apply;
mod bounds;
mod capacity;
mod evidence;
mod known;
mod measure;
mod objective;
mod search;
mod stats;
#[cfg(test)]
mod tests;
mod text;
mod value;
mod values;
mod windows;

use serde::Serialize;

pub use self::{
    apply::{ApplyAs, lines},
    capacity::NoCapacity,
    known::Known,
    measure::NoServiceTime,
    objective::Objective,
    value::{Confidence, Value},
    windows::steps_per_window,
};
use self::{
    bounds::Need,
    evidence::Evidence,
    measure::StartsFrom,
    search::{Tried, eager, search, with_up},
};
use super::{
    backtest::{
        Backtest, Candidate, Fidelity, Periods, PlantOptions, Setup, Source, Unfit, first_replicas,
        scrape_phase,
    },
    fluid::FluidSpec,
    history::HISTORY_API_VERSION,
    overrides::Override,
    report::{Costs, Finding, Report, Slo},
    settings::Settings,
    time::Time,
    workload::Workload,
};
use crate::domain::Backlog;

/// Cold starts that are tried where none is known, in seconds.
const SENSITIVITY: [f64; 3] = [60.0, 300.0, 600.0];

/// A recommendation to make.
#[derive(Clone, Debug)]
pub struct Recommend<'a> {
    /// Name of the model.
    pub model: String,
    /// Requests.
    pub source: Source<'a>,
    /// Settings in force.
    pub current: &'a Settings,
    /// `true` if the router counts each request twice.
    pub counts_twice: bool,
    /// Bound on the backlog in force.
    pub backlog: Backlog,
    /// Objective; `None` is 1.5 times the durations while few requests are in flight.
    pub objective: Option<Objective>,
    /// Cold start, if it is given, in seconds.
    pub cold_start: Option<f64>,
    /// The fleet as far as it is given; its cold start is not used.
    pub plant: PlantOptions,
    /// Prices.
    pub costs: Costs,
    /// Custom signals may be taken as recorded although the fleet of a candidate differs.
    pub assume_independent: bool,
    /// Periods of the cluster.
    pub periods: Periods,
    /// Threads of the search.
    pub threads: usize,
}

/// Reasons for which there is no recommendation.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", .reasons.join("; "))]
pub struct Refused {
    /// Reasons with their remedies.
    pub reasons: Vec<String>,
    /// Measurements that the record has all the same.
    pub known: Vec<Known>,
}

impl Refused {
    fn because(reasons: Vec<String>) -> Self {
        Self { reasons, ..Self::default() }
    }
}

impl From<Unfit> for Refused {
    fn from(error: Unfit) -> Self {
        Self::because(vec![error.to_string()])
    }
}

/// Settings that the past of a model speaks for.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recommendation {
    api_version: &'static str,
    kind: &'static str,
    /// Model.
    pub model: String,
    /// Length of the record, in days.
    pub days: f64,
    /// The objective, and its source.
    pub objective: String,
    /// Each value with its evidence.
    pub values: Vec<Value>,
    /// Changes as of `--set`; none keeps the settings in force.
    pub changes: Vec<String>,
    /// Verdict, in words.
    pub verdict: String,
    /// Number of candidates that were simulated.
    pub candidates: usize,
    /// Settings that are not recommended, but possible.
    pub offers: Vec<String>,
    /// Remarks.
    pub findings: Vec<Finding>,
    /// The settings in force, and the recommended ones.
    pub backtest: Report,
}

/// Plans changes of the settings in force. The error is a text for users.
pub type Planner<'a> = &'a dyn Fn(&[Override]) -> Result<Settings, String>;

impl Recommend<'_> {
    /// Measures, searches and simulates.
    ///
    /// # Errors
    /// With every reason for which the data does not suffice.
    pub fn recommend(&self, plan: Planner<'_>) -> Result<Recommendation, Refused> {
        let evidence = Evidence::of(self)?;
        let workload = self.workload(&evidence)?;
        let per_group = evidence.target.or(self.current.requests_per_group()).unwrap_or(evidence.slots);
        let need = Need { grid: workload.grid(), groups: workload.need(per_group).collect() };
        let values = evidence.values(self, &need);
        let bases = bases(&values, self.current, plan);
        let rise = need.rise();
        let fast: Vec<Tried> = bases.iter().filter_map(|base| with_up(base, rise)).collect();
        let mut tried: Vec<Tried> = bases.into_iter().chain(fast).collect();
        let eager: Vec<Tried> = tried.iter().map(|tried| eager(tried, self.current)).collect();
        tried.extend(eager);
        // Refuses what cannot be simulated.
        let before = self.backtest(&evidence, &[], evidence.cold_start.usual)?;
        let history = if let Source::History(history) = self.source { Some(history) } else { None };
        let setup = Setup {
            workload: &workload,
            history,
            fleet: FluidSpec {
                slots: evidence.slots,
                cold_start: evidence.cold_start.usual,
                queue: self.plant.queue,
            },
            limit: evidence.slo.seconds,
            phase: before.fidelity.as_ref().map(Fidelity::best_phase).unwrap_or_default(),
            scrape_phase: history
                .map_or_else(Time::default, |history| scrape_phase(history, self.periods.scrape)),
            periods: self.periods,
            explain: None,
        };
        let (tried, found) =
            search(&setup, history.and_then(first_replicas), evidence.slo, tried, self.threads);
        let changes = tried.get(found.best).map(|tried| tried.changes.clone()).unwrap_or_default();
        let candidates = candidates(&changes, plan)?;
        let backtest = self.backtest(&evidence, &candidates, evidence.cold_start.usual)?;
        let mut findings = evidence.findings.clone();
        if evidence.cold_start.from == StartsFrom::Assumed {
            findings.extend(self.sensitivity(&evidence, &candidates)?);
        }
        if !found.keeps_objective {
            findings.push(Finding::new(
                "ObjectiveMissed",
                format!("no candidate keeps the objective, {} with the waiting of today; the one with the least waiting is shown. Requests arrive faster than ServingGroups load: raise min, shorten the cold start, or choose a longer --slo", evidence.objective),
            ));
        }
        findings.extend(scales_more_often(&backtest));
        let verdict = text::verdict(&backtest, &changes, evidence.days, found.keeps_objective);
        Ok(Recommendation {
            api_version: HISTORY_API_VERSION,
            kind: "Recommendation",
            model: self.model.clone(),
            days: value::short(evidence.days),
            objective: evidence.objective.clone(),
            values,
            changes,
            verdict,
            candidates: tried.len(),
            offers: evidence.offers(self, &need),
            findings,
            backtest,
        })
    }

    fn workload(&self, evidence: &Evidence) -> Result<Workload, Refused> {
        match self.source {
            Source::History(history) => {
                Workload::of_history(history, evidence.slots, Some(evidence.service_time.seconds))
                    .map_err(|error| Refused::because(vec![error.to_string()]))
            }
            Source::Load(workload) => Ok(workload.clone()),
        }
    }

    fn backtest(
        &self,
        evidence: &Evidence,
        candidates: &[Candidate],
        cold_start: f64,
    ) -> Result<Report, Unfit> {
        Backtest {
            model: self.model.clone(),
            source: self.source,
            current: self.current,
            candidates,
            fixed: &[],
            slo: evidence.slo,
            plant: PlantOptions {
                slots: Some(evidence.slots),
                cold_start,
                queue: self.plant.queue,
                service_time: Some(evidence.service_time.seconds),
            },
            costs: self.costs,
            periods: self.periods,
            explain: None,
            assume_independent: self.assume_independent,
        }
        .report()
    }

    /// Results with other cold starts, where none is known.
    fn sensitivity(&self, evidence: &Evidence, candidates: &[Candidate]) -> Result<Option<Finding>, Refused> {
        let mut results = Vec::new();
        for seconds in SENSITIVITY {
            let report = self.backtest(evidence, candidates, seconds)?;
            if let Some(run) = report.runs.last() {
                results.push(format!(
                    "{:.0} min: {:.0} group-hours, {:.2} % waiting",
                    seconds / 60.0,
                    run.group_hours,
                    run.waiting.over * 100.0
                ));
            }
        }
        let message = format!(
            "the result depends on the cold start, which is not known: with {}",
            results.join("; with ")
        );
        Ok((!results.is_empty()).then(|| Finding::new("ColdStartUnknown", message)))
    }
}

/// Settings with the measured values, from which the search starts. The first are those in force.
fn bases(values: &[Value], current: &Settings, plan: Planner<'_>) -> Vec<Tried> {
    let change = |name: &str| {
        let value = values.iter().find(|value| value.name == name)?;
        let evident = value.evident.as_ref().filter(|evident| value.now.as_ref() != Some(evident))?;
        Some(format!("{name}={evident}"))
    };
    // The bound on the backlog is one change; the minimum is one with the others, since all steps need it.
    let backlog: Vec<String> = change("serviceTime").into_iter().chain(change("drainTime")).collect();
    let optional: Vec<Vec<String>> =
        [change("target").into_iter().collect(), backlog, change("max").into_iter().collect()]
            .into_iter()
            .filter(|changes: &Vec<String>| !changes.is_empty())
            .collect();
    let min = change("min");
    let mut found = vec![Tried { changes: Vec::new(), settings: current.clone() }];
    for selected in 0..1_usize << optional.len() {
        let selected = optional.iter().enumerate().filter(|(index, _)| selected >> index & 1 == 1);
        let changes: Vec<String> = selected.flat_map(|(_, changes)| changes).chain(&min).cloned().collect();
        // Bounds that exclude each other are no candidate.
        if !changes.is_empty()
            && let Ok(settings) = planned(&changes, plan)
        {
            found.push(Tried { changes, settings });
        }
    }
    found
}

fn candidates(changes: &[String], plan: Planner<'_>) -> Result<Vec<Candidate>, Refused> {
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let settings = planned(changes, plan)?;
    Ok(vec![Candidate { name: "recommended".to_owned(), settings }])
}

fn planned(changes: &[String], plan: Planner<'_>) -> Result<Settings, Refused> {
    let changes: Result<Vec<Override>, _> = changes.iter().map(|change| change.parse()).collect();
    let changes = changes.map_err(|error| Refused::because(vec![error.to_string()]))?;
    plan(&changes).map_err(|error| Refused::because(vec![error]))
}

impl Recommendation {
    /// The recommendation as JSON.
    ///
    /// # Errors
    /// If it cannot be serialized.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

/// A remark on settings that remove ServingGroups much more often, which ends streams.
fn scales_more_often(backtest: &Report) -> Option<Finding> {
    let run = |name: &str| backtest.runs.iter().find(|run| run.name == name);
    let (before, after) = (run("now")?, run("recommended")?);
    (after.changes > 2 * before.changes).then(|| {
        let message = format!(
            "the number of ServingGroups changes {} times instead of {}, and removals end {:.0} streams instead of {:.0}; see docs/draining.md, or set a longer scaleDown.stabilizationWindow",
            after.changes, before.changes, after.cut, before.cut
        );
        Finding::new("ScalesMoreOften", message)
    })
}

/// Objective for the waiting time that follows from one for durations.
fn waiting_slo(share: f64, seconds: f64) -> Slo {
    Slo { share, seconds: value::short(seconds.max(0.1)) }
}
