//! `recommend`: settings that the past of one model speaks for, with their evidence.

mod evidence;
mod flags;

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    thread,
    time::Instant,
};

use self::flags::Format;
pub(super) use self::flags::Recommend;
use super::{
    backtest::{
        Data, check_model,
        cluster::{InCluster, callers_settings},
        failure::Failure,
        fetch::Store,
        measure, read_history, run_async, save,
        subject::{Planned, Subject},
    },
    plan_args::model_name,
};
use kthena_keda_core::{
    domain::Backlog,
    foresight::{
        backtest::{Periods, PlantOptions, Source},
        history::History,
        overrides::Override,
        recommend::{self, Objective, Recommendation, Refused, lines},
        report::{Costs, Finding, Slo},
        settings::Settings,
        time::Time,
    },
    observed::Observed,
};

/// Time that is read unless flags set another, in seconds: 14 days.
const SINCE: i64 = 1_209_600;
/// Cold start in seconds that stands in where the recommendation measures it.
const COLD_START: f64 = 300.0;

/// A model and its past.
pub(super) struct Subjected {
    pub(super) data: Data,
    pub(super) subject: Subject,
    pub(super) current: Settings,
    counts_twice: bool,
    pub(super) backlog: Backlog,
    /// Periods of the cluster, without flags.
    periods: Periods,
}

/// Statements of the user on the fleet and its costs.
pub(super) struct Given {
    pub(super) objective: Option<Objective>,
    pub(super) cold_start: Option<f64>,
    pub(super) plant: PlantOptions,
    pub(super) costs: Costs,
    pub(super) assume_independent: bool,
    /// Period of the HPA's syncs, if it is given, in seconds.
    pub(super) sync_period: Option<u64>,
}

impl Recommend {
    pub(super) fn run(&self) -> ExitCode {
        run_async(self.recommend())
    }

    async fn recommend(&self) -> Result<(), Failure> {
        self.source.check_flags()?;
        let subjected = Box::pin(self.read()).await?;
        let given = Given {
            objective: self.slo,
            cold_start: self.cold_start,
            plant: PlantOptions {
                slots: self.capacity,
                cold_start: COLD_START,
                queue: self.queue.into(),
                service_time: self.service_time,
            },
            costs: Costs {
                gpus_per_group: self.gpus_per_group.or(subjected.subject.gpus),
                gpu_hour: self.gpu_cost,
            },
            assume_independent: self.assume_independent,
            sync_period: self.hpa_sync_period,
        };
        let started = Instant::now();
        let found = match subjected.recommend(&given) {
            Ok(found) => found,
            Err(refused) => {
                print(&self.refusal(&subjected.name(), &refused)?)?;
                return Err(refused.into());
            }
        };
        let elapsed = started.elapsed().as_millis();
        let text = match self.output {
            Format::Json => found.json().map_err(Failure::input)? + "\n",
            Format::Table => {
                let table = found.table(io::stdout().is_terminal().then_some(elapsed));
                let lines = subjected.lines(self.apply_as.into(), &found.changes)?;
                if lines.is_empty() { table } else { format!("{table}\n{lines}") }
            }
        };
        print(&text)
    }

    /// Facts that are known without a recommendation; may be empty.
    fn refusal(&self, model: &str, refused: &Refused) -> Result<String, Failure> {
        match self.output {
            Format::Json => refused.json(model).map_err(Failure::input).map(|text| text + "\n"),
            Format::Table if refused.known.is_empty() => Ok(String::new()),
            Format::Table => Ok(refused.table(model)),
        }
    }

    /// The model and its past, from the source that the flags name.
    async fn read(&self) -> Result<Subjected, Failure> {
        let source = &self.source;
        let name = source.model.as_deref().map(|model| model_name(model, source.namespace.as_deref()));
        let name = name.transpose().map_err(Failure::Input)?;
        if let Some(file) = &source.load {
            let data = source.read_load(file, self.service_time)?;
            return Subjected::new(data, source.subject_without_data(name)?);
        }
        let Some(file) = &source.history else {
            let span = source.span(SINCE)?;
            let InCluster { subject, querier } = source.subject_with_route(name).await?;
            let planned = subject.plan(None, &[])?;
            let Some(prometheus) = &planned.resolved.intent.profile.prometheus else {
                return Err(Failure::Input(
                    "the address of Prometheus is not known; pass --prometheus-url".to_owned(),
                ));
            };
            let settings = callers_settings(prometheus, source.access.prometheus_url.as_ref())?;
            let store = Store { querier: &querier, settings: &settings };
            let mut history = store.history(&subject.observed, &planned, span).await?;
            add_evidence(&store, &mut history, &subject.observed, &planned, self.slo).await?;
            if let Some(file) = &source.save {
                save(&history, file)?;
            }
            return Subjected::new(Data::History(Box::new(history)), subject);
        };
        let history = read_history(file)?;
        if source.files.is_empty() && name.is_none() {
            return Subjected::of_history(history);
        }
        let mut subject = source.subject_for_history(name).await?;
        check_model(&history, &subject)?;
        measure(&history, &mut subject);
        Subjected::new(Data::History(Box::new(history)), subject)
    }
}

fn print(text: &str) -> Result<(), Failure> {
    let result = io::stdout().lock().write_all(text.as_bytes());
    result.map_err(|error| Failure::Input(format!("cannot write to standard output: {error}")))
}

/// Adds the evidence of an objective, or of the default one, to a history.
pub(super) async fn add_evidence(
    store: &Store<'_>,
    history: &mut History,
    observed: &Observed,
    planned: &Planned,
    objective: Option<Objective>,
) -> Result<(), Failure> {
    let tail = objective.unwrap_or(Objective::Duration(Slo::default())).series();
    evidence::add(store, history, observed, planned, tail).await
}

impl Subjected {
    pub(super) fn new(data: Data, subject: Subject) -> Result<Self, Failure> {
        let planned = subject.plan(None, &[])?;
        let periods = subject.periods(&planned, None);
        let counts_twice = planned.resolved.triggers.counts_twice;
        Ok(Self { data, subject, current: planned.settings, counts_twice, backlog: planned.backlog, periods })
    }

    /// A history with its own settings.
    pub(super) fn of_history(history: History) -> Result<Self, Failure> {
        let current =
            Settings::from_scaled_object(&history.scaled_object, history.backlog).map_err(|error| {
                Failure::Unfit(format!("the settings in the history are not usable: {error}"))
            })?;
        let mut subject = Subject::of_history(&history)?;
        measure(&history, &mut subject);
        let (backlog, periods) = (history.backlog, Periods::default());
        let data = Data::History(Box::new(history));
        Ok(Self { data, subject, current, counts_twice: false, backlog, periods })
    }

    /// Periods of the cluster. A flag sets that of the syncs, in seconds.
    pub(super) fn periods(&self, sync_period: Option<u64>) -> Periods {
        Periods { sync: sync_period.map_or(self.periods.sync, Time::from_seconds), ..self.periods }
    }

    /// Name of the model in reports.
    fn name(&self) -> String {
        if self.subject.is_built_in { "built-in settings".to_owned() } else { self.subject.name() }
    }

    pub(super) fn recommend(&self, given: &Given) -> Result<Recommendation, Refused> {
        let (source, findings) = match &self.data {
            Data::Load { workload, findings } => (Source::Load(workload), findings.as_slice()),
            Data::History(history) => (Source::History(history), [].as_slice()),
        };
        let ask = recommend::Recommend {
            model: self.name(),
            source,
            current: &self.current,
            counts_twice: self.counts_twice,
            backlog: self.backlog,
            objective: given.objective,
            cold_start: given.cold_start,
            plant: given.plant,
            costs: given.costs,
            assume_independent: given.assume_independent,
            periods: self.periods(given.sync_period),
            threads: thread::available_parallelism().map_or(1, Into::into),
        };
        let plan = |changes: &[Override]| self.plan(changes).map_err(|failure| failure.to_string());
        let mut found = ask.recommend(&plan)?;
        found.findings.extend_from_slice(findings);
        if given.costs.gpu_hour.is_some() && given.costs.gpus_per_group.is_none() {
            found.findings.push(Finding::new(
                "GpusUnknown",
                "the GPUs of a ServingGroup are not known, so there are no costs; pass --gpus-per-group"
                    .to_owned(),
            ));
        }
        Ok(found)
    }

    fn plan(&self, changes: &[Override]) -> Result<Settings, Failure> {
        let planned = self.subject.plan(None, changes)?;
        Ok(match &self.data {
            Data::History(history) => {
                let in_force = self.subject.plan(None, &[])?.settings;
                planned.with_recorded_queries(history, &in_force).settings
            }
            Data::Load { .. } => planned.settings,
        })
    }

    /// Lines to paste.
    fn lines(&self, apply: recommend::ApplyAs, changes: &[String]) -> Result<String, Failure> {
        let parsed: Result<Vec<Override>, _> = changes.iter().map(|change| change.parse()).collect();
        let settings = self.plan(&parsed.map_err(Failure::input)?)?;
        let name = self.subject.name();
        let (namespace, name) = name.split_once('/').unwrap_or(("default", &name));
        Ok(lines(apply, namespace, name, changes, &settings))
    }
}
