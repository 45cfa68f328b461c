//! What was measured, by name, once for each round; and where and when that was.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What was measured, once for each round.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Figures(BTreeMap<String, Vec<f64>>);

/// Of several rounds.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The one in the middle, or what is halfway between the two.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Figures {
    /// Takes what one round measured.
    pub fn push(&mut self, name: &str, value: f64) {
        self.0.entry(name.to_owned()).or_default().push((value * 1000.0).round() / 1000.0);
    }

    /// The last that was taken.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.0.get(name)?.last().copied()
    }

    /// One for each round.
    pub fn all(&self, name: &str) -> &[f64] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Over all rounds.
    pub fn spread(&self, name: &str) -> Option<Spread> {
        let mut all = self.0.get(name)?.clone();
        all.sort_by(f64::total_cmp);
        let median = f64::midpoint(*all.get((all.len().checked_sub(1)?) / 2)?, *all.get(all.len() / 2)?);
        Some(Spread { median, least: *all.first()?, most: *all.last()? })
    }
}

/// The rounds with so many models.
#[derive(Debug, Serialize, Deserialize)]
pub struct Run {
    /// How many models.
    pub models: usize,
    /// How many rounds.
    pub rounds: usize,
    /// The day.
    pub date: String,
    /// The processor, how many of them, and the memory.
    pub machine: String,
    /// Of what took part.
    pub versions: BTreeMap<String, String>,
    /// How large a ModelServing is as the API server sends it, in bytes.
    pub size: usize,
    /// What was measured.
    pub figures: Figures,
}
