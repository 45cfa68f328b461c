//! Reads from Prometheus the measurements of a recommendation that a backtest does not need.

use kube::ResourceExt as _;

use crate::{
    cli::backtest::{failure::Failure, fetch::Store, subject::Planned},
    prometheus::RangeQuery,
};
use kthena_keda_core::{
    domain::Engine,
    foresight::{
        history::{Grid, History, SeriesName},
        recommend::steps_per_window,
    },
    observed::Observed,
    promql::Expr,
    signals::{EngineSeries, duration_quantile, mean_duration, start_quantile, starts},
};

/// Adds durations of five minutes and the starts of ServingGroups to a history. `tail` is the series of the objective.
pub(super) async fn add(
    store: &Store<'_>,
    history: &mut History,
    observed: &Observed,
    planned: &Planned,
    tail: SeriesName,
) -> Result<(), Failure> {
    let grid = history.grid();
    if let Some(windows) = windows(grid) {
        let queries = durations(observed, planned, tail);
        store.record(history, &queries, windows, "durations").await?;
    }
    let last = grid.end() - i64::from(grid.step());
    if let Some(end) = Grid::new(last, grid.step(), 1) {
        store.record(history, &start_times(store, history), end, "starts").await?;
    }
    Ok(())
}

/// The last step of each window, at which a query over five minutes covers it.
fn windows(grid: Grid) -> Option<Grid> {
    let length = steps_per_window(grid);
    let step = u32::try_from(length).ok()?.checked_mul(grid.step())?;
    Grid::new(grid.start() + i64::from(step - grid.step()), step, grid.steps() / length)
}

fn durations(observed: &Observed, planned: &Planned, tail: SeriesName) -> Vec<RangeQuery<SeriesName>> {
    let triggers = &planned.resolved.triggers;
    let Some(names) = &triggers.names else { return Vec::new() };
    let router = &triggers.router;
    let of_tail = match tail {
        SeriesName::FirstToken(percent) => {
            let model = &observed.model_serving;
            let engines = EngineSeries {
                // Without a signal of the engines it is not known; the other one has no such series.
                engine: triggers.engines.as_ref().map_or(Engine::Vllm, |engines| engines.engine),
                namespace: model.namespace().unwrap_or_default(),
                model_serving: model.name_any(),
                role: None,
                matchers: router.matchers.clone(),
                at_zero: None,
            };
            engines.first_token(percent)
        }
        SeriesName::Duration(percent) => duration_quantile(router, names, percent),
        _ => return Vec::new(),
    };
    vec![query(SeriesName::MeanDuration, &mean_duration(router, names)), query(tail, &of_tail)]
}

fn start_times(store: &Store<'_>, history: &History) -> Vec<RangeQuery<SeriesName>> {
    let matchers = &store.settings.matchers;
    let grid = history.grid();
    let window = format!("{}s", grid.end() - grid.start());
    let (namespace, name) = (&history.namespace, &history.name);
    let quantile = |percent| start_quantile(namespace, name, &window, matchers, percent);
    vec![
        query(SeriesName::Starts, &starts(namespace, name, &window, matchers)),
        query(SeriesName::Start(50), &quantile(50)),
        query(SeriesName::Start(95), &quantile(95)),
    ]
}

fn query(key: SeriesName, expr: &Expr) -> RangeQuery<SeriesName> {
    RangeQuery { key, query: expr.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A query over five minutes at the last step of a window covers the window, whatever the step.
    #[test]
    fn each_window_is_read_at_its_last_step() {
        let of = |step| windows(Grid::new(1_800_000_000, step, 2000).unwrap()).unwrap();
        let shown = |grid: Grid| (grid.start() - 1_800_000_000, grid.step(), grid.steps());
        assert_eq!(shown(of(15)), (285, 300, 100));
        assert_eq!(shown(of(60)), (240, 300, 400));
        assert_eq!(shown(of(45)), (270, 315, 285));
        assert_eq!(shown(of(300)), (0, 300, 2000));
    }
}
