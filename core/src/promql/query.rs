//! Queries of the platform team, parsed and checked to return one value.

use std::fmt;

use promql_parser::{
    label::Labels,
    parser::{
        self, AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality,
        token::{T_BOTTOMK, T_COUNT_VALUES, T_LAND, T_LIMIT_RATIO, T_LIMITK, T_LOR, T_LUNLESS, T_TOPK},
        value::ValueType,
    },
};

use crate::domain::ValueError;

/// The queries that are accepted instead of an invalid one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct QueryError(String);

impl QueryError {
    pub(super) fn expected(query: impl Into<String>) -> Self {
        Self(query.into())
    }
}

impl From<QueryError> for ValueError {
    fn from(QueryError(query): QueryError) -> Self {
        Self::expected(query)
    }
}

/// A query that Prometheus accepts and that returns at most one sample.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Query(pub(super) String);

impl Query {
    /// Checks a query in advance: KEDA accepts only one sample, and fails at its next poll otherwise.
    ///
    /// Comments are removed, because a query becomes a part of other expressions, and a comment would remove
    /// the rest of them.
    ///
    /// # Errors
    /// If the query does not parse, can return several samples, or does not return a vector.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let text = without_comments(text);
        let expr =
            parser::parse(&text).map_err(|error| QueryError::expected(format!("a PromQL query: {error}")))?;
        if expr.value_type() != ValueType::Vector {
            return Err(QueryError::expected(format!(
                "a query that returns a vector, not a {}; end it in sum(...) or max(...)",
                expr.value_type()
            )));
        }
        match cardinality(&expr) {
            Cardinality::One | Cardinality::Bare => Ok(Self(text)),
            Cardinality::Many => {
                Err(QueryError::expected("a query that returns one value; end it in sum(...) or max(...)"))
            }
        }
    }
}

/// Removes comments and the white space around the query, by the rules of Prometheus' lexer
/// (`promql/parser/lex.go`): a comment begins with `#` outside of a string and ends with the line.
pub fn without_comments(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if quote.is_none() && c == '#' {
            let has_next_line = chars.by_ref().any(|c| c == '\n');
            kept.extend(has_next_line.then_some('\n'));
            continue;
        }
        kept.push(c);
        match quote {
            None if matches!(c, '"' | '\'' | '`') => quote = Some(c),
            Some(open) if c == open => quote = None,
            Some('"' | '\'') if c == '\\' => kept.extend(chars.next()),
            _ => {}
        }
    }
    kept.trim().to_owned()
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Number of samples that an expression can return.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cardinality {
    /// Any number.
    Many,
    /// At most one.
    One,
    /// At most one, without labels.
    Bare,
}

fn cardinality(expr: &Expr) -> Cardinality {
    match expr {
        Expr::Aggregate(aggregate) => of_aggregate(aggregate),
        Expr::Call(call) => of_call(call),
        Expr::Binary(binary) => of_binary(binary),
        Expr::Unary(unary) => cardinality(&unary.expr),
        Expr::Paren(paren) => cardinality(&paren.expr),
        Expr::Subquery(subquery) => cardinality(&subquery.expr),
        Expr::VectorSelector(_) | Expr::MatrixSelector(_) | Expr::Extension(_) => Cardinality::Many,
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Cardinality::Bare,
    }
}

fn of_aggregate(aggregate: &AggregateExpr) -> Cardinality {
    if [T_TOPK, T_BOTTOMK, T_LIMITK, T_LIMIT_RATIO, T_COUNT_VALUES].contains(&aggregate.op.id()) {
        return Cardinality::Many;
    }
    match &aggregate.modifier {
        None => Cardinality::Bare,
        Some(LabelModifier::Include(Labels { labels })) if labels.is_empty() => Cardinality::Bare,
        Some(_) => cardinality(&aggregate.expr),
    }
}

fn of_call(call: &Call) -> Cardinality {
    let args = &call.args.args;
    match call.func.name {
        "absent" | "absent_over_time" => Cardinality::One,
        "histogram_quantile" => args.get(1).map_or(Cardinality::Many, |buckets| of_quantile(buckets)),
        "label_replace" | "label_join" => match args.first().map(|arg| cardinality(arg)) {
            Some(Cardinality::One | Cardinality::Bare) => Cardinality::One,
            Some(Cardinality::Many) | None => Cardinality::Many,
        },
        // Other functions return one sample for each of their vector, and one without a vector.
        _ => {
            let vector =
                args.iter().find(|arg| matches!(arg.value_type(), ValueType::Vector | ValueType::Matrix));
            vector.map_or(Cardinality::Bare, |vector| cardinality(vector))
        }
    }
}

/// The buckets of one histogram differ only by `le`, which `histogram_quantile` removes.
fn of_quantile(buckets: &Expr) -> Cardinality {
    match buckets {
        Expr::Paren(paren) => of_quantile(&paren.expr),
        Expr::Aggregate(AggregateExpr {
            modifier: Some(LabelModifier::Include(Labels { labels })), ..
        }) if labels == &["le"] => Cardinality::Bare,
        other => cardinality(other),
    }
}

fn of_binary(binary: &BinaryExpr) -> Cardinality {
    let (left, right) = (cardinality(&binary.lhs), cardinality(&binary.rhs));
    match binary.op.id() {
        // Samples of both sides merge only if their labels are equal.
        T_LOR if left == Cardinality::Bare && right == Cardinality::Bare => Cardinality::Bare,
        T_LOR => Cardinality::Many,
        T_LAND | T_LUNLESS => left,
        _ if binary.lhs.value_type() == ValueType::Scalar => right,
        _ if binary.rhs.value_type() == ValueType::Scalar => left,
        _ => match (left, right) {
            (Cardinality::Bare, Cardinality::Bare) => Cardinality::Bare,
            (Cardinality::Many, Cardinality::Many) => Cardinality::Many,
            _ if is_one_to_one(binary) => Cardinality::One,
            _ => Cardinality::Many,
        },
    }
}

fn is_one_to_one(binary: &BinaryExpr) -> bool {
    binary.modifier.as_ref().is_none_or(|modifier| modifier.card == VectorMatchCardinality::OneToOne)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("sum(a)")]
    #[case("sum by () (a)")]
    #[case("max(rate(a[5m])) by ()")]
    #[case("-(sum(a))")]
    #[case("sum(a) / clamp_min(sum(b), 1)")]
    #[case("sum(a) or 0 * max(up)")]
    #[case("sum(a) and on () (max(b) > 0)")]
    #[case("100 * sum(a) / 3")]
    #[case("vector(1)")]
    #[case("absent(a{b=\"c\"})")]
    #[case("sum(a) * on () group_left () max(b)")]
    #[case("max_over_time(sum(a)[5m:15s])")]
    #[case("histogram_quantile(0.95, sum by (le) (rate(a_bucket[5m])))")]
    #[case("label_replace(sum(a), \"x\", \"y\", \"\", \"\")")]
    #[case("sum(sum by (x) (a))")]
    #[case("sum(a) * b")]
    #[case("quantile(0.9, a)")]
    fn accepts_one_value(#[case] query: &str) {
        assert_eq!(Query::parse(query).map(|query| query.to_string()), Ok(query.to_owned()));
    }

    #[rstest]
    #[case("max(up == 1)  # both zones", "max(up == 1)")]
    #[case("max(up == 1)  # both zones\n", "max(up == 1)")]
    #[case("# zones\r\nmax(up) # a\n  == 1 # b", "max(up) \n  == 1")]
    #[case(" \t\r\n\u{a0}max(up)\u{a0}\n ", "max(up)")]
    #[case(r##"max(up{a="\"#",b='#',c=`#`}) # c"##, r##"max(up{a="\"#",b='#',c=`#`})"##)]
    fn removes_comments(#[case] query: &str, #[case] expected: &str) {
        assert_eq!(Query::parse(query).unwrap().to_string(), expected);
    }

    #[rstest]
    #[case("a", "returns one value")]
    #[case("sum by (x) (a)", "returns one value")]
    #[case("sum without (x) (a)", "returns one value")]
    #[case("topk(1, a)", "returns one value")]
    #[case("count_values(\"v\", a)", "returns one value")]
    #[case("sum(a) or b", "returns one value")]
    #[case("absent(a{b=\"c\"}) or sum(d)", "returns one value")]
    #[case("a / b", "returns one value")]
    #[case("a * on (x) group_left () sum(b)", "returns one value")]
    #[case("rate(a[5m])", "returns one value")]
    #[case("histogram_quantile(0.95, rate(a_bucket[5m]))", "returns one value")]
    #[case("histogram_quantile(0.95, sum by (le, x) (rate(a_bucket[5m])))", "returns one value")]
    #[case("1 + 1", "not a scalar")]
    #[case("scalar(sum(a))", "not a scalar")]
    #[case("\"text\"", "not a string")]
    #[case("a[5m]", "not a matrix")]
    #[case("sum(a", "a PromQL query: ")]
    #[case("", "a PromQL query: ")]
    #[case("sum(a) # or everything\n} b", "a PromQL query: ")]
    fn rejects_other_results(#[case] query: &str, #[case] expected: &str) {
        let error = Query::parse(query).unwrap_err().to_string();
        assert!(error.contains(expected), "{query}: {error}");
    }
}
