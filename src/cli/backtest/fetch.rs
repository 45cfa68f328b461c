//! Reads the history of a model from Prometheus.

use std::io::{self, IsTerminal as _, Write as _};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::{failure::Failure, subject::Planned};
use crate::prometheus::{Querier, RangeQuery, query_ranges};
use kthena_keda_core::{
    foresight::history::{Grid, History, STEPS_MAX, SeriesName},
    intent::PrometheusSettings,
    observed::Observed,
    signals::{
        ARRIVALS_WINDOW, Demand, DemandScope, SAMPLE_WINDOW, arrival_rate, replica_sources, samples_in_window,
    },
};

/// Length of a step where neither a flag nor the store sets another, in seconds.
const STEP: u32 = 15;
/// Longest step that is chosen instead, in seconds: Prometheus' lookback.
const STEP_MAX: u32 = 300;
/// Longest interval of scrapes, in seconds. Between raw samples a query of the past has the value that KEDA got; a downsampled store has
/// fewer samples than KEDA saw.
const SCRAPE_INTERVAL_MAX: f64 = 60.0;
/// Steps at which the resolution of a store is measured.
const RESOLUTION_STEPS: usize = 100;
/// Part by which samples may be missing before a resolution counts as coarser.
const TOLERANCE: f64 = 1.2;

/// Time to read, in seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Span {
    pub(in crate::cli) from: i64,
    pub(in crate::cli) to: i64,
    /// Length of a step, if a flag sets it, in seconds.
    pub(in crate::cli) step: Option<u32>,
}

/// Route to one Prometheus.
pub(in crate::cli) struct Store<'a> {
    pub(in crate::cli) querier: &'a Querier,
    pub(in crate::cli) settings: &'a PrometheusSettings,
}

impl Store<'_> {
    /// The values of all series of a model.
    pub(in crate::cli) async fn history(
        &self,
        observed: &Observed,
        planned: &Planned,
        span: Span,
    ) -> Result<History, Failure> {
        let grid = self.grid(planned, span).await?;
        let model = &observed.model_serving;
        let (namespace, name) = (model.namespace().unwrap_or_default(), model.name_any());
        let mut history = History::new(grid, &namespace, &name, &planned.scaled_object, planned.backlog);
        self.record(&mut history, &queries(planned), grid, "signals").await?;
        self.arrivals(&mut history, planned, grid).await?;
        let matchers = &self.settings.matchers;
        for source in replica_sources(&namespace, &name, &model.hpa_name(), matchers) {
            let of = |name, expr: Option<_>| {
                expr.map(|expr: kthena_keda_core::promql::Expr| RangeQuery {
                    key: name,
                    query: expr.to_string(),
                })
            };
            let queries = [
                of(SeriesName::Spec, source.spec),
                of(SeriesName::Total, source.total),
                of(SeriesName::Ready, source.ready),
            ];
            let queries: Vec<_> = queries.into_iter().flatten().collect();
            self.record(&mut history, &queries, grid, "replicas").await?;
            if queries.iter().any(|query| history.series(&query.key).is_some()) {
                history.replicas_from = Some(source.name.to_owned());
                break;
            }
        }
        Ok(history)
    }

    /// The arrivals of each step. The query has the mean of a window that ends at a sample of the past, so it is read later by half the
    /// window and half an interval of scrapes. Up to now the last value holds.
    async fn arrivals(&self, history: &mut History, planned: &Planned, grid: Grid) -> Result<(), Failure> {
        let router = &planned.resolved.triggers.router;
        let Some(query) =
            planned.resolved.triggers.names.as_ref().and_then(|names| arrival_rate(names, router))
        else {
            return Ok(());
        };
        let queries = [RangeQuery { key: SeriesName::Arrivals, query: query.to_string() }];
        let interval = planned.resolved.intent.profile.monitors.interval.seconds();
        let delay = i64::from(ARRIVALS_WINDOW / 2 + interval / 2);
        let now = Timestamp::now().as_second();
        let known = usize::try_from((now - delay - grid.start()) / i64::from(grid.step())).unwrap_or(0) + 1;
        let known = known.min(grid.steps());
        if let Some(later) = Grid::new(grid.start() + delay, grid.step(), known) {
            self.record_later(history, &queries, later, "arrivals", delay).await?;
        }
        let last =
            history.series(&SeriesName::Arrivals).and_then(|series| series.get(known.saturating_sub(1)));
        let Some(last) = last else { return Ok(()) };
        for step in known..grid.steps() {
            let at = grid.start() + i64::from(grid.step()) * i64::try_from(step).unwrap_or(0);
            #[allow(clippy::cast_precision_loss, reason = "a time of this millennium")]
            history.record(&SeriesName::Arrivals, at as f64, last);
        }
        Ok(())
    }

    pub(in crate::cli) async fn record(
        &self,
        history: &mut History,
        queries: &[RangeQuery<SeriesName>],
        grid: Grid,
        what: &str,
    ) -> Result<(), Failure> {
        self.record_later(history, queries, grid, what, 0).await
    }

    /// Records values of queries at times that are earlier than those of the evaluation, in seconds.
    async fn record_later(
        &self,
        history: &mut History,
        queries: &[RangeQuery<SeriesName>],
        grid: Grid,
        what: &str,
        delay: i64,
    ) -> Result<(), Failure> {
        #[allow(clippy::cast_precision_loss, reason = "less than a minute")]
        let delay = delay as f64;
        let is_terminal = io::stderr().is_terminal();
        let progress = |done: usize, total: usize| {
            if is_terminal {
                // A closed standard error leaves no place to report its own error.
                let _ = write!(io::stderr(), "\r\u{1b}[Kreading {what}: {done} of {total} chunks");
                let _ = io::stderr().flush();
            }
        };
        let record = |name: &SeriesName, at: f64, value| history.record(name, at - delay, value);
        let result = query_ranges(self.querier, self.settings, queries, grid, progress, record).await;
        if is_terminal {
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
        result?;
        Ok(())
    }

    /// Steps of the time, none shorter than the distance of the samples in the store.
    async fn grid(&self, planned: &Planned, span: Span) -> Result<Grid, Failure> {
        let resolution = self.resolution(planned, span).await?;
        let step = match (span.step, resolution) {
            (Some(step), Some(resolution))
                if resolution > f64::from(step).max(SCRAPE_INTERVAL_MAX) * TOLERANCE =>
            {
                return Err(coarse(resolution, step));
            }
            (Some(step), _) => step,
            (None, Some(resolution)) if resolution > f64::from(STEP) * TOLERANCE => {
                let step = rounded_up(resolution);
                if step > STEP_MAX {
                    return Err(coarse(resolution, STEP));
                }
                step
            }
            (None, _) => STEP,
        };
        grid_of(span, step)
    }

    /// Distance of the router's samples in most of the time, in seconds; `None` without samples.
    async fn resolution(&self, planned: &Planned, span: Span) -> Result<Option<f64>, Failure> {
        let length = (span.to - span.from).max(1);
        let step = u32::try_from(length / 100).unwrap_or(3600).clamp(60, 3600);
        let steps = usize::try_from(length / i64::from(step)).unwrap_or(1).clamp(1, RESOLUTION_STEPS * 50);
        let start = aligned(span.from, step).saturating_add(i64::from(step));
        let Some(grid) = Grid::new(start, step, steps) else { return Ok(None) };
        let query = samples_in_window(&planned.resolved.triggers.router).to_string();
        let queries = [RangeQuery { key: (), query }];
        let mut counts = Vec::new();
        let record = |(): &(), _, value: f64| counts.extend((value > 0.0).then_some(value));
        query_ranges(self.querier, self.settings, &queries, grid, |_, _| {}, record).await?;
        counts.sort_by(f64::total_cmp);
        // Scrapes that failed now and then do not count.
        Ok(counts.get(counts.len() / 4).map(|count| f64::from(SAMPLE_WINDOW) / count))
    }
}

/// Every series but the arrivals and the replicas.
fn queries(planned: &Planned) -> Vec<RangeQuery<SeriesName>> {
    let triggers = planned.settings.triggers.iter().map(|trigger| RangeQuery {
        key: SeriesName::Trigger(trigger.name.clone()),
        query: trigger.query.clone(),
    });
    let mut queries: Vec<_> = triggers.collect();
    let router = &planned.resolved.triggers.router;
    if let Some(names) = &planned.resolved.triggers.names {
        let scope = DemandScope::Models(names.clone());
        let found = [
            (SeriesName::InFlight, Demand::ActiveRequests.query(&scope, router)),
            (SeriesName::OutputTokens, Demand::OutputTokens.query(&scope, router)),
        ];
        let found =
            found.into_iter().filter_map(|(key, expr)| Some(RangeQuery { key, query: expr?.to_string() }));
        queries.extend(found);
    }
    queries
}

fn coarse(resolution: f64, step: u32) -> Failure {
    let remedy = match rounded_up(resolution) {
        step if step <= STEP_MAX => format!("pass --step {step}s"),
        _ => "choose a later --from, for which the store still has all samples".to_owned(),
    };
    Failure::Unfit(format!(
        "the store has one sample in {resolution:.0} s, which is too coarse for steps of {step} s; {remedy}"
    ))
}

/// The next multiple of 15 s.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most ten minutes")]
fn rounded_up(resolution: f64) -> u32 {
    (resolution / 15.0 / 1.05).ceil() as u32 * 15
}

/// A time at a multiple of the step, so that all chunks and repeated runs evaluate the same times.
fn aligned(time: i64, step: u32) -> i64 {
    time - time.rem_euclid(i64::from(step))
}

fn grid_of(span: Span, step: u32) -> Result<Grid, Failure> {
    let start = aligned(span.from, step);
    let steps = usize::try_from((span.to - start) / i64::from(step)).unwrap_or(0);
    Grid::new(start, step, steps).ok_or_else(|| {
        Failure::Input(format!(
            "the time has {steps} steps of {step} s: expected 1 to {STEPS_MAX}; change --since, --from, --to or --step"
        ))
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(15.0, 15)]
    #[case(15.4, 15)]
    #[case(30.0, 30)]
    #[case(60.0, 60)]
    #[case(300.0, 300)]
    fn steps_are_multiples_of_a_scrape(#[case] resolution: f64, #[case] step: u32) {
        assert_eq!(rounded_up(resolution), step);
    }

    #[rstest]
    #[case(1007, 1100, 15, Some((1005, 6)))]
    #[case(1000, 1010, 15, Some((990, 1)))]
    #[case(1005, 1010, 15, None)]
    #[case(2000, 1000, 15, None)]
    fn the_start_is_aligned_to_the_step(
        #[case] from: i64,
        #[case] to: i64,
        #[case] step: u32,
        #[case] expected: Option<(i64, usize)>,
    ) {
        let grid = grid_of(Span { from, to, step: None }, step);
        assert_eq!(grid.ok().map(|grid| (grid.start(), grid.steps())), expected);
    }
}
