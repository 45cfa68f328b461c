//! A typed subset of PromQL, as small as the signals permit.

use std::{borrow::Cow, fmt};

use super::{
    query::Query,
    quote::{alternation, quote},
};

/// A selector of series by name and labels.
///
/// It has one metric and no expression for `__name__`: some stores, such as Google Managed Prometheus, reject
/// a regular expression there. [`Expr::any_metric`] selects several metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    metric: &'static str,
    matchers: Vec<(Cow<'static, str>, String)>,
    offset: Option<Cow<'static, str>>,
}

impl Selector {
    /// Selects the series of one metric.
    pub fn metric(metric: &'static str) -> Self {
        Self { metric, matchers: Vec::new(), offset: None }
    }

    /// Keeps series whose `label` is exactly `value`.
    #[must_use]
    pub fn with(mut self, label: impl Into<Cow<'static, str>>, value: &str) -> Self {
        self.matchers.push((label.into(), format!("={}", quote(value))));
        self
    }

    /// Keeps series whose `label` is not `value`.
    #[must_use]
    pub fn with_not(mut self, label: &'static str, value: &str) -> Self {
        self.matchers.push((label.into(), format!("!={}", quote(value))));
        self
    }

    /// Keeps series that have this label.
    #[must_use]
    pub fn with_some(mut self, label: &'static str) -> Self {
        self.matchers.push((label.into(), "!=\"\"".to_owned()));
        self
    }

    /// Keeps series without this label.
    #[must_use]
    pub fn without(self, label: &'static str) -> Self {
        self.with(label, "")
    }

    /// Keeps series whose `label` matches a regular expression as a whole.
    #[must_use]
    pub fn matching(mut self, label: &'static str, pattern: &str) -> Self {
        self.matchers.push((label.into(), format!("=~{}", quote(pattern))));
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
        self.matchers.push((label.into(), matcher));
        self
    }

    /// Shifts the selector into the past by `duration` (PromQL, such as `2m`).
    #[must_use]
    pub fn offset(mut self, duration: impl Into<Cow<'static, str>>) -> Self {
        self.offset = Some(duration.into());
        self
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, range: Option<&str>) -> fmt::Result {
        let matchers: Vec<String> =
            self.matchers.iter().map(|(label, matcher)| format!("{label}{matcher}")).collect();
        write!(f, "{}{{{}}}", self.metric, matchers.join(","))?;
        if let Some(range) = range {
            write!(f, "[{range}]")?;
        }
        self.offset.as_ref().map_or(Ok(()), |offset| write!(f, " offset {offset}"))
    }
}

/// An aggregation operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// The sum.
    Sum,
    /// The maximum; merges the copies of a series that several monitors scrape.
    Max,
    /// The number of samples.
    Count,
}

/// A function of a range of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum RangeFunction {
    /// Increase per second.
    Rate,
    /// Increase within the window.
    Increase,
    /// Number of samples.
    CountOverTime,
    /// Minimum.
    MinOverTime,
    /// Maximum; unlike an instant selector, it ignores samples before the range.
    MaxOverTime,
    /// Sum.
    SumOverTime,
    /// Last sample; unlike an instant selector, it ignores samples before the range.
    LastOverTime,
    /// Number of times that a counter decreased.
    Resets,
    /// The value that three quarters of the samples do not exceed.
    #[strum(serialize = "quantile_over_time")]
    UpperQuartileOverTime,
}

impl RangeFunction {
    fn name(self) -> &'static str {
        self.into()
    }

    /// Arguments before the range, each with a comma.
    const fn parameters(self) -> &'static str {
        match self {
            Self::UpperQuartileOverTime => "0.75, ",
            Self::Rate
            | Self::Increase
            | Self::CountOverTime
            | Self::MinOverTime
            | Self::MaxOverTime
            | Self::SumOverTime
            | Self::LastOverTime
            | Self::Resets => "",
        }
    }
}

/// A factor that is not negative, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factor(u64);

impl Factor {
    /// A factor in thousandths.
    pub const fn thousandths(thousandths: u64) -> Self {
        Self(thousandths.saturating_mul(1000))
    }

    /// The ratio of two numbers, rounded; `None` if the second is 0.
    pub fn ratio(numerator: u64, denominator: u64) -> Option<Self> {
        numerator.checked_mul(1_000_000)?.checked_add(denominator / 2)?.checked_div(denominator).map(Self)
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = format!("{:06}", self.0 % 1_000_000);
        let decimals = decimals.trim_end_matches('0');
        let point = if decimals.is_empty() { "" } else { "." };
        write!(f, "{}{point}{decimals}", self.0 / 1_000_000)
    }
}

/// An expression that returns an instant vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// The latest samples of series.
    Series(Selector),
    /// A function of the samples within a window.
    Range(RangeFunction, Selector, Cow<'static, str>),
    /// A query of the platform team.
    Custom(Query),
    /// A function of the results of an expression within a window, which ended `offset` ago.
    Subquery {
        /// The function.
        function: RangeFunction,
        /// The expression.
        of: Box<Expr>,
        /// Window and step (PromQL, such as `1m:15s`).
        window: &'static str,
        /// Time since the end of the window.
        offset: Option<&'static str>,
    },
    /// An aggregation; with an empty `by` it returns one sample without labels.
    Aggregate {
        /// Aggregation operator.
        op: Aggregation,
        /// Labels of the result.
        by: Cow<'static, [&'static str]>,
        /// Aggregated expression.
        of: Box<Expr>,
    },
    /// The samples with the greatest values, with all of their labels.
    Top(u16, Box<Expr>),
    /// Samples whose value is this number.
    Is(Box<Expr>, u8),
    /// Samples whose value is at least this number.
    AtLeast(Box<Expr>, u32),
    /// Samples of the first whose value is at most that of the second with the same labels.
    AtMost(Box<Expr>, Box<Expr>),
    /// Samples with a positive value.
    Positive(Box<Expr>),
    /// 0 for each sample with a negative value; the other samples stay.
    NotNegative(Box<Expr>),
    /// The value that this percentage of the observations does not exceed, of the cumulative buckets of a histogram by their
    /// bound `le`; not a number without observations.
    Quantile(u8, Box<Expr>),
    /// This number for each sample with a greater value; the other samples stay.
    CappedAt(Box<Expr>, u8),
    /// The value of a single sample without labels for each sample with a smaller value; the other samples stay, and all
    /// do if that one is negative or missing.
    RaisedTo(Box<Expr>, Box<Expr>),
    /// Samples of the first whose value is above that of the second with the same labels.
    Above(Box<Expr>, Box<Expr>),
    /// The first times the second with the same labels.
    Product(Box<Expr>, Box<Expr>),
    /// Samples of the first whose value is that of the second with the same labels.
    Equal(Box<Expr>, Box<Expr>),
    /// The first minus the second with the same labels.
    Minus(Box<Expr>, Box<Expr>),
    /// The first divided by the second with the same labels; not a number where both are 0.
    DividedBy(Box<Expr>, Box<Expr>),
    /// Each sample, multiplied by this number.
    Times(Factor, Box<Expr>),
    /// The greatest of single samples without labels; those that are missing do not count.
    Greatest(Vec<Expr>),
    /// A single sample without labels, or 0.
    OrZero(Box<Expr>),
    /// 0 for each sample.
    Zero(Box<Expr>),
    /// Samples of the first alternative, and those of each next one whose labels are missing so far.
    Or(Vec<Expr>),
    /// Samples of the first whose `on` labels a sample of the second has, too; with an empty `on`, the first
    /// if the second has at least one sample, and `None` compares all labels.
    And {
        /// Samples of the result.
        of: Box<Expr>,
        /// Compared labels.
        on: Option<&'static [&'static str]>,
        /// Samples that must exist.
        present: Box<Expr>,
    },
    /// The first, if the second has no sample.
    IfNone(Box<Expr>, Box<Expr>),
    /// Samples of the first whose labels no sample of the second has.
    Unless(Box<Expr>, Box<Expr>),
    /// The label becomes the first group of a regular expression over the label `pod`; samples whose pod does
    /// not match keep theirs.
    FromPod {
        /// Changed label.
        label: &'static str,
        /// RE2 expression that matches a whole pod name.
        pattern: String,
        /// Changed samples.
        of: Box<Expr>,
    },
}

impl Expr {
    /// The series of several metrics; where both exist with the same labels, those of the first.
    pub fn any_metric(
        metrics: &[&'static str],
        select: impl Fn(Selector) -> Selector,
        series: impl Fn(Selector) -> Expr,
    ) -> Self {
        let mut all: Vec<Expr> =
            metrics.iter().map(|metric| series(select(Selector::metric(metric)))).collect();
        if all.len() == 1 { all.remove(0) } else { Self::Or(all) }
    }

    /// Sum of all samples.
    pub fn sum(of: Expr) -> Self {
        Self::sum_by(&[], of)
    }

    /// Sum of each group of samples.
    pub fn sum_by(by: impl Into<Cow<'static, [&'static str]>>, of: Expr) -> Self {
        Self::Aggregate { op: Aggregation::Sum, by: by.into(), of: Box::new(of) }
    }

    /// Maximum of all samples.
    pub fn max(of: Expr) -> Self {
        Self::max_by(&[], of)
    }

    /// Maximum of each group of samples.
    pub fn max_by(by: impl Into<Cow<'static, [&'static str]>>, of: Expr) -> Self {
        Self::Aggregate { op: Aggregation::Max, by: by.into(), of: Box::new(of) }
    }

    /// Number of samples.
    pub fn count(of: Expr) -> Self {
        Self::Aggregate { op: Aggregation::Count, by: (&[]).into(), of: Box::new(of) }
    }

    /// 0 for each sample.
    #[must_use]
    pub fn zero(self) -> Self {
        Self::Zero(Box::new(self))
    }

    /// This number times each sample.
    #[must_use]
    pub fn times(self, factor: Factor) -> Self {
        Self::Times(factor, Box::new(self))
    }

    /// The expression minus another one, by labels.
    #[must_use]
    pub fn minus(self, other: Expr) -> Self {
        Self::Minus(Box::new(self), Box::new(other))
    }

    /// 0 instead of a negative value.
    #[must_use]
    pub fn not_negative(self) -> Self {
        Self::NotNegative(Box::new(self))
    }

    /// 0 instead of no sample, for a single sample without labels.
    #[must_use]
    pub fn or_zero(self) -> Self {
        Self::OrZero(Box::new(self))
    }

    /// The samples whose labels no sample of the other has.
    #[must_use]
    pub fn unless(self, other: Expr) -> Self {
        Self::Unless(Box::new(self), Box::new(other))
    }

    /// The expression, if `absent` has no sample.
    #[must_use]
    pub fn if_none(self, absent: Expr) -> Self {
        Self::IfNone(Box::new(self), Box::new(absent))
    }

    /// The samples with at least this value.
    #[must_use]
    pub fn at_least(self, value: u32) -> Self {
        Self::AtLeast(Box::new(self), value)
    }

    /// The samples with at most the value of `other`, by labels.
    #[must_use]
    pub fn at_most(self, other: Expr) -> Self {
        Self::AtMost(Box::new(self), Box::new(other))
    }

    /// The samples with a positive value.
    #[must_use]
    pub fn positive(self) -> Self {
        Self::Positive(Box::new(self))
    }

    /// The expression, if `present` has at least one sample.
    #[must_use]
    pub fn if_any(self, present: Expr) -> Self {
        Self::And { of: Box::new(self), on: Some(&[]), present: Box::new(present) }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Series(selector) => selector.write(f, None),
            Self::Range(function, selector, window) => {
                write!(f, "{}({}", function.name(), function.parameters())?;
                selector.write(f, Some(window))?;
                f.write_str(")")
            }
            Self::Custom(query) => write!(f, "{query}"),
            Self::Subquery { function, of, window, offset } => {
                write!(f, "{}({}({of})[{window}]", function.name(), function.parameters())?;
                offset.map_or(Ok(()), |offset| write!(f, " offset {offset}"))?;
                f.write_str(")")
            }
            Self::Aggregate { op, by, of } => write_aggregation(f, *op, by, of),
            Self::Top(count, of) => write!(f, "topk({count}, {of})"),
            Self::Is(of, value) => write!(f, "{} == {value}", Operand(of)),
            Self::AtLeast(of, value) => write!(f, "{} >= {value}", Operand(of)),
            Self::AtMost(of, other) => write!(f, "{} <= {}", Operand(of), Operand(other)),
            Self::Positive(of) => write!(f, "{} > 0", Operand(of)),
            Self::NotNegative(of) => write!(f, "clamp_min({of}, 0)"),
            Self::Quantile(percent, of) => {
                write!(f, "histogram_quantile({}, {of})", f64::from(*percent) / 100.0)
            }
            Self::CappedAt(of, most) => write!(f, "clamp_max({of}, {most})"),
            Self::RaisedTo(of, least) => {
                write!(f, "clamp_min({of}, scalar({} or vector(0)))", Operand(least))
            }
            Self::Above(of, other) => write!(f, "{} > {}", Operand(of), Operand(other)),
            Self::Product(of, other) => write!(f, "{} * {}", Operand(of), Operand(other)),
            Self::Equal(of, other) => write!(f, "{} == {}", Operand(of), Operand(other)),
            Self::Minus(of, other) => write!(f, "{} - {}", Operand(of), Operand(other)),
            Self::DividedBy(of, by) => write!(f, "{} / {}", Operand(of), Operand(by)),
            Self::Times(factor, of) => write!(f, "{factor} * {}", Operand(of)),
            Self::Greatest(values) => write_greatest(f, values),
            Self::OrZero(of) => write!(f, "{} or vector(0)", Operand(of)),
            Self::Zero(of) => write!(f, "0 * {}", Operand(of)),
            Self::Or(alternatives) => write_or(f, alternatives),
            Self::And { of, on: None, present } => write!(f, "{} and {}", Operand(of), Operand(present)),
            Self::And { of, on: Some(on), present } => {
                write!(f, "{} and on ({}) {}", Operand(of), on.join(", "), Operand(present))
            }
            Self::Unless(of, other) => write!(f, "{} unless {}", Operand(of), Operand(other)),
            Self::IfNone(of, absent) => write!(f, "{} unless on () {}", Operand(of), Operand(absent)),
            Self::FromPod { label, pattern, of } => {
                write!(f, "label_replace({of}, \"{label}\", \"$1\", \"pod\", {})", quote(pattern))
            }
        }
    }
}

/// An operand of another expression, in parentheses where precedence could change its meaning.
struct Operand<'a>(&'a Expr);

impl fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Expr::Series(_)
            | Expr::Range(..)
            | Expr::Subquery { .. }
            | Expr::NotNegative(_)
            | Expr::Quantile(..)
            | Expr::CappedAt(..)
            | Expr::RaisedTo(..)
            | Expr::Greatest(_)
            | Expr::Aggregate { .. }
            | Expr::Top(..)
            | Expr::FromPod { .. } => write!(f, "{}", self.0),
            Expr::Custom(_)
            | Expr::Is(..)
            | Expr::AtLeast(..)
            | Expr::AtMost(..)
            | Expr::Positive(_)
            | Expr::Equal(..)
            | Expr::Above(..)
            | Expr::Product(..)
            | Expr::Minus(..)
            | Expr::DividedBy(..)
            | Expr::Times(..)
            | Expr::Zero(_)
            | Expr::Or(_)
            | Expr::OrZero(_)
            | Expr::And { .. }
            | Expr::Unless(..)
            | Expr::IfNone(..) => write!(f, "({})", self.0),
        }
    }
}

fn write_aggregation(f: &mut fmt::Formatter<'_>, op: Aggregation, by: &[&str], of: &Expr) -> fmt::Result {
    f.write_str(match op {
        Aggregation::Sum => "sum",
        Aggregation::Max => "max",
        Aggregation::Count => "count",
    })?;
    if !by.is_empty() {
        write!(f, " by ({}) ", by.join(", "))?;
    }
    write!(f, "({of})")
}

/// A label tells the values apart, since `or` keeps one sample of those with the same labels.
fn write_greatest(f: &mut fmt::Formatter<'_>, values: &[Expr]) -> fmt::Result {
    f.write_str("max(")?;
    for (i, value) in values.iter().enumerate() {
        match i {
            0 => write!(f, "{}", Operand(value))?,
            _ => write!(f, " or label_replace({value}, \"n\", \"{i}\", \"n\", \"\")")?,
        }
    }
    f.write_str(")")
}

fn write_or(f: &mut fmt::Formatter<'_>, alternatives: &[Expr]) -> fmt::Result {
    for (i, alternative) in alternatives.iter().enumerate() {
        if i > 0 {
            f.write_str(" or ")?;
        }
        match alternative {
            // `or` binds weakest, so these need no parentheses; all other compound expressions get them.
            Expr::Zero(_) | Expr::Is(..) => write!(f, "{alternative}")?,
            other => write!(f, "{}", Operand(other))?,
        }
    }
    Ok(())
}
