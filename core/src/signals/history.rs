//! Queries over the past of one model, for simulations.

use super::{
    RouterSeries, bounded_requests,
    engine::{MODEL_SERVING, SERVING_GROUP},
    router::located,
};
use crate::{
    domain::{Backlog, ModelNames, SeriesMatchers, ServiceTime},
    promql::{Expr, RangeFunction, Selector},
};

/// Window of [`samples_in_window`], in seconds.
pub const SAMPLE_WINDOW: u32 = 600;

/// Requests that arrive per second, over half a minute; no value while they cannot be measured.
pub fn arrival_rate(models: &ModelNames, router: &RouterSeries) -> Option<Expr> {
    // The service time only lengthens the window, which is half a minute at least.
    let bound = (ServiceTime::from_millis(1000)?, Backlog::default());
    bounded_requests(models, router, bound, None).map(|bounded| bounded.arrival_rate)
}

/// Samples of the router within [`SAMPLE_WINDOW`], from which the resolution of a store follows; no value for a window that begins before
/// the first sample.
pub fn samples_in_window(router: &RouterSeries) -> Expr {
    Expr::max(Expr::Range(RangeFunction::CountOverTime, router.active(), "10m".into()))
        .if_any(Expr::Series(router.active().offset("10m")))
}

/// ServingGroups that the operator found that a model in shadow would hold.
pub fn shadow_replicas(namespace: &str, name: &str, matchers: &SeriesMatchers) -> Expr {
    let series = Selector::metric("kthena_keda_shadow_replicas");
    let series = series.with("namespace", namespace).with("model_serving", name);
    Expr::max(Expr::Series(located(series, matchers)))
}

/// ServingGroups of one ModelServing that became ready within a window, by the operator.
pub fn starts(namespace: &str, name: &str, window: &str, matchers: &SeriesMatchers) -> Expr {
    let count = start_series("kthena_keda_start_seconds_count", namespace, name, matchers);
    Expr::sum(Expr::Range(RangeFunction::Increase, count, window.to_owned().into()))
}

/// Time from the creation of a ServingGroup until it is ready that this percentage of those within a window does not
/// exceed, in seconds.
pub fn start_quantile(
    namespace: &str,
    name: &str,
    window: &str,
    matchers: &SeriesMatchers,
    percent: u8,
) -> Expr {
    let buckets = start_series("kthena_keda_start_seconds_bucket", namespace, name, matchers);
    let increase = Expr::Range(RangeFunction::Increase, buckets, window.to_owned().into());
    Expr::Quantile(percent, Box::new(Expr::sum_by(&["le"], increase)))
}

fn start_series(metric: &'static str, namespace: &str, name: &str, matchers: &SeriesMatchers) -> Selector {
    let series = Selector::metric(metric).with("namespace", namespace).with("model_serving", name);
    located(series, matchers)
}

/// A metric with the number of ServingGroups of one ModelServing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSource {
    /// Name for users.
    pub name: &'static str,
    /// `spec.replicas`.
    pub spec: Option<Expr>,
    /// ServingGroups that exist.
    pub total: Option<Expr>,
    /// ServingGroups that are ready.
    pub ready: Option<Expr>,
}

/// Metrics with the number of ServingGroups, the most exact first.
pub fn replica_sources(
    namespace: &str,
    name: &str,
    hpa: &str,
    matchers: &SeriesMatchers,
) -> [ReplicaSource; 3] {
    let of_operator = |state| {
        let series =
            Selector::metric("kthena_keda_replicas").with("namespace", namespace).with("model_serving", name);
        Some(Expr::max(Expr::Series(located(series.with("state", state), matchers))))
    };
    let hpa = Selector::metric("kube_horizontalpodautoscaler_status_current_replicas")
        .with("namespace", namespace)
        .with("horizontalpodautoscaler", hpa);
    let engines = Selector::metric("up").with("namespace", namespace).with(MODEL_SERVING, name);
    let engines = Expr::Is(Box::new(Expr::Series(located(engines.with_some(SERVING_GROUP), matchers))), 1);
    [
        ReplicaSource {
            name: "kthena_keda_replicas",
            spec: of_operator("spec"),
            total: of_operator("total"),
            ready: of_operator("ready"),
        },
        ReplicaSource {
            name: "kube_horizontalpodautoscaler_status_current_replicas",
            spec: Some(Expr::max(Expr::Series(located(hpa, matchers)))),
            total: None,
            ready: None,
        },
        ReplicaSource {
            name: "up of the engines",
            spec: None,
            // Each group counts once, however many engines it has.
            total: Some(Expr::sum(Expr::max_by(&[SERVING_GROUP], engines))),
            ready: None,
        },
    ]
}
