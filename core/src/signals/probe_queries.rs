//! What the operator itself asks of Prometheus: few questions for all models at once, about what there is rather than how much.

use super::{RouterSeries, engine::MODEL_SERVING};
use crate::promql::{Expr, Selector};

/// Families that carry a model's name as soon as anybody asked the router for it.
const NAMED: &[&str] = &[
    "kthena_router_active_downstream_requests",
    "kthena_router_requests_total",
    "kthena_router_tokens_total",
];

/// The label that holds a model's name.
pub const MODEL: &str = "model";
/// The label that tells how requests for it were answered, where they were counted.
pub const STATUS_CODE: &str = "status_code";
/// The label that holds the ModelServing of an engine.
pub const ENGINE_OF: &str = MODEL_SERVING;

/// Elements that exist while the router is scraped.
pub fn router_presence(router: &RouterSeries) -> Expr {
    Expr::Or(router.presence())
}

/// An element for each model name that the router was asked for since it started, and each way in which it answered.
pub fn model_names(router: &RouterSeries) -> Expr {
    let named = Selector::families(NAMED).with("namespace", &router.namespace);
    Expr::max_by(&[MODEL, STATUS_CODE], Expr::Series(named))
}

/// An element for each ModelServing whose engines are to be scraped: 1 if any of them answers.
pub fn engines() -> Expr {
    Expr::max_by(&["namespace", ENGINE_OF], Expr::Series(Selector::metric("up").with_some(ENGINE_OF)))
}
