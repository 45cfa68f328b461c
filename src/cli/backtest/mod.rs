//! `backtest`: plays the autoscaling of one model on its past, or on a file of arrivals, and compares settings.

pub(super) mod cluster;
pub(super) mod failure;
pub(super) mod fetch;
pub(super) mod flags;
pub(super) mod source;
pub(super) mod subject;
pub(super) mod times;

use std::{
    fs,
    io::{self, BufReader, IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
    time::Instant,
};

use k8s_openapi::jiff::Timestamp;

pub(super) use self::flags::Backtest;
use self::{
    cluster::{InCluster, callers_settings},
    failure::Failure,
    fetch::Store,
    flags::{Compare, Format},
    subject::{Planned, Subject},
};
use super::{documents::read, plan_args::model_name};
use crate::sources::Manifests;
use kthena_keda_core::{
    domain::printable,
    foresight::{
        backtest::{self, Candidate, Periods, PlantOptions, Source},
        history::{self, History},
        report::{Costs, Finding, Report},
        settings::Settings,
        time::Time,
        workload::Workload,
    },
    intent::Profile,
};
use serde_json::Value;

/// Time that is read unless flags set another, in seconds: seven days.
const SINCE: i64 = 604_800;

/// Requests of a backtest.
pub(super) enum Data {
    Load { workload: Workload, findings: Vec<Finding> },
    History(Box<History>),
}

/// Settings to compare.
struct Compared {
    name: String,
    current: Settings,
    candidates: Vec<Candidate>,
    gpus: Option<u32>,
    periods: Periods,
}

impl Backtest {
    pub(super) fn run(&self) -> ExitCode {
        run_async(self.backtest())
    }

    async fn backtest(&self) -> Result<(), Failure> {
        self.source.check_flags()?;
        let (data, compared) = self.read().await?;
        let started = Instant::now();
        let report = self.simulate(&data, &compared)?;
        let elapsed = started.elapsed().as_millis();
        self.print(&report, elapsed)?;
        let checked = self.fail_if.iter().map(|check| check.failure(&report));
        let failed: Vec<Option<String>> = checked.collect::<Result<_, _>>().map_err(Failure::Input)?;
        let failed: Vec<String> = failed.into_iter().flatten().collect();
        if failed.is_empty() { Ok(()) } else { Err(Failure::Check(failed.join("; "))) }
    }

    /// The requests and the settings, from the source that the flags name.
    async fn read(&self) -> Result<(Data, Compared), Failure> {
        let name =
            self.source.model.as_deref().map(|model| model_name(model, self.source.namespace.as_deref()));
        let name = name.transpose().map_err(Failure::Input)?;
        if let Some(file) = &self.source.load {
            let data = self.source.read_load(file, self.service_time)?;
            let mut subject = self.source.subject_without_data(name)?;
            if let Data::Load { workload, .. } = &data {
                subject.measure(workload.service_time);
            }
            return Ok((data, self.compare(&subject, None)?));
        }
        if let Some(file) = &self.source.history {
            let history = read_history(file)?;
            let compared = if self.source.files.is_empty() && name.is_none() {
                self.compare_history(&history)?
            } else {
                let mut subject = self.source.subject_for_history(name).await?;
                check_model(&history, &subject)?;
                measure(&history, &mut subject);
                self.compare(&subject, Some(&history))?
            };
            return Ok((Data::History(Box::new(history)), compared));
        }
        self.read_prometheus(name).await
    }

    async fn read_prometheus(&self, name: Option<(&str, &str)>) -> Result<(Data, Compared), Failure> {
        let span = self.source.span(SINCE)?;
        let InCluster { subject, querier } = self.source.subject_with_route(name).await?;
        let planned = subject.plan(None, &[])?;
        let Some(prometheus) = &planned.resolved.intent.profile.prometheus else {
            return Err(Failure::Input(
                "the address of Prometheus is not known; pass --prometheus-url".to_owned(),
            ));
        };
        let settings = callers_settings(prometheus, self.source.access.prometheus_url.as_ref())?;
        let store = Store { querier: &querier, settings: &settings };
        let history = store.history(&subject.observed, &planned, span).await?;
        if let Some(file) = &self.source.save {
            save(&history, file)?;
        }
        let compared = self.compare(&subject, Some(&history))?;
        Ok((Data::History(Box::new(history)), compared))
    }

    /// The settings in force, and those of `--set` and `--with-profile`.
    fn compare(&self, subject: &Subject, history: Option<&History>) -> Result<Compared, Failure> {
        let planned = subject.plan(None, &[])?;
        let periods = subject.periods(&planned, self.hpa_sync_period);
        let current = planned.settings;
        let recorded = |planned: Planned| match history {
            Some(history) => planned.with_recorded_queries(history, &current).settings,
            None => planned.settings,
        };
        let candidates = match self.candidate_name() {
            Some(name) => {
                let profile = self.with_profile.as_deref().map(read_profile).transpose()?;
                let planned = subject.plan(profile.as_ref(), &self.set)?;
                vec![Candidate { name, settings: recorded(planned) }]
            }
            None => Vec::new(),
        };
        let name = if subject.is_built_in { "built-in settings".to_owned() } else { subject.name() };
        Ok(Compared { name, current, candidates, gpus: subject.gpus, periods })
    }

    /// The settings in a history, and changes of them.
    fn compare_history(&self, history: &History) -> Result<Compared, Failure> {
        let current =
            Settings::from_scaled_object(&history.scaled_object, history.backlog).map_err(|error| {
                Failure::Unfit(format!("the settings in the history are not usable: {error}"))
            })?;
        let name = format!("{}/{}", history.namespace, history.name);
        let candidates = match self.candidate_name() {
            Some(_) => {
                let mut subject = Subject::of_history(history)?;
                measure(history, &mut subject);
                self.compare(&subject, Some(history))?.candidates
            }
            None => Vec::new(),
        };
        let sync = self.hpa_sync_period.map_or(Periods::default().sync, Time::from_seconds);
        let periods = Periods { sync, ..Periods::default() };
        Ok(Compared { name, current, candidates, gpus: None, periods })
    }

    fn candidate_name(&self) -> Option<String> {
        let profile = self.with_profile.as_ref().and_then(|file| file.file_stem());
        let profile = profile.map(|stem| format!("profile {}", stem.to_string_lossy()));
        let names: Vec<String> =
            profile.into_iter().chain(self.set.iter().map(ToString::to_string)).collect();
        (!names.is_empty()).then(|| names.join(" "))
    }

    fn simulate(&self, data: &Data, compared: &Compared) -> Result<Report, Failure> {
        let (source, start, length, findings) = match data {
            Data::Load { workload, findings } => {
                let grid = workload.grid();
                (Source::Load(workload), grid.start(), grid.end() - grid.start(), findings.as_slice())
            }
            Data::History(history) => {
                let grid = history.grid();
                (Source::History(history), grid.start(), grid.end() - grid.start(), [].as_slice())
            }
        };
        let fixed: Vec<Option<u32>> = self.compare.iter().map(|Compare::Static(groups)| *groups).collect();
        let mut report = backtest::Backtest {
            model: compared.name.clone(),
            source,
            current: &compared.current,
            candidates: &compared.candidates,
            fixed: &fixed,
            slo: self.slo,
            plant: PlantOptions {
                slots: self.capacity,
                cold_start: self.cold_start,
                queue: self.queue.into(),
                service_time: self.service_time,
            },
            periods: compared.periods,
            costs: Costs { gpus_per_group: self.gpus_per_group.or(compared.gpus), gpu_hour: self.gpu_cost },
            explain: self.explain_time(start, length)?,
            assume_independent: self.assume_independent,
        }
        .report()?;
        report.findings.extend_from_slice(findings);
        if self.gpu_cost.is_some() && self.gpus_per_group.or(compared.gpus).is_none() {
            report.findings.push(Finding::new(
                "GpusUnknown",
                "the GPUs of a ServingGroup are not known, so there are no costs; pass --gpus-per-group"
                    .to_owned(),
            ));
        }
        Ok(report)
    }

    /// The time of `--explain` since the start.
    fn explain_time(&self, start: i64, length: i64) -> Result<Option<Time>, Failure> {
        let Some(time) = self.explain else { return Ok(None) };
        let since = u64::try_from(time - start).ok().filter(|_| (0..length).contains(&(time - start)));
        let since = since.ok_or_else(|| {
            let shown =
                |time: i64| Timestamp::from_second(time).map(|time| time.to_string()).unwrap_or_default();
            Failure::Input(format!(
                "--explain {} is not within the data, which is from {} to {}",
                shown(time),
                shown(start),
                shown(start + length)
            ))
        })?;
        Ok(Some(Time::from_seconds(since)))
    }

    fn print(&self, report: &Report, elapsed: u128) -> Result<(), Failure> {
        let text = match self.output {
            Format::Table => report.table(io::stdout().is_terminal().then_some(elapsed)),
            Format::Json => report.json().map_err(Failure::input)? + "\n",
            Format::Csv => report.csv(),
            Format::Svg => report.svg() + "\n",
            Format::Html => report.html(),
        };
        let result = io::stdout().lock().write_all(text.as_bytes());
        result.map_err(|error| Failure::Input(format!("cannot write to standard output: {error}")))
    }
}

/// Runs a command to its end, and prints its failure.
pub(super) fn run_async(command: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::input)
        .and_then(|runtime| runtime.block_on(command));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // A closed standard error leaves no place to report its own error.
            let _ = writeln!(io::stderr(), "error: {}", printable(&failure.to_string()));
            failure.code()
        }
    }
}

/// Sets the service time that was measured in the steps without a queue.
pub(super) fn measure(history: &History, subject: &mut Subject) {
    let in_force = Settings::from_scaled_object(&history.scaled_object, history.backlog).ok();
    let slots = in_force.and_then(|settings| settings.requests_per_group()).unwrap_or(f64::INFINITY);
    if let Ok(workload) = Workload::of_history(history, slots, None) {
        subject.measure(workload.service_time);
    }
}

fn cannot_read(file: &Path, error: &io::Error) -> Failure {
    Failure::Input(format!("{}: {error}", file.display()))
}

pub(super) fn read_history(file: &Path) -> Result<History, Failure> {
    let opened = fs::File::open(file).map_err(|error| cannot_read(file, &error))?;
    history::read(BufReader::new(opened))
        .map_err(|error| Failure::Input(format!("{}: {error}", file.display())))
}

pub(super) fn save(history: &History, file: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::Input(format!("cannot write {}: {error}", file.display()));
    let mut out = io::BufWriter::new(fs::File::create(file).map_err(failed)?);
    history::write(history, &mut out).map_err(failed)?;
    out.flush().map_err(failed)
}

/// Refuses the history of another model: its values say nothing about this one.
pub(super) fn check_model(history: &History, subject: &Subject) -> Result<(), Failure> {
    let recorded = format!("{}/{}", history.namespace, history.name);
    if recorded == subject.name() {
        return Ok(());
    }
    Err(Failure::Input(format!(
        "the history is of the model {}, not of {}; pass the history of this model, or leave out the model and -f",
        printable(&recorded),
        subject.name()
    )))
}

/// The settings of the AutoscalingProfile in a file.
fn read_profile(file: &Path) -> Result<Profile, Failure> {
    let mut profiles = Vec::new();
    for mut document in read(file).map_err(Failure::Input)? {
        if document.object.get("kind").and_then(Value::as_str) == Some("AutoscalingProfile") {
            if let Some(metadata) = document.object.get_mut("metadata") {
                *metadata = serde_json::json!({"name": "default"});
            }
            profiles.push(document);
        }
    }
    let [profile] = <[_; 1]>::try_from(profiles).map_err(|profiles| {
        let count = profiles.len();
        Failure::Input(format!(
            "--with-profile {}: expected one AutoscalingProfile, found {count}",
            file.display()
        ))
    })?;
    let mut manifests = Manifests::default();
    manifests.add(&profile.place, profile.object).map_err(Failure::Input)?;
    match manifests.default_profile() {
        Some(Ok(profile)) => Ok(profile),
        Some(Err(error)) => Err(Failure::Input(format!("--with-profile {}: {error}", file.display()))),
        None => Err(Failure::Input(format!("--with-profile {}: it cannot be read", file.display()))),
    }
}
