//! Tests of recommendations on simulated fleets whose capacity and loading time are hidden, and on odd records.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::unnecessary_wraps,
    clippy::float_cmp,
    reason = "numbers of tests are small, and some functions are cases"
)]

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::{
    api::keda::ScaledObject,
    foresight::{
        fleet::{Clients, FleetSpec, Queue},
        fluid::Inflow,
        history::{Grid, History, SeriesName},
        load::{Load, Slice},
        overrides,
        simulation::{self, simulate},
        time::Time,
    },
    observed::fixture::Fixture,
    plan::{Desired, plan as plan_model},
};

/// 2026-11-19 00:00:00 UTC, a multiple of 300 s.
const START: u32 = 1_795_046_400;
const STEP: u32 = 15;
/// Bounds of the router's histogram of durations, in seconds.
const BUCKETS: [f64; 12] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0];

struct Model {
    object: ScaledObject,
    backlog: Backlog,
    settings: Settings,
}

fn planned(changes: &[Override]) -> Result<Model, String> {
    let fixture = Fixture::model("llama");
    let mut observed = fixture.observed();
    overrides::apply(changes, &mut observed, &fixture.defaults).map_err(|error| error.to_string())?;
    let plan = plan_model(&observed, fixture.capabilities, &fixture.defaults);
    let Desired::Apply(object) = plan.scaled_object else { return Err(format!("{:?}", plan.findings)) };
    let backlog = plan.explanation.unwrap().resolved.unwrap().intent.backlog;
    let settings = Settings::from_scaled_object(&object, backlog).unwrap();
    Ok(Model { object: *object, backlog, settings })
}

fn model(changes: &[&str]) -> Model {
    planned(&parsed(changes)).unwrap()
}

fn parsed(changes: &[&str]) -> Vec<Override> {
    changes.iter().map(|change| change.parse().unwrap()).collect()
}

/// A model in a cluster: what it serves at once, and how long it loads, are not in its record.
#[derive(Clone, Copy)]
struct Hidden {
    slots: usize,
    loading: u64,
    service_time: f64,
    /// Requests per second by day.
    rate: f64,
    days: u32,
}

const HIDDEN: Hidden = Hidden { slots: 12, loading: 90, service_time: 6.0, rate: 6.0, days: 4 };

impl Hidden {
    fn load(self) -> Load {
        let slice = |quarter: u32| {
            let hour = f64::from(quarter) / 4.0;
            let daily = 1.0 - 0.85 * (hour / 24.0 * std::f64::consts::TAU).cos();
            // Bursts that last for 15 minutes.
            let burst = if quarter % 13 == 5 { 1.6 } else { 1.0 };
            Slice { seconds: 900.0, rate: self.rate / 2.0 * daily * burst, service_time: self.service_time }
        };
        Load::new((0..self.days * 96).map(slice))
    }

    /// The record that Prometheus would have of the model with these settings.
    fn recorded(self, model: &Model) -> History {
        let fleet = FleetSpec {
            slots: self.slots,
            loading: Time::from_seconds(self.loading),
            queue: Queue::Engine,
            waiting_limit: None,
            clients: Clients { retry: Some(Time::from_seconds(5)), patience: None },
        };
        let settings = &model.settings;
        let setup = simulation::Setup {
            hpa: settings.hpa.clone(),
            keda: settings.keda.clone(),
            law: crate::foresight::law::Law::from_backlog(model.backlog),
            fleet,
        };
        let outcome = simulate(&setup, &self.load(), 7);
        record(model, &outcome)
    }
}

fn record(model: &Model, outcome: &simulation::Outcome) -> History {
    let seconds = outcome.groups.len();
    let steps = seconds / usize::try_from(STEP).unwrap();
    let grid = Grid::new(START.into(), STEP, steps).unwrap();
    let mut history = History::new(grid, "models", "chat", &model.object, model.backlog);
    let mut arrivals = vec![0.0; steps];
    let mut ended: Vec<Vec<f64>> = vec![Vec::new(); steps / 20 + 1];
    for (arrived, duration) in outcome.durations() {
        if let Some(step) = arrivals.get_mut((arrived / f64::from(STEP)) as usize) {
            *step += 1.0 / f64::from(STEP);
        }
        if let Some(window) = ended.get_mut(((arrived + duration) / 300.0) as usize) {
            window.push(duration);
        }
    }
    for step in 0..steps {
        let at = f64::from(START) + f64::from(STEP) * step as f64;
        let second = step * usize::try_from(STEP).unwrap();
        history.record(
            &SeriesName::Trigger("active-requests".to_owned()),
            at,
            outcome.in_flight[second].into(),
        );
        history.record(&SeriesName::InFlight, at, outcome.in_flight[second].into());
        history.record(&SeriesName::Arrivals, at, arrivals[step]);
        history.record(&SeriesName::Spec, at, outcome.groups[second].into());
        history.record(&SeriesName::Total, at, outcome.groups[second].into());
        history.record(&SeriesName::Ready, at, outcome.ready[second].into());
        if step % 20 == 19 && !ended[step / 20].is_empty() {
            let durations = &ended[step / 20];
            history.record(
                &SeriesName::MeanDuration,
                at,
                durations.iter().sum::<f64>() / durations.len() as f64,
            );
            history.record(&SeriesName::Duration(95), at, histogram_quantile(durations, 0.95));
            history.record(&SeriesName::FirstToken(95), at, 0.2);
        }
    }
    history
}

/// The quantile as Prometheus interpolates it between the bounds of buckets.
fn histogram_quantile(durations: &[f64], share: f64) -> f64 {
    let wanted = share * durations.len() as f64;
    let (mut below, mut from) = (0.0, 0.0);
    for bound in BUCKETS {
        let count = durations.iter().filter(|duration| **duration <= bound).count() as f64;
        if count >= wanted {
            return from + (bound - from) * (wanted - below) / (count - below);
        }
        (below, from) = (count, bound);
    }
    60.0
}

fn ask<'a>(source: Source<'a>, model: &'a Model) -> Recommend<'a> {
    Recommend {
        model: "models/chat".to_owned(),
        source,
        current: &model.settings,
        counts_twice: false,
        backlog: model.backlog,
        objective: None,
        cold_start: None,
        plant: PlantOptions { slots: None, cold_start: 300.0, queue: Queue::Engine, service_time: None },
        costs: Costs::default(),
        assume_independent: false,
        periods: Periods::default(),
        threads: 2,
    }
}

/// Plans changes on top of the settings in force.
fn planner(changes: &[&str]) -> impl Fn(&[Override]) -> Result<Settings, String> {
    let base = parsed(changes);
    move |more| planned(&[base.as_slice(), more].concat()).map(|model| model.settings)
}

fn assert_near(found: f64, expected: f64, part: f64) {
    assert!((found / expected - 1.0).abs() <= part, "{found} instead of {expected}");
}

fn measured(hidden: Hidden, changes: &[&str]) -> Result<Evidence, Refused> {
    let model = model(changes);
    let history = hidden.recorded(&model);
    Evidence::of(&ask(Source::History(&history), &model))
}

#[rstest]
#[case::twelve(HIDDEN, "20", 12.0)]
#[case::forty(Hidden { slots: 40, service_time: 20.0, ..HIDDEN }, "60", 40.0)]
#[case::loads_slowly(Hidden { loading: 300, rate: 4.0, ..HIDDEN }, "30", 12.0)]
fn finds_what_a_saturated_fleet_serves(#[case] hidden: Hidden, #[case] target: &str, #[case] slots: f64) {
    let target = format!("target={target}");
    let found = measured(hidden, &["max=12", &target]).unwrap();
    assert_near(found.target.unwrap(), 0.8 * slots, 0.15);
    assert_near(found.service_time.seconds, hidden.service_time, 0.1);
    // Kthena creates the pods five seconds after a change.
    assert!((found.cold_start.usual - hidden.loading as f64 - 5.0).abs() <= 15.0, "{:?}", found.cold_start);
    assert!(found.cold_start.from == StartsFrom::Replicas && found.cold_start.starts > 20);
}

/// Without a load that exceeds the objective a target rises by a quarter at most, and is never lowered.
#[rstest]
#[case::low("4", 4.0..=5.0)]
#[case::right("9.5", 9.5..=11.0)]
fn a_target_that_never_saturated_rises_in_steps(
    #[case] target: &str,
    #[case] expected: std::ops::RangeInclusive<f64>,
) {
    let found = measured(HIDDEN, &["max=12", &format!("target={target}")]).unwrap();
    assert!(found.capacity.as_ref().unwrap().is_bound, "{:?}", found.capacity);
    let target = found.target.unwrap_or(*expected.start());
    assert!(expected.contains(&target), "{target} {}", found.target_kept);
}

#[test]
fn the_operators_starts_come_first() {
    let model = model(&["max=12", "target=20"]);
    let hidden = Hidden { days: 2, ..HIDDEN };
    let mut history = hidden.recorded(&model);
    let last = (history.grid().end() - i64::from(STEP)) as f64;
    for (name, value) in
        [(SeriesName::Starts, 8.0), (SeriesName::Start(50), 100.0), (SeriesName::Start(95), 400.0)]
    {
        history.record(&name, last, value);
    }
    let ask = ask(Source::History(&history), &model);
    let found = Evidence::of(&ask).unwrap();
    assert_eq!((found.cold_start.usual, found.cold_start.from), (100.0, StartsFrom::Operator));
    let need = Need { grid: history.grid(), groups: vec![Some(1.0); history.grid().steps()] };
    let values = found.values(&ask, &need);
    let drain = values.iter().find(|value| value.name == "drainTime").unwrap();
    assert_eq!(drain.evident.as_deref(), Some("800s"));
}

/// Each reason for which there is no capacity, and the target stays.
#[rstest]
#[case::no_replicas(&[SeriesName::Ready], None, "the number of ready ServingGroups is not known")]
#[case::no_durations(&[SeriesName::Duration(95)], None, "there are no values of duration/p95; record the history again")]
#[case::no_first_tokens(&[SeriesName::FirstToken(95)], Some("ttft=2s"), "there are no values of ttft/p95; have Prometheus scrape the engines")]
#[case::top(&[], Some("p95=90s"), "ends at 60 s, so the objective of 90 s cannot be seen")]
#[case::strict(&[], Some("p95=7s"), "longer than the objective of 7 s")]
fn keeps_the_target_without_a_capacity(
    #[case] without: &[SeriesName],
    #[case] objective: Option<&str>,
    #[case] expected: &str,
) {
    let model = model(&["max=12", "target=20"]);
    let full = Hidden { days: 2, ..HIDDEN }.recorded(&model);
    let history = copied(&full, &model, |name, _, value| (!without.contains(name)).then_some(value));
    let objective = objective.map(|text| text.parse().unwrap());
    let found = Evidence::of(&Recommend { objective, ..ask(Source::History(&history), &model) });
    match found {
        Ok(found) => {
            assert_eq!(found.target, None);
            assert!(found.target_kept.contains(expected), "{}", found.target_kept);
        }
        Err(refused) => assert!(refused.to_string().contains("leaves no time to wait"), "{refused}"),
    }
}

fn is_load(name: &SeriesName) -> bool {
    matches!(name, SeriesName::Arrivals | SeriesName::InFlight)
}

/// Requests in the first hours only.
fn few_hours(name: &SeriesName, step: usize, value: f64) -> Option<f64> {
    Some(if is_load(name) && step >= 1992 { 0.0 } else { value })
}

/// The trigger has no answer in half of the steps.
fn gaps(name: &SeriesName, step: usize, value: f64) -> Option<f64> {
    (step.is_multiple_of(2) || !matches!(name, SeriesName::Trigger(_))).then_some(value)
}

/// Thin data is refused, with each reason.
#[rstest]
#[case::few_hours(few_hours, &["requests were recorded in 8.3 hours, and 24 are needed"])]
#[case::gaps(gaps, &["50 % of the steps have no value of a trigger"])]
#[case::both(
    |name: &SeriesName, step, value| few_hours(name, step, gaps(name, step, value)?),
    &["50 % of the steps have no value of a trigger", "requests were recorded in 8.3 hours"]
)]
#[case::few_requests(
    |name: &SeriesName, _, value| Some(if is_load(name) { value / 1000.0 } else { value }),
    &["0 windows of five minutes have 20 requests that did not wait, and 50 are needed"]
)]
#[case::nothing(
    |_: &SeriesName, _, _| None,
    &["100 % of the steps", "requests were recorded in 0.0 hours", "there are no values of duration/p95"]
)]
fn refuses_thin_data(#[case] change: fn(&SeriesName, usize, f64) -> Option<f64>, #[case] reasons: &[&str]) {
    let model = model(&["max=12", "target=20"]);
    let full = Hidden { days: 2, ..HIDDEN }.recorded(&model);
    let history = copied(&full, &model, change);
    let refused = Evidence::of(&ask(Source::History(&history), &model)).unwrap_err().to_string();
    for reason in reasons {
        assert!(refused.contains(reason), "{refused}");
    }
}

/// Half of it would be right, but the measured load is that of the doubled target.
#[test]
fn keeps_a_target_that_the_operator_doubles() {
    let model = model(&["max=12", "target=20"]);
    let history = Hidden { days: 2, ..HIDDEN }.recorded(&model);
    let ask = ask(Source::History(&history), &model);
    assert!(Evidence::of(&ask).unwrap().target.is_some());
    let doubled = Evidence::of(&Recommend { counts_twice: true, ..ask }).unwrap();
    assert_eq!(doubled.target, None);
    assert!(doubled.target_kept.contains("counts each request twice"), "{}", doubled.target_kept);
}

/// A profile has custom signals in a list of their own, and settings have no objectives.
#[test]
fn a_profile_lists_only_the_targets_that_it_can_hold() {
    let settings = model(&["engine=vllm", "signals=active-requests=10,ttft-p90=2s"]).settings;
    let changes = ["target=10".to_owned(), "cooldown=15m".to_owned()];
    let text = lines(ApplyAs::Profile, "models", "chat", &changes, &settings);
    let expected = "  scaleToZero: {cooldown: 15m}\n  signals:\n    - {name: active-requests, target: \"10\"}\n    # Keep ";
    assert!(text.contains(expected) && !text.contains("ttft-p90"), "{text}");
}

/// A short record has measurements, and each is of the hidden fleet.
#[test]
fn a_refusal_has_what_is_known() {
    let model = model(&["max=12", "target=20"]);
    let full = Hidden { days: 2, ..HIDDEN }.recorded(&model);
    let history = copied(&full, &model, few_hours);
    let refused = Evidence::of(&ask(Source::History(&history), &model)).unwrap_err();
    let number = |name: &str, before: &str| -> f64 {
        let value = &refused.known.iter().find(|known| known.name == name).unwrap().value;
        let rest = value.strip_prefix(before).unwrap_or_else(|| panic!("{value}"));
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    assert_near(number("serviceTime", "about "), HIDDEN.service_time, 0.1);
    let slots = f64::from(u32::try_from(HIDDEN.slots).unwrap());
    let target = number("target", "at least ");
    assert!(target > 0.4 * slots && target <= 0.9 * slots, "{target}");
    let most = number("load", "up to ");
    assert_near(number("need", "up to "), (most / 20.0).ceil(), 1e-9);
    let table = refused.table("models/\u{1b}chat");
    assert!(table.lines().count() == 5 && !table.contains('\u{1b}'), "{table}");
}

/// Nothing is known of a record without requests, and nothing is made up.
#[test]
fn a_refusal_of_nothing_knows_nothing() {
    let model = model(&["max=12", "target=20"]);
    let full = Hidden { days: 2, ..HIDDEN }.recorded(&model);
    let history = copied(&full, &model, |_, _, _| None);
    let refused = Evidence::of(&ask(Source::History(&history), &model)).unwrap_err();
    assert!(refused.known.is_empty(), "{:?}", refused.known);
}

/// A copy of a history with other values.
fn copied(full: &History, model: &Model, change: impl Fn(&SeriesName, usize, f64) -> Option<f64>) -> History {
    let mut history = History::new(full.grid(), "models", "chat", &model.object, model.backlog);
    let names = [
        SeriesName::Trigger("active-requests".to_owned()),
        SeriesName::InFlight,
        SeriesName::Arrivals,
        SeriesName::Spec,
        SeriesName::Total,
        SeriesName::Ready,
        SeriesName::MeanDuration,
        SeriesName::Duration(95),
        SeriesName::FirstToken(95),
    ];
    for name in &names {
        for (step, value) in full.series(name).into_iter().flat_map(|series| series.iter().enumerate()) {
            if let Some(value) = value.and_then(|value| change(name, step, value)) {
                history.record(name, f64::from(START) + f64::from(STEP) * step as f64, value);
            }
        }
    }
    history
}

/// Requests of a load in rows of five minutes.
fn load(hours: u32, rate: impl Fn(f64) -> f64) -> Workload {
    let inflow =
        |row: u32| Some(Inflow { rate: rate(f64::from(row) / 12.0), service_time: 6.0, tokens: 0.0 });
    let rows = hours * 12;
    Workload::new(Grid::new(START.into(), 300, rows as usize).unwrap(), (0..rows).map(inflow).collect())
}

/// A model whose settings fit keeps them, and one that removes ServingGroups late saves.
#[rstest]
#[case::constant(&["max=12"], |_| 5.0, true)]
#[case::late(&["max=12", "scaleDown.stabilizationWindow=1h"], |hour: f64| if hour % 4.0 < 1.0 { 9.0 } else { 1.0 }, false)]
fn keeps_what_fits(#[case] changes: &[&str], #[case] rate: fn(f64) -> f64, #[case] keeps: bool) {
    let (model, load) = (model(changes), load(26, rate));
    let ask = Recommend { cold_start: Some(60.0), ..ask(Source::Load(&load), &model) };
    let found = ask.recommend(&planner(changes)).unwrap();
    assert_eq!(found.changes.is_empty(), keeps, "{}", found.table(None));
    assert_eq!(found.verdict.starts_with("Keep what you have"), keeps, "{}", found.verdict);
    let hours: Vec<f64> = found.backtest.runs.iter().map(|run| run.group_hours).collect();
    assert!(keeps || hours[1] < 0.99 * hours[0], "{hours:?}");
    let over: Vec<f64> = found.backtest.runs.iter().map(|run| run.waiting.over).collect();
    assert!(keeps || over[1] <= over[0] + 1e-6, "{over:?}");
}

/// Zero is offered to a model that is idle by night, and to no other; a minimum needs a week.
#[rstest]
#[case::idle_nights(8 * 24, |hour: f64| if hour % 24.0 < 12.0 { 0.0 } else { 5.0 }, true, Some("1"))]
#[case::never_idle(8 * 24, |_| 15.0, false, Some("9"))]
#[case::short_gaps(8 * 24, |hour: f64| if hour % 1.0 < 0.6 { 0.0 } else { 5.0 }, false, Some("1"))]
#[case::few_days(5 * 24, |_| 15.0, false, None)]
fn offers_zero_where_it_saves(
    #[case] hours: u32,
    #[case] rate: fn(f64) -> f64,
    #[case] is_offered: bool,
    #[case] min: Option<&str>,
) {
    let (model, load) = (model(&["max=12"]), load(hours, rate));
    let ask = Recommend { cold_start: Some(60.0), ..ask(Source::Load(&load), &model) };
    let evidence = Evidence::of(&ask).unwrap();
    let need = Need { grid: load.grid(), groups: load.need(10.0).collect() };
    let offers = evidence.offers(&ask, &need);
    assert_eq!(!offers.is_empty(), is_offered, "{offers:?}");
    assert!(offers.iter().all(|offer| offer.contains("clients must retry")), "{offers:?}");
    let values = evidence.values(&ask, &need);
    let found = values.iter().find(|value| value.name == "min").unwrap();
    assert_eq!(found.evident.as_deref(), min, "{found:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any record: no panic, and every value is one that the planner reads.
    #[test]
    fn odd_records_are_measured_or_refused(
        step in prop_oneof![Just(1_u32), Just(60), Just(3600)],
        steps in 1_usize..120,
        values in prop::collection::vec(
            (0_usize..10, 0_usize..120, prop_oneof![Just(f64::NAN), Just(0.0), Just(1e300), Just(-1.0), Just(1e-300), 0.0..50.0_f64], 1_usize..60),
            0..30,
        ),
        objective in prop_oneof![Just(None), Just(Some("p95=10s")), Just(Some("ttft=2s"))],
        given in any::<bool>(),
        is_complete in any::<bool>(),
    ) {
        let model = model(&["max=12"]);
        let mut history = History::new(Grid::new(START.into(), step, steps).unwrap(), "n", "m", &model.object, model.backlog);
        let names = [
            SeriesName::Trigger("active-requests".to_owned()), SeriesName::InFlight, SeriesName::Arrivals, SeriesName::Spec, SeriesName::Total,
            SeriesName::Ready, SeriesName::MeanDuration, SeriesName::Duration(95), SeriesName::FirstToken(95), SeriesName::Starts,
        ];
        for (name, from, value, count) in values {
            for index in from..from + count {
                history.record(&names[name], f64::from(START) + f64::from(step) * index as f64, value);
            }
        }
        // The first value of a step counts, so the odd ones stay.
        for name in names.iter().filter(|_| is_complete) {
            for index in 0..steps {
                history.record(name, f64::from(START) + f64::from(step) * index as f64, 1.0 + (index % 9) as f64);
            }
        }
        let mut ask = ask(Source::History(&history), &model);
        ask.objective = objective.map(|text| text.parse().unwrap());
        ask.plant.service_time = given.then_some(5.0);
        let Ok(evidence) = Evidence::of(&ask) else { return Ok(()) };
        let Ok(workload) = ask.workload(&evidence) else { return Ok(()) };
        let need = Need { grid: history.grid(), groups: workload.need(evidence.slots).collect() };
        let values = evidence.values(&ask, &need);
        evidence.offers(&ask, &need);
        for value in &values {
            if let Some(evident) = value.evident.as_ref().filter(|_| value.now.is_some()) {
                let change = format!("{}={evident}", value.name).parse::<Override>().unwrap();
                prop_assert!(overrides::apply(&[change], &mut Fixture::model("llama").observed(), &Fixture::model("llama").defaults).is_ok(), "{:?}", value);
            }
        }
    }
}
