//! Backtest: settings on recorded values, and candidates on the same requests.
//!
//! In: settings read back from planned ScaledObjects, and a history or a load. Out: a [`Report`]. The replay of the
//! settings in force on the recorded values of their own queries is exact and comes first: its agreement with the
//! recorded replicas shows how far the rest can be trusted.

mod clock;
mod replay;
#[cfg(test)]
mod tests;
mod what_if;

pub use clock::Pass;
pub(super) use replay::first_replicas;
pub use replay::{Fidelity, PhaseResult};
pub use what_if::{Outcome, StepState};
pub(super) use what_if::{Setup, autoscaled, scrape_phase};

use super::{
    fluid::FluidSpec,
    history::{History, MISSING_MAX, MISSING_WARNING},
    report::{Assumptions, Costs, Data, Explained, Finding, Report, RunReport, RunSettings, Slo},
    settings::{Settings, TriggerModel},
    time::Time,
    workload::{Workload, WorkloadError},
};
use k8s_openapi::jiff::Timestamp;

use crate::domain::listed;

/// Most ServingGroups of a static run that are tried.
const STATIC_MAX: u32 = 4096;
/// Requests that one ServingGroup serves at once, as a multiple of the target, where they are not given.
const SLOTS_PER_TARGET: f64 = 1.25;

/// Share of the steps that a replay is to have in common with the record.
const EQUAL_MIN: f64 = 0.95;

/// Source of the requests.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// Recorded values.
    History(&'a History),
    /// Given requests.
    Load(&'a Workload),
}

/// Settings with a name.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Name in the report.
    pub name: String,
    /// Settings.
    pub settings: Settings,
}

/// A backtest.
#[derive(Clone, Debug)]
pub struct Backtest<'a> {
    /// Name of the model in the report.
    pub model: String,
    /// Requests.
    pub source: Source<'a>,
    /// Settings in force.
    pub current: &'a Settings,
    /// Settings to compare them with.
    pub candidates: &'a [Candidate],
    /// Fixed numbers of ServingGroups; `None` is the least number that meets the objective.
    pub fixed: &'a [Option<u32>],
    /// Objective for the waiting time.
    pub slo: Slo,
    /// The fleet.
    pub plant: PlantOptions,
    /// Prices.
    pub costs: Costs,
    /// Periods of the cluster.
    pub periods: Periods,
    /// Time since the start whose sync is explained.
    pub explain: Option<Time>,
    /// Custom signals may be taken as recorded although the fleet of a candidate differs.
    pub assume_independent: bool,
}

/// Periods of a cluster, which no ScaledObject states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Periods {
    /// Period of the HPA's syncs, `--horizontal-pod-autoscaler-sync-period` of the cluster.
    pub sync: Time,
    /// Interval between scrapes of the router.
    pub scrape: Time,
}

impl Default for Periods {
    /// Those of Kubernetes and of the built-in profile.
    fn default() -> Self {
        Self { sync: Time::from_seconds(15), scrape: Time::from_seconds(15) }
    }
}

/// Properties of the fleet, as far as they are given.
#[derive(Clone, Copy, Debug)]
pub struct PlantOptions {
    /// Requests that one ServingGroup serves at once; `None` is 1.25 times the target of requests.
    pub slots: Option<f64>,
    /// Time until a new ServingGroup is ready, in seconds.
    pub cold_start: f64,
    /// Place where requests wait.
    pub queue: super::fleet::Queue,
    /// Time that one request takes without waiting, in seconds; `None` is measured.
    pub service_time: Option<f64>,
}

/// Cause for which there is no result.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Unfit {
    /// Too many steps without an answer.
    #[error(
        "{:.0} % of the steps have no value of a trigger, and at most {:.0} % may; choose a time in which Prometheus scraped the router{}",
        share * 100.0,
        MISSING_MAX * 100.0,
        first.as_ref().map(|first| format!("; the first value is of {first}")).unwrap_or_default()
    )]
    Missing {
        /// Share of the steps, 0 to 1.
        share: f64,
        /// Time of the first value.
        first: Option<String>,
    },
    /// The recorded values are those of another query.
    #[error(
        "the recorded values of the trigger {0} are of another query than the settings have; leave out the model and -f to replay the settings of the file, or record the history again"
    )]
    Query(String),
    /// The requests are not known.
    #[error(transparent)]
    Requests(#[from] WorkloadError),
    /// The capacity of a ServingGroup is not known.
    #[error(
        "the requests that one ServingGroup serves at once are not known, since no signal counts requests; pass --capacity"
    )]
    Capacity,
    /// Values of triggers do not follow from requests.
    #[error(
        "values of {0} do not follow from requests, so they would differ with another fleet; set other signals with --set signals=..., or pass --assume-independent to take them as recorded"
    )]
    Signals(String),
    /// Values of triggers do not follow from requests, and none are recorded.
    #[error("values of {0} do not follow from requests; set other signals with --set signals=...")]
    SignalsOfLoad(String),
    /// Values of triggers do not follow from requests, and the record has none of these queries.
    #[error(
        "no values were recorded for this query of {0}, and they do not follow from requests; leave its objective or query as it was recorded, or set other signals with --set signals=..."
    )]
    NotRecorded(String),
    /// No number of ServingGroups meets the objective.
    #[error("no number of ServingGroups up to {STATIC_MAX} meets the objective {0}; pass --compare static=N")]
    Static(String),
}

/// Checks that the record has values of triggers that do not follow from requests.
fn check_recorded(history: &History, unknown: &[&TriggerModel]) -> Result<(), Unfit> {
    let is_recorded = |trigger: &TriggerModel| what_if::recorded_values(history, trigger).is_some();
    let missing = unknown.iter().filter(|trigger| !is_recorded(trigger));
    let missing: Vec<&str> = missing.map(|trigger| trigger.name.as_str()).collect();
    if missing.is_empty() { Ok(()) } else { Err(Unfit::NotRecorded(listed(&missing, 4))) }
}

impl Backtest<'_> {
    /// Simulates everything.
    ///
    /// # Errors
    /// If the data does not suffice.
    pub fn report(&self) -> Result<Report, Unfit> {
        match self.source {
            Source::History(history) => self.of_history(history),
            Source::Load(workload) => self.of_load(workload),
        }
    }

    fn of_history(&self, history: &History) -> Result<Report, Unfit> {
        let missing = history.missing(self.current.triggers.iter().map(|trigger| trigger.name.as_str()));
        if missing > MISSING_MAX {
            let first = history.first_value().and_then(|first| Timestamp::from_second(first).ok());
            return Err(Unfit::Missing { share: missing, first: first.map(|first| first.to_string()) });
        }
        let is_other = |trigger: &&TriggerModel| history.query(&trigger.name) != Some(&trigger.query);
        if let Some(trigger) = self.current.triggers.iter().find(is_other) {
            return Err(Unfit::Query(listed(&[&trigger.name], 1)));
        }
        let fidelity = replay::fidelity(history, self.current, self.periods.sync);
        let phase = fidelity.as_ref().map(Fidelity::best_phase).unwrap_or_default();
        let mut findings = self.data_findings(history, missing, fidelity.as_ref());
        let slots = self.slots()?;
        let wants_more = !self.candidates.is_empty() || !self.fixed.is_empty();
        let workload = match Workload::of_history(history, slots, self.plant.service_time) {
            Ok(workload) => Some(workload),
            Err(error) if wants_more => return Err(error.into()),
            Err(error) => {
                findings.push(Finding::new("RequestsUnknown", error.to_string()));
                None
            }
        };
        let mut runs = Vec::new();
        if let Some(workload) = &workload {
            let setup = self.setup(workload, Some(history), slots, phase);
            runs.extend(what_if::recorded(&setup).map(|outcome| self.run("actual", None, outcome)));
            let first = replay::first_replicas(history);
            self.autoscaled(&setup, first, &mut runs)?;
            self.fixed(&setup, &mut runs)?;
        }
        let explained = self.explain.and_then(|time| {
            let (_, pass) = replay::replay(history, self.current, (self.periods.sync, phase), Some(time));
            pass.map(|pass| Explained::new(&pass, self.current, history.grid().start()))
        });
        let data = Data { steps: history.grid().steps(), missing, phases: self.phases() };
        let need = workload.as_ref().map(|workload| self.need(workload)).unwrap_or_default();
        let assumptions = self.assumptions(slots, workload.as_ref());
        Ok(Report::new(&self.model, history.grid(), data, assumptions, self.slo)
            .with_runs(fidelity, runs, findings, need)
            .with_explanation(explained))
    }

    fn of_load(&self, workload: &Workload) -> Result<Report, Unfit> {
        let slots = self.slots()?;
        let setup = self.setup(workload, None, slots, Time::default());
        let mut runs = Vec::new();
        self.autoscaled(&setup, None, &mut runs)?;
        self.fixed(&setup, &mut runs)?;
        let explained = self.explain.and_then(|time| {
            let outcome = what_if::autoscaled(&Setup { explain: Some(time), ..setup }, self.current, None);
            outcome.pass.map(|pass| Explained::new(&pass, self.current, workload.grid().start()))
        });
        let steps = workload.grid().steps();
        let gaps = (0..steps).filter(|step| workload.inflow(*step).is_none()).count();
        #[allow(clippy::cast_precision_loss, reason = "bounded")]
        let missing = gaps as f64 / steps as f64;
        let findings = self.setting_findings().collect();
        let data = Data { steps, missing, phases: vec![0.0] };
        Ok(Report::new(&self.model, workload.grid(), data, self.assumptions(slots, Some(workload)), self.slo)
            .with_runs(None, runs, findings, self.need(workload))
            .with_explanation(explained))
    }

    /// Phases that were tried, in seconds.
    fn phases(&self) -> Vec<f64> {
        replay::phases(self.periods.sync).map(Time::seconds).collect()
    }

    fn slots(&self) -> Result<f64, Unfit> {
        let by_target = self.current.requests_per_group().map(|target| target * SLOTS_PER_TARGET);
        self.plant.slots.or(by_target).ok_or(Unfit::Capacity)
    }

    fn setup<'a>(
        &self,
        workload: &'a Workload,
        history: Option<&'a History>,
        slots: f64,
        phase: Time,
    ) -> Setup<'a> {
        let fleet = FluidSpec { slots, cold_start: self.plant.cold_start, queue: self.plant.queue };
        Setup {
            workload,
            history,
            fleet,
            limit: self.slo.seconds,
            phase,
            scrape_phase: history
                .map_or_else(Time::default, |history| what_if::scrape_phase(history, self.periods.scrape)),
            periods: self.periods,
            explain: None,
        }
    }

    /// Runs the settings in force and the candidates.
    fn autoscaled(
        &self,
        setup: &Setup<'_>,
        first: Option<i32>,
        runs: &mut Vec<RunReport>,
    ) -> Result<(), Unfit> {
        let current = Candidate { name: "now".to_owned(), settings: self.current.clone() };
        for candidate in std::iter::once(&current).chain(self.candidates) {
            let unknown: Vec<&TriggerModel> = candidate.settings.unknown_signals().collect();
            let names: Vec<&str> = unknown.iter().map(|trigger| trigger.name.as_str()).collect();
            match setup.history {
                None if !unknown.is_empty() => return Err(Unfit::SignalsOfLoad(listed(&names, 4))),
                Some(history) => check_recorded(history, &unknown)?,
                None => {}
            }
            let outcome = what_if::autoscaled(setup, &candidate.settings, first);
            let is_of_other_fleet = candidate.name != current.name
                && candidate.settings.has_signal_of_fleet()
                && setup.history.is_some_and(|history| what_if::has_other_fleet(history, &outcome));
            let is_in_doubt = !unknown.is_empty() && outcome.modelled > 0.0 || is_of_other_fleet;
            if is_in_doubt && !self.assume_independent && !self.candidates.is_empty() {
                return Err(Unfit::Signals(listed(&names, 4)));
            }
            runs.push(self.run(&candidate.name, Some(&candidate.settings), outcome));
        }
        Ok(())
    }

    fn fixed(&self, setup: &Setup<'_>, runs: &mut Vec<RunReport>) -> Result<(), Unfit> {
        for groups in self.fixed {
            let groups = match groups {
                Some(groups) => *groups,
                None => self.least_fixed(setup).ok_or_else(|| Unfit::Static(self.slo.to_string()))?,
            };
            runs.push(self.run(&format!("static {groups}"), None, what_if::fixed(setup, groups)));
        }
        Ok(())
    }

    /// Least fixed number of ServingGroups that meets the objective.
    fn least_fixed(&self, setup: &Setup<'_>) -> Option<u32> {
        let meets = |groups: u32| self.slo.is_met(&what_if::fixed(setup, groups).waits);
        let (mut above, mut below) = (1, 0);
        while !meets(above) {
            below = above;
            above = above.checked_mul(2).filter(|groups| *groups <= STATIC_MAX)?;
        }
        while above - below > 1 {
            let middle = below.midpoint(above);
            if meets(middle) {
                above = middle;
            } else {
                below = middle;
            }
        }
        Some(above)
    }

    fn run(&self, name: &str, settings: Option<&Settings>, outcome: Outcome) -> RunReport {
        RunReport::new(name, settings.map(RunSettings::of), outcome, self.costs)
    }

    fn need(&self, workload: &Workload) -> Vec<Option<f64>> {
        let per_group = self.current.requests_per_group().or(self.plant.slots).unwrap_or(1.0);
        workload.need(per_group).collect()
    }

    fn assumptions(&self, slots: f64, workload: Option<&Workload>) -> Assumptions {
        Assumptions {
            requests_per_group: slots,
            service_time: workload.map(|workload| workload.service_time),
            cold_start: self.plant.cold_start,
        }
    }

    /// Settings in force that the simulation leaves out.
    fn setting_findings(&self) -> impl Iterator<Item = Finding> {
        let fallback = self.current.has_fallback.then(|| {
            Finding::new(
                "FallbackNotSimulated",
                "the fallback of the profile is not simulated: where data is missing, the number of ServingGroups stays as it is".to_owned(),
            )
        });
        let pause = self.current.keda.is_paused().then(|| {
            Finding::new(
                "PauseNotSimulated",
                "the model is paused, and the runs show what the settings do without the pause".to_owned(),
            )
        });
        fallback.into_iter().chain(pause)
    }

    fn data_findings(&self, history: &History, missing: f64, fidelity: Option<&Fidelity>) -> Vec<Finding> {
        let mut findings = Vec::new();
        if missing > MISSING_WARNING {
            let message = format!(
                "{:.1} % of the steps have no value of a trigger; the HPA changes nothing in them",
                missing * 100.0
            );
            findings.push(Finding::new("DataMissing", message));
        }
        let rejected = history.rejected;
        if rejected.invalid + rejected.conflicting > 0 {
            let message = format!(
                "{} values were negative, infinite or not a number and count as missing; {} steps had two values, of which the first counts",
                rejected.invalid, rejected.conflicting
            );
            findings.push(Finding::new("DataInvalid", message));
        }
        match fidelity {
            None => findings.push(Finding::new(
                "ReplicasUnknown",
                "the recorded number of ServingGroups is not known, so the replay is compared with nothing; have Prometheus scrape the operator, or kube-state-metrics".to_owned(),
            )),
            Some(fidelity) if self.differs(fidelity, history.grid().step()) => findings.push(Finding::new(
                "ReplayDiffers",
                format!(
                    "the replay equals the record in only {:.1} % of the steps, and differs for up to {} s; the settings may have changed within this time, so choose a later --from",
                    fidelity.equal * 100.0,
                    fidelity.longest_difference
                ),
            )),
            Some(_) => {}
        }
        findings.extend(self.setting_findings());
        findings
    }

    /// `true` if a replay differs by more than its resolution: a change that is late by a sync and a scrape, or by a step, may have happened
    /// at the same time.
    fn differs(&self, fidelity: &Fidelity, step: u32) -> bool {
        let Periods { sync, scrape } = self.periods;
        let resolution = sync.after(scrape).max(Time::from_seconds(step.into()));
        fidelity.equal < EQUAL_MIN && Time::from_seconds(fidelity.longest_difference) > resolution
    }
}
