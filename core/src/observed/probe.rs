//! Results of the operator's own queries to Prometheus: scraped targets, and the model names in requests.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    domain::{Key, MODEL_NAME_MAX},
    intent::PrometheusSettings,
    signals::{ENGINE_OF, MODEL, RouterSeries, STATUS_CODE},
};

/// Pairs of model name and namespace of other routers that are kept.
const ELSEWHERE_KEPT: usize = 1000;

/// Target of a probe: a router's series in a Prometheus. Models with the same target share the probe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProbeTarget {
    /// Prometheus that is queried.
    pub prometheus: PrometheusSettings,
    /// Location of the router's series.
    pub router: RouterSeries,
}

/// Result of a probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeResult {
    /// Scraping of the router.
    pub router: RouterScrape,
    /// Namespaces of other routers that have served requests, by model name.
    pub elsewhere: BTreeMap<String, BTreeSet<String>>,
    /// Model names of the requests that the router has received since it started.
    pub names: BTreeMap<String, NameTraffic>,
    /// ModelServings with engine targets; `true` if at least one target answers.
    pub engines: BTreeMap<Key, bool>,
}

/// Scraping of the router, as Prometheus shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouterScrape {
    /// Prometheus has series of the router.
    Succeeds,
    /// Prometheus has targets of the router, and every scrape of them fails.
    Fails,
    /// Prometheus has neither series nor a target of the router.
    #[default]
    NoTarget,
}

/// Responses to requests for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameTraffic {
    /// 404 only: the router has no such model. A client's typo creates series too.
    OnlyNotFound,
    /// At least one other response, or a router that does not report status codes.
    Otherwise,
}

impl ProbeResult {
    /// Reads the results of the probe queries.
    pub fn read(
        router: RouterScrape,
        names: Vec<Sample>,
        elsewhere: Vec<Sample>,
        engines: Vec<Sample>,
    ) -> Self {
        let mut codes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for mut sample in names {
            let code = sample.labels.remove(STATUS_CODE);
            // Clients choose these names; longer ones are of no ModelServing.
            if let Some(name) = sample.labels.remove(MODEL).filter(|name| name.len() <= MODEL_NAME_MAX) {
                codes.entry(name).or_default().extend(code.filter(|code| !code.is_empty()));
            }
        }
        Self {
            router,
            elsewhere: other_routers(elsewhere),
            names: codes.into_iter().map(|(name, codes)| (name, traffic(&codes))).collect(),
            engines: engines.into_iter().filter_map(engine).collect(),
        }
    }

    /// `true` if Prometheus has series of the router.
    pub fn router_is_scraped(&self) -> bool {
        self.router == RouterScrape::Succeeds
    }
}

/// The first few pairs of model name and namespace: whoever may be scraped can make any number of them.
fn other_routers(samples: Vec<Sample>) -> BTreeMap<String, BTreeSet<String>> {
    let mut elsewhere: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for mut sample in samples.into_iter().take(ELSEWHERE_KEPT) {
        if let (Some(model), Some(namespace)) =
            (sample.labels.remove(MODEL), sample.labels.remove("namespace"))
        {
            elsewhere.entry(model).or_default().insert(namespace);
        }
    }
    elsewhere
}

fn traffic(codes: &[String]) -> NameTraffic {
    if !codes.is_empty() && codes.iter().all(|code| code == "404") {
        NameTraffic::OnlyNotFound
    } else {
        NameTraffic::Otherwise
    }
}

fn engine(mut sample: Sample) -> Option<(Key, bool)> {
    let key = (sample.labels.remove("namespace")?, sample.labels.remove(ENGINE_OF)?);
    Some((key, sample.value >= 1.0))
}

/// Latest result or error of each target.
pub type ProbeResults = HashMap<ProbeTarget, Result<Arc<ProbeResult>, String>>;

/// Label selector that does not match one pod for each ServingGroup.
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

    fn sample(labels: &[(&str, &str)], value: f64) -> Sample {
        Sample {
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            value,
        }
    }

    #[test]
    fn separates_names_that_were_only_answered_with_404() {
        let names = vec![
            sample(&[("model", "typo")], 0.0),
            sample(&[("model", "typo"), ("status_code", "404")], 3.0),
            sample(&[("model", "llama")], 0.0),
            sample(&[("model", "llama"), ("status_code", "404")], 1.0),
            sample(&[("model", "llama"), ("status_code", "200")], 1.0),
            sample(&[("model", "old-router")], 0.0),
        ];
        let engines = vec![sample(&[("namespace", "n"), ("modelserving_volcano_sh_name", "chat")], 0.0)];
        let probe = ProbeResult::read(RouterScrape::NoTarget, names, Vec::new(), engines);
        assert!(!probe.router_is_scraped());
        let expected = [
            ("llama", NameTraffic::Otherwise),
            ("old-router", NameTraffic::Otherwise),
            ("typo", NameTraffic::OnlyNotFound),
        ];
        assert_eq!(
            probe.names.iter().map(|(name, traffic)| (name.as_str(), *traffic)).collect::<Vec<_>>(),
            expected
        );
        assert!(!probe.engines[&("n".to_owned(), "chat".to_owned())]);
    }
}
