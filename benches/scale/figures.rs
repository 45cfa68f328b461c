//! Results by name with one value per round, and the environment of a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Results by name, with one value per round.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Figures(BTreeMap<String, Vec<f64>>);

/// Distribution over several rounds.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// Middle value, or the mean of the two in the middle.
    pub median: f64,
    /// Smallest value.
    pub least: f64,
    /// Largest value.
    pub most: f64,
}

impl Figures {
    /// Adds the value of one round, rounded to thousandths.
    pub fn push(&mut self, name: &str, value: f64) {
        self.0.entry(name.to_owned()).or_default().push((value * 1000.0).round() / 1000.0);
    }

    /// Value of the last round.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.0.get(name)?.last().copied()
    }

    /// Values of all rounds, in order.
    pub fn all(&self, name: &str) -> &[f64] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Distribution over all rounds; `None` without values.
    pub fn spread(&self, name: &str) -> Option<Spread> {
        let mut all = self.0.get(name)?.clone();
        all.sort_by(f64::total_cmp);
        let median = f64::midpoint(*all.get((all.len().checked_sub(1)?) / 2)?, *all.get(all.len() / 2)?);
        Some(Spread { median, least: *all.first()?, most: *all.last()? })
    }
}

/// Results for one number of models.
#[derive(Debug, Serialize, Deserialize)]
pub struct Run {
    /// Number of models.
    pub models: usize,
    /// Number of rounds.
    pub rounds: usize,
    /// Date, as `YYYY-MM-DD`.
    pub date: String,
    /// Number of cores, processor and memory.
    pub machine: String,
    /// Versions of the components.
    pub versions: BTreeMap<String, String>,
    /// Size of a ModelServing as JSON, in bytes.
    pub size: usize,
    /// Results.
    pub figures: Figures,
}
