//! Results of the operator's own queries to Prometheus: scraped targets, and the model names in requests.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
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
    /// ModelServings with engine targets.
    pub engines: BTreeMap<Key, EngineScrape>,
    /// Labels that tell routers of different clusters apart, with several values each.
    pub ambiguous_labels: BTreeSet<String>,
    /// `true` if this Prometheus is one of several shards, and has a part of the targets.
    pub is_shard: bool,
    /// `true` if a query as small as KEDA's took longer than KEDA waits.
    pub is_slow: bool,
}

/// Result of scraping the engines of one ModelServing: that of the best target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EngineScrape {
    /// No target answers.
    Unreachable,
    /// A target answers, and exports none of the engines' gauges.
    WithoutGauges,
    /// A target exports the engines' gauges.
    Scraped,
}

/// Results of the probe queries about one Prometheus.
#[derive(Clone, Debug, Default)]
pub struct ServerSamples {
    /// Of [`signals::engine_targets`](crate::signals::engine_targets).
    pub engine_targets: Vec<Sample>,
    /// Of [`signals::engine_gauges`](crate::signals::engine_gauges).
    pub engine_gauges: Vec<Sample>,
    /// Of [`signals::other_shards`](crate::signals::other_shards).
    pub other_shards: Vec<Sample>,
}

/// Results of the probe queries about one router.
#[derive(Clone, Debug, Default)]
pub struct RouterSamples {
    /// Scraping of the router.
    pub scrape: RouterScrape,
    /// Time until Prometheus answered the first query, which is as small as KEDA's.
    pub latency: Duration,
    /// Of [`signals::router_labels`](crate::signals::router_labels).
    pub targets: Vec<Sample>,
    /// Of [`signals::model_names`](crate::signals::model_names).
    pub names: Vec<Sample>,
    /// Of [`signals::requests_elsewhere`](crate::signals::requests_elsewhere).
    pub elsewhere: Vec<Sample>,
}

/// Scraping of the router, as Prometheus shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouterScrape {
    /// Prometheus has series of the router.
    Succeeds,
    /// Prometheus scrapes the router, and has none of its gauges with the label `pod`.
    WithoutGauges,
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
    /// Reads the results of the probe queries; `kedas_limit` is the time that KEDA waits for a query.
    pub fn read(router: RouterSamples, server: ServerSamples, kedas_limit: Duration) -> Self {
        let RouterSamples { scrape, latency, targets, names, elsewhere } = router;
        let mut codes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for mut sample in names {
            let code = sample.labels.remove(STATUS_CODE);
            // Clients choose these names; longer ones are of no ModelServing.
            if let Some(name) = sample.labels.remove(MODEL).filter(|name| name.len() <= MODEL_NAME_MAX) {
                codes.entry(name).or_default().extend(code.filter(|code| !code.is_empty()));
            }
        }
        Self {
            router: scrape,
            elsewhere: other_routers(elsewhere),
            names: codes.into_iter().map(|(name, codes)| (name, traffic(&codes))).collect(),
            engines: engines(server.engine_targets, server.engine_gauges),
            ambiguous_labels: ambiguous_labels(&targets),
            is_shard: !server.other_shards.is_empty(),
            is_slow: latency > kedas_limit,
        }
    }

    /// `true` if Prometheus has series of the router.
    pub fn router_is_scraped(&self) -> bool {
        self.router == RouterScrape::Succeeds
    }
}

/// The first few pairs of model name and namespace: a tenant whose pods are scraped can make any number of them.
fn other_routers(samples: Vec<Sample>) -> BTreeMap<String, BTreeSet<String>> {
    let pairs = samples.into_iter().filter_map(|mut sample| {
        // A longer name is of no ModelServing.
        let model = sample.labels.remove(MODEL).filter(|model| model.len() <= MODEL_NAME_MAX)?;
        Some((model, sample.labels.remove("namespace")?))
    });
    // Sorted before the cut: Prometheus returns samples in any order.
    let pairs: BTreeSet<(String, String)> = pairs.collect();
    let mut elsewhere: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (model, namespace) in pairs.into_iter().take(ELSEWHERE_KEPT) {
        elsewhere.entry(model).or_default().insert(namespace);
    }
    elsewhere
}

/// Labels that Prometheus and its operator give to targets, or that users copy from pods and nodes: they
/// differ between the routers of one cluster.
const TARGET_LABELS: [&str; 19] = [
    "__name__",
    "namespace",
    "pod",
    "service",
    "job",
    "instance",
    "endpoint",
    "container",
    "node",
    "nodename",
    "host",
    "hostname",
    "host_ip",
    "pod_ip",
    "zone",
    "version",
    "revision",
    "image",
    "uid",
];
const COPIED_LABELS: [&str; 8] =
    ["app", "controller_", "helm_", "kubernetes_", "label_", "node_", "pod_", "topology_"];

/// Labels of the router's series, other than those of a target, of which two values have no target in common:
/// those are different routers. The same targets under each value are copies, which queries merge.
fn ambiguous_labels(targets: &[Sample]) -> BTreeSet<String> {
    let is_of_target = |label: &str| {
        TARGET_LABELS.contains(&label) || COPIED_LABELS.iter().any(|prefix| label.starts_with(prefix))
    };
    let labels: BTreeSet<&str> =
        targets.iter().flat_map(|sample| sample.labels.keys()).map(String::as_str).collect();
    let is_ambiguous = |label: &&str| !is_of_target(label) && separates_targets(targets, label);
    labels.into_iter().filter(is_ambiguous).map(str::to_owned).collect()
}

/// `true` if two values of the label have no target in common.
fn separates_targets(targets: &[Sample], label: &str) -> bool {
    let mut by_value: BTreeMap<Option<&String>, BTreeSet<[Option<&String>; 3]>> = BTreeMap::new();
    for Sample { labels, .. } in targets {
        let target = ["namespace", "pod", "instance"].map(|part| labels.get(part));
        by_value.entry(labels.get(label)).or_default().insert(target);
    }
    let sets: Vec<&BTreeSet<_>> = by_value.values().collect();
    sets.iter().enumerate().any(|(i, set)| sets.iter().skip(i + 1).any(|other| set.is_disjoint(other)))
}

fn traffic(codes: &[String]) -> NameTraffic {
    if !codes.is_empty() && codes.iter().all(|code| code == "404") {
        NameTraffic::OnlyNotFound
    } else {
        NameTraffic::Otherwise
    }
}

fn engines(targets: Vec<Sample>, gauges: Vec<Sample>) -> BTreeMap<Key, EngineScrape> {
    let mut engines = BTreeMap::new();
    for target in targets {
        let scrape =
            if target.value >= 1.0 { EngineScrape::WithoutGauges } else { EngineScrape::Unreachable };
        engines.extend(engine_of(target).map(|key| (key, scrape)));
    }
    let scraped = gauges.into_iter().filter_map(engine_of).map(|key| (key, EngineScrape::Scraped));
    engines.extend(scraped);
    engines
}

fn engine_of(mut sample: Sample) -> Option<Key> {
    Some((sample.labels.remove("namespace")?, sample.labels.remove(ENGINE_OF)?))
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
    use rstest::rstest;

    /// Time that KEDA waits.
    const LIMIT: Duration = Duration::from_secs(3);

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
        let probe = ProbeResult::read(
            RouterSamples { names, ..RouterSamples::default() },
            ServerSamples::default(),
            LIMIT,
        );
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
    }

    #[rstest]
    #[case::in_time(3000, false)]
    #[case::late(3001, true)]
    fn tells_a_prometheus_that_is_too_slow_for_keda(#[case] millis: u64, #[case] is_slow: bool) {
        let router = RouterSamples { latency: Duration::from_millis(millis), ..RouterSamples::default() };
        assert_eq!(ProbeResult::read(router, ServerSamples::default(), LIMIT).is_slow, is_slow);
    }

    #[test]
    fn tells_engines_that_answer_from_engines_that_export_their_gauges() {
        let of = |name, value| sample(&[("namespace", "n"), ("modelserving_volcano_sh_name", name)], value);
        let server = ServerSamples {
            engine_targets: vec![of("down", 0.0), of("bare", 1.0), of("good", 1.0), of("half", 0.0)],
            engine_gauges: vec![of("good", 0.0), of("half", 3.0), of("without-up", 0.0)],
            other_shards: Vec::new(),
        };
        let probe = ProbeResult::read(RouterSamples::default(), server, LIMIT);
        let states: Vec<_> = probe.engines.iter().map(|((_, name), state)| (name.as_str(), *state)).collect();
        let expected = [
            ("bare", EngineScrape::WithoutGauges),
            ("down", EngineScrape::Unreachable),
            ("good", EngineScrape::Scraped),
            ("half", EngineScrape::Scraped),
            ("without-up", EngineScrape::Scraped),
        ];
        assert_eq!(states, expected);
    }

    /// Clients choose the names, and Prometheus returns samples in any order.
    #[test]
    fn keeps_the_same_bounded_part_of_the_names_of_other_routers() {
        let of = |model: String| sample(&[("model", &model), ("namespace", "n")], 1.0);
        let mut samples: Vec<Sample> = (0..=ELSEWHERE_KEPT).map(|i| of(format!("m-{i:05}"))).collect();
        samples.push(of("a".repeat(MODEL_NAME_MAX + 1)));
        let kept = other_routers(samples.clone());
        samples.reverse();
        assert_eq!(other_routers(samples), kept);
        assert_eq!(kept.len(), ELSEWHERE_KEPT);
        assert!(kept.keys().all(|model| model.starts_with("m-")));
    }

    fn ambiguous(targets: &[&[(&str, &str)]]) -> Vec<String> {
        let targets: Vec<Sample> = targets.iter().map(|labels| sample(labels, 0.0)).collect();
        ambiguous_labels(&targets).into_iter().collect()
    }

    #[test]
    fn finds_the_labels_that_separate_clusters() {
        let eu = [("pod", "r-abc"), ("instance", "10.0.0.1:8080"), ("cluster", "eu")];
        let us = [("pod", "r-xyz"), ("instance", "10.0.0.1:8080"), ("cluster", "us")];
        let same_pod_name = [("pod", "r-abc"), ("instance", "10.9.0.1:8080"), ("cluster", "us")];
        let local = [("pod", "r-xyz"), ("instance", "10.0.0.1:8080")];
        assert_eq!(ambiguous(&[&eu, &us]), ["cluster"]);
        assert_eq!(ambiguous(&[&eu, &same_pod_name]), ["cluster"]);
        assert_eq!(ambiguous(&[&eu, &local]), ["cluster"], "a local store that another one is read into");
        assert_eq!(ambiguous(&[&eu]), Vec::<String>::new());
    }

    #[test]
    fn accepts_routers_of_one_cluster_and_copies_of_a_series() {
        let router = |pod, zone, replica, cluster| {
            [
                ("pod", pod),
                ("instance", pod),
                ("zone", zone),
                ("prometheus_replica", replica),
                ("cluster", cluster),
            ]
        };
        let one = [router("r-0", "a", "p-0", "eu"), router("r-1", "b", "p-0", "eu")];
        let copies = [router("r-0", "a", "p-1", "eu"), router("r-1", "b", "p-1", "eu")];
        assert_eq!(ambiguous(&[&one[0], &one[1]]), Vec::<String>::new());
        assert_eq!(ambiguous(&[&one[0], &one[1], &copies[0], &copies[1]]), Vec::<String>::new());
        assert_eq!(ambiguous(&[&one[0], &one[1], &copies[0]]), Vec::<String>::new(), "one scrape behind");
        assert_eq!(ambiguous(&[&one[0], &copies[1]]), ["prometheus_replica"], "each has its own routers");
    }
}
