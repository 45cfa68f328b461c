//! `explain`: follows the chain of each model in a live cluster and its Prometheus, with the caller's RBAC
//! permissions.

mod comparison;
mod latency;
mod output;
mod signals;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use kube::ResourceExt as _;

use self::output::{Explained, Format, LinkReport, Replicas, RouteReport, Signal, rank};
use super::{
    operator::Operator,
    plan_args::{model_name, namespace},
    prometheus_route::{PrometheusRoute, ROUTER_NAMESPACE, is_unknown, prometheus_url},
};
use crate::{
    cluster::{self, discovery},
    controllers::{measurements, signal_probe},
    sources::{
        kinds::optional_apis,
        live::{self, Live},
        selector_mismatch, waiting_pods,
    },
};
use kthena_keda_core::{
    api::{annotations::MODEL_NAME, kthena::ModelServing},
    domain::{Capabilities, PrometheusUrl, printable},
    intent::{Profile, PrometheusSettings},
    observed::{
        Backend, Destination, Observed, ProbeTarget, RoutedName, Routing, Usage, WaitingPods, find_condition,
    },
    plan::{
        self, Desired, Explanation, Link, LinkState, Plan, ResolvedIntent, Triggers, Verdict, plan_router,
    },
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
    /// Context of the kubeconfig; the current context by default.
    #[arg(long)]
    context: Option<String>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// Repeat every five seconds until interrupted.
    #[arg(short, long)]
    watch: bool,
    /// Address of Prometheus as reached from here, such as <http://localhost:9090>; by default queries go
    /// through the API server.
    #[arg(long, value_name = "URL")]
    prometheus_url: Option<PrometheusUrl>,
    /// Namespace of kthena-router; by default that of the operator's Deployment, else kthena-system.
    #[arg(long, env = "KTHENA_KEDA_ROUTER_NAMESPACE", value_name = "NAMESPACE", value_parser = namespace)]
    router_namespace: Option<String>,
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
        loop {
            let (all, skipped) = Box::pin(self.explain_all()).await?;
            if all.is_empty() {
                return Err([self.no_model()].into_iter().chain(skipped).collect::<Vec<_>>().join("; "));
            }
            output::print(&all, self.output, self.model.is_some())
                .map_err(|error| format!("cannot write to standard output: {error}"))?;
            if !self.watch {
                return Ok(output::code(&all));
            }
            tokio::time::sleep(WATCH_PERIOD).await;
        }
    }

    fn no_model(&self) -> String {
        if let Some(model) = &self.model {
            return format!(
                "the ModelServing {model} does not exist or has no annotation {MODEL_NAME}; correct the name, or set the annotation"
            );
        }
        let scope = self.namespace.as_deref().map_or_else(
            || "no ModelServing".to_owned(),
            |namespace| format!("no ModelServing in namespace {namespace}"),
        );
        format!("{scope} has the annotation {MODEL_NAME}; set it to opt in")
    }

    /// Explanations of the selected models, broken ones first, and the checks that were skipped.
    async fn explain_all(&self) -> Result<(Vec<Explained>, Vec<String>), String> {
        let selection = self.selection()?;
        let client = cluster::connect(self.context.clone()).await.map_err(|error| error.to_string())?;
        let served = discovery::discover(&client, &optional_apis())
            .await
            .map_err(|error| format!("discovery of the cluster's APIs failed: {error}"))?;
        let found = Operator::find(&client).await;
        let operator = found.as_ref().ok().and_then(Option::as_ref);
        let of_operator = operator.and_then(|found| found.router_namespace.clone());
        let router_namespace =
            self.router_namespace.clone().or(of_operator).unwrap_or_else(|| ROUTER_NAMESPACE.to_owned());
        let mut live = live::read(&client, &served, selection.namespace, &router_namespace).await;
        let leader = match operator {
            Some(operator) => operator.leader(&client).await,
            None => None,
        };
        let route = PrometheusRoute::new(client, self.prometheus_url.clone())?;
        let models = live.objects.model_servings.iter().map(|(_, model)| model);
        let mut checks: Vec<SignalCheck> = models
            .filter(|model| selection.includes(model))
            .map(|model| {
                SignalCheck::of(&live, model, served.capabilities, &router_namespace, &found, &route)
            })
            .collect();
        probe(&mut checks, &route).await;
        let mut all = Vec::new();
        let in_full = selection.name.is_some();
        for check in checks {
            let planned =
                Planned { live: &live, leader: leader.as_deref(), capabilities: served.capabilities };
            all.extend(explain_model(check, &planned, &route, in_full).await);
        }
        if in_full && all.is_empty() {
            let named = live.objects.model_servings.iter().map(|(_, model)| model);
            live.missing.extend(
                named.filter(|model| selection.names(model)).filter_map(|model| plan::not_opted_in(model)),
            );
        }
        all.sort_by_key(|found| (rank(found.status), found.namespace.clone(), found.name.clone()));
        Ok((all, live.missing))
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

/// Observed state of one model, and the target of its signal probe.
struct SignalCheck {
    observed: Observed,
    defaults: Profile,
    target: Option<ProbeTarget>,
    triggers: Option<Triggers>,
    /// Source of the operator's own address of Prometheus.
    source: String,
}

impl SignalCheck {
    fn of(
        live: &Live,
        model: &ModelServing,
        capabilities: Capabilities,
        router_namespace: &str,
        operator: &Result<Option<Operator>, String>,
        route: &PrometheusRoute,
    ) -> Self {
        let mut defaults = Profile::built_in();
        let of_operator = operator.as_ref().ok().and_then(Option::as_ref);
        let (url, mut source) = prometheus_url(live, model, of_operator, route);
        if let Err(ambiguity) = operator
            && route.url.is_none()
        {
            source = format!("{source}; {ambiguity}");
        }
        defaults.prometheus = url.map(PrometheusSettings::from);
        let (router, _) = live.objects.observe_router(router_namespace);
        let router = plan_router(&router, live.objects.default_profile().as_ref(), &defaults, true).router;
        let observed = live.objects.observe(model, router);
        let plan = plan::plan(&observed, capabilities, &defaults);
        let resolved = plan.explanation.as_ref().and_then(|found| found.resolved.as_ref());
        let is_unknown = defaults.prometheus.as_ref().is_some_and(is_unknown);
        let target = resolved.and_then(probe_target);
        let target =
            target.filter(|target| !is_unknown || Some(&target.prometheus) != defaults.prometheus.as_ref());
        let triggers = resolved.map(|resolved| resolved.triggers.clone());
        Self { observed, defaults, target, triggers, source }
    }
}

fn probe_target(resolved: &ResolvedIntent) -> Option<ProbeTarget> {
    Some(ProbeTarget {
        prometheus: resolved.intent.profile.prometheus.clone()?,
        router: resolved.triggers.router.clone(),
    })
}

/// Probes the signals: once for each target, however many models share it.
async fn probe(checks: &mut [SignalCheck], route: &PrometheusRoute) {
    let targets = checks.iter().filter_map(|check| check.target.as_ref()).map(|target| route.target(target));
    let results = signal_probe::probe(&route.querier, targets).await;
    for SignalCheck { observed, target, triggers, .. } in checks {
        let result = target.as_ref().and_then(|target| {
            let result = results.get(&route.target(target))?;
            Some((target.clone(), result.clone()))
        });
        observed.probes = Arc::new(result.into_iter().collect());
        if let (Some(target), Some(triggers)) = (target, triggers) {
            let settings = route.settings(&target.prometheus);
            observed.measured =
                measurements::measure(&route.querier, &settings, triggers).await.unwrap_or_default();
        }
    }
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
        differs.into_iter().chain(comparison::other_condition(model.condition(), verdict)).collect()
    }
}

async fn explain_model(
    SignalCheck { mut observed, defaults, source, .. }: SignalCheck,
    cluster: &Planned<'_>,
    route: &PrometheusRoute,
    in_full: bool,
) -> Option<Explained> {
    // Without permission to list pods the check is skipped. In a list of models only those with a Value
    // metric are checked, since a mismatch keeps only them from being scaled.
    let uses_value_metric = observed
        .profile
        .as_ref()
        .is_some_and(|profile| profile.as_ref().is_ok_and(Profile::uses_value_metric));
    if in_full || uses_value_metric {
        observed.mismatch = selector_mismatch(&route.client, &observed.model_serving).await.ok().flatten();
    }
    if in_full && observed.model_serving.lags() {
        observed.waiting = waiting_pods(&route.client, &observed.model_serving).await.ok().flatten();
    }
    // One look does not show for how long KEDA has reported it.
    observed.pause_is_outdated =
        observed.scaled_object.as_ref().is_some_and(|found| found.reports_ended_pause);
    let plan = plan::plan(&observed, cluster.capabilities, &defaults);
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
        skipped: cluster.live.missing.iter().map(|skipped| printable(skipped).into_owned()).collect(),
    })
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
    let (min, max) = (resolved.intent.replicas.min(), resolved.intent.replicas.max());
    let wanted = signals.iter().filter_map(|signal| signal.wanted).reduce(f64::max);
    let conditions = observed.hpa.as_ref().map(|hpa| &hpa.conditions);
    let hpa = ["AbleToScale", "ScalingLimited"]
        .into_iter()
        .filter_map(|kind| find_condition(conditions?, kind))
        .map(|condition| format!("{}: {}", printable(&condition.reason), condition.message));
    Replicas {
        now: observed.model_serving.replicas(),
        available: observed.model_serving.status.available_replicas,
        waiting: observed.waiting.as_ref().and_then(WaitingPods::words).map(str::to_owned),
        min,
        max,
        wanted: wanted.map(|wanted| wanted.clamp(f64::from(min), f64::from(max))),
        hpa: hpa.collect(),
    }
}
