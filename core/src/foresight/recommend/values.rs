//! Values of settings that follow from the measurements of a model.

use super::{
    Recommend,
    bounds::{DAYS_MIN, Need, PERIOD},
    evidence::{Evidence, TARGET},
    measure::{ColdStart, StartsFrom},
    value::{Confidence, Value, duration, short},
};
use crate::{
    domain::ServiceTimeSetting,
    foresight::settings::{Settings, SignalModel},
};

/// Shortest and longest drain time of a profile, in seconds.
const DRAIN: (f64, f64) = (600.0, 3600.0);
/// Share of idle time above which zero is offered.
const IDLE: f64 = 0.3;

impl Evidence {
    /// Each value with its evidence.
    pub(super) fn values(&self, ask: &Recommend<'_>, need: &Need) -> Vec<Value> {
        let mut values =
            vec![self.capacity_value(), self.target_value(ask.current), self.service_time_value(ask)];
        values.push(self.cold_start_value());
        values.push(self.drain_time_value(ask));
        values.push(self.min_value(ask.current, need));
        values.push(self.max_value(ask, need));
        values.push(self.scale_up_value(ask.current, need));
        if ask.current.min() == 0 {
            let now = format!("{}s", ask.current.keda.cooldown);
            let cooldown = duration(need.cooldown(self.cold_start.usual));
            let evidence =
                "three cold starts, and most of the gaps after which requests came back within an hour";
            values.push(Value::evident("cooldown", Some(now), cooldown, self.by_days(), evidence.to_owned()));
        }
        values
    }

    fn by_days(&self) -> Confidence {
        Confidence::of_days(self.days)
    }

    fn capacity_value(&self) -> Value {
        let found = match &self.capacity {
            Ok(found) => found,
            Err(error) => return Value::kept("capacity", None, error.to_string()),
        };
        let shown = short(found.requests);
        if found.windows == 0 {
            return Value::evident(
                "capacity",
                None,
                shown.to_string(),
                Confidence::Medium,
                "--capacity".to_owned(),
            );
        }
        let (text, confidence, evidence) = if found.is_bound {
            let evidence = format!(
                "no load of {} busy windows exceeded {:.1} s, so the capacity may be greater",
                found.windows, found.seconds
            );
            (format!("at least {shown}"), Confidence::Low, evidence)
        } else {
            let confidence = Confidence::of(self.days, found.requests, found.interval);
            let evidence = format!(
                "greatest load that keeps {:.1} s, of {} busy windows; {:.1} s while calm",
                found.seconds, found.windows, found.calm
            );
            (shown.to_string(), confidence, evidence)
        };
        Value::evident("capacity", None, text, confidence, evidence).within(found.interval)
    }

    fn target_value(&self, current: &Settings) -> Value {
        let now = current.requests_per_group().map(|target| short(target).to_string());
        let (Some(target), Ok(found)) = (self.target, &self.capacity) else {
            return Value::kept("target", now, self.target_kept.clone());
        };
        let interval = found.interval.map(|(low, high)| (TARGET * low, TARGET * high));
        let (confidence, evidence) = if found.is_bound {
            (Confidence::Low, "a step of 25 % at most, since no load exceeded the objective; run recommend again after a week".to_owned())
        } else if found.windows == 0 {
            (Confidence::Medium, format!("{TARGET} of the capacity"))
        } else {
            (Confidence::of(self.days, found.requests, found.interval), format!("{TARGET} of the capacity"))
        };
        Value::evident("target", now, target.to_string(), confidence, evidence).within(interval)
    }

    fn service_time_value(&self, ask: &Recommend<'_>) -> Value {
        let now = Some(ask.backlog.service_time.to_string());
        let found = &self.service_time;
        let is_of_requests = |it: &SignalModel| matches!(it, SignalModel::ActiveRequests(_));
        let has_signal = ask.current.triggers.iter().any(|trigger| is_of_requests(&trigger.signal));
        let evidence = match (found.windows, found.is_recorded) {
            (0, _) => "--service-time".to_owned(),
            (windows, true) => format!("upper quartile of {windows} windows without waiting"),
            (windows, false) => format!("upper quartile of {windows} windows: requests in flight / arrivals"),
        };
        let confidence = match found.windows {
            0 => Confidence::Medium,
            _ => Confidence::of(self.days, found.seconds, found.interval),
        };
        let text = duration(found.seconds.clamp(0.1, 3600.0));
        if !has_signal {
            return Value::kept(
                "serviceTime",
                None,
                format!("{text}, but it bounds only the signal active-requests"),
            );
        }
        // A time that is measured again and again, or that is close to the new one, stays.
        let (low, high) = found.interval.unwrap_or((found.seconds, found.seconds));
        let stays = match ask.backlog.service_time {
            ServiceTimeSetting::Auto => true,
            ServiceTimeSetting::Fixed(time) => {
                let seconds = f64::from(time.millis()) / 1000.0;
                seconds >= 0.8 * low && seconds <= 1.2 * high
            }
            ServiceTimeSetting::Off => false,
        };
        let text = now.clone().filter(|_| stays).unwrap_or(text);
        let evidence = if stays { format!("{}: {evidence}", duration(found.seconds)) } else { evidence };
        Value::evident("serviceTime", now, text, confidence, evidence).within(found.interval)
    }

    fn cold_start_value(&self) -> Value {
        let ColdStart { usual, long, starts, from } = self.cold_start;
        let (confidence, evidence) = match from {
            StartsFrom::Operator => (
                Confidence::High,
                format!("kthena_keda_start_seconds, {starts} starts; 95 % take {} at most", duration(long)),
            ),
            StartsFrom::Replicas => (
                Confidence::Medium,
                format!(
                    "{starts} starts in the recorded numbers of ServingGroups; 95 % take {} at most",
                    duration(long)
                ),
            ),
            StartsFrom::Given => (Confidence::Medium, "--cold-start".to_owned()),
            StartsFrom::Assumed => (
                Confidence::Low,
                format!("assumed: {starts} starts were seen, and 3 are needed; pass --cold-start"),
            ),
        };
        Value::evident("coldStart", None, duration(usual), confidence, evidence)
    }

    fn drain_time_value(&self, ask: &Recommend<'_>) -> Value {
        let now = format!("{}s", ask.backlog.drain_time.seconds());
        let seconds = (2.0 * self.cold_start.long).clamp(DRAIN.0, DRAIN.1);
        let confidence =
            if self.cold_start.from == StartsFrom::Assumed { Confidence::Low } else { self.by_days() };
        let evidence = "two long cold starts, and ten minutes at least".to_owned();
        Value::evident("drainTime", Some(now), duration(seconds), confidence, evidence)
    }

    fn min_value(&self, current: &Settings, need: &Need) -> Value {
        let now = Some(current.min().to_string());
        if self.days < DAYS_MIN - 0.01 {
            let reason = format!(
                "{:.1} days were recorded, and {DAYS_MIN} are needed; choose a longer --since or file",
                self.days
            );
            return Value::kept("min", now, reason);
        }
        match need.least() {
            // Zero costs less and was chosen.
            Some(_) if current.min() == 0 => Value::kept(
                "min",
                now,
                "zero is kept; a model that always has requests stays above it".to_owned(),
            ),
            Some(least) => {
                let evidence = "need of the quietest hour of the day, all but 1 % of the time".to_owned();
                Value::evident("min", now, least.to_string(), self.by_days(), evidence)
            }
            None => Value::kept("min", now, "the need is not known".to_owned()),
        }
    }

    fn max_value(&self, ask: &Recommend<'_>, need: &Need) -> Value {
        let now = Some(ask.current.hpa.max().to_string());
        let Some(most) = need.most() else {
            return Value::kept("max", now, "the need is not known".to_owned());
        };
        let bounded = self.room.map_or(most, |room| most.min(room.max(1)));
        let mut evidence = "need of all but 0.1 % of the time, and a quarter more".to_owned();
        if bounded < most {
            evidence = format!(
                "{evidence}: {most}, but ServingGroups beyond {bounded} stayed pending; add nodes to use more"
            );
        }
        if let (Some(gpus), Some(price)) = (ask.costs.gpus_per_group, ask.costs.gpu_hour) {
            let hourly = f64::from(gpus) * price * f64::from(bounded);
            evidence = format!("{evidence}; costs {hourly:.2} an hour while all of them run");
        }
        Value::evident("max", now, bounded.to_string(), self.by_days(), evidence)
    }

    fn scale_up_value(&self, current: &Settings, need: &Need) -> Value {
        let policies = &current.hpa.scale_up.policies;
        let text = |policy: &crate::intent::Policy| {
            let percent = if policy.kind == crate::intent::PolicyKind::Percent { "%" } else { "" };
            format!("{}{percent}/{}s", policy.value, policy.period)
        };
        let now = policies.iter().map(text).collect::<Vec<_>>().join(",");
        match need.rise() {
            Some(rise) => {
                let evidence = "rise of the need within a minute, all but 0.1 % of the time".to_owned();
                Value::evident(
                    "scaleUp.policies",
                    Some(now),
                    format!("{rise}/{PERIOD}s"),
                    self.by_days(),
                    evidence,
                )
            }
            None => Value::kept("scaleUp.policies", Some(now), "the need is not known".to_owned()),
        }
    }

    /// Zero, if the model is idle for long.
    pub(super) fn offers(&self, ask: &Recommend<'_>, need: &Need) -> Vec<String> {
        let cooldown = need.cooldown(self.cold_start.usual);
        let idle = need.idle_share(3.0 * cooldown);
        if ask.current.min() == 0 || idle <= IDLE {
            return Vec::new();
        }
        vec![format!(
            "min=0 cooldown={}: no request arrives in {:.0} % of the time, in gaps that are long enough. The first requests after a gap fail or wait for {}, so clients must retry; see docs/scale-to-zero.md",
            duration(cooldown),
            idle * 100.0,
            duration(self.cold_start.usual)
        )]
    }
}
