//! `explain`: follows the chain of each model in a live cluster and its Prometheus, with the caller's RBAC
//! permissions.

mod comparison;
mod latency;
mod output;
mod signal_check;
mod signals;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use kube::ResourceExt as _;

use self::{
    output::{Bounds, Explained, Format, LinkReport, Replicas, RouteReport, Signal, rank},
    signal_check::{SignalCheck, measure, probe},
};
use super::{
    access::Access,
    cluster_view::ClusterView,
    plan_args::{model_name, namespace},
    prometheus_route::PrometheusRoute,
};
use crate::{
    cluster::Error,
    sources::{live::Live, selector_mismatch, stand_in, waiting_pods},
};
use kthena_keda_core::{
    api::{annotations::MODEL_NAME, kthena::ModelServing},
    domain::{Capabilities, printable},
    intent::Profile,
    observed::{Backend, Destination, Observed, RoutedName, Routing, Usage, WaitingPods, find_condition},
    plan::{self, Desired, Explanation, Link, LinkState, Plan, ResolvedIntent, StandInState, Verdict},
};

/// Period of `--watch`.
const WATCH_PERIOD: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(super) struct Explain {
    /// ModelServing to explain in full; without it, one line for each opted-in ModelServing, broken ones
    /// first.
    #[arg(value_name = "NAMESPACE/NAME")]
    model: Option<String>,
    /// Namespace of the ModelServing, if it is given by its name alone; without a name, of all that are
    /// shown.
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
    #[command(flatten)]
    access: Access,
}

impl Explain {
    pub(super) fn run(&self) -> ExitCode {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let result = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())
            .and_then(|runtime| runtime.block_on(self.explain()));
        result.unwrap_or_else(|error| {
            // A closed standard error leaves no place to report its own error.
            let _ = writeln!(io::stderr(), "error: {}", printable(&error));
            ExitCode::FAILURE
        })
    }

    async fn explain(&self) -> Result<ExitCode, String> {
        let mut has_printed = false;
        loop {
            let (all, notes) = match Box::pin(self.explain_all()).await {
                // One failed read does not end --watch.
                Err(error) if has_printed => {
                    let _ = writeln!(io::stderr(), "error: {}", printable(&error));
                    tokio::time::sleep(WATCH_PERIOD).await;
                    continue;
                }
                result => result?,
            };
            output::print(&all, self.output, self.model.is_some())
                .map_err(|error| format!("cannot write to standard output: {error}"))?;
            // A closed standard error leaves no place for notes.
            for note in &notes {
                let _ = writeln!(io::stderr(), "note: {}", printable(note));
            }
            if !self.watch {
                return Ok(output::code(&all));
            }
            has_printed = true;
            tokio::time::sleep(WATCH_PERIOD).await;
        }
    }

    /// Reason for which none of the selected models, opted in or not, can be explained.
    fn no_model(&self, selected: &[&ModelServing]) -> String {
        if let Some(name) = &self.model {
            let Some(model) = selected.first() else {
                return format!("the ModelServing {name} was not found; correct the namespace and the name");
            };
            return plan::not_opted_in(model).unwrap_or_else(|| {
                format!(
                    "the ModelServing {name} has no annotation {MODEL_NAME}, so it is not scaled; set it to the name that clients send"
                )
            });
        }
        let scope = self.namespace.as_deref().map_or_else(
            || "no ModelServing".to_owned(),
            |namespace| format!("no ModelServing in namespace {namespace}"),
        );
        format!("{scope} has the annotation {MODEL_NAME}; set it to opt in")
    }

    /// Explanations of the selected models, broken ones first, and a note for each mistyped opt-in among them.
    async fn explain_all(&self) -> Result<(Vec<Explained>, Vec<String>), String> {
        let selection = self.selection()?;
        let view = ClusterView::read(&self.access, selection.namespace).await?;
        let leader = match &view.operator {
            Ok(Some(operator)) => operator.leader(&view.route.client).await,
            Ok(None) | Err(_) => None,
        };
        let in_full = selection.name.is_some();
        let selected = view.models().filter(|model| selection.includes(model));
        let mut checks: Vec<SignalCheck> = selected.map(|model| SignalCheck::of(&view, model)).collect();
        probe(&mut checks, &view.route).await;
        let mut all = Vec::new();
        for mut check in checks {
            if in_full {
                measure(&mut check, &view.route).await;
            }
            let planned = Planned {
                live: &view.live,
                leader: leader.as_deref(),
                capabilities: view.served.capabilities,
            };
            all.extend(Box::pin(explain_model(check, &planned, &view.route, in_full)).await);
        }
        let named: Vec<&ModelServing> = view.models().filter(|model| selection.names(model)).collect();
        let notes: Vec<String> =
            if in_full { Vec::new() } else { named.iter().copied().filter_map(mistyped).collect() };
        if all.is_empty() {
            let reasons = [self.no_model(&named)].into_iter().chain(view.live.missing.clone()).chain(notes);
            return Err(reasons.collect::<Vec<_>>().join("; "));
        }
        all.sort_by_key(|found| (rank(found.status), found.namespace.clone(), found.name.clone()));
        Ok((all, notes))
    }

    fn selection(&self) -> Result<Selection<'_>, String> {
        let namespace = self.namespace.as_deref();
        let Some(model) = self.model.as_deref() else { return Ok(Selection { namespace, name: None }) };
        let (namespace, name) = model_name(model, namespace)?;
        Ok(Selection { namespace: Some(namespace), name: Some(name) })
    }
}

/// The models to explain: all opted-in ones without a name or namespace.
struct Selection<'a> {
    namespace: Option<&'a str>,
    name: Option<&'a str>,
}

impl Selection<'_> {
    fn includes(&self, model: &ModelServing) -> bool {
        model.is_managed() && self.names(model)
    }

    fn names(&self, model: &ModelServing) -> bool {
        self.namespace.is_none_or(|namespace| model.namespace().as_deref() == Some(namespace))
            && self.name.is_none_or(|name| model.name_any() == name)
    }
}

/// A mistyped opt-in, with the ModelServing.
fn mistyped(model: &ModelServing) -> Option<String> {
    let problem = plan::mistyped_opt_in(model)?;
    Some(format!("{}/{}: {problem}", model.namespace().unwrap_or_default(), model.name_any()))
}

/// State of the cluster that every model is compared with.
struct Planned<'a> {
    live: &'a Live,
    /// Clause about the operator's leader.
    leader: Option<&'a str>,
    capabilities: Capabilities,
}

impl Planned<'_> {
    /// Differences between the plan and the cluster, as warnings.
    fn differences(&self, observed: &Observed, plan: &Plan, verdict: &Verdict) -> Vec<String> {
        let model = &observed.model_serving;
        let namespace = model.namespace().unwrap_or_default();
        let live = self.live.objects.scaled_object(&namespace, &model.scaled_object_name());
        let fields = match (&plan.scaled_object, live) {
            (Desired::Apply(planned), Some(live)) => comparison::differing_fields(live, planned),
            _ => Vec::new(),
        };
        let differs = (!fields.is_empty()).then(|| comparison::differs(&fields, self.leader));
        differs
            .into_iter()
            .chain(comparison::other_condition(model.condition(), verdict.reason.as_str()))
            .collect()
    }
}

async fn explain_model(
    SignalCheck { mut observed, defaults, source, .. }: SignalCheck,
    cluster: &Planned<'_>,
    route: &PrometheusRoute,
    in_full: bool,
) -> Option<Explained> {
    // In a list of models only those with a Value metric are checked, since a mismatch keeps only them from being scaled.
    let uses_value_metric = observed
        .profile
        .as_ref()
        .is_some_and(|profile| profile.as_ref().is_ok_and(Profile::uses_value_metric));
    let mut pods = PodReads::default();
    if in_full || uses_value_metric {
        observed.mismatch = pods.found(selector_mismatch(&route.client, &observed.model_serving).await);
    }
    if in_full && observed.model_serving.lags() {
        observed.waiting = pods.found(waiting_pods(&route.client, &observed.model_serving).await);
    }
    // One look does not show for how long KEDA has reported it.
    observed.pause_is_outdated = !observed.ended_pauses().is_empty();
    let mut plan = plan::plan(&observed, cluster.capabilities, &defaults);
    let has_stand_in = matches!(plan.stand_in.state, StandInState::Holds | StandInState::Idle);
    if in_full && has_stand_in {
        observed.stand_in.pod = pods.found(stand_in(&route.client, &observed.model_serving).await);
        plan = plan::plan(&observed, cluster.capabilities, &defaults);
    }
    let explanation = plan.explanation.as_ref()?;
    let differences = cluster.differences(&observed, &plan, &explanation.verdict);
    let signals = match &explanation.resolved {
        Some(resolved) if in_full => signals::current(&observed, resolved, route).await,
        _ => Vec::new(),
    };
    let links = plan::diagnose(&observed, &plan, explanation).into_iter().map(link_report).collect();
    let Explanation { verdict, resolved, .. } = explanation;
    Some(Explained {
        namespace: observed.model_serving.namespace().unwrap_or_default(),
        name: observed.model_serving.name_any(),
        status: verdict.status.as_str(),
        reason: verdict.reason.as_str(),
        message: verdict.message.clone(),
        links,
        routes: routes(&observed.routing),
        replicas: resolved.as_ref().map(|resolved| replicas(&observed, resolved, &signals)),
        signals,
        prometheus_from: in_full.then_some(source),
        warnings: plan
            .warnings
            .iter()
            .chain(&differences)
            .map(|warning| printable(warning).into_owned())
            .collect(),
        skipped: cluster
            .live
            .missing
            .iter()
            .chain(&pods.failed)
            .map(|skipped| printable(skipped).into_owned())
            .collect(),
    })
}

/// Reads of a model's pods.
#[derive(Default)]
struct PodReads {
    /// The first failure.
    failed: Option<String>,
}

impl PodReads {
    fn found<T>(&mut self, result: Result<Option<T>, kube::Error>) -> Option<T> {
        result.unwrap_or_else(|error| {
            let error = Error::from(error).user_message();
            self.failed
                .get_or_insert_with(|| format!("cannot read pods: {error}; dependent checks were skipped"));
            None
        })
    }
}

fn link_report(link: Link) -> LinkReport {
    let state = match link.state {
        LinkState::Holds => "holds",
        LinkState::Broken => "broken",
        LinkState::Affected => "affected",
        LinkState::Unknown => "unknown",
    };
    LinkReport { name: link.link.name(), state, detail: link.detail }
}

/// The destinations of each name, by the router's choice among routes.
fn routes(routing: &Routing) -> Vec<RouteReport> {
    let of_name = |name: &RoutedName| -> Vec<RouteReport> {
        name.destinations.iter().map(|destination| route_report(&name.name, destination)).collect()
    };
    routing.names.iter().flat_map(of_name).collect()
}

fn route_report(name: &str, destination: &Destination) -> RouteReport {
    let (server, receiver) = match &destination.backend {
        Backend::Server(server) if server.is_own => (Some(&server.name), "pods of this model"),
        Backend::Server(server) => (Some(&server.name), "other pods"),
        Backend::Missing(server) => (Some(server), "which does not exist"),
        Backend::Outside => (None, "a provider outside the cluster"),
    };
    RouteReport {
        model: name.to_owned(),
        model_route: destination.route.clone(),
        model_server: server.cloned(),
        receiver,
        usage: match destination.usage {
            Usage::Receives => "receives",
            Usage::NoWeight => "weight 0",
            Usage::Unused => "unused",
        },
    }
}

fn replicas(observed: &Observed, resolved: &ResolvedIntent, signals: &[Signal]) -> Replicas {
    let bounds = resolved
        .roles
        .is_empty()
        .then(|| Bounds { min: resolved.intent.replicas.min(), max: resolved.intent.replicas.max() });
    let wanted = signals.iter().filter_map(|signal| signal.wanted).reduce(f64::max);
    let conditions = observed.hpa.as_ref().map(|hpa| &hpa.conditions);
    let hpa = ["AbleToScale", "ScalingLimited"]
        .into_iter()
        .filter_map(|kind| find_condition(conditions?, kind))
        .map(|condition| format!("{}: {}", printable(&condition.reason), condition.message));
    Replicas {
        now: observed.model_serving.replicas(),
        available: observed.model_serving.status.available_replicas.unwrap_or_default(),
        waiting: observed.waiting.as_ref().and_then(WaitingPods::words).map(str::to_owned),
        bounds,
        wanted: bounds
            .zip(wanted)
            .map(|(Bounds { min, max }, wanted)| wanted.clamp(f64::from(min), f64::from(max))),
        hpa: hpa.collect(),
    }
}
