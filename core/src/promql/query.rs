//! Queries that somebody else wrote: parsed, and known to answer one value.

use std::fmt;

use promql_parser::{
    label::Labels,
    parser::{
        self, AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality,
        token::{T_BOTTOMK, T_COUNT_VALUES, T_LAND, T_LIMIT_RATIO, T_LIMITK, T_LOR, T_LUNLESS, T_TOPK},
        value::ValueType,
    },
};

/// What is wrong with a query, in words that say what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct QueryError(pub(super) String);

/// A query that Prometheus accepts and that answers at most one element.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Query(pub(super) String);

impl Query {
    /// `ProbeCache` a query: KEDA takes one element and nothing else, and finds out only when it asks.
    ///
    /// # Errors
    /// When it does not parse, or could answer several elements, or something that is no vector.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let text = text.trim();
        let expr = parser::parse(text).map_err(|error| QueryError(format!("it does not parse: {error}")))?;
        if expr.value_type() != ValueType::Vector {
            return Err(QueryError(format!(
                "it answers a {}, of which KEDA can read nothing; end in sum(...) or max(...)",
                expr.value_type()
            )));
        }
        match elements(&expr) {
            Elements::One | Elements::Bare => Ok(Self(text.to_owned())),
            Elements::Many => Err(QueryError(
                "it may answer several values, of which KEDA takes none; end in sum(...) or max(...)"
                    .to_owned(),
            )),
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many elements an expression can answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Elements {
    /// Any number.
    Many,
    /// One at most.
    One,
    /// One at most, and without labels.
    Bare,
}

fn elements(expr: &Expr) -> Elements {
    match expr {
        Expr::Aggregate(aggregate) => of_aggregate(aggregate),
        Expr::Call(call) => of_call(call),
        Expr::Binary(binary) => of_binary(binary),
        Expr::Unary(unary) => elements(&unary.expr),
        Expr::Paren(paren) => elements(&paren.expr),
        Expr::Subquery(subquery) => elements(&subquery.expr),
        Expr::VectorSelector(_) | Expr::MatrixSelector(_) | Expr::Extension(_) => Elements::Many,
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Elements::Bare,
    }
}

fn of_aggregate(aggregate: &AggregateExpr) -> Elements {
    if [T_TOPK, T_BOTTOMK, T_LIMITK, T_LIMIT_RATIO, T_COUNT_VALUES].contains(&aggregate.op.id()) {
        return Elements::Many;
    }
    match &aggregate.modifier {
        None => Elements::Bare,
        Some(LabelModifier::Include(Labels { labels })) if labels.is_empty() => Elements::Bare,
        Some(_) => elements(&aggregate.expr),
    }
}

fn of_call(call: &Call) -> Elements {
    let args = &call.args.args;
    match call.func.name {
        "absent" | "absent_over_time" => Elements::One,
        "histogram_quantile" => args.get(1).map_or(Elements::Many, |buckets| of_quantile(buckets)),
        "label_replace" | "label_join" => match args.first().map(|arg| elements(arg)) {
            Some(Elements::One | Elements::Bare) => Elements::One,
            Some(Elements::Many) | None => Elements::Many,
        },
        // Other functions answer an element for each that their vector has; without a vector it is one.
        _ => {
            let vector =
                args.iter().find(|arg| matches!(arg.value_type(), ValueType::Vector | ValueType::Matrix));
            vector.map_or(Elements::Bare, |vector| elements(vector))
        }
    }
}

/// Buckets of one histogram differ by `le` alone, which is gone then.
fn of_quantile(buckets: &Expr) -> Elements {
    match buckets {
        Expr::Paren(paren) => of_quantile(&paren.expr),
        Expr::Aggregate(AggregateExpr {
            modifier: Some(LabelModifier::Include(Labels { labels })), ..
        }) if labels == &["le"] => Elements::Bare,
        other => elements(other),
    }
}

fn of_binary(binary: &BinaryExpr) -> Elements {
    let (left, right) = (elements(&binary.lhs), elements(&binary.rhs));
    let is_scalar = |expr: &Expr| expr.value_type() == ValueType::Scalar;
    match binary.op.id() {
        // Elements of both sides are one only where their labels are the same.
        T_LOR if left == Elements::Bare && right == Elements::Bare => Elements::Bare,
        T_LOR => Elements::Many,
        T_LAND | T_LUNLESS => left,
        _ if is_scalar(&binary.lhs) => right,
        _ if is_scalar(&binary.rhs) => left,
        _ => match (left, right) {
            (Elements::Bare, Elements::Bare) => Elements::Bare,
            (Elements::Many, Elements::Many) => Elements::Many,
            _ if is_one_to_one(binary) => Elements::One,
            _ => Elements::Many,
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
    fn one_value(#[case] query: &str) {
        assert_eq!(Query::parse(query).map(|query| query.to_string()), Ok(query.to_owned()));
    }

    #[rstest]
    #[case("a", "several values")]
    #[case("sum by (x) (a)", "several values")]
    #[case("sum without (x) (a)", "several values")]
    #[case("topk(1, a)", "several values")]
    #[case("count_values(\"v\", a)", "several values")]
    #[case("sum(a) or b", "several values")]
    #[case("absent(a{b=\"c\"}) or sum(d)", "several values")]
    #[case("a / b", "several values")]
    #[case("a * on (x) group_left () sum(b)", "several values")]
    #[case("rate(a[5m])", "several values")]
    #[case("histogram_quantile(0.95, rate(a_bucket[5m]))", "several values")]
    #[case("histogram_quantile(0.95, sum by (le, x) (rate(a_bucket[5m])))", "several values")]
    #[case("1 + 1", "answers a scalar")]
    #[case("scalar(sum(a))", "answers a scalar")]
    #[case("\"text\"", "answers a string")]
    #[case("a[5m]", "answers a matrix")]
    #[case("sum(a", "does not parse")]
    #[case("", "does not parse")]
    #[case("sum(a) # or everything\n} b", "does not parse")]
    fn no_value(#[case] query: &str, #[case] why: &str) {
        let error = Query::parse(query).unwrap_err().to_string();
        assert!(error.contains(why), "{query}: {error}");
    }
}
