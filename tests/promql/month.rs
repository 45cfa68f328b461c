//! A month of troubles in one run: the activation query stays at 0 through all of them, and shows every single
//! request.
//!
//! The troubles of a month (some 40 a day) follow each other closely, so that they overlap in every way and
//! the month lasts hours. All values are random and the same in every run.

use std::{fmt::Write as _, ops::Range};

use fastrand::Rng;
use kthena_keda_core::{promql::Query, signals::ScrapeSource};
use rstest::rstest;
use serde_json::{Value, json};

use crate::{check, query, service};

/// Scrapes of the simulation, 15 s apart.
const SCRAPES: usize = 2_400;
/// Scrapes of two minutes, for which a request is visible.
const WINDOW: usize = 8;
/// Scrapes of five minutes, after which a request during an interruption may go unseen.
const BEFORE: usize = 20;
/// Scrapes from one request to the next, so that each is alone.
const PAUSE: Range<usize> = 12..60;

/// The samples of one series.
struct Series {
    labels: String,
    samples: Vec<Sample>,
}

#[derive(Clone, Copy, PartialEq)]
enum Sample {
    Missing,
    Stale,
    Value(u32),
}

impl Series {
    /// Writes the samples in promtool's notation.
    fn notation(&self) -> String {
        let mut text = String::new();
        let mut rest = self.samples.as_slice();
        while let Some(first) = rest.first() {
            let count = rest.iter().take_while(|sample| *sample == first).count();
            let _ = match first {
                Sample::Missing => write!(text, "_x{count} "),
                Sample::Value(value) => write!(text, "{value}x{} ", count - 1),
                Sample::Stale => write!(text, "{}", "stale ".repeat(count)),
            };
            rest = &rest[count..];
        }
        text
    }

    /// A scrape without this series: a staleness marker follows its last sample.
    fn end(&mut self) {
        let was_there = matches!(self.samples.last(), Some(Sample::Value(_)));
        self.samples.push(if was_there { Sample::Stale } else { Sample::Missing });
    }
}

/// A router pod, and the process in it.
struct Pod {
    name: String,
    /// Scrapes until it becomes a target; its target is gone if the pod is.
    starts_in: usize,
    is_gone: bool,
    /// Scrapes that fail next.
    failing: usize,
    /// Requests of the model since the process started.
    requests: u32,
    /// Successful scrapes of the process.
    scraped: Vec<usize>,
    /// A request that no scrape has shown yet.
    unseen: Option<usize>,
    series: Vec<Series>,
}

const METRICS: [&str; 6] = [
    "up",
    "kthena_router_requests_total",
    "kthena_router_tokens_total",
    "kthena_router_active_requests",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
];

impl Pod {
    /// A pod that is not a target for a number of scrapes, after those before its time.
    fn new(number: usize, before: usize, starts_in: usize) -> Self {
        let name = format!("r-{number}");
        let target = format!(
            r#"namespace="kthena-system",service="kthena-router",job="kthena-router",pod="{name}",instance="{name}:8080""#
        );
        let labels = |metric: &str| {
            let own = match metric {
                "kthena_router_requests_total" => r#",model="m",path="/v1",status_code="404""#,
                "kthena_router_tokens_total" => r#",model="m",path="/v1",token_type="input""#,
                _ => "",
            };
            format!("{metric}{{{target}{own}}}")
        };
        let series =
            METRICS.map(|metric| Series { labels: labels(metric), samples: vec![Sample::Missing; before] });
        let series = series.into_iter().collect();
        Self {
            name,
            starts_in,
            is_gone: false,
            failing: 0,
            requests: 0,
            scraped: Vec::new(),
            unseen: None,
            series,
        }
    }

    fn is_target(&self) -> bool {
        !self.is_gone && self.starts_in == 0
    }

    /// The container starts again: its counters are gone, and some scrapes fail.
    fn restart(&mut self, failing: usize) {
        self.failing = self.failing.max(failing);
        (self.requests, self.unseen) = (0, None);
        self.scraped.clear();
    }

    /// One scrape, or none while Prometheus is down. Returns the request that it shows first.
    fn scrape(&mut self, now: usize, is_old: bool, prometheus_is_up: bool) -> Option<usize> {
        let succeeds = self.is_target() && self.failing == 0;
        self.failing = self.failing.saturating_sub(1);
        let is_target = self.is_target();
        self.starts_in = self.starts_in.saturating_sub(1);
        if !prometheus_is_up {
            self.series.iter_mut().for_each(|series| series.samples.push(Sample::Missing));
            return None;
        }
        let (requests, exported) = (self.requests, if self.requests > 0 { 2 } else { 0 });
        let values = [
            is_target.then_some(u32::from(succeeds)),
            (succeeds && requests > 0).then_some(requests),
            (succeeds && requests > 0).then_some(8 * requests),
            (succeeds && !is_old).then_some(0),
            is_target.then_some(if succeeds { exported } else { 0 }),
            is_target.then_some(if succeeds { exported } else { 0 }),
        ];
        for (series, value) in self.series.iter_mut().zip(values) {
            match value {
                Some(value) => series.samples.push(Sample::Value(value)),
                None => series.end(),
            }
        }
        if !succeeds {
            return None;
        }
        let shown = self.unseen.take();
        self.scraped.push(now);
        shown
    }

    /// The last scrape before a request, if Prometheus had scraped the pod before the window, too.
    fn idle_before(&self, arrived: usize) -> Option<usize> {
        let last = *self.scraped.iter().rev().find(|scrape| **scrape < arrived)?;
        let before = last.checked_sub(WINDOW + BEFORE)?..=last.checked_sub(WINDOW)?;
        self.scraped.iter().any(|scrape| before.contains(scrape)).then_some(last)
    }

    /// `true` if a request that arrived before this scrape must show: Prometheus had scraped the process for
    /// longer than the window, and without a long interruption until now.
    fn owes(&self, arrived: usize, now: usize) -> bool {
        let is_old_enough = self.scraped.first().is_some_and(|first| first + WINDOW < arrived);
        let last_before = self.scraped.iter().rev().find(|scrape| **scrape < arrived);
        is_old_enough && last_before.is_some_and(|last| now - last <= BEFORE)
    }
}

/// Routers behind one Prometheus, and what happens to them.
struct Month {
    rng: Rng,
    pods: Vec<Pod>,
    names: usize,
    is_old: bool,
    /// Scrapes that Prometheus misses next.
    down: usize,
    now: usize,
    troubles: [usize; 7],
    /// Scrapes that first show a request that must be seen.
    owed: Vec<usize>,
    /// Scrapes before a request at which the query has a result.
    idle: Vec<usize>,
    /// Scrapes that first show any request.
    shown: Vec<usize>,
}

impl Month {
    fn simulated(routers: usize, is_old: bool, seed: u64) -> Self {
        let mut month = Self {
            rng: Rng::with_seed(seed),
            pods: (0..routers).map(|number| Pod::new(number, 0, number)).collect(),
            names: routers,
            is_old,
            down: 0,
            now: 0,
            troubles: [0; 7],
            owed: Vec::new(),
            idle: Vec::new(),
            shown: Vec::new(),
        };
        let (mut next_trouble, mut next_request) = (40, 60);
        while month.now < SCRAPES {
            if month.now == next_trouble {
                month.trouble();
                next_trouble += month.rng.usize(4..30);
            }
            if month.now == next_request {
                month.request();
                next_request += month.rng.usize(PAUSE);
            }
            month.scrape();
        }
        month
    }

    /// Positions of the pods that are not gone.
    fn alive(&self) -> Vec<usize> {
        (0..self.pods.len()).filter(|at| !self.pods[*at].is_gone).collect()
    }

    fn any_alive(&mut self) -> usize {
        let alive = self.alive();
        alive[self.rng.usize(0..alive.len())]
    }

    fn trouble(&mut self) {
        let kind = self.rng.usize(0..self.troubles.len());
        self.troubles[kind] += 1;
        let one = self.any_alive();
        match kind {
            // Missed scrapes of one router, of all routers, and a long interruption.
            0 => self.pods[one].failing = self.rng.usize(1..4),
            1 => self.alive().into_iter().for_each(|at| self.pods[at].failing = 1),
            2 => self.pods[one].failing = self.rng.usize(20..45),
            // A pod that is replaced, with or without a gap.
            3 => {
                let starts_in = self.rng.usize(0..6);
                self.replace(one, starts_in);
            }
            // A rollout, one router after the other.
            4 => {
                for (order, at) in self.alive().into_iter().enumerate() {
                    self.replace(at, 2 * order);
                }
            }
            // A container that starts again in its pod.
            5 => {
                let failing = self.rng.usize(0..3);
                self.pods[one].restart(failing);
            }
            // A Prometheus that is down for a while, or loses its data.
            _ => self.down = if self.rng.bool() { self.rng.usize(2..16) } else { self.rng.usize(55..70) },
        }
    }

    fn replace(&mut self, at: usize, starts_in: usize) {
        self.pods[at].is_gone = true;
        self.pods.push(Pod::new(self.names, self.now, starts_in));
        self.names += 1;
    }

    fn request(&mut self) {
        let one = self.any_alive();
        let pod = &mut self.pods[one];
        pod.requests += 1;
        pod.unseen = Some(self.now);
    }

    fn scrape(&mut self) {
        let prometheus_is_up = self.down == 0;
        self.down = self.down.saturating_sub(1);
        for pod in &mut self.pods {
            let Some(arrived) = pod.scrape(self.now, self.is_old, prometheus_is_up) else { continue };
            self.shown.push(self.now);
            if pod.owes(arrived, self.now) {
                self.owed.push(self.now);
                self.idle.extend(pod.idle_before(arrived));
            }
        }
        self.now += 1;
    }

    fn series(&self) -> Vec<Value> {
        let all = self.pods.iter().flat_map(|pod| &pod.series);
        let sampled =
            all.filter(|series| series.samples.iter().any(|sample| matches!(sample, Sample::Value(_))));
        sampled.map(|series| json!({"series": series.labels, "values": series.notation()})).collect()
    }

    /// The scrapes at which the query is 0.
    fn idle(&self) -> Vec<usize> {
        let is_quiet = |scrape: &&usize| self.quiet().iter().any(|quiet| quiet.contains(scrape));
        self.idle.iter().filter(is_quiet).copied().collect()
    }

    /// The scrapes at which no request is visible.
    fn quiet(&self) -> Vec<Range<usize>> {
        let mut quiet = Vec::new();
        let mut from = 0;
        for shown in &self.shown {
            if from < *shown {
                quiet.push(from..*shown);
            }
            from = shown + WINDOW;
        }
        quiet.push(from..SCRAPES);
        quiet.retain(|scrapes| !scrapes.is_empty());
        quiet
    }
}

/// promtool's check of whether the query was above 0 at any scrape of a range.
fn above_zero(query: &str, scrapes: &Range<usize>, expected: bool) -> Value {
    let (duration, end) = (15 * scrapes.len(), 15 * (scrapes.end - 1));
    let samples = if expected { json!([{"labels": "{}", "value": 1}]) } else { json!([]) };
    json!({
        "expr": format!("count_over_time((({query}) > 0)[{duration}s:15s]) > bool 0"),
        "eval_time": format!("{end}s"),
        "exp_samples": samples,
    })
}

/// promtool's check that the query is 0 at a scrape.
fn is_zero(query: &str, scrape: usize) -> Value {
    let samples = json!([{"labels": "{}", "value": 0}]);
    json!({"expr": query, "eval_time": format!("{}s", 15 * scrape), "exp_samples": samples})
}

#[rstest]
fn a_month_of_troubles_wakes_nothing_and_hides_no_request(
    #[values(1, 2, 3)] routers: usize,
    #[values(false, true)] is_old: bool,
    #[values(false, true)] has_presence_query: bool,
) {
    let source = if has_presence_query {
        ScrapeSource::Query(Query::parse("max(up{job=\"kthena-router\"} == 1)").unwrap())
    } else {
        service()
    };
    let query = query("activation", "m", source);
    let seed = (routers * 4) as u64 + u64::from(is_old) * 2 + u64::from(has_presence_query);
    let month = Month::simulated(routers, is_old, seed);
    assert!(month.troubles.iter().all(|count| *count > 5), "{:?}", month.troubles);
    assert!(month.owed.len() > 15, "{:?}", month.owed);
    assert!(month.idle().len() > 10, "{:?}", month.idle());
    let quiet = month.quiet().into_iter().map(|scrapes| above_zero(&query, &scrapes, false));
    let seen = month.owed.iter().map(|shown| above_zero(&query, &(*shown..shown + WINDOW), true));
    let idle = month.idle().into_iter().map(|scrape| is_zero(&query, scrape));
    let name = format!("month-{routers}-{is_old}-{has_presence_query}");
    let pods: Vec<&str> = month.pods.iter().map(|pod| pod.name.as_str()).collect();
    assert!(pods.len() > 20, "{pods:?}");
    let checks: Vec<Value> = quiet.chain(seen).chain(idle).collect();
    check(&name, &month.series(), &checks);
}
