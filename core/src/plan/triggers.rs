//! What is asked of Prometheus for one ModelServing, signal by signal.

use super::{
    Finding,
    demand::{self, DemandShare},
    engine::{Engines, engines},
};
use crate::{
    api::keda::MetricType,
    intent::{Intent, SignalSource, SignalTarget},
    observed::Observed,
    promql::Subject,
    signals::{ACTIVATION, DemandScope, Engine, EngineSeries, RouterSeries, Signal, activation},
};

/// A threshold that no demand reaches: the activation trigger wakes a model and never sizes it.
const OUT_OF_REACH: &str = "1000000000";

/// One question and what its answer means.
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerSpec {
    /// Unique within the ScaledObject.
    pub name: String,
    /// The PromQL.
    pub query: String,
    /// What one ServingGroup is expected to carry.
    pub threshold: String,
    /// How the answer becomes a number of ServingGroups.
    pub metric_type: MetricType,
    /// From what answer on a model at zero is woken, where that is not 0 and left to KEDA.
    pub activation: Option<String>,
}

/// Everything that is asked of one ModelServing, and what has to be scraped for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Triggers {
    /// In the order of the ScaledObject's triggers.
    pub triggers: Vec<TriggerSpec>,
    /// What is scraped of its pods; none where no signal needs that.
    pub engines: Option<Engines>,
    /// Where the router's series are.
    pub router: RouterSeries,
}

/// Asks for every signal of the intent.
///
/// # Errors
/// Everything that keeps a signal from being measured here.
pub(super) fn triggers(observed: &Observed, intent: &Intent) -> Result<Triggers, Vec<Finding>> {
    let router = observed.router.with_overrides(&intent.profile.router);
    let share = demand::share(&intent.models, &observed.routing).map_err(|finding| vec![finding])?;
    let asker = QueryBuilder { observed, intent, router: &router, share: &share };
    let mut findings = cannot_wake(intent, &share);
    let mut triggers = Vec::new();
    for wanted in &intent.signals {
        match asker.ask(wanted) {
            Ok(trigger) => triggers.push(trigger),
            Err(finding) if findings.contains(&finding) => {}
            Err(finding) => findings.push(finding),
        }
    }
    if let (0, DemandScope::Models(models)) = (intent.replicas.min(), &share.demanded) {
        triggers.push(TriggerSpec {
            name: ACTIVATION.to_owned(),
            query: activation(models, &router).to_string(),
            threshold: OUT_OF_REACH.to_owned(),
            metric_type: MetricType::AverageValue,
            activation: Some(intent.profile.activation.to_string()),
        });
    }
    let engines = intent.signals.iter().any(is_of_engines).then(|| asker.engines()).and_then(Result::ok);
    if findings.is_empty() { Ok(Triggers { triggers, engines, router }) } else { Err(findings) }
}

const fn is_of_engines(wanted: &SignalTarget) -> bool {
    matches!(wanted.measure, SignalSource::BuiltIn(Signal::Saturation(_)))
}

fn cannot_wake(intent: &Intent, share: &DemandShare) -> Vec<Finding> {
    if intent.replicas.min() > 0 {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if intent.signals.iter().all(is_of_engines) {
        findings.push(Finding::no_engines_at_zero());
    }
    if let DemandScope::Servers(_) = share.demanded {
        findings.push(Finding::split_at_zero());
    }
    findings
}

struct QueryBuilder<'a> {
    observed: &'a Observed,
    intent: &'a Intent,
    router: &'a RouterSeries,
    share: &'a DemandShare,
}

impl QueryBuilder<'_> {
    fn ask(&self, wanted: &SignalTarget) -> Result<TriggerSpec, Finding> {
        let SignalTarget { measure, target } = wanted;
        let mut target = *target;
        let mut metric_type = MetricType::AverageValue;
        let query = match measure {
            SignalSource::BuiltIn(Signal::Demand(demand)) => {
                if self.share.counts_twice {
                    target = target.doubled();
                }
                let query = demand.query(&self.share.demanded, self.router);
                query.ok_or_else(|| Finding::signal_not_split(measure.name()))?.to_string()
            }
            SignalSource::BuiltIn(Signal::Saturation(saturation)) => {
                saturation.query(&self.engine_series(self.engines()?.engine)).to_string()
            }
            SignalSource::Custom(custom) => {
                metric_type = custom.metric_type;
                let names: Vec<&str> = self.intent.models.iter().collect();
                let adapters: Vec<&str> = self.observed.routing.adapters.iter().map(String::as_str).collect();
                let (namespace, name) = self.identity();
                let subject = Subject { models: &names, adapters: &adapters, namespace, name };
                custom
                    .query
                    .fill(&subject)
                    .map_err(|error| Finding::custom_signal(&custom.name, &error))?
                    .to_string()
            }
        };
        Ok(TriggerSpec {
            name: measure.name().to_owned(),
            query,
            threshold: target.to_string(),
            metric_type,
            activation: None,
        })
    }

    fn identity(&self) -> (&str, &str) {
        let metadata = &self.observed.model_serving.metadata;
        (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
    }

    fn engines(&self) -> Result<Engines, Finding> {
        engines(self.intent, &self.observed.routing).map_err(|error| Finding::invalid(&[error]))
    }

    fn engine_series(&self, engine: Engine) -> EngineSeries {
        let (namespace, name) = self.identity();
        EngineSeries {
            engine,
            namespace: namespace.to_owned(),
            model_serving: name.to_owned(),
            at_zero: (self.intent.replicas.min() == 0).then(|| self.router.clone()),
        }
    }
}
