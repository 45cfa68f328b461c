//! The only place where PromQL text is made.
//!
//! In: metric and label names of ours (static) and values of anybody's (data). Out: query text whose structure no value can change.

mod expr;
mod quote;

pub use expr::{Aggregation, Expr, Selector};
pub use quote::{alternation, quote};
