//! GPU-hours of models: recorded, with the settings in force, at a fixed number, and with recommended settings.

use std::fmt::Write as _;

use serde::Serialize;

use super::{
    history::{History, SeriesName},
    report::{Costs, Report, aligned, rounded},
};
use crate::domain::printable;

/// ServingGroups over the time of a history.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recorded {
    /// Sum over the known steps, in group-hours.
    pub group_hours: f64,
    /// Highest number.
    pub peak: f64,
    /// Share of the steps in which the number is known, 0 to 1.
    pub known: f64,
}

/// Recorded ServingGroups; `None` if they are not known. Steps in which the number is not known count as none.
#[allow(clippy::cast_precision_loss, reason = "bounded by the grid")]
pub fn recorded(history: &History) -> Option<Recorded> {
    let names = [SeriesName::Total, SeriesName::Spec];
    let series = names.iter().find_map(|name| history.series(name).filter(|series| !series.is_empty()))?;
    let (mut sum, mut peak, mut known) = (0.0, 0.0_f64, 0_usize);
    for groups in series.iter().flatten() {
        (sum, peak, known) = (sum + groups, peak.max(groups), known + 1);
    }
    let grid = history.grid();
    Some(Recorded {
        group_hours: sum * f64::from(grid.step()) / 3600.0,
        peak,
        known: known as f64 / grid.steps() as f64,
    })
}

/// Costs of one model. What is not known is `None`, with a reason in `unknown`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelCost {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Length of the time, in hours.
    pub hours: f64,
    /// GPUs of one ServingGroup.
    pub gpus_per_group: Option<u32>,
    /// Recorded group-hours.
    pub actual: Option<f64>,
    /// Group-hours with the settings in force, simulated.
    pub now: Option<f64>,
    /// Group-hours of the highest recorded number, at all times.
    pub fixed: Option<f64>,
    /// Group-hours with recommended settings, simulated.
    pub recommended: Option<f64>,
    /// Reasons for what is not known.
    pub unknown: Vec<String>,
}

impl ModelCost {
    /// Costs of a history, and of its backtest if there is one.
    pub fn of(history: &History, backtest: Result<&Report, &str>) -> Self {
        let grid = history.grid();
        #[allow(clippy::cast_precision_loss, reason = "bounded by the grid")]
        let hours = (grid.end() - grid.start()) as f64 / 3600.0;
        let mut cost = Self {
            namespace: history.namespace.clone(),
            name: history.name.clone(),
            hours: rounded(hours, 2),
            ..Self::default()
        };
        match recorded(history) {
            Some(found) => {
                cost.actual = Some(rounded(found.group_hours, 2));
                cost.fixed = Some(rounded(found.peak * hours, 2));
                if found.known < 0.995 {
                    cost.unknown.push(format!(
                        "the number of ServingGroups is known in {:.1} % of the time, and the rest counts as none",
                        found.known * 100.0
                    ));
                }
            }
            None => cost.unknown.push(
                "the number of ServingGroups is not recorded; have Prometheus scrape the operator, or kube-state-metrics"
                    .to_owned(),
            ),
        }
        match backtest {
            Ok(report) => {
                cost.now = report.runs.iter().find(|run| run.name == "now").map(|run| run.group_hours);
                if cost.now.is_none() {
                    cost.unknown.extend(report.findings.first().map(|finding| finding.message.clone()));
                }
            }
            Err(reason) => cost.unknown.push(format!("the settings in force are not simulated: {reason}")),
        }
        cost
    }
}

/// Costs of several models, and their sums by namespace.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CostReport {
    api_version: &'static str,
    kind: &'static str,
    /// Models, in the order of their namespaces and names.
    pub models: Vec<ModelCost>,
    /// Price of a GPU for an hour.
    pub gpu_hour: Option<f64>,
}

/// Columns with hours.
const COLUMNS: [&str; 4] = ["actual", "now", "static peak", "recommended"];

impl CostReport {
    /// A report on models in any order.
    pub fn new(mut models: Vec<ModelCost>, costs: Costs) -> Self {
        models.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Self {
            api_version: super::history::HISTORY_API_VERSION,
            kind: "Cost",
            models,
            gpu_hour: costs.gpu_hour,
        }
    }

    /// The report as JSON.
    ///
    /// # Errors
    /// If it cannot be serialized.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// One row for each model.
    pub fn csv(&self) -> String {
        let head = "namespace,name,hours,gpus_per_group,actual_group_hours,now_group_hours,static_peak_group_hours,recommended_group_hours";
        let shown = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
        let row = |cost: &ModelCost| {
            let gpus = cost.gpus_per_group.map(|gpus| gpus.to_string()).unwrap_or_default();
            let hours = cost.columns().map(shown).join(",");
            format!("{},{},{},{gpus},{hours}", cost.namespace, cost.name, cost.hours)
        };
        let rows = std::iter::once(head.to_owned()).chain(self.models.iter().map(row));
        rows.collect::<Vec<_>>().join("\n") + "\n"
    }

    /// The report as text: GPU-hours where the GPUs of all models are known, else group-hours, and their price.
    pub fn table(&self) -> String {
        let has_gpus =
            !self.models.is_empty() && self.models.iter().all(|cost| cost.gpus_per_group.is_some());
        let price = self.gpu_hour.filter(|_| has_gpus);
        let unit = match (has_gpus, price) {
            (_, Some(_)) => "price",
            (true, None) => "GPU-h",
            (false, None) => "group-h",
        };
        let has_recommended = self.models.iter().any(|cost| cost.recommended.is_some());
        let columns = if has_recommended { 4 } else { 3 };
        let factor = |cost: &ModelCost| {
            let gpus = if has_gpus { cost.gpus_per_group.map_or(1.0, f64::from) } else { 1.0 };
            gpus * price.unwrap_or(1.0)
        };
        let amounts = |cost: &ModelCost| cost.columns().map(|hours| hours.map(|hours| hours * factor(cost)));
        let row = |name: String, amounts: [Option<f64>; 4], note: &str| {
            let shown =
                |amount: &Option<f64>| amount.map_or("unknown".to_owned(), |amount| format!("{amount:.1}"));
            let amounts = amounts.iter().take(columns).map(shown);
            std::iter::once(name).chain(amounts).chain([note.to_owned()]).collect::<Vec<String>>()
        };
        let head = std::iter::once(unit).chain(COLUMNS.into_iter().take(columns)).chain([""]);
        let mut rows = vec![head.map(str::to_owned).collect::<Vec<String>>()];
        for models in self.models.chunk_by(|a, b| a.namespace == b.namespace) {
            let mut sums = [Some(0.0); 4];
            for cost in models {
                let name = printable(&format!("{}/{}", cost.namespace, cost.name)).into_owned();
                let amounts = amounts(cost);
                for (sum, amount) in sums.iter_mut().zip(amounts) {
                    *sum = sum.zip(amount).map(|(sum, amount)| sum + amount);
                }
                rows.push(row(name, amounts, ""));
            }
            if let [first, _, ..] = models {
                rows.push(row(format!("all of {}", printable(&first.namespace)), sums, ""));
            }
        }
        let mut text = aligned(&rows);
        for cost in &self.models {
            for reason in &cost.unknown {
                let _ = writeln!(text, "note: {}/{}: {}", cost.namespace, cost.name, printable(reason));
            }
        }
        if self.gpu_hour.is_some() && price.is_none() {
            text.push_str("note: the GPUs of a ServingGroup are not known for all models, so there are no prices; pass --gpus-per-group\n");
        }
        text
    }
}

impl ModelCost {
    const fn columns(&self) -> [Option<f64>; 4] {
        [self.actual, self.now, self.fixed, self.recommended]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(namespace: &str, name: &str, actual: Option<f64>) -> ModelCost {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        ModelCost {
            namespace,
            name,
            hours: 24.0,
            gpus_per_group: Some(2),
            actual,
            now: Some(90.0),
            fixed: Some(240.0),
            ..ModelCost::default()
        }
    }

    /// A sum with a part that is not known is not known.
    #[test]
    fn sums_by_namespace() {
        let models = vec![
            cost("b", "x", Some(1.0)),
            cost("a", "y", Some(100.0)),
            cost("a", "x", Some(50.0)),
            cost("b", "y", None),
        ];
        let costs = Costs { gpus_per_group: None, gpu_hour: Some(2.5) };
        let table = CostReport::new(models, costs).table();
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["price", "actual", "now", "static", "peak"]);
        assert_eq!(rows[1], ["a/x", "250.0", "450.0", "1200.0"]);
        assert_eq!(rows[3], ["all", "of", "a", "750.0", "900.0", "2400.0"]);
        assert_eq!(rows[6], ["all", "of", "b", "unknown", "900.0", "2400.0"]);
    }

    #[test]
    fn hours_of_unknown_gpus_stay_hours_of_groups() {
        let other = ModelCost { gpus_per_group: None, ..cost("a", "y", Some(1.0)) };
        let costs = Costs { gpus_per_group: None, gpu_hour: Some(2.5) };
        let table = CostReport::new(vec![cost("a", "x", Some(50.0)), other], costs).table();
        assert!(table.starts_with("group-h") && table.contains("pass --gpus-per-group"), "{table}");
        assert!(table.contains("a/x         50.0"), "{table}");
    }
}
