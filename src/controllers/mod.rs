//! The shells around the pure core: they observe, let `plan` decide, apply and report.

pub mod model_serving;
pub mod router_monitor;
