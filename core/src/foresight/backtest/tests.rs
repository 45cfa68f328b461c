//! Tests of the backtest: a history that the simulation itself has made is replayed exactly, and a candidate on it is
//! compared with what a simulation from the start shows.

use rstest::rstest;

use super::*;
use crate::{
    api::keda::{ScaledObject, Trigger},
    domain::Backlog,
    foresight::{
        fleet::Queue,
        fluid::Inflow,
        history::{Grid, SeriesName},
        law::Law,
        overrides::{self, Override},
        settings::SignalModel,
    },
    observed::fixture::Fixture,
    plan::{Desired, plan},
};

/// 2026-11-19 05:00:00 UTC, a multiple of 15 s.
const START: i64 = 1_795_064_400;
const STEP: u32 = 15;

struct Planned {
    object: ScaledObject,
    backlog: Backlog,
    settings: Settings,
}

fn planned(changes: &[&str]) -> Planned {
    let fixture = Fixture::model("llama");
    let mut observed = fixture.observed();
    let changes: Vec<Override> = changes.iter().map(|text| text.parse().unwrap()).collect();
    overrides::apply(&changes, &mut observed, &fixture.defaults).unwrap();
    let plan = plan(&observed, fixture.capabilities, &fixture.defaults);
    let Desired::Apply(object) = plan.scaled_object else { panic!("{:?}", plan.findings) };
    let backlog = plan.explanation.unwrap().resolved.unwrap().intent.backlog;
    let settings = Settings::from_scaled_object(&object, backlog).unwrap();
    Planned { object: *object, backlog, settings }
}

/// Requests per second over hours: a night, and a day with a burst.
fn rates(hours: u32) -> Vec<f64> {
    let steps = hours * 240;
    let rate = |step: u32| {
        let hour = f64::from(step) / 240.0;
        let daily = 4.0 - 3.0 * (hour / 24.0 * std::f64::consts::TAU).cos();
        if (10.0..10.2).contains(&hour) { daily * 3.0 } else { daily }
    };
    (0..steps).map(rate).collect()
}

fn workload(rates: &[f64]) -> Workload {
    let inflow = |rate: &f64| Some(Inflow { rate: *rate, service_time: 6.0, tokens: 200.0 });
    let grid = Grid::new(START, STEP, rates.len()).unwrap();
    Workload::new(grid, rates.iter().map(inflow).collect())
}

const PLANT: PlantOptions =
    PlantOptions { slots: Some(10.0), cold_start: 60.0, queue: Queue::Engine, service_time: Some(6.0) };

fn backtest<'a>(source: Source<'a>, current: &'a Settings, candidates: &'a [Candidate]) -> Backtest<'a> {
    Backtest {
        model: "models/chat".to_owned(),
        source,
        current,
        candidates,
        fixed: &[],
        slo: Slo::default(),
        plant: PLANT,
        costs: Costs::default(),
        periods: Periods::default(),
        explain: None,
        assume_independent: false,
    }
}

/// The history that Prometheus would have of a simulated model.
fn recorded(planned: &Planned, workload: &Workload, phase: u64) -> History {
    let fleet = FluidSpec { slots: 10.0, cold_start: 60.0, queue: Queue::Engine };
    let setup = Setup {
        workload,
        history: None,
        fleet,
        limit: 10.0,
        phase: Time::from_seconds(phase),
        scrape_phase: Time::default(),
        periods: Periods::default(),
        explain: None,
    };
    let outcome = what_if::autoscaled(&setup, &planned.settings, Some(2));
    let mut history = History::new(workload.grid(), "models", "chat", &planned.object, planned.backlog);
    let trigger = SeriesName::Trigger("active-requests".to_owned());
    for (index, step) in outcome.steps.iter().enumerate() {
        let at = f64::from(u32::try_from(index).unwrap())
            .mul_add(f64::from(STEP), f64::from(u32::try_from(START).unwrap()));
        let in_flight = f64::from(step.in_flight);
        history.record(&trigger, at, in_flight);
        history.record(&SeriesName::InFlight, at, in_flight);
        history.record(&SeriesName::Arrivals, at, workload.inflow(index).unwrap().rate);
        history.record(&SeriesName::Spec, at, step.groups.into());
        history.record(&SeriesName::Ready, at, step.ready.into());
    }
    history
}

fn run<'a>(report: &'a Report, name: &str) -> &'a RunReport {
    report.runs.iter().find(|run| run.name == name).unwrap_or_else(|| panic!("{name}: {:?}", report.runs))
}

/// The settings in force on the recorded values are the recorded replicas, at the phase of the record.
#[rstest]
fn the_replay_of_a_simulated_history_is_exact(#[values(0, 6, 12)] phase: u64) {
    let planned = planned(&["max=40"]);
    let history = recorded(&planned, &workload(&rates(24)), phase);
    let report = backtest(Source::History(&history), &planned.settings, &[]).report().unwrap();
    let fidelity = report.fidelity.as_ref().unwrap();
    assert!(fidelity.equal > 0.998 && fidelity.max_difference <= 1, "{fidelity:?}");
    assert_eq!((fidelity.phases.len(), fidelity.compared), (5, 24 * 240));
    assert!((fidelity.simulated_hours / fidelity.recorded_hours - 1.0).abs() < 0.005, "{fidelity:?}");
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

/// A candidate on the history of other settings meets what it does on the requests themselves.
#[rstest]
#[case::bounded(&["max=40", "serviceTime=6s"])]
#[case::smaller_target(&["max=40", "target=5"])]
#[case::fast(&["max=40", "scaleUp.policies=8/60s"])]
fn a_what_if_meets_a_run_from_the_start(#[case] changes: &[&str]) {
    let (current, other) = (planned(&["max=40"]), planned(changes));
    let requests = workload(&rates(24));
    let history = recorded(&current, &requests, 6);
    let candidates = [Candidate { name: "other".to_owned(), settings: other.settings.clone() }];
    let predicted = backtest(Source::History(&history), &current.settings, &candidates).report().unwrap();
    let real = backtest(Source::Load(&requests), &other.settings, &[]).report().unwrap();
    let (predicted, real) = (run(&predicted, "other"), run(&real, "now"));
    let ratio = predicted.group_hours / real.group_hours;
    assert!((0.95..1.05).contains(&ratio), "{} of {} group-hours", predicted.group_hours, real.group_hours);
    let peak = f64::from(predicted.peak) - f64::from(real.peak);
    assert!(peak.abs() <= 1.0_f64.max(0.1 * f64::from(real.peak)), "{} of {}", predicted.peak, real.peak);
    assert!((predicted.waiting.over - real.waiting.over).abs() < 0.02, "{predicted:?} {real:?}");
}

/// A step to a need of 10 overshoots as measured by the simulation of single requests: nine times in flight, and one
/// and a half times with a bounded backlog.
#[rstest]
#[case::in_flight(&["max=100", "target=8"], 82..=100)]
#[case::bounded(&["max=100", "target=8", "serviceTime=5s"], 12..=18)]
fn a_step_overshoots_as_single_requests_do(
    #[case] changes: &[&str],
    #[case] peak: std::ops::RangeInclusive<u32>,
) {
    let inflow = |step: u32| {
        let rate = if step < 40 { 0.0 } else { 16.0 };
        Some(Inflow { rate, service_time: 5.0, tokens: 0.0 })
    };
    let requests = Workload::new(Grid::new(0, 15, 160).unwrap(), (0..160).map(inflow).collect());
    let settings = planned(changes).settings;
    let report = backtest(Source::Load(&requests), &settings, &[]).report().unwrap();
    assert!(peak.contains(&run(&report, "now").peak), "{}", run(&report, "now").peak);
}

/// In a gap the HPA changes nothing, and the steps do not count as idle.
#[test]
fn gaps_change_nothing() {
    let planned = planned(&["max=40"]);
    let mut complete = recorded(&planned, &workload(&rates(24)), 0);
    let full = backtest(Source::History(&complete), &planned.settings, &[]).report().unwrap();
    let grid = complete.grid();
    let mut gappy = History::new(grid, "models", "chat", &planned.object, planned.backlog);
    for name in [
        SeriesName::Trigger("active-requests".to_owned()),
        SeriesName::InFlight,
        SeriesName::Arrivals,
        SeriesName::Spec,
        SeriesName::Ready,
    ] {
        // An hour and a half at the quietest time.
        for (index, value) in
            complete.series(&name).unwrap().iter().enumerate().filter(|(i, _)| !(100..460).contains(i))
        {
            let at = grid.start() + i64::from(grid.step()) * i64::try_from(index).unwrap();
            gappy.record(&name, f64::from(u32::try_from(at).unwrap()), value.unwrap());
        }
    }
    let report = backtest(Source::History(&gappy), &planned.settings, &[]).report().unwrap();
    assert!((report.data.missing - 0.0625).abs() < 1e-4);
    assert!(report.findings.iter().any(|finding| finding.reason == "DataMissing"), "{:?}", report.findings);
    assert_eq!(
        (run(&report, "now").peak, report.fidelity.as_ref().unwrap().compared),
        (run(&full, "now").peak, 5400)
    );
    let (groups, steps) = (run(&report, "now").steps[100].groups, &run(&report, "now").steps[101..459]);
    assert!(steps.iter().all(|step| step.groups == groups), "the number stays as it is");
    complete.rejected.invalid = 3;
    let report = backtest(Source::History(&complete), &planned.settings, &[]).report().unwrap();
    assert!(report.findings.iter().any(|finding| finding.reason == "DataInvalid"));
}

#[test]
fn a_history_without_a_third_of_the_values_is_unfit() {
    let planned = planned(&[]);
    let grid = Grid::new(START, STEP, 100).unwrap();
    let mut history = History::new(grid, "models", "chat", &planned.object, planned.backlog);
    for step in 40..100_u32 {
        let at = f64::from(u32::try_from(START).unwrap() + step * STEP);
        history.record(&SeriesName::Trigger("active-requests".to_owned()), at, 1.0);
    }
    let error = backtest(Source::History(&history), &planned.settings, &[]).report().unwrap_err().to_string();
    let expected = "40 % of the steps have no value of a trigger, and at most 30 % may; choose a time in which Prometheus scraped the router; the first value is of 2026-11-19T05:10:00Z";
    assert_eq!(error, expected);
}

/// The least fixed number that meets the objective, and one group less does not.
#[test]
fn finds_the_least_fixed_number() {
    let settings = planned(&["max=40"]).settings;
    let requests = workload(&rates(24));
    let base = backtest(Source::Load(&requests), &settings, &[]);
    let report = Backtest { fixed: &[None], ..base.clone() }.report().unwrap();
    let least = report.runs.last().unwrap();
    assert!(least.waiting.over <= 0.05 && least.changes == 0, "{least:?}");
    assert!((least.group_hours - f64::from(least.peak) * 24.0).abs() < 0.1, "{least:?}");
    let fewer = Backtest { fixed: &[Some(least.peak - 1)], ..base }.report().unwrap();
    assert!(fewer.runs.last().unwrap().waiting.over > 0.05);
}

fn with_custom_signal(planned: &Planned) -> (ScaledObject, Settings) {
    let mut object = planned.object.clone();
    let first = object.spec.triggers[0].clone();
    object.spec.triggers.push(Trigger { name: Some("gpu".to_owned()), ..first });
    let settings = Settings::from_scaled_object(&object, planned.backlog).unwrap();
    (object, settings)
}

#[test]
fn custom_signals_are_only_replayed() {
    let planned = planned(&["max=3"]);
    let (object, settings) = with_custom_signal(&planned);
    let requests = workload(&rates(24));
    let error = backtest(Source::Load(&requests), &settings, &[]).report().unwrap_err();
    assert_eq!(error, Unfit::SignalsOfLoad("gpu".to_owned()));
    let mut history = recorded(&planned, &requests, 0);
    let values: Vec<Option<f64>> = history.series(&SeriesName::InFlight).unwrap().iter().collect();
    history.scaled_object = History::new(history.grid(), "", "", &object, planned.backlog).scaled_object;
    for (index, value) in values.into_iter().enumerate() {
        let at =
            f64::from(u32::try_from(index).unwrap()).mul_add(15.0, f64::from(u32::try_from(START).unwrap()));
        history.record(&SeriesName::Trigger("gpu".to_owned()), at, value.unwrap());
    }
    let replay = backtest(Source::History(&history), &settings, &[]).report().unwrap();
    assert!(replay.fidelity.unwrap().equal > 0.99);
    // The fleet of three was saturated, so another one would have had other values.
    let candidates = [Candidate { name: "more".to_owned(), settings: settings.clone() }];
    let base = backtest(Source::History(&history), &settings, &candidates);
    assert_eq!(base.report().unwrap_err(), Unfit::Signals("gpu".to_owned()));
    assert!(Backtest { assume_independent: true, ..base }.report().is_ok());
    // The values are those of the query.
    let mut other = settings.clone();
    other.triggers.last_mut().unwrap().query = "max(other)".to_owned();
    let candidates = [Candidate { name: "other".to_owned(), settings: other }];
    let base = backtest(Source::History(&history), &settings, &candidates);
    let error = Backtest { assume_independent: true, ..base }.report().unwrap_err();
    assert_eq!(error, Unfit::NotRecorded("gpu".to_owned()));
}

/// The query has them where the engines are scraped for another signal.
#[test]
fn a_bounded_backlog_counts_running_requests_beside_a_signal_of_engines() {
    let law = |signals: &str| {
        let planned = planned(&["engine=vllm", "serviceTime=5s", signals]);
        let signal = planned.settings.triggers[0].signal;
        (signal, Law::from_backlog(planned.backlog), planned.settings.triggers[0].query.clone())
    };
    let (signal, law_alone, query) = law("signals=active-requests=10");
    assert_eq!((signal, query.contains("vllm:")), (SignalModel::ActiveRequests(law_alone), false));
    let (signal, law_beside, query) = law("signals=active-requests=10,engine-queue=5");
    let expected = SignalModel::ActiveRequests(law_beside.with_running());
    assert_eq!((signal, query.contains("vllm:num_requests_running")), (expected, true));
}

/// Values of the KV cache are those of the requests that run, and hold with another fleet in which none waits. A latency is that of the
/// fleet that ran.
#[rstest]
#[case::kv_cache("kv-cache=0.8", 1000.0, None)]
#[case::kv_cache_of_a_saturated_fleet("kv-cache=0.8", 6.0, Some("kv-cache"))]
#[case::latency("ttft-p90=2s", 1000.0, Some("ttft-p90"))]
fn signals_of_engines_are_refused_under_another_fleet(
    #[case] signal: &str,
    #[case] slots: f64,
    #[case] refused: Option<&str>,
) {
    let requests = workload(&rates(24));
    let signals = format!("signals=active-requests=10,{signal}");
    let (plain, planned) = (planned(&["max=40"]), planned(&["max=40", "engine=vllm", &signals]));
    let mut history = recorded(&plain, &requests, 0);
    history.scaled_object = planned.object.clone();
    let spec: Vec<Option<f64>> = history.series(&SeriesName::Spec).unwrap().iter().collect();
    let names = ["active-requests", signal.split_once('=').unwrap().0];
    let in_flight: Vec<Option<f64>> = history.series(&SeriesName::InFlight).unwrap().iter().collect();
    for (index, (groups, in_flight)) in spec.into_iter().zip(in_flight).enumerate() {
        let at =
            f64::from(u32::try_from(index).unwrap()).mul_add(15.0, f64::from(u32::try_from(START).unwrap()));
        history.record(&SeriesName::Trigger(names[0].to_owned()), at, in_flight.unwrap());
        history.record(&SeriesName::Trigger(names[1].to_owned()), at, groups.unwrap() * 0.01);
    }
    let other = self::planned(&["max=40", "engine=vllm", &signals.replace("=10", "=5")]);
    let candidates = [Candidate { name: "more".to_owned(), settings: other.settings }];
    let plant = PlantOptions { slots: Some(slots), ..PLANT };
    let base = Backtest { plant, ..backtest(Source::History(&history), &planned.settings, &candidates) };
    let report = base.report();
    assert_eq!(report.as_ref().err(), refused.map(|name| Unfit::Signals(name.to_owned())).as_ref());
    if let Some(error) = report.err() {
        assert!(error.to_string().contains("do not follow from requests, so they would differ"), "{error}");
    }
    assert!(Backtest { assume_independent: true, ..base }.report().is_ok());
}

/// The requests in flight of a record change with the scrapes.
#[rstest]
#[case::seconds(1, 7)]
#[case::whole_intervals(15, 0)]
fn the_phase_of_the_scrapes_is_that_of_the_changes(#[case] step: u32, #[case] phase: u64) {
    let planned = planned(&[]);
    let grid = Grid::new(START, step, 600).unwrap();
    let mut history = History::new(grid, "models", "chat", &planned.object, planned.backlog);
    for index in 0..600_u32 {
        let at = f64::from(index * step) + f64::from(u32::try_from(START).unwrap());
        // A request more with each scrape.
        let scrapes = (index * step + 15 - u32::try_from(phase).unwrap()) / 15;
        history.record(&SeriesName::InFlight, at, scrapes.into());
    }
    let found = what_if::scrape_phase(&history, Time::from_seconds(15));
    assert_eq!(found, Time::from_seconds(phase));
}

/// With a bounded backlog the first requests after a quiet time count by their arrivals, as in Prometheus, which has the quiet time.
#[test]
fn a_run_begins_with_the_past_of_the_first_step() {
    let current = planned(&["max=40", "serviceTime=6s", "scaleUp.policies=100/15s"]);
    let inflow =
        |step: u32| Some(Inflow { rate: if step < 3 { 0.0 } else { 20.0 }, service_time: 6.0, tokens: 1.0 });
    let requests = Workload::new(Grid::new(START, 1, 25).unwrap(), (0..25).map(inflow).collect());
    let report = backtest(Source::Load(&requests), &current.settings, &[]).report().unwrap();
    // After 15 s 240 are in flight, of which 1.2 x 240 / 30 x 6 s count, and a hundredth of the others.
    assert_eq!(run(&report, "now").peak, 6);
}

#[test]
fn values_of_another_query_are_unfit() {
    let (current, other) = (planned(&[]), planned(&["serviceTime=6s"]));
    let history = recorded(&current, &workload(&rates(24)), 0);
    let error = backtest(Source::History(&history), &other.settings, &[]).report().unwrap_err();
    assert_eq!(error, Unfit::Query("active-requests".to_owned()));
}

/// The explained sync is the last one up to its time, and its result is that of the rules.
#[test]
fn explains_one_sync() {
    let planned = planned(&["max=40"]);
    let requests = workload(&rates(24));
    let history = recorded(&planned, &requests, 0);
    let explain = Some(Time::from_seconds(36_120));
    let base = backtest(Source::History(&history), &planned.settings, &[]);
    let report = Backtest { explain, ..base }.report().unwrap();
    let explained = report.explained.unwrap();
    let in_flight = history.series(&SeriesName::InFlight).unwrap().get(36_120 / 15).unwrap();
    assert!(explained.at.starts_with("2026-11-19T15:0"), "{}", explained.at);
    assert_eq!(explained.proposal, explained.triggers[0].proposal);
    assert_eq!(explained.reason, "ScaleUpLimit", "{explained:?} {in_flight}");
    let text = explained.text();
    assert!(text.contains("limited by    ScaleUpLimit (a scale-up policy)"), "{text}");
}

#[test]
fn without_recorded_replicas_there_is_no_comparison() {
    let planned = planned(&["max=40"]);
    let full = recorded(&planned, &workload(&rates(24)), 0);
    let mut history = History::new(full.grid(), "models", "chat", &planned.object, planned.backlog);
    for name in
        [SeriesName::Trigger("active-requests".to_owned()), SeriesName::InFlight, SeriesName::Arrivals]
    {
        for (index, value) in full.series(&name).unwrap().iter().enumerate() {
            let at = f64::from(u32::try_from(index).unwrap())
                .mul_add(15.0, f64::from(u32::try_from(START).unwrap()));
            history.record(&name, at, value.unwrap());
        }
    }
    let report = backtest(Source::History(&history), &planned.settings, &[]).report().unwrap();
    assert!(report.fidelity.is_none() && report.runs.iter().all(|run| run.name != "actual"));
    assert!(report.findings.iter().any(|finding| finding.reason == "ReplicasUnknown"));
}

/// A sync and a scrape take 30 s, and so long may a change be late.
#[rstest]
#[case::equal(0.96, 300, false)]
#[case::as_fine_as_it_gets(0.9, 30, false)]
#[case::late(0.9, 45, true)]
fn a_replay_differs_beyond_its_resolution(
    #[case] equal: f64,
    #[case] longest_difference: u64,
    #[case] expected: bool,
) {
    let planned = planned(&[]);
    let history = recorded(&planned, &workload(&rates(1)), 0);
    let backtest = backtest(Source::History(&history), &planned.settings, &[]);
    let exact = backtest.report().unwrap().fidelity.unwrap();
    let fidelity = Fidelity { equal, longest_difference, ..exact };
    assert_eq!(backtest.differs(&fidelity, STEP), expected);
}
