//! A week of requests to one model: days and nights, a quiet weekend, bursts, and a new client from Thursday on.

use std::fmt::Write as _;

use kthena_keda_core::foresight::random::Random;

const SEED: u64 = 7;
const MINUTES: u32 = 7 * 24 * 60;
/// Requests per minute at the busiest time of a usual day.
const BUSIEST: f64 = 480.0;
/// Requests per minute of a client that begins on Thursday at 14:00.
const NEW_CLIENT: f64 = 90.0;
const NEW_CLIENT_FROM: u32 = (3 * 24 + 14) * 60;
/// Tokens that one response has on average.
const TOKENS: f64 = 180.0;
const BURSTS: usize = 24;

/// A time with more requests than usual.
struct Burst {
    from: u32,
    minutes: u32,
    factor: f64,
}

/// The week as CSV: totals for each minute.
pub fn week() -> String {
    let mut random = Random::new(SEED);
    let bursts: Vec<Burst> = (0..BURSTS).map(|_| burst(&mut random)).collect();
    let mut text = String::from(
        "# A generated week: one row a minute, from Monday 00:00. cargo run -p kthena-keda-core --example week\n\
         time,arrivals,output_tokens\n",
    );
    for minute in 0..MINUTES {
        let burst = bursts.iter().filter(|burst| (burst.from..burst.from + burst.minutes).contains(&minute));
        let factor = burst.map(|burst| burst.factor).fold(1.0, f64::max);
        let new_client = if minute >= NEW_CLIENT_FROM { NEW_CLIENT } else { 0.0 };
        let mean = (BUSIEST * activity(minute)).mul_add(factor, new_client).max(1.0);
        let arrivals = (mean * random.log_normal(mean.sqrt().recip())).round();
        let tokens = (arrivals * TOKENS * random.log_normal(0.08)).round();
        let _ = writeln!(text, "{},{arrivals},{tokens}", minute * 60);
    }
    text
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within a week")]
fn burst(random: &mut Random) -> Burst {
    let from = (random.uniform() * f64::from(MINUTES - 60)) as u32;
    let minutes = 4 + (random.uniform() * 20.0) as u32;
    Burst { from, minutes, factor: 1.4 + random.uniform() * 1.2 }
}

/// Share of the busiest time, 0 to 1.
fn activity(minute: u32) -> f64 {
    let (day, hour) = (minute / 1440, f64::from(minute % 1440) / 60.0);
    // The quietest hour is four at night, and the afternoon the busiest time.
    let daily = 0.5 - 0.5 * ((hour - 4.0) / 24.0 * std::f64::consts::TAU).cos();
    let weekend = if day >= 5 { 0.55 } else { 1.0 };
    (0.1 + 0.9 * daily.powf(1.5)) * weekend
}
