//! `cost`: GPU-hours of the models of a cluster, or of histories in files.

mod models;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use kube::ResourceExt as _;

use super::{
    access::Access,
    backtest::{
        Data,
        cluster::{InCluster, callers_settings},
        failure::Failure,
        fetch::{Span, Store},
        read_history, run_async,
        times::{duration, positive},
    },
    cluster_view::ClusterView,
    plan_args::namespace,
    recommend::{Given, Subjected, add_evidence},
};
use k8s_openapi::jiff::Timestamp;
use kthena_keda_core::{
    api::kthena::ModelServing,
    foresight::{
        backtest::{Backtest, PlantOptions, Source},
        cost::{CostReport, ModelCost},
        fleet::Queue,
        recommend::Objective,
        report::{Costs, Slo},
    },
};

/// Cold start in seconds where none is given.
const COLD_START: f64 = 300.0;

#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 done, also with unknown costs; 1 invalid input, 2 Prometheus is not reachable or refuses, 3 the costs of no model are known. See docs/cost.md."
)]
pub(crate) struct Cost {
    /// ModelServing; -n or -A select all opted-in ones of a namespace or of the cluster.
    #[arg(value_name = "NAMESPACE/NAME", conflicts_with = "history")]
    model: Option<String>,
    /// All namespaces.
    #[arg(short = 'A', long, conflicts_with_all = ["model", "namespace", "history"])]
    all_namespaces: bool,
    /// Namespace of the models, or of the one that is given by its name alone.
    #[arg(short, long, value_parser = namespace, conflicts_with = "history")]
    namespace: Option<String>,
    /// Length of the time up to now.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30d")]
    since: f64,
    /// Read a file that backtest or recommend has saved, instead of Prometheus; repeatable.
    #[arg(long, value_name = "FILE")]
    history: Vec<PathBuf>,
    /// Also search recommended settings for each model, which takes seconds for each; see `recommend`.
    #[arg(long)]
    recommend: bool,
    /// Objective of the recommended settings, such as p95=30s or ttft=2s; by default 1.5 times the p95 while few requests
    /// are in flight.
    #[arg(long, value_name = "OBJECTIVE", requires = "recommend")]
    slo: Option<Objective>,
    /// Seconds between two decisions of the HPA: --horizontal-pod-autoscaler-sync-period of the cluster; by default that of
    /// the operator's Deployment, else 15.
    #[arg(long, env = "KTHENA_KEDA_HPA_SYNC_PERIOD", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    hpa_sync_period: Option<u64>,
    /// Time from the start of a ServingGroup until it is ready; with --recommend measured by default, else 5 minutes.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    cold_start: Option<f64>,
    /// Price of a GPU for an hour.
    #[arg(long = "gpu-cost", value_name = "PRICE", value_parser = positive)]
    gpu_price: Option<f64>,
    /// GPUs of one ServingGroup; by default the limits of its pods.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    gpus_per_group: Option<u32>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    access: Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Table for a terminal.
    Table,
    /// JSON (foresight.kthena.io/v1).
    Json,
    /// One row for each model, in group-hours.
    Csv,
}

impl Cost {
    pub(super) fn run(&self) -> ExitCode {
        run_async(self.cost())
    }

    async fn cost(&self) -> Result<(), Failure> {
        let models = if self.history.is_empty() {
            Box::pin(self.of_cluster()).await?
        } else {
            self.history.iter().map(|file| self.of_file(file)).collect::<Result<Vec<_>, Failure>>()?
        };
        let is_any_known = models.iter().any(|cost| cost.actual.is_some() || cost.now.is_some());
        let report =
            CostReport::new(models, Costs { gpus_per_group: self.gpus_per_group, gpu_hour: self.gpu_price });
        let text = match self.output {
            Format::Table => report.table(),
            Format::Json => report.json().map_err(Failure::input)? + "\n",
            Format::Csv => report.csv(),
        };
        let result = io::stdout().lock().write_all(text.as_bytes());
        result.map_err(|error| Failure::Input(format!("cannot write to standard output: {error}")))?;
        is_any_known.then_some(()).ok_or_else(|| {
            Failure::Unfit("the costs of no model are known; see the reasons above".to_owned())
        })
    }

    /// A model whose settings cannot be simulated has the recorded costs; a file that cannot be read ends the command.
    fn of_file(&self, file: &Path) -> Result<ModelCost, Failure> {
        let history = read_history(file)?;
        match Subjected::of_history(history.clone()) {
            Ok(subjected) => Ok(self.of_subject(&subjected, None)),
            Err(Failure::Input(reason) | Failure::Unfit(reason)) => {
                Ok(ModelCost { gpus_per_group: self.gpus_per_group, ..ModelCost::of(&history, Err(&reason)) })
            }
            Err(failure) => Err(failure),
        }
    }

    async fn of_cluster(&self) -> Result<Vec<ModelCost>, Failure> {
        let mut models = Vec::new();
        let view = self.view().await?;
        let mut unanswered = None;
        for model in self.selected(&view)? {
            match Box::pin(self.of_model(&view, model)).await {
                Err(Failure::Prometheus(reason)) if self.model.is_none() => {
                    models.push(unknown(model, reason.clone()));
                    unanswered.get_or_insert(reason);
                }
                cost => models.push(cost?),
            }
        }
        let is_any_answered = models.iter().any(|cost| cost.hours > 0.0);
        match unanswered.filter(|_| !is_any_answered) {
            Some(reason) => Err(Failure::Prometheus(reason)),
            None => Ok(models),
        }
    }

    /// A model that cannot be planned has unknown costs.
    async fn of_model(&self, view: &ClusterView, model: &ModelServing) -> Result<ModelCost, Failure> {
        match Box::pin(self.read(view, model)).await {
            Ok((subjected, gpus)) => Ok(self.of_subject(&subjected, gpus)),
            Err(Failure::Input(reason) | Failure::Unfit(reason)) if self.model.is_none() => {
                Ok(unknown(model, reason))
            }
            Err(failure) => Err(failure),
        }
    }

    async fn read(
        &self,
        view: &ClusterView,
        model: &ModelServing,
    ) -> Result<(Subjected, Option<u32>), Failure> {
        let found = InCluster::of(view, model).await;
        let planned = found.subject.plan(None, &[])?;
        let settings = planned.resolved.intent.profile.prometheus.clone().ok_or_else(|| {
            Failure::Input("the address of Prometheus is not known; pass --prometheus-url".to_owned())
        })?;
        let settings = callers_settings(&settings, self.access.prometheus_url.as_ref())?;
        let store = Store { querier: &found.querier, settings: &settings };
        let to = Timestamp::now().as_second();
        #[allow(clippy::cast_possible_truncation, reason = "bounded by the parser")]
        let span = Span { from: to - self.since as i64, to, step: None };
        let mut history = store.history(&found.subject.observed, &planned, span).await?;
        if self.recommend {
            let observed = &found.subject.observed;
            add_evidence(&store, &mut history, observed, &planned, self.slo).await?;
        }
        let gpus = found.subject.gpus;
        Ok((Subjected::new(Data::History(Box::new(history)), found.subject)?, gpus))
    }

    fn of_subject(&self, subjected: &Subjected, gpus: Option<u32>) -> ModelCost {
        let Data::History(history) = &subjected.data else { return ModelCost::default() };
        let plant = PlantOptions {
            slots: None,
            cold_start: self.cold_start.unwrap_or(COLD_START),
            queue: Queue::Engine,
            service_time: None,
        };
        let gpus = self.gpus_per_group.or(gpus);
        let costs = Costs { gpus_per_group: gpus, gpu_hour: self.gpu_price };
        let report = Backtest {
            model: format!("{}/{}", history.namespace, history.name),
            source: Source::History(history),
            current: &subjected.current,
            candidates: &[],
            fixed: &[],
            slo: Slo::default(),
            plant,
            costs,
            periods: subjected.periods(self.hpa_sync_period),
            explain: None,
            assume_independent: false,
        }
        .report()
        .map_err(|error| error.to_string());
        let mut cost = ModelCost::of(history, report.as_ref().map_err(String::as_str));
        cost.gpus_per_group = gpus;
        if self.recommend {
            let given = Given {
                objective: self.slo,
                cold_start: self.cold_start,
                plant,
                costs,
                assume_independent: false,
                sync_period: self.hpa_sync_period,
            };
            match subjected.recommend(&given) {
                // Without changes the settings in force are the recommended ones.
                Ok(found) => cost.recommended = found.backtest.runs.last().map(|run| run.group_hours),
                Err(refused) => cost.unknown.push(format!(
                    "there is no recommendation; run kthena-keda recommend on this model: {refused}"
                )),
            }
        }
        cost
    }
}

/// A model of which nothing is known, and why.
fn unknown(model: &ModelServing, reason: String) -> ModelCost {
    ModelCost {
        namespace: model.namespace().unwrap_or_default(),
        name: model.name_any(),
        unknown: vec![reason],
        ..ModelCost::default()
    }
}
