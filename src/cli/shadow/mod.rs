//! `shadow`: the numbers of the models in shadow, with the caller's RBAC permissions.
//!
//! Each number is simulated here, on the values that Prometheus has of the last minutes, and so needs neither the operator nor a
//! write. If Prometheus scrapes the operator, its own numbers are among those values.

mod output;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use futures::{StreamExt as _, stream};
use kube::ResourceExt as _;

use self::output::{Format, Range, Row};
use super::{
    access::Access,
    cluster_view::{ClusterView, Seen, is_named},
    plan_args::{model_name, namespace},
    prometheus_route::NO_ADDRESS,
};
use crate::controllers::shadow::{Past, Resumed, Target};
use kthena_keda_core::{
    api::{annotations::AnnotationKey, kthena::ModelServing},
    domain::{key, printable},
    foresight::{backtest::Periods, time::Time},
    observed::ShadowState,
    plan,
};

/// Period of `--watch`.
const WATCH_PERIOD: Duration = Duration::from_secs(5);
/// Models whose values are read at a time.
const CONCURRENCY: usize = 4;

#[derive(Args)]
pub(super) struct Shadow {
    /// ModelServing to show; without it, all that are in shadow.
    #[arg(value_name = "NAMESPACE/NAME")]
    model: Option<String>,
    /// Namespace of the ModelServings; by default all namespaces.
    #[arg(short, long, value_parser = namespace)]
    namespace: Option<String>,
    /// All namespaces, which is the default.
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "model"])]
    all_namespaces: bool,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// Repeat every five seconds until interrupted.
    #[arg(short, long)]
    watch: bool,
    /// Seconds between two decisions of the HPA: --horizontal-pod-autoscaler-sync-period of the cluster; by default that of
    /// the operator's Deployment, else 15.
    #[arg(long, env = "KTHENA_KEDA_HPA_SYNC_PERIOD", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    hpa_sync_period: Option<u64>,
    #[command(flatten)]
    access: Access,
}

impl Shadow {
    pub(super) fn run(&self) -> ExitCode {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let result = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())
            .and_then(|runtime| runtime.block_on(self.show()));
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // A closed standard error leaves no place to report its own error.
                let _ = writeln!(io::stderr(), "error: {}", printable(&error));
                ExitCode::FAILURE
            }
        }
    }

    async fn show(&self) -> Result<(), String> {
        let mut has_printed = false;
        loop {
            let rows = match Box::pin(self.rows()).await {
                // One failed read does not end --watch.
                Err(error) if has_printed => {
                    let _ = writeln!(io::stderr(), "error: {}", printable(&error));
                    tokio::time::sleep(WATCH_PERIOD).await;
                    continue;
                }
                result => result?,
            };
            output::print(&rows, self.output)
                .map_err(|error| format!("cannot write to standard output: {error}"))?;
            if !self.watch {
                return Ok(());
            }
            has_printed = true;
            tokio::time::sleep(WATCH_PERIOD).await;
        }
    }

    /// The models in shadow, by namespace and name.
    async fn rows(&self) -> Result<Vec<Row>, String> {
        let named =
            self.model.as_deref().map(|model| model_name(model, self.namespace.as_deref())).transpose()?;
        let namespace = named.map(|(namespace, _)| namespace).or(self.namespace.as_deref());
        let view = ClusterView::read(&self.access, namespace).await?;
        let selected = view.models().filter(|model| {
            model.is_in_shadow()
                && named.is_none_or(|named| is_named(model, named))
                && namespace.is_none_or(|namespace| model.namespace().as_deref() == Some(namespace))
        });
        let rows = stream::iter(selected).map(|model| self.row(&view, model));
        let mut rows: Vec<Row> = rows.buffer_unordered(CONCURRENCY).collect().await;
        if rows.is_empty() {
            return Err([self.no_model()]
                .into_iter()
                .chain(view.live.missing)
                .collect::<Vec<_>>()
                .join("; "));
        }
        rows.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok(rows)
    }

    fn no_model(&self) -> String {
        let annotation = AnnotationKey::Shadow;
        match (&self.model, &self.namespace) {
            (Some(model), _) => format!(
                "the ModelServing {model} does not exist or is not in shadow; correct the name, or opt in and set {annotation} to true"
            ),
            (None, Some(namespace)) => format!(
                "no ModelServing in namespace {namespace} is in shadow; opt in and set {annotation} to true"
            ),
            (None, None) => format!("no ModelServing is in shadow; opt in and set {annotation} to true"),
        }
    }

    async fn row(&self, view: &ClusterView, model: &ModelServing) -> Row {
        let Seen { observed, defaults, .. } = view.observe(model);
        let plan = plan::plan(&observed, view.served.capabilities, &defaults);
        let resolved = plan.explanation.as_ref().and_then(|found| found.resolved.as_ref());
        let prometheus = resolved.and_then(|found| found.intent.profile.prometheus.as_ref());
        let finding = plan.findings.first();
        let problem = finding.map(|finding| format!("{}: {}", finding.reason.as_str(), finding.message));
        let simulated = match (plan.shadow, prometheus) {
            (Some(object), Some(prometheus)) if view.route.has_address(prometheus) => {
                let target = Target::new(&object, view.route.settings(prometheus));
                let target = target.map_err(|error| error.to_string());
                match target {
                    Ok(target) => self.past(view, model).read(&view.route.querier, &target).await,
                    Err(error) => Err(error),
                }
            }
            (Some(_), _) => Err(NO_ADDRESS.to_owned()),
            (None, _) => Err(problem.unwrap_or_default()),
        };
        let range = match ShadowState::reported(model) {
            Some(ShadowState::Observed(range)) => Some(range),
            _ => None,
        };
        let (resumed, problem) = match simulated {
            Ok(Resumed { has_values: false, .. }) => (
                None,
                Some("Prometheus has no value of a signal in the time that a decision depends on".to_owned()),
            ),
            Ok(resumed) => (Some(resumed), None),
            Err(error) => (None, Some(error)),
        };
        let would_hold = resumed.as_ref().map(|resumed| resumed.autoscaler.replicas());
        Row {
            namespace: observed.namespace().to_owned(),
            name: model.name_any(),
            holds: model.replicas(),
            would_hold,
            range: range.map(|range| Range::of(range, would_hold)),
            scaled_by: plan::scaled_by(&observed)
                .into_iter()
                .map(|found| format!("{} {}", found.kind, printable(&found.name)))
                .collect(),
            decision: resumed.and_then(|resumed| resumed.reason),
            problem: problem.map(|problem| printable(&problem).into_owned()),
        }
    }

    fn past(&self, view: &ClusterView, model: &ModelServing) -> Past {
        let since = match ShadowState::reported(model) {
            Some(ShadowState::Observed(range)) => Some(range.since),
            _ => None,
        };
        let of_operator = view.known_operator().and_then(|operator| operator.hpa_sync_period);
        let period = self.hpa_sync_period.or(of_operator).map_or(Periods::default().sync, Time::from_seconds);
        Past {
            key: key(model),
            replicas: model.replicas(),
            since,
            period: Duration::from_millis(period.millis()),
        }
    }
}
