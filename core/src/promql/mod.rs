//! The only module that builds PromQL text.
//!
//! Metric and label names are static. Values are data from any user, quoted so that they cannot change the
//! structure of a query. Queries of the platform team are parsed first.

mod expr;
mod families;
mod query;
mod quote;
mod template;

pub use expr::{Aggregation, Expr, Factor, RangeFunction, Selector};
pub use families::metrics_pattern;
pub use query::{Query, QueryError, without_comments};
pub use quote::{alternation, quote, re2_quote};
pub use template::{Subject, Template};
