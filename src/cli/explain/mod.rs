//! `explain`: walks the chain of one model against a live cluster and its Prometheus, with the caller's own rights.

mod output;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use kube::{Client, ResourceExt as _};

use self::output::{Explained, Format, LinkReport, Replicas, Signal, rank};
use super::plan_args::namespace;
use crate::{
    cluster::{self, discovery},
    controllers::signal_probe,
    prometheus::{ClientConfig, Prometheus, Querier, external},
    sources::{
        kinds::optional_apis,
        live::{self, Live},
        selector_mismatch,
    },
};
use kthena_keda_core::{
    api::{keda::MetricType, kthena::ModelServing},
    domain::Capabilities,
    domain::PrometheusUrl,
    intent::{Profile, PrometheusSettings},
    observed::{Observed, ProbeTarget, find_condition},
    plan::{self, Explanation, Link, LinkState, ResolvedIntent, TriggerSpec, plan_router},
};

/// The HPA's tolerance: within a tenth of the target nothing changes (Kubernetes `--horizontal-pod-autoscaler-tolerance`).
const TOLERANCE: f64 = 0.1;
/// How often `--watch` looks again.
const AGAIN: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(super) struct Explain {
    /// A ModelServing; without it one line for each model that opted in, the worst first.
    #[arg(value_name = "NAMESPACE/NAME")]
    model: Option<String>,
    /// The namespace of a ModelServing that is given by its name alone; without a name, of all that are shown.
    #[arg(short, long, value_parser = namespace)]
    namespace: Option<String>,
    /// The context of the kubeconfig to use instead of its current one.
    #[arg(long)]
    context: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// Look again every five seconds, until it is interrupted.
    #[arg(short, long)]
    watch: bool,
    /// Prometheus as it is reached from here, such as <http://localhost:9090>; by default it is asked through the API server.
    #[arg(long, value_name = "URL")]
    prometheus_url: Option<PrometheusUrl>,
    /// The namespace in which kthena-router runs.
    #[arg(long, env = "KTHENA_KEDA_ROUTER_NAMESPACE", value_name = "NAMESPACE", default_value = "kthena-system", value_parser = namespace)]
    router_namespace: String,
}

impl Explain {
    pub(super) fn run(&self) -> ExitCode {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let done = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())
            .and_then(|runtime| runtime.block_on(self.explain()));
        done.unwrap_or_else(|error| {
            // Nobody is left to be told when standard error is closed.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        })
    }

    async fn explain(&self) -> Result<ExitCode, String> {
        loop {
            let (all, missing) = self.look().await?;
            if all.is_empty() {
                let nothing = match &self.model {
                    Some(model) => {
                        format!("there is no ModelServing {model} that opted in by kthena.io/model-name")
                    }
                    None => "no ModelServing opted in by kthena.io/model-name".to_owned(),
                };
                return Err([nothing].into_iter().chain(missing).collect::<Vec<_>>().join("; "));
            }
            output::print(&all, self.output, self.model.is_some())
                .map_err(|error| format!("cannot print: {error}"))?;
            if !self.watch {
                return Ok(output::code(&all));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// What there is to say of each model, and what could not be looked at.
    async fn look(&self) -> Result<(Vec<Explained>, Vec<String>), String> {
        let wanted = self.model.as_deref().map(|model| self.find(model)).transpose()?;
        let within = wanted.map(|(namespace, _)| namespace).or(self.namespace.as_deref());
        let client = cluster::connect(self.context.clone()).await.map_err(|error| error.to_string())?;
        let served = discovery::discover(&client, &optional_apis())
            .await
            .map_err(|error| format!("cannot find out what the cluster serves: {error}"))?;
        let live = live::read(&client, &served, within, &self.router_namespace).await;
        let is_wanted = |found: &ModelServing| {
            found.is_opted_in()
                && within.is_none_or(|namespace| found.namespace().as_deref() == Some(namespace))
                && wanted.is_none_or(|(_, name)| found.name_any() == name)
        };
        let models: Vec<Arc<ModelServing>> = live
            .objects
            .model_servings
            .iter()
            .map(|(_, found)| found.clone())
            .filter(|found| is_wanted(found))
            .collect();
        let way = Way::new(&client, self.prometheus_url.clone())?;
        let mut asked: Vec<SignalCheck> = models
            .iter()
            .map(|model| looked(&live, model, served.capabilities, &self.router_namespace, &way))
            .collect();
        ask(&mut asked, &way).await;
        let mut all = Vec::new();
        for looked in asked {
            all.extend(explained(looked, &live.missing, served.capabilities, &way, wanted.is_some()).await);
        }
        all.sort_by_key(|found| (rank(found.status), found.namespace.clone(), found.name.clone()));
        Ok((all, live.missing))
    }

    /// The namespace and name that are meant.
    fn find<'a>(&'a self, model: &'a str) -> Result<(&'a str, &'a str), String> {
        match (model.split_once('/'), self.namespace.as_deref()) {
            (Some((namespace, _)), Some(other)) if namespace != other => {
                Err(format!("{model:?} is not in the namespace {other}; give one of the two"))
            }
            (Some(both), _) => Ok(both),
            (None, Some(namespace)) => Ok((namespace, model)),
            (None, None) => Err(format!("{model:?} is no model; write NAMESPACE/NAME, or -n NAMESPACE NAME")),
        }
    }
}

/// How Prometheus is asked.
struct Way {
    client: Client,
    asker: Querier,
    /// Where it is reached from here, if not where KEDA reaches it.
    reachable: Option<PrometheusUrl>,
}

impl Way {
    /// At the address that was given, else through the API server.
    fn new(client: &Client, reachable: Option<PrometheusUrl>) -> Result<Self, String> {
        let direct = || {
            Prometheus::new(ClientConfig::default()).map(Querier::Direct).map_err(|error| error.to_string())
        };
        Ok(match reachable {
            Some(reachable) => Self { client: client.clone(), asker: direct()?, reachable: Some(reachable) },
            None => Self { client: client.clone(), asker: Querier::Proxied(client.clone()), reachable: None },
        })
    }

    /// The same Prometheus at the address by which it is reached from here.
    fn as_reached(&self, settings: &PrometheusSettings) -> PrometheusSettings {
        let mut settings = settings.clone();
        if let Some(reachable) = &self.reachable {
            settings.url = reachable.clone();
        }
        settings
    }
}

/// What the cluster holds of one model, and where its signals are.
struct SignalCheck {
    observed: Observed,
    defaults: Profile,
    source: Option<ProbeTarget>,
}

fn looked(
    live: &Live,
    model: &ModelServing,
    capabilities: Capabilities,
    router_namespace: &str,
    way: &Way,
) -> SignalCheck {
    let mut defaults = Profile::built_in();
    // What `run` was told is not known here; what it made of that is.
    let namespace = model.namespace().unwrap_or_default();
    let told =
        live.objects.server_address(&namespace, &model.scaled_object_name()).and_then(|url| url.parse().ok());
    defaults.prometheus = told.or_else(|| way.reachable.clone()).map(PrometheusSettings::from);
    let (router, _) = live.objects.observe_router(router_namespace);
    let router = plan_router(&router, live.objects.default_profile().as_ref(), &defaults, true).series;
    let observed = live.objects.observe(model, router);
    let first = plan::plan(&observed, capabilities, &defaults);
    let source = first.explanation.as_ref().and_then(|found| found.resolved.as_ref()).and_then(source);
    SignalCheck { observed, defaults, source }
}

/// Asks the same few questions for all models: once for each source, however many are scaled by it.
async fn ask(all: &mut [SignalCheck], way: &Way) {
    let reached = |source: &ProbeTarget| ProbeTarget {
        prometheus: way.as_reached(&source.prometheus),
        router: source.router.clone(),
    };
    let sights =
        signal_probe::probe(&way.asker, all.iter().filter_map(|looked| looked.source.as_ref()).map(reached))
            .await;
    for SignalCheck { observed, source, .. } in all {
        let seen =
            source.as_ref().and_then(|source| Some((source.clone(), sights.get(&reached(source))?.clone())));
        observed.probes = Arc::new(seen.into_iter().collect());
    }
}

async fn explained(
    SignalCheck { mut observed, defaults, .. }: SignalCheck,
    missing: &[String],
    capabilities: Capabilities,
    way: &Way,
    in_full: bool,
) -> Option<Explained> {
    // A right that is missing leaves the pods uncounted. Of many models those alone are looked at that are not scaled for what is wrong.
    let uses_value_metric = observed
        .profile
        .as_ref()
        .is_some_and(|profile| profile.as_ref().is_ok_and(Profile::uses_value_metric));
    if in_full || uses_value_metric {
        observed.mismatch = selector_mismatch(&way.client, &observed.model_serving).await.ok().flatten();
    }
    let plan = plan::plan(&observed, capabilities, &defaults);
    let explanation = plan.explanation.as_ref()?;
    let signals = match &explanation.resolved {
        Some(asked) if in_full => values(&observed, asked, way).await,
        _ => Vec::new(),
    };
    let links = plan::diagnose(&observed, &plan, explanation).into_iter().map(seen).collect();
    let Explanation { verdict, resolved, .. } = explanation;
    Some(Explained {
        namespace: observed.model_serving.namespace().unwrap_or_default(),
        name: observed.model_serving.name_any(),
        status: verdict.status.as_str(),
        reason: verdict.reason,
        message: verdict.message.clone(),
        links,
        replicas: resolved.as_ref().map(|resolved| replicas(&observed, resolved, &signals)),
        signals,
        warnings: plan.warnings.clone(),
        not_looked_at: missing.to_vec(),
    })
}

fn source(asked: &ResolvedIntent) -> Option<ProbeTarget> {
    Some(ProbeTarget {
        prometheus: asked.intent.profile.prometheus.clone()?,
        router: asked.triggers.router.clone(),
    })
}

fn seen(link: Link) -> LinkReport {
    let state = match link.state {
        LinkState::Holds => "holds",
        LinkState::Broken => "broken",
        LinkState::Affected => "affected",
        LinkState::Unknown => "unknown",
    };
    LinkReport { name: link.link.name(), state, says: link.detail }
}

/// What each signal is now, and how many ServingGroups it asks for.
async fn values(observed: &Observed, asked: &ResolvedIntent, way: &Way) -> Vec<Signal> {
    let Some(prometheus) = &asked.intent.profile.prometheus else { return Vec::new() };
    let settings = way.as_reached(prometheus);
    let (namespace, scaled_object) =
        (observed.model_serving.namespace().unwrap_or_default(), observed.model_serving.scaled_object_name());
    let mut signals = Vec::new();
    for (place, trigger) in asked.triggers.triggers.iter().enumerate() {
        let answer = match way.asker.query_text(&settings, &trigger.query).await.as_deref() {
            Ok([one]) => Ok(one.value),
            Ok([]) => Err("no data".to_owned()),
            Ok(many) => Err(format!("{} values, of which KEDA takes none", many.len())),
            // What KEDA answers the HPA is worth less, since it does not tell why there is nothing.
            Err(error) => {
                external(&way.client, &namespace, &scaled_object, place).await.map_err(|_| error.clone())
            }
        };
        let (value, problem) = (answer.as_ref().ok().copied(), answer.err());
        let wanted = value.and_then(|value| asks_for(trigger, value, observed.model_serving.replicas()));
        signals.push(Signal {
            name: trigger.name.clone(),
            query: trigger.query.clone(),
            target: trigger.threshold.clone(),
            value,
            wanted,
            problem,
        });
    }
    signals
}

/// As the HPA reckons for totals; levels depend on how many pods are ready, and the activation trigger never sizes the fleet.
fn asks_for(trigger: &TriggerSpec, value: f64, now: i32) -> Option<f64> {
    let target: f64 = trigger.threshold.parse().ok()?;
    if trigger.metric_type != MetricType::AverageValue || trigger.activation.is_some() {
        return None;
    }
    let ratio = value / (target * f64::from(now));
    let stays = now > 0 && (ratio - 1.0).abs() <= TOLERANCE;
    Some(if stays { f64::from(now) } else { (value / target).ceil() })
}

fn replicas(observed: &Observed, asked: &ResolvedIntent, signals: &[Signal]) -> Replicas {
    let bounds = asked.intent.replicas;
    let most = signals.iter().filter_map(|signal| signal.wanted).reduce(f64::max);
    let told = |kind| observed.hpa.as_ref().and_then(|hpa| find_condition(&hpa.conditions, kind));
    let hpa = [told("AbleToScale"), told("ScalingLimited")]
        .into_iter()
        .flatten()
        .map(|told| format!("{}: {}", told.reason, told.message));
    Replicas {
        now: observed.model_serving.replicas(),
        min: bounds.min(),
        max: bounds.max(),
        wanted: most.map(|most| most.clamp(f64::from(bounds.min()), f64::from(bounds.max()))),
        hpa: hpa.collect(),
    }
}
