//! What Prometheus shows of the signals: whether anything is scraped, and which model names there are.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    domain::Key,
    intent::PrometheusSettings,
    signals::{ENGINE_OF, MODEL, RouterSeries, STATUS_CODE},
};

/// What is asked about: a router, at a Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProbeTarget {
    /// Who is asked.
    pub prometheus: PrometheusSettings,
    /// Where the router's series are.
    pub router: RouterSeries,
}

/// What is seen there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeResult {
    /// Whether the router is scraped.
    pub router_is_scraped: bool,
    /// The model names that it was asked for since it started.
    pub names: BTreeMap<String, NameTraffic>,
    /// The ModelServings whose engines are to be scraped, and whether any of them answers.
    pub engines: BTreeMap<Key, bool>,
}

/// How requests for a name were answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameTraffic {
    /// The router knows of no such model: a typo of a client's makes series, too.
    OnlyNotFound,
    /// Otherwise, or nobody counted.
    Otherwise,
}

impl ProbeResult {
    /// Reads the answers to the three questions.
    pub fn read(presence: &[Sample], names: Vec<Sample>, engines: Vec<Sample>) -> Self {
        let mut codes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for mut element in names {
            let code = element.labels.remove(STATUS_CODE);
            if let Some(name) = element.labels.remove(MODEL) {
                codes.entry(name).or_default().extend(code.filter(|code| !code.is_empty()));
            }
        }
        let asked = |codes: &[String]| {
            if !codes.is_empty() && codes.iter().all(|code| code == "404") {
                NameTraffic::OnlyNotFound
            } else {
                NameTraffic::Otherwise
            }
        };
        let engine = |mut element: Sample| {
            Some((
                (element.labels.remove("namespace")?, element.labels.remove(ENGINE_OF)?),
                element.value >= 1.0,
            ))
        };
        Self {
            router_is_scraped: !presence.is_empty(),
            names: codes.into_iter().map(|(name, codes)| (name, asked(&codes))).collect(),
            engines: engines.into_iter().filter_map(engine).collect(),
        }
    }
}

/// What each source showed last, or why it did not.
pub type ProbeResults = HashMap<ProbeTarget, Result<Arc<ProbeResult>, String>>;

/// A selector that does not match one pod for each ServingGroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectorMismatch {
    /// Number of pods that it matches.
    pub pods: usize,
    /// Number of ServingGroups in `status.replicas`.
    pub groups: i32,
}

/// One sample of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Labels of the series.
    pub labels: HashMap<String, String>,
    /// Value of the sample.
    pub value: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(labels: &[(&str, &str)], value: f64) -> Sample {
        Sample {
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            value,
        }
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
        let probe = ProbeResult::read(&[], names, engines);
        assert!(!probe.router_is_scraped);
        let expected = [
            ("llama", NameTraffic::Otherwise),
            ("old-router", NameTraffic::Otherwise),
            ("typo", NameTraffic::OnlyNotFound),
        ];
        assert_eq!(
            probe.names.iter().map(|(name, asked)| (name.as_str(), *asked)).collect::<Vec<_>>(),
            expected
        );
        assert!(!probe.engines[&("n".to_owned(), "chat".to_owned())]);
    }
}
