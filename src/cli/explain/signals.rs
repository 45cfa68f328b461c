//! Values of the signals at this moment.

use kube::ResourceExt as _;

use super::{
    PrometheusRoute,
    latency::Latency,
    output::{Backlog, Signal},
};
use crate::{cli::prometheus_route::NO_ADDRESS, prometheus::external_metric};
use kthena_keda_core::{
    api::keda::MetricType,
    domain::{ServiceTimeSetting, printable},
    foresight::{
        hpa::replicas_for_total,
        spec::{HpaSpec, Metric, quantity},
    },
    intent::{Intent, PrometheusSettings},
    observed::Observed,
    plan::{ResolvedIntent, TriggerSpec},
    promql::Expr,
    signals::{self, Demand, usual_duration},
};

/// The current value of each signal, and the number of ServingGroups that it requests.
pub(super) async fn current(
    observed: &Observed,
    resolved: &ResolvedIntent,
    route: &PrometheusRoute,
) -> Vec<Signal> {
    let Some(prometheus) = &resolved.intent.profile.prometheus else { return Vec::new() };
    let settings = route.settings(prometheus);
    let replicas = observed.model_serving.status.replicas.unwrap_or_default();
    let mut signals = Vec::new();
    for (index, trigger) in resolved.triggers.triggers.iter().enumerate() {
        let result = match route.querier.query_text(&settings, &trigger.query).await.as_deref() {
            Ok([sample]) if sample.value.is_finite() => Ok(sample.value),
            Ok([sample]) => Err(format!(
                "the value is {}, which KEDA rejects; if a query of your own divides by 0, leave such series out, for example with > 0 after the divisor",
                sample.value
            )),
            Ok([]) => Err("no data".to_owned()),
            Ok(samples) => Err(format!(
                "the query returns {} series and KEDA accepts only one; aggregate it",
                samples.len()
            )),
            // KEDA's value is the second choice, since KEDA does not report why there is none.
            Err(error) => keda_value(observed, route, index).await.map_err(|_| {
                if route.has_address(prometheus) { error.clone() } else { NO_ADDRESS.to_owned() }
            }),
        };
        let (value, problem) = (result.as_ref().ok().copied(), result.err());
        let problem = problem.map(|problem| printable(&problem).into_owned());
        signals.push(Signal {
            name: trigger.name.clone(),
            query: trigger.query.clone(),
            target: trigger.threshold.clone(),
            value,
            wanted: value
                .filter(|_| resolved.roles.is_empty())
                .and_then(|value| wanted(trigger, &resolved.intent, value, replicas)),
            problem,
            latency: Latency::measure(trigger, resolved, &settings, route).await,
            backlog: backlog(trigger, resolved, &settings, route).await,
            usual_duration: duration(trigger, resolved, &settings, route).await,
            service_time_windows: windows(trigger, resolved, &settings, route).await,
        });
    }
    signals
}

/// The measurements of the signal with a bounded backlog.
async fn backlog(
    trigger: &TriggerSpec,
    resolved: &ResolvedIntent,
    settings: &PrometheusSettings,
    route: &PrometheusRoute,
) -> Option<Backlog> {
    let bounded = resolved.triggers.backlog.as_ref().filter(|_| counts_requests(trigger))?;
    let (intent, service_time) = (&resolved.intent, resolved.triggers.service_time?);
    let setting = intent.backlog.service_time;
    let source = match setting {
        ServiceTimeSetting::Auto => "measured",
        _ if setting == intent.profile.backlog.service_time => "from the profile",
        _ => "from the annotation",
    };
    Some(Backlog {
        in_flight: value(&bounded.in_flight, settings, route).await,
        arrivals_per_second: value(&bounded.arrival_rate, settings, route).await,
        service_time: format!("{service_time} ({source})"),
    })
}

/// Seconds that most requests of the last day took.
async fn duration(
    trigger: &TriggerSpec,
    resolved: &ResolvedIntent,
    settings: &PrometheusSettings,
    route: &PrometheusRoute,
) -> Option<f64> {
    if !counts_requests(trigger) {
        return None;
    }
    let names = resolved.triggers.names.as_ref()?;
    value(&usual_duration(&resolved.triggers.router, names), settings, route).await
}

/// Number of windows that count for a service time that is not measured yet.
async fn windows(
    trigger: &TriggerSpec,
    resolved: &ResolvedIntent,
    settings: &PrometheusSettings,
    route: &PrometheusRoute,
) -> Option<f64> {
    let triggers = &resolved.triggers;
    let is_awaited = counts_requests(trigger)
        && resolved.intent.backlog.service_time == ServiceTimeSetting::Auto
        && triggers.service_time.is_none();
    let history = triggers.history.as_ref().filter(|_| is_awaited)?;
    Some(value(&history.windows, settings, route).await.unwrap_or_default())
}

fn counts_requests(trigger: &TriggerSpec) -> bool {
    trigger.name == signals::Signal::Demand(Demand::ActiveRequests).name()
}

pub(super) async fn value(
    query: &Expr,
    settings: &PrometheusSettings,
    route: &PrometheusRoute,
) -> Option<f64> {
    route.querier.query(settings, query).await.ok()?.first().map(|found| found.value)
}

/// The value that KEDA serves to the HPA for the trigger with this index.
async fn keda_value(observed: &Observed, route: &PrometheusRoute, trigger: usize) -> Result<f64, String> {
    let model = &observed.model_serving;
    let namespace = model.namespace().unwrap_or_default();
    external_metric(&route.client, &namespace, &model.scaled_object_name(), trigger).await
}

/// The number of ServingGroups that a signal requests, as the HPA calculates it for totals.
///
/// `None` for a `Value` metric, which also depends on the number of ready pods, and for the activation
/// trigger, which wakes a model and never sizes it.
fn wanted(trigger: &TriggerSpec, intent: &Intent, value: f64, status: i32) -> Option<f64> {
    let target: f64 = trigger.threshold.parse().ok()?;
    if trigger.metric_type != MetricType::AverageValue || trigger.activation.is_some() {
        return None;
    }
    let metric = Metric { kind: trigger.metric_type, target: quantity(target)? };
    let hpa = HpaSpec::from_intent(intent.replicas, &intent.profile.behavior, vec![metric]).ok()?;
    Some(replicas_for_total(&hpa, value, target, status).into())
}
