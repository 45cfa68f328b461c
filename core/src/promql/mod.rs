//! The only place where PromQL text is made.
//!
//! In: metric and label names of ours (static), values of anybody's (data), and queries of the platform team's, which are parsed first.
//! Out: query text whose structure no value can change.

mod expr;
mod query;
mod quote;
mod template;

pub use expr::{Aggregation, Expr, Selector};
pub use query::{Query, QueryError};
pub use quote::{alternation, quote};
pub use template::{Subject, Template};
