//! A history of requests that a Prometheus starts with.

use std::{
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

/// Seconds of the history.
const SECONDS: u64 = 26 * 3600;

/// 26 hours until now in which the one ServingGroup of each model served 8 requests in each 15 s, each in 4.9 s, as `OpenMetrics` text.
pub fn past_requests(namespace: &str, models: &[&str], scrape_seconds: u64) -> String {
    let family = |name: &str, series: Vec<String>, value: &dyn Fn(u64) -> String| {
        family(name, &series, value, scrape_seconds)
    };
    let router = |model: &str| {
        format!(r#"model="{model}",namespace="kthena-system",pod="router-0",status_code="200""#)
    };
    let routers = || models.iter().map(|model| router(model)).collect();
    let buckets =
        models.iter().flat_map(|model| ["6", "+Inf"].map(|le| format!("{},le={le:?}", router(model))));
    let groups = models.iter().flat_map(|model| {
        ["spec", "ready"]
            .map(|state| format!(r#"namespace="{namespace}",model_serving="{model}",state="{state}""#))
    });
    let requests = |scrape: u64| 8 * scrape * scrape_seconds / 15;
    let count = |scrape| requests(scrape).to_string();
    let tenths_of_seconds = |scrape| format!("{}e-1", 49 * requests(scrape));
    let in_flight = |_| "3".to_owned();
    let families = [
        family("kthena_router_request_duration_seconds_sum", routers(), &tenths_of_seconds),
        family("kthena_router_request_duration_seconds_count", routers(), &count),
        family("kthena_router_requests_total", routers(), &count),
        family("kthena_router_request_duration_seconds_bucket", buckets.collect(), &count),
        family(
            "kthena_router_active_requests",
            vec![r#"namespace="kthena-system",pod="router-0""#.to_owned()],
            &in_flight,
        ),
        family("kthena_router_active_downstream_requests", routers(), &in_flight),
        family("kthena_keda_replicas", groups.collect(), &|_| "1".to_owned()),
    ];
    families.concat() + "# EOF\n"
}

/// Samples of one metric until now.
fn family(name: &str, series: &[String], value: &dyn Fn(u64) -> String, scrape_seconds: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let scrapes = SECONDS / scrape_seconds;
    let mut text = format!("# TYPE {name} unknown\n");
    for labels in series {
        for scrape in 0..=scrapes {
            let at = now - (scrapes - scrape) * scrape_seconds;
            writeln!(text, "{name}{{{labels}}} {} {at}", value(scrape)).unwrap();
        }
    }
    text
}
