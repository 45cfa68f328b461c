//! What Prometheus shows of the signals: whether anything is scraped, and which model names there are.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use super::{Key, Mismatch, Mismatches};
use crate::{
    intent::PrometheusSettings,
    prometheus::Element,
    signals::{ENGINE_OF, MODEL, RouterSeries, STATUS_CODE},
};

/// What is asked about: a router, at a Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// Who is asked.
    pub prometheus: PrometheusSettings,
    /// Where the router's series are.
    pub router: RouterSeries,
}

/// What is seen there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Whether the router is scraped.
    pub router_is_scraped: bool,
    /// The model names that it was asked for since it started.
    pub names: BTreeMap<String, Answered>,
    /// The ModelServings whose engines are to be scraped, and whether any of them answers.
    pub engines: BTreeMap<Key, bool>,
}

/// How requests for a name were answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// The router knows of no such model: a typo of a client's makes series, too.
    OnlyNotFound,
    /// Otherwise, or nobody counted.
    Otherwise,
}

impl Sight {
    /// Reads the answers to the three questions.
    pub fn read(presence: &[Element], names: Vec<Element>, engines: Vec<Element>) -> Self {
        let mut codes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for mut element in names {
            let code = element.labels.remove(STATUS_CODE);
            if let Some(name) = element.labels.remove(MODEL) {
                codes.entry(name).or_default().extend(code.filter(|code| !code.is_empty()));
            }
        }
        let asked = |codes: &[String]| {
            if !codes.is_empty() && codes.iter().all(|code| code == "404") { Answered::OnlyNotFound } else { Answered::Otherwise }
        };
        let engine =
            |mut element: Element| Some(((element.labels.remove("namespace")?, element.labels.remove(ENGINE_OF)?), element.value >= 1.0));
        Self {
            router_is_scraped: !presence.is_empty(),
            names: codes.into_iter().map(|(name, codes)| (name, asked(&codes))).collect(),
            engines: engines.into_iter().filter_map(engine).collect(),
        }
    }
}

/// What each source showed last, or why it did not.
pub type Sights = HashMap<Source, Result<Arc<Sight>, String>>;

/// Keeps what the slow checks showed last.
#[derive(Debug, Default)]
pub struct Checks {
    sights: RwLock<Arc<Sights>>,
    mismatches: RwLock<Mismatches>,
}

impl Checks {
    /// What was seen last.
    pub fn last(&self) -> Arc<Sights> {
        self.sights.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How a model's selector fails to match its ServingGroups, if it does.
    pub fn mismatch(&self, key: &Key) -> Option<Mismatch> {
        self.mismatches.read().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    /// Takes the models of which that is known now; answers whether that is news.
    pub fn take_mismatches(&self, mismatches: Mismatches) -> bool {
        let mut last = self.mismatches.write().unwrap_or_else(PoisonError::into_inner);
        let is_news = *last != mismatches;
        *last = mismatches;
        is_news
    }

    /// Takes what is seen now; answers whether that is news.
    pub fn take(&self, sights: Sights) -> bool {
        let mut last = self.sights.write().unwrap_or_else(PoisonError::into_inner);
        let is_news = **last != sights;
        if is_news {
            *last = Arc::new(sights);
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(labels: &[(&str, &str)], value: f64) -> Element {
        Element { labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(), value }
    }

    #[test]
    fn names_that_were_only_refused_prove_nothing() {
        let names = vec![
            element(&[("model", "typo")], 0.0),
            element(&[("model", "typo"), ("status_code", "404")], 3.0),
            element(&[("model", "llama")], 0.0),
            element(&[("model", "llama"), ("status_code", "404")], 1.0),
            element(&[("model", "llama"), ("status_code", "200")], 1.0),
            element(&[("model", "old-router")], 0.0),
        ];
        let engines = vec![element(&[("namespace", "n"), ("modelserving_volcano_sh_name", "chat")], 0.0)];
        let sight = Sight::read(&[], names, engines);
        assert!(!sight.router_is_scraped);
        let expected = [("llama", Answered::Otherwise), ("old-router", Answered::Otherwise), ("typo", Answered::OnlyNotFound)];
        assert_eq!(sight.names.iter().map(|(name, asked)| (name.as_str(), *asked)).collect::<Vec<_>>(), expected);
        assert!(!sight.engines[&("n".to_owned(), "chat".to_owned())]);
    }
}
