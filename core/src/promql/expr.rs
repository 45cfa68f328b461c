//! A typed subset of PromQL, as small as the signals permit.

use std::fmt;

use super::{
    query::Query,
    quote::{alternation, quote},
};

/// A selector of series by name and labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    name: Name,
    matchers: Vec<(&'static str, String)>,
    offset: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Metric(&'static str),
    /// Several metrics at once, matched by `__name__`.
    Families(&'static [&'static str]),
}

impl Selector {
    /// Selects the series of one metric.
    pub fn metric(name: &'static str) -> Self {
        Self { name: Name::Metric(name), matchers: Vec::new(), offset: None }
    }

    /// Selects the series of several metrics.
    pub fn families(names: &'static [&'static str]) -> Self {
        Self { name: Name::Families(names), matchers: Vec::new(), offset: None }
    }

    /// Keeps series whose `label` is exactly `value`.
    #[must_use]
    pub fn with(mut self, label: &'static str, value: &str) -> Self {
        self.matchers.push((label, format!("={}", quote(value))));
        self
    }

    /// Keeps series whose `label` is not `value`.
    #[must_use]
    pub fn with_not(mut self, label: &'static str, value: &str) -> Self {
        self.matchers.push((label, format!("!={}", quote(value))));
        self
    }

    /// Keeps series that have this label.
    #[must_use]
    pub fn with_some(mut self, label: &'static str) -> Self {
        self.matchers.push((label, "!=\"\"".to_owned()));
        self
    }

    /// Keeps series whose `label` is one of `values`.
    #[must_use]
    pub fn with_any<'a>(mut self, label: &'static str, values: impl IntoIterator<Item = &'a str>) -> Self {
        let values: Vec<&str> = values.into_iter().collect();
        let matcher = match values.as_slice() {
            [one] => format!("={}", quote(one)),
            many => format!("=~{}", alternation(many.iter().copied())),
        };
        self.matchers.push((label, matcher));
        self
    }

    /// Shifts the selector into the past by `duration` (PromQL, such as `2m`).
    #[must_use]
    pub fn offset(mut self, duration: &'static str) -> Self {
        self.offset = Some(duration);
        self
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, range: Option<&str>) -> fmt::Result {
        let mut matchers: Vec<String> =
            self.matchers.iter().map(|(label, matcher)| format!("{label}{matcher}")).collect();
        match &self.name {
            Name::Metric(name) => f.write_str(name)?,
            Name::Families(names) => {
                matchers.insert(0, format!("__name__=~{}", alternation(names.iter().copied())));
            }
        }
        write!(f, "{{{}}}", matchers.join(","))?;
        if let Some(range) = range {
            write!(f, "[{range}]")?;
        }
        self.offset.map_or(Ok(()), |offset| write!(f, " offset {offset}"))
    }
}

/// An aggregation operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// The sum.
    Sum,
    /// The maximum; merges the copies of a series that several monitors scrape.
    Max,
}

/// An expression that returns an instant vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// The latest samples of series.
    Series(Selector),
    /// Increase per second over a window.
    Rate(Selector, &'static str),
    /// Increase over a window.
    Increase(Selector, &'static str),
    /// Maximum over a window; unlike an instant selector, it ignores older samples.
    MaxOverTime(Selector, &'static str),
    /// Sum of the samples in a window.
    SumOverTime(Selector, &'static str),
    /// A query of the platform team.
    Custom(Query),
    /// Maximum of a query of the platform team over one minute, which ended `offset` ago, in steps of 15
    /// seconds.
    CustomOverMinute(Query, Option<&'static str>),
    /// An aggregation; with an empty `by` it returns one sample without labels.
    Aggregate {
        /// Aggregation operator.
        op: Aggregation,
        /// Labels of the result.
        by: &'static [&'static str],
        /// Aggregated expression.
        of: Box<Expr>,
    },
    /// Samples whose value is 1.
    IsOne(Box<Expr>),
    /// 0 for each sample.
    Zero(Box<Expr>),
    /// Samples of the first alternative, and those of each next one whose labels are missing so far.
    Or(Vec<Expr>),
    /// Samples of the first whose labels no sample of the second has.
    Unless(Box<Expr>, Box<Expr>),
    /// The first, if the second has at least one sample.
    IfAny(Box<Expr>, Box<Expr>),
}

impl Expr {
    /// Sum of all samples.
    pub fn sum(of: Expr) -> Self {
        Self::Aggregate { op: Aggregation::Sum, by: &[], of: Box::new(of) }
    }

    /// Maximum of all samples.
    pub fn max(of: Expr) -> Self {
        Self::max_by(&[], of)
    }

    /// Maximum of each group of samples.
    pub fn max_by(by: &'static [&'static str], of: Expr) -> Self {
        Self::Aggregate { op: Aggregation::Max, by, of: Box::new(of) }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Series(selector) => selector.write(f, None),
            Self::Rate(selector, window) => write_call(f, "rate", selector, window),
            Self::Increase(selector, window) => write_call(f, "increase", selector, window),
            Self::MaxOverTime(selector, window) => write_call(f, "max_over_time", selector, window),
            Self::SumOverTime(selector, window) => write_call(f, "sum_over_time", selector, window),
            Self::Custom(query) => write!(f, "{query}"),
            Self::CustomOverMinute(query, offset) => {
                write!(f, "max_over_time(({query})[1m:15s]")?;
                offset.map_or(Ok(()), |offset| write!(f, " offset {offset}"))?;
                f.write_str(")")
            }
            Self::Aggregate { op, by, of } => write_aggregation(f, *op, by, of),
            Self::IsOne(of) => write!(f, "{} == 1", Operand(of)),
            Self::Zero(of) => write!(f, "0 * {}", Operand(of)),
            Self::Or(alternatives) => write_or(f, alternatives),
            Self::Unless(of, without) => write!(f, "{} unless {}", Operand(of), Operand(without)),
            Self::IfAny(of, present) => write!(f, "{} and on () {}", Operand(of), Operand(present)),
        }
    }
}

/// An operand of another expression, in parentheses where precedence could change its meaning.
struct Operand<'a>(&'a Expr);

impl fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Expr::Series(_)
            | Expr::Rate(..)
            | Expr::Increase(..)
            | Expr::MaxOverTime(..)
            | Expr::SumOverTime(..)
            | Expr::CustomOverMinute(..)
            | Expr::Aggregate { .. } => {
                write!(f, "{}", self.0)
            }
            Expr::Custom(_)
            | Expr::IsOne(_)
            | Expr::Zero(_)
            | Expr::Or(_)
            | Expr::Unless(..)
            | Expr::IfAny(..) => {
                write!(f, "({})", self.0)
            }
        }
    }
}

fn write_call(f: &mut fmt::Formatter<'_>, function: &str, selector: &Selector, window: &str) -> fmt::Result {
    write!(f, "{function}(")?;
    selector.write(f, Some(window))?;
    f.write_str(")")
}

fn write_aggregation(f: &mut fmt::Formatter<'_>, op: Aggregation, by: &[&str], of: &Expr) -> fmt::Result {
    f.write_str(match op {
        Aggregation::Sum => "sum",
        Aggregation::Max => "max",
    })?;
    if !by.is_empty() {
        write!(f, " by ({}) ", by.join(", "))?;
    }
    write!(f, "({of})")
}

fn write_or(f: &mut fmt::Formatter<'_>, alternatives: &[Expr]) -> fmt::Result {
    for (i, alternative) in alternatives.iter().enumerate() {
        if i > 0 {
            f.write_str(" or ")?;
        }
        match alternative {
            // `or` binds weakest, so products need no parentheses; all other compound expressions get them.
            Expr::Zero(_) => write!(f, "{alternative}")?,
            other => write!(f, "{}", Operand(other))?,
        }
    }
    Ok(())
}
