//! The bounded backlog: `base + (in flight - base) * service time / drain time`.
//!
//! Unless a case says otherwise, a request takes 5 s, the headroom is 1.2 and the drain time 10 minutes. So each arrival per second is worth
//! 6 requests, and each waiting request 1/120.

use kthena_keda_core::{
    domain::{Backlog, ServiceTime},
    promql::Query,
    signals::{Demand, DemandScope, Engine, EngineSeries, RouterSeries, ScrapeSource, bounded_requests},
};
use rstest::rstest;
use serde_json::{Value, json};

use crate::{AT, from, idle, in_flight, router, scraped, service, target, with};

/// In flight during a burst of 16 requests per second that began a minute ago: nothing was served yet. The window of the arrival rate has
/// samples 18, 19 and 20.
const BURST: &str = "0x16 240+240x3 960x20";

/// The value for the burst: 16 * 6, and 1/120 of the 864 others.
const BOUNDED: f64 = 96.0 + 7.2;

fn evaluate(name: &str, series: &[Value], query: &str, at: &str, expected: Option<f64>) {
    let expected = expected.map(|value| (value * 10.0).round() / 10.0);
    crate::evaluate(name, series, &format!("round(({query}), 0.1)"), at, expected);
}

fn bound(service_time: &str) -> (ServiceTime, Backlog) {
    (service_time.parse().unwrap(), Backlog::default())
}

fn bounded(
    models: &str,
    service_time: &str,
    series: &RouterSeries,
    engines: Option<&EngineSeries>,
) -> String {
    let models = models.parse().unwrap();
    let bounded = bounded_requests(&models, series, bound(service_time), engines);
    bounded
        .map_or_else(
            || Demand::ActiveRequests.query(&DemandScope::Models(models), series).unwrap(),
            |bounded| bounded.total,
        )
        .to_string()
}

fn check(name: &str, service_time: &str, series: &[Value], expected: Option<f64>) {
    evaluate(name, series, &bounded("m", service_time, &from(service()), None), AT, expected);
}

/// The router's counter of requests that ended.
fn ended(pod: &str, model: &str, status: &str, values: &str) -> Value {
    let labels =
        format!(r#"model="{model}",path="/v1/chat/completions",status_code="{status}",error_type="none""#);
    router("kthena_router_requests_total", pod, &labels, values)
}

/// A router whose series of the model have these values.
fn one(in_flight_values: &str, ended_values: &str) -> Vec<Value> {
    with(
        idle("r-0", "x40"),
        [in_flight("r-0", "m", in_flight_values), ended("r-0", "m", "200", ended_values)],
    )
}

#[rstest]
#[case::steady("80x40", "0+240x40", 80.0)]
#[case::nothing_waits("0x40", "500x40", 0.0)]
#[case::burst(BURST, "7x40", BOUNDED)]
#[case::first_burst_ever("_x17 240+240x3", "_x40", BOUNDED)]
#[case::first_burst_that_was_served_in_part("_x17 240+200x3", "_x18 40+40x2", 96.0 + 744.0 / 120.0)]
#[case::overload("960x40", "0+150x40", 60.0 + 900.0 / 120.0)]
#[case::arrivals_ended("400x16 340-60x3", "100x16 160+60x3", 160.0 / 120.0)]
#[case::fewer_than_their_share("50x40", "0+240x40", 50.0)]
fn bounds_what_waits(#[case] in_flight: &str, #[case] ended: &str, #[case] expected: f64) {
    check(&format!("bounds-{in_flight}"), "5s", &one(in_flight, ended), Some(expected));
}

/// In flight and ended as in the burst, with a trouble that hides arrivals: all requests in flight count.
#[rstest]
#[case::counter_began_again("7x18 1x20")]
#[case::counter_is_gone("7x18 stale")]
fn counts_all_if_a_router_restarted(#[case] ended: &str) {
    check(&format!("restart-{ended}"), "5s", &one(BURST, ended), Some(960.0));
}

#[rstest]
#[case::failed_scrape_at_the_start("0x17 stale 0x22", 960.0)]
#[case::failed_scrapes_at_the_start("0x16 stale stale 0x22", 960.0)]
#[case::failed_scrape_within("0x18 stale 0x21", BOUNDED)]
#[case::failed_scrapes_before("0x15 stale stale 0x23", BOUNDED)]
#[case::young_router("_x19 0x21", 960.0)]
fn counts_all_if_a_router_was_not_scraped_then(#[case] active: &str, #[case] expected: f64) {
    let series = with(
        target("r-0", "x40", 2, 2),
        [
            router("kthena_router_active_requests", "r-0", "", active),
            in_flight("r-0", "m", BURST),
            ended("r-0", "m", "200", "7x40"),
        ],
    );
    check(&format!("scrape-{active}"), "5s", &series, Some(expected));
}

#[rstest]
#[case::one_is_new("_x19 0x21", "_x19 20x21", 980.0)]
#[case::one_is_gone("0x18 stale", "20x18 stale", 960.0)]
#[case::both_stay("0x40", "20x40", BOUNDED + 20.0 / 120.0)]
fn counts_all_while_routers_come_and_go(#[case] active: &str, #[case] other: &str, #[case] expected: f64) {
    let series = with(
        one(BURST, "7x40"),
        [router("kthena_router_active_requests", "r-1", "", active), in_flight("r-1", "m", other)],
    );
    check(&format!("routers-{active}-{other}"), "5s", &series, Some(expected));
}

/// A monitor that drops the counter, and a router that has none, look like no arrivals at all.
#[rstest]
#[case::dropped(with(target("r-0", "x40", 9, 8), [router("kthena_router_active_requests", "r-0", "", "0x40")]), 960.0)]
#[case::counter_of_another_model(
    with(target("r-0", "x40", 9, 8), [router("kthena_router_active_requests", "r-0", "", "0x40"), ended("r-0", "other", "200", "1x40")]),
    BOUNDED
)]
#[case::before_kthena_1(target("r-0", "x40", 9, 9), 960.0)]
fn counts_all_without_a_counter(#[case] base: Vec<Value>, #[case] expected: f64) {
    check(
        &format!("counter-{}", base.len()),
        "5s",
        &with(base, [in_flight("r-0", "m", BURST)]),
        Some(expected),
    );
}

/// The samples are older than a minute, and no staleness marker follows them: the monitor was deleted.
#[test]
fn counts_all_of_old_samples() {
    let series =
        with(idle("r-0", "x20"), [in_flight("r-0", "m", "0x16 240+240x3"), ended("r-0", "m", "200", "7x20")]);
    let query = bounded("m", "5s", &from(service()), None);
    evaluate("old-samples", &series, &query, "7m", Some(960.0));
}

#[test]
fn gives_no_result_without_data() {
    check("no-data", "5s", &[json!({"series": "up{namespace=\"other\",pod=\"p\"}", "values": "1x40"})], None);
    let gone = [
        router("up", "r-0", "", "1x16 0x24"),
        router("kthena_router_active_requests", "r-0", "", "0x16 stale"),
    ];
    check("gone", "5s", &gone, None);
    check("idle", "5s", &idle("r-0", "x40"), Some(0.0));
}

/// A client that is refused asks again: what is refused has to be served, too.
#[rstest]
#[case::engines_are_full("400")]
#[case::rate_limit("429")]
#[case::of_an_engine("404")]
fn counts_refusals_as_arrivals(#[case] status: &str) {
    let series = with(one(BURST, "7x40"), [ended("r-0", "m", status, "0+300x40")]);
    // Twenty per second are refused.
    let expected = 216.0 + (960.0 - 216.0) / 120.0;
    check(&format!("refusals-{status}"), "5s", &series, Some(expected));
}

/// 60 streams arrived three minutes ago, within a minute, and all of them run.
#[rstest]
#[case::of_2s("2s", 60.0 * 2.0 / 600.0)]
#[case::of_25s("25s", 60.0 * 25.0 / 600.0)]
#[case::of_120s("120s", 60.0 * 120.0 / 600.0)]
#[case::of_300s("300s", 60.0)]
#[case::longer_than_the_drain_time("900s", 60.0)]
fn long_streams_are_no_backlog(#[case] service_time: &str, #[case] expected: f64) {
    let series = with(idle("r-0", "x40"), [in_flight("r-0", "m", "0x4 15+15x3 60x32")]);
    check(&format!("streams-{service_time}"), service_time, &series, Some(expected));
}

/// A service time of half the truth: the engines run 80 requests, whatever it says.
#[rstest]
#[case::scraped(true, 80.0 + 880.0 * 2.5 / 600.0)]
#[case::not_scraped(false, 48.0 + 912.0 * 2.5 / 600.0)]
fn counts_what_the_engines_run(#[case] are_scraped: bool, #[case] expected: f64) {
    let engines = EngineSeries {
        engine: Engine::Vllm,
        namespace: "models".to_owned(),
        model_serving: "chat".to_owned(),
        role: None,
        matchers: kthena_keda_core::domain::SeriesMatchers::default(),
        at_zero: None,
    };
    let running = json!({
        "series": r#"vllm:num_requests_running{namespace="models",pod="chat-0-engine-0-0",modelserving_volcano_sh_name="chat",model_name="m",engine="0"}"#,
        "values": "80x40",
    });
    let series = with(one(BURST, "7x40"), are_scraped.then_some(running));
    let query = bounded("m", "2500ms", &from(service()), Some(&engines));
    evaluate(&format!("running-{are_scraped}"), &series, &query, AT, Some(expected));
}

/// Two ports of one router, and two routers.
#[test]
fn counts_each_router_once() {
    let second =
        |metric: &str, labels: &str, values: &str| scraped(metric, "r-0", "10.0.0.1:9090", labels, values);
    let labels = r#"model="m",path="/v1/chat/completions",status_code="200",error_type="none""#;
    let series = with(
        one(BURST, "7+30x40"),
        [
            second("kthena_router_active_requests", "", "0x40"),
            second("kthena_router_active_downstream_requests", r#"model="m""#, BURST),
            second("kthena_router_requests_total", labels, "7+30x40"),
        ],
    );
    // Two requests per second ended, so 18 arrived.
    let expected = 18.0 * 6.0 + (960.0 - 108.0) / 120.0;
    check("two-ports", "5s", &series, Some(expected));
    let other = with(
        idle("r-1", "x40"),
        [in_flight("r-1", "m", BURST), ended("r-1", "m", "200", "7+30x40"), ended("r-1", "m", "500", "9x40")],
    );
    check("two-routers", "5s", &with(one(BURST, "7+30x40"), other), Some(2.0 * expected));
}

#[test]
fn adds_up_every_name() {
    let names: Vec<String> = (0..16).map(|i| format!("name-{i}")).collect();
    let each =
        names.iter().flat_map(|name| [in_flight("r-0", name, BURST), ended("r-0", name, "200", "7x40")]);
    let series = with(with(idle("r-0", "x40"), each), [in_flight("r-0", "other", "5000x40")]);
    let query = bounded(&names.join(","), "5s", &from(service()), None);
    evaluate("sixteen-names", &series, &query, AT, Some(16.0 * BOUNDED));
}

#[test]
fn follows_a_presence_query() {
    let source = ScrapeSource::Query(Query::parse("max(kthena_router_active_requests)").unwrap());
    let query = bounded("m", "5s", &from(source), None);
    evaluate("presence", &one(BURST, "7x40"), &query, AT, Some(BOUNDED));
}
