//! The metrics that queries read, as one pattern for the label `__name__`.

use std::{collections::BTreeSet, convert::Infallible};

use promql_parser::{
    label::{MatchOp, Matcher},
    parser::{self, Expr, VectorSelector},
    util::{ExprVisitor, walk_expr},
};

use super::quote::re2_quote;

/// RE2 pattern of the metrics that queries read, each in both spellings of a `:`, which some stores replace by
/// `_`. Queries that do not parse are left out, as are names for which `is_kept` is false.
///
/// `None` if no query reads a metric by its name.
pub fn metrics_pattern<'a>(
    queries: impl IntoIterator<Item = &'a str>,
    is_kept: impl Fn(&str) -> bool,
) -> Option<String> {
    let mut metrics = Metrics::default();
    for query in queries.into_iter().filter_map(|query| parser::parse(query).ok()) {
        let Ok(_) = walk_expr(&mut metrics, &query);
    }
    let names =
        metrics.names.iter().filter(|name| is_kept(name)).map(|name| re2_quote(name).replace(':', "[:_]"));
    let patterns = metrics.patterns.iter().map(|pattern| format!("(?:{pattern})"));
    let all: BTreeSet<String> = names.chain(patterns).collect();
    (!all.is_empty()).then(|| all.into_iter().collect::<Vec<_>>().join("|"))
}

#[derive(Default)]
struct Metrics {
    names: BTreeSet<String>,
    /// Regular expressions of custom queries, as written.
    patterns: BTreeSet<String>,
}

impl ExprVisitor for Metrics {
    type Error = Infallible;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Infallible> {
        match expr {
            Expr::VectorSelector(selector) => self.add(selector),
            Expr::MatrixSelector(matrix) => self.add(&matrix.vs),
            _ => {}
        }
        Ok(true)
    }
}

impl Metrics {
    fn add(&mut self, selector: &VectorSelector) {
        self.names.extend(selector.name.clone());
        let alternatives = selector.matchers.or_matchers.iter().flatten();
        for Matcher { op, name, value } in selector.matchers.matchers.iter().chain(alternatives) {
            match op {
                MatchOp::Equal if name == "__name__" => _ = self.names.insert(value.clone()),
                MatchOp::Re(_) if name == "__name__" && is_list_of_names(value) => {
                    self.names.extend(value.split('|').map(str::to_owned));
                }
                MatchOp::Re(_) if name == "__name__" => _ = self.patterns.insert(value.clone()),
                _ => {}
            }
        }
    }
}

fn is_list_of_names(pattern: &str) -> bool {
    pattern.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '|'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(&["sum(max by (pod) (vllm:num_requests_waiting{a=\"b\"}))"], Some("vllm[:_]num_requests_waiting"))]
    #[case(&["sum(rate(a[2m])) or 0 * max(up == 1)", "max(b offset 2m)"], Some("a|b"))]
    #[case(&["max_over_time(sum(a)[1m:15s])", "histogram_quantile(0.9, sum by (le) (rate(a_bucket[5m])))"], Some("a|a_bucket"))]
    #[case(&["sum({__name__=\"a\"} or {__name__=~\"b.*|c\"})"], Some("(?:b.*|c)|a"))]
    #[case(&["sum({__name__=~\"a:b|up|c\"})"], Some("a[:_]b|c"))]
    #[case(&["sum(not_kept)"], None)]
    #[case(&["sum("], None)]
    fn finds_the_metrics_of_queries(#[case] queries: &[&str], #[case] expected: Option<&str>) {
        let pattern = metrics_pattern(queries.iter().copied(), |name| name != "up" && name != "not_kept");
        assert_eq!(pattern.as_deref(), expected);
    }
}
