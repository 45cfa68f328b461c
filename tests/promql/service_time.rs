//! The service time in a day of history.
//!
//! Unless a case says otherwise, a ServingGroup serves 30 requests a minute for 26 hours, each in 5 s, with 3 of them in flight and a target
//! of 10.

use kthena_keda_core::signals::{Engine, EngineSeries, ServiceTimeHistory, usual_duration};
use rstest::rstest;
use serde_json::{Value, json};

use crate::{engine, evaluate, from, idle, in_flight, router, service, with};

const HOURS: u32 = 26;
const AT: &str = "26h";
/// Samples of an hour.
const HOUR: u32 = 240;

/// A part of the history.
#[derive(Clone, Copy)]
struct Part {
    minutes: u32,
    per_minute: f64,
    seconds: f64,
    in_flight: u32,
    ready: u32,
    requested: u32,
}

const STEADY: Part =
    Part { minutes: 26 * 60, per_minute: 30.0, seconds: 5.0, in_flight: 3, ready: 1, requested: 1 };

impl Part {
    const fn lasting(self, minutes: u32) -> Self {
        Self { minutes, ..self }
    }

    const fn samples(&self) -> u32 {
        self.minutes * 4
    }
}

/// Samples of a counter that grows by `each` part's amount within a minute.
fn counter(parts: &[Part], each: impl Fn(&Part) -> f64) -> String {
    let mut value = 0.0;
    let mut text = Vec::new();
    for part in parts {
        let (step, samples) = (each(part) / 4.0, part.samples());
        text.push(format!("{value}+{step}x{}", samples - 1));
        value += step * f64::from(samples);
    }
    text.join(" ")
}

fn gauge(parts: &[Part], of: impl Fn(&Part) -> u32) -> String {
    parts.iter().map(|part| format!("{}x{}", of(part), part.samples() - 1)).collect::<Vec<_>>().join(" ")
}

fn replicas(state: &str, values: &str) -> Value {
    let labels = format!(r#"namespace="models",model_serving="chat",state="{state}",pod="kthena-keda-0""#);
    json!({"series": format!("kthena_keda_replicas{{{labels}}}"), "values": values})
}

fn history(parts: &[Part]) -> Vec<Value> {
    let labels = r#"model="m",path="/v1/chat/completions",status_code="200""#;
    let refused = labels.replace("200", "404");
    with(
        idle("r-0", &format!("x{}", HOURS * HOUR)),
        [
            router(
                "kthena_router_request_duration_seconds_sum",
                "r-0",
                labels,
                &counter(parts, |part| part.per_minute * part.seconds),
            ),
            router(
                "kthena_router_request_duration_seconds_count",
                "r-0",
                labels,
                &counter(parts, |part| part.per_minute),
            ),
            router("kthena_router_request_duration_seconds_sum", "r-0", &refused, "0+0.1x6240"),
            router("kthena_router_request_duration_seconds_count", "r-0", &refused, "0+100x6240"),
            in_flight("r-0", "m", &gauge(parts, |part| part.in_flight)),
            replicas("ready", &gauge(parts, |part| part.ready)),
            replicas("spec", &gauge(parts, |part| part.requested)),
        ],
    )
}

/// Value of a query over the history of the ServingGroup, which may have up to ten.
fn check(
    name: &str,
    series: &[Value],
    query: impl Fn(&ServiceTimeHistory<'_>) -> String,
    expected: Option<f64>,
) {
    let (router, models) = (from(service()), "m".parse().unwrap());
    let (target, max) = ("10".parse().unwrap(), 10);
    let history = ServiceTimeHistory {
        router: &router,
        models: &models,
        namespace: "models",
        model_serving: "chat",
        target,
        max,
    };
    evaluate(name, series, &query(&history), AT, expected);
}

#[rstest]
#[case::steady(&[STEADY], Some(5.0))]
#[case::quiet_at_night(&[STEADY.lasting(960), Part { per_minute: 0.0, in_flight: 0, ..STEADY }.lasting(600)], Some(5.0))]
#[case::too_few_requests(&[Part { per_minute: 3.5, ..STEADY }], None)]
#[case::enough_requests(&[Part { per_minute: 4.5, ..STEADY }], Some(5.0))]
#[case::at_the_target(&[Part { in_flight: 10, ..STEADY }], Some(5.0))]
#[case::above_the_target(&[Part { in_flight: 11, ..STEADY }], None)]
#[case::loading(&[Part { requested: 2, ..STEADY }], None)]
#[case::several_groups(&[Part { in_flight: 20, ready: 2, requested: 2, ..STEADY }], Some(5.0))]
#[case::waiting_for_half_of_the_day(&[STEADY.lasting(780), Part { seconds: 60.0, in_flight: 50, ..STEADY }.lasting(780)], Some(5.0))]
#[case::slower_by_day(&[STEADY.lasting(1080), Part { seconds: 8.0, ..STEADY }.lasting(480)], Some(8.0))]
#[case::slower_for_a_while(&[STEADY.lasting(1320), Part { seconds: 8.0, ..STEADY }.lasting(240)], Some(5.0))]
// 50 windows after the wake, of which those of the first 20 minutes do not count.
#[case::woken(&[Part { per_minute: 0.0, in_flight: 0, ready: 0, requested: 0, ..STEADY }.lasting(1308), STEADY.lasting(252)], None)]
#[case::woken_before(&[Part { per_minute: 0.0, in_flight: 0, ready: 0, requested: 0, ..STEADY }.lasting(1260), STEADY.lasting(300)], Some(5.0))]
fn measures_windows_without_waiting(#[case] parts: &[Part], #[case] expected: Option<f64>) {
    let name = format!(
        "{:?}",
        parts.iter().map(|part| (part.minutes, part.seconds, part.in_flight)).collect::<Vec<_>>()
    );
    check(&name, &history(parts), |history| history.service_time().to_string(), expected);
}

/// The model got its first request less than a day ago, or the operator was not scraped.
#[rstest]
#[case::young(&["kthena_router_request_duration_seconds_"], "_x900")]
#[case::operator_not_scraped(&["kthena_keda_replicas"], "_x6240 ")]
fn measures_nothing_without_evidence(#[case] metrics: &[&str], #[case] missing: &str) {
    let mut series = history(&[STEADY]);
    for found in &mut series {
        let name = found["series"].as_str().unwrap();
        if metrics.iter().any(|metric| name.starts_with(metric)) {
            found["values"] = json!(format!("{missing} {}", found["values"].as_str().unwrap()));
        }
    }
    check(missing, &series, |history| history.service_time().to_string(), None);
}

#[test]
fn counts_the_windows_that_it_measures() {
    check("windows", &history(&[STEADY]), |history| history.windows().to_string(), Some(288.0));
    let loading = Part { requested: 2, ..STEADY };
    check("no-windows", &history(&[loading]), |history| history.windows().to_string(), None);
}

/// The time that users see counts waiting.
#[test]
fn the_usual_duration_is_that_of_most_of_the_day() {
    let parts = [STEADY.lasting(1080), Part { seconds: 60.0, in_flight: 50, ..STEADY }.lasting(480)];
    let query = |models: &str| usual_duration(&from(service()), &models.parse().unwrap()).to_string();
    evaluate("usual", &history(&parts), &query("m"), AT, Some(60.0));
    evaluate("mostly-quick", &history(&[STEADY]), &query("m"), AT, Some(5.0));
    evaluate("of-none", &history(&[STEADY]), &query("other"), AT, None);
}

/// The engines' own time has no waiting in it, so saturated windows count.
#[rstest]
#[case::colon("vllm:request_inference_time_seconds")]
#[case::underscore("vllm_request_inference_time_seconds")]
fn measures_by_engines(#[case] family: &'static str) {
    let parts = [Part { in_flight: 50, requested: 2, ..STEADY }];
    let labels = r#"model_name="m",engine="0""#;
    let series = |suffix: &str, values: &str| {
        let metric: &'static str = format!("{family}_{suffix}").leak();
        engine(metric, 0, 0, labels, values)
    };
    let sum = counter(&parts, |part| part.per_minute * 4.0);
    let count = counter(&parts, |part| part.per_minute);
    let query = |engine| EngineSeries {
        engine,
        namespace: "team-a".to_owned(),
        model_serving: "chat".to_owned(),
        role: None,
        matchers: kthena_keda_core::domain::SeriesMatchers::default(),
        at_zero: None,
    };
    let vllm = query(Engine::Vllm).service_time().unwrap().to_string();
    evaluate("engines", &[series("sum", &sum), series("count", &count)], &vllm, AT, Some(4.0));
    let young = [series("sum", &format!("_x900 {sum}")), series("count", &format!("_x900 {count}"))];
    evaluate("young-engines", &young, &vllm, AT, None);
    assert_eq!(query(Engine::Sglang).service_time(), None);
}

const WAITING: Part = Part { in_flight: 40, ready: 2, requested: 2, ..STEADY };

#[rstest]
#[case::all_day(&[WAITING], true)]
#[case::most_of_the_day(&[WAITING.lasting(900), STEADY.lasting(660)], true)]
#[case::less_than_half_of_the_day(&[WAITING.lasting(780), STEADY.lasting(780)], false)]
#[case::at_the_maximum(&[Part { ready: 2, requested: 10, ..WAITING }], false)]
#[case::no_waiting(&[STEADY], false)]
#[case::no_traffic(&[Part { per_minute: 0.0, ..WAITING }], false)]
fn finds_a_standing_queue(#[case] parts: &[Part], #[case] expected: bool) {
    let query = |history: &ServiceTimeHistory<'_>| format!("({}) > bool 0", history.standing_queue());
    let name =
        format!("queue-{:?}", parts.iter().map(|part| (part.minutes, part.requested)).collect::<Vec<_>>());
    check(&name, &history(parts), query, expected.then_some(1.0));
}
