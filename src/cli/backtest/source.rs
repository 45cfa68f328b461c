//! Flags that select a model and its past, and the reading of both.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use k8s_openapi::jiff::Timestamp;

use super::{
    Data, cannot_read,
    cluster::InCluster,
    failure::Failure,
    fetch::Span,
    subject::Subject,
    times::{duration, time, whole_seconds},
};
use crate::{
    cli::{access::Access, cluster_view::ROUTER_NAMESPACE, plan_args::namespace},
    prometheus::{Prometheus, Querier},
    settings::Settings as PlanSettings,
};
use kthena_keda_core::{
    foresight::{
        load_file::{self, LoadFile, LoadOptions},
        report::Finding,
    },
    intent::Profile,
};

/// A model, and the time or the file from which its past is read.
#[derive(Args)]
pub(in crate::cli) struct SourceFlags {
    /// ModelServing, from the cluster of the kubeconfig, or the one of several in the files of -f.
    #[arg(value_name = "NAMESPACE/NAME")]
    pub(in crate::cli) model: Option<String>,
    /// YAML or JSON file with the ModelServing and the objects that affect its plan, instead of a cluster;
    /// repeatable.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(in crate::cli) files: Vec<PathBuf>,
    /// Namespace of the ModelServing, if it is given by its name alone, and of the objects in files that name none.
    #[arg(short, long, value_parser = namespace)]
    pub(in crate::cli) namespace: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) access: Access,

    /// Length of the time to read, up to --to; by default 7 days, and 14 for `recommend`.
    #[arg(long, value_name = "DURATION", value_parser = since, help_heading = "Time")]
    pub(in crate::cli) since: Option<i64>,
    /// Start of the time to read, such as 2026-11-19T05:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Time")]
    pub(in crate::cli) from: Option<i64>,
    /// End of the time to read; now by default.
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Time")]
    pub(in crate::cli) to: Option<i64>,
    /// Length of a step; by default 15s, or the distance of the samples in the store if that is longer.
    #[arg(long, value_name = "DURATION", value_parser = whole_seconds, help_heading = "Time")]
    pub(in crate::cli) step: Option<u32>,

    /// Write what was read to a file, without addresses and credentials.
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(in crate::cli) save: Option<PathBuf>,
    /// Read a file of --save instead of Prometheus; without a model it has the settings, too.
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(in crate::cli) history: Option<PathBuf>,
    /// Read arrivals from a CSV file with columns such as time, arrivals and `output_tokens`, instead of
    /// Prometheus; needs no cluster.
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(in crate::cli) load: Option<PathBuf>,
    /// Column of --load with requests per second, if several columns end with _rps.
    #[arg(long, value_name = "COLUMN", requires = "load", help_heading = "Data")]
    pub(in crate::cli) load_column: Option<String>,
    /// Length of a row of --load without a column time, unless the name of the file ends with it.
    #[arg(long, value_name = "DURATION", value_parser = whole_seconds, requires = "load", help_heading = "Data")]
    pub(in crate::cli) load_row: Option<u32>,
}

#[allow(clippy::cast_possible_truncation, reason = "bounded by the parser")]
fn since(text: &str) -> Result<i64, String> {
    duration(text).map(|seconds| seconds as i64)
}

impl SourceFlags {
    /// Refuses flags that contradict each other or have no effect.
    pub(in crate::cli) fn check_flags(&self) -> Result<(), Failure> {
        let of_time = [
            ("--since", self.since.is_some()),
            ("--from", self.from.is_some()),
            ("--to", self.to.is_some()),
            ("--step", self.step.is_some()),
            ("--save", self.save.is_some()),
            ("--prometheus-url", self.access.prometheus_url.is_some()),
        ];
        let no_effect = |source: &str, flags: &[(&str, bool)]| {
            let flag = flags.iter().find(|(_, is_set)| *is_set).map(|(flag, _)| *flag);
            flag.map_or(Ok(()), |flag| {
                Err(Failure::Input(format!("{flag} has no effect with {source}; leave one of them out")))
            })
        };
        if self.load.is_some() {
            no_effect("--load", &[("--history", self.history.is_some())])?;
            no_effect("--load", &of_time)?;
            let names_cluster = self.model.is_some() && self.files.is_empty();
            no_effect("--load", &[("NAMESPACE/NAME without -f", names_cluster)])?;
        }
        if self.history.is_some() {
            no_effect("--history", &of_time)?;
        }
        if self.since.is_some() && self.from.is_some() {
            return Err(Failure::Input(
                "--since and --from both set the start; leave one of them out".to_owned(),
            ));
        }
        Ok(())
    }

    /// The model of `-f` or the cluster, with a route to Prometheus.
    pub(in crate::cli) async fn subject_with_route(
        &self,
        name: Option<(&str, &str)>,
    ) -> Result<InCluster, Failure> {
        if self.files.is_empty() {
            let Some((namespace, name)) = name else {
                return Err(Failure::Input(
                    "pass the NAMESPACE/NAME of a ModelServing, -f with its manifest, or a file with --load or --history"
                        .to_owned(),
                ));
            };
            return InCluster::read(&self.access, (namespace, name)).await;
        }
        let subject = Subject::of_files(&self.files, name, self.namespace.as_deref(), self.plan_settings())?;
        let prometheus = Prometheus::new(self.access.credentials()).map_err(Failure::input)?;
        Ok(InCluster { subject, querier: Querier::Direct(prometheus) })
    }

    pub(in crate::cli) async fn subject_for_history(
        &self,
        name: Option<(&str, &str)>,
    ) -> Result<Subject, Failure> {
        match name {
            Some(name) if self.files.is_empty() => Ok(InCluster::read(&self.access, name).await?.subject),
            _ => Subject::of_files(&self.files, name, self.namespace.as_deref(), self.plan_settings()),
        }
    }

    pub(in crate::cli) fn subject_without_data(
        &self,
        name: Option<(&str, &str)>,
    ) -> Result<Subject, Failure> {
        if self.files.is_empty() {
            return Subject::built_in();
        }
        Subject::of_files(&self.files, name, self.namespace.as_deref(), self.plan_settings())
    }

    pub(in crate::cli) fn plan_settings(&self) -> PlanSettings {
        let mut defaults = Profile::built_in();
        defaults.prometheus = self.access.prometheus_url.clone().map(Into::into);
        let router_namespace =
            self.access.router_namespace.clone().unwrap_or_else(|| ROUTER_NAMESPACE.to_owned());
        PlanSettings { defaults, router_namespace, scale_roles: false }
    }

    pub(in crate::cli) fn span(&self, since: i64) -> Result<Span, Failure> {
        let now = Timestamp::now().as_second();
        let to = self.to.unwrap_or(now);
        let since = self.since.unwrap_or(since);
        let from = self.from.unwrap_or(to - since);
        if to > now || from >= now {
            return Err(Failure::Input("the time is in the future; correct --from and --to".to_owned()));
        }
        if from >= to || from < 0 {
            return Err(Failure::Input("--from is not before --to; correct them".to_owned()));
        }
        Ok(Span { from, to, step: self.step })
    }

    pub(in crate::cli) fn read_load(&self, file: &Path, service_time: Option<f64>) -> Result<Data, Failure> {
        let text = fs::read_to_string(file).map_err(|error| cannot_read(file, &error))?;
        let of_name = file.file_stem().and_then(|stem| load_file::row_of_name(&stem.to_string_lossy()));
        let options =
            LoadOptions { row: self.load_row.or(of_name), column: self.load_column.clone(), service_time };
        let LoadFile { workload, service_time_from, gaps } = load_file::read(&text, &options)
            .map_err(|error| Failure::Input(format!("{}: {error}", file.display())))?;
        let mut findings = vec![Finding::new(
            "ServiceTime",
            format!("the time that a request takes without waiting comes from {service_time_from}"),
        )];
        if gaps > 0 {
            findings.push(Finding::new(
                "DataMissing",
                format!("{gaps} rows have a rate of 0 and count as gaps: nothing changes in them"),
            ));
        }
        Ok(Data::Load { workload, findings })
    }
}
