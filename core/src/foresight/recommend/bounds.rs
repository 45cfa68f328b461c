//! Bounds and speeds that follow from the need of each step.

use super::stats::quantile;
use crate::foresight::history::Grid;

/// Days that a minimum needs.
pub(super) const DAYS_MIN: f64 = 7.0;
/// Capacity beyond the greatest need.
const MARGIN: f64 = 1.25;
/// Period of a scale-up policy, in seconds.
pub(super) const PERIOD: u32 = 60;
/// Longest idle time after which clients still count on a quick answer, in seconds.
const WAKE: f64 = 3600.0;
/// Need that counts as none, in ServingGroups.
const NONE: f64 = 1e-6;

/// ServingGroups that each step needs; `None` where it is not known.
#[derive(Clone, Debug)]
pub(super) struct Need {
    pub(super) grid: Grid,
    pub(super) groups: Vec<Option<f64>>,
}

impl Need {
    /// Whole ServingGroups that all but 1 % of the steps of the quietest hour of the day need, 1 or more.
    pub(super) fn least(&self) -> Option<u32> {
        let mut hours: Vec<Vec<f64>> = vec![Vec::new(); 24];
        for (index, groups) in self.groups.iter().enumerate() {
            let at = self.grid.start() + i64::from(self.grid.step()) * i64::try_from(index).ok()?;
            let hour = usize::try_from(at.rem_euclid(86_400) / 3600).ok()?;
            if let Some(hour) = hours.get_mut(hour) {
                hour.extend(groups);
            }
        }
        let least = hours.iter_mut().filter_map(|hour| quantile(hour, 0.01)).reduce(f64::min)?;
        Some(whole(least.floor()).max(1))
    }

    /// Whole ServingGroups for all but 0.1 % of the steps, with a quarter more.
    pub(super) fn most(&self) -> Option<u32> {
        let mut known: Vec<f64> = self.groups.iter().flatten().copied().collect();
        quantile(&mut known, 0.999).map(|most| whole((most * MARGIN - 1e-6).ceil()).max(1))
    }

    /// Whole ServingGroups by which the need rises within a minute, in all but 0.1 % of the minutes.
    pub(super) fn rise(&self) -> Option<u32> {
        let steps = usize::try_from(PERIOD.div_ceil(self.grid.step())).unwrap_or(1).max(1);
        #[allow(clippy::cast_precision_loss, reason = "at most 60 steps")]
        let minutes = f64::from(self.grid.step()) * steps as f64 / f64::from(PERIOD);
        let later = self.groups.iter().skip(steps);
        let rises =
            self.groups.iter().zip(later).filter_map(|(now, later)| Some(((*later)? - (*now)?) / minutes));
        let mut rises: Vec<f64> = rises.collect();
        quantile(&mut rises, 0.999).map(|rise| whole(rise.ceil()).max(1))
    }

    /// Lengths of the times without need, in seconds; `true` if the next step is known to have a need.
    pub(super) fn gaps(&self) -> Vec<(f64, bool)> {
        let (mut gaps, mut idle) = (Vec::new(), 0.0);
        for groups in &self.groups {
            match groups {
                Some(groups) if *groups <= NONE => idle += f64::from(self.grid.step()),
                _ if idle > 0.0 => {
                    gaps.push((idle, groups.is_some()));
                    idle = 0.0;
                }
                _ => {}
            }
        }
        if idle > 0.0 {
            gaps.push((idle, false));
        }
        gaps
    }

    /// Share of the time in gaps of at least this length, 0 to 1.
    #[allow(clippy::cast_precision_loss, reason = "bounded by the grid")]
    pub(super) fn idle_share(&self, seconds: f64) -> f64 {
        let idle: f64 = self.gaps().into_iter().map(|(gap, _)| gap).filter(|gap| *gap >= seconds).sum();
        idle / (f64::from(self.grid.step()) * self.groups.len().max(1) as f64)
    }

    /// Time without demand before scaling to zero, in seconds: three cold starts at least, and longer than most gaps
    /// after which requests came back within an hour.
    pub(super) fn cooldown(&self, cold_start: f64) -> f64 {
        let mut woken: Vec<f64> = self
            .gaps()
            .into_iter()
            .filter(|(gap, woken)| *woken && *gap <= WAKE)
            .map(|(gap, _)| gap)
            .collect();
        (3.0 * cold_start).max(quantile(&mut woken, 0.95).unwrap_or(0.0)).min(86_400.0)
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
fn whole(groups: f64) -> u32 {
    groups.clamp(0.0, 100_000.0) as u32
}

/// ServingGroups of which one or more did not become ready for at least `seconds`, with those that were: pods that the
/// cluster had no room for. The greatest number that was ready then.
pub(super) fn room(
    grid: Grid,
    total: impl Iterator<Item = Option<f64>>,
    ready: impl Iterator<Item = Option<f64>>,
    seconds: f64,
) -> Option<u32> {
    let (mut pending, mut found) = (0.0, None);
    let mut before = None;
    for pair in total.zip(ready).map(|(total, ready)| total.zip(ready)) {
        let is_same = pair == before;
        before = pair;
        match pair {
            Some((total, ready)) if ready < total && is_same => {
                pending += f64::from(grid.step());
                if pending >= seconds {
                    found = found.max(Some(whole(ready)));
                }
            }
            _ => pending = 0.0,
        }
    }
    found.filter(|groups| *groups > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(groups: impl IntoIterator<Item = Option<f64>>) -> Need {
        let groups: Vec<_> = groups.into_iter().collect();
        Need { grid: Grid::new(0, 60, groups.len()).unwrap(), groups }
    }

    /// A week with a need of 3.5 by night and of 8 by day, with one step of 100.
    #[test]
    fn bounds_follow_from_the_need() {
        let of = |minute: u32| match (minute, minute / 60 % 24) {
            (5000, _) => Some(100.0),
            (7000, _) => None,
            (_, 8..20) => Some(8.0),
            _ => Some(3.5),
        };
        let need = need((0..10_080).map(of));
        assert_eq!((need.least(), need.most(), need.rise()), (Some(3), Some(10), Some(1)));
        assert!(need.gaps().is_empty());
    }

    #[test]
    fn a_rise_within_a_minute_counts_if_it_is_frequent() {
        let need = need((0..2000).map(|minute| Some(if minute / 20 % 2 == 0 { 3.0 } else { 7.5 })));
        assert_eq!(need.rise(), Some(5));
    }

    /// Gaps of half an hour that end in a wake, and a night of eight hours.
    #[test]
    fn gaps_decide_on_zero() {
        let of = |minute: u32| Some(if minute % 1440 < 480 || minute % 60 < 30 { 0.0 } else { 1.0 });
        let need = need((0..1440 * 3).map(of));
        assert!((need.idle_share(3600.0) - 510.0 / 1440.0).abs() < 1e-9, "{}", need.idle_share(3600.0));
        assert!((need.cooldown(60.0) - 1800.0).abs() < 1e-9);
        assert!((need.cooldown(1000.0) - 3000.0).abs() < 1e-9);
    }

    #[test]
    fn groups_that_never_become_ready_show_the_room() {
        let room = |pending: usize| {
            let total = (0..200).map(move |minute| Some(if minute < pending { 9.0 } else { 7.0 }));
            room(Grid::new(0, 60, 200).unwrap(), total, (0..200).map(|_| Some(7.0)), 1800.0)
        };
        assert_eq!((room(10), room(60)), (None, Some(7)));
    }

    #[test]
    fn nothing_follows_from_nothing() {
        let need = need([None, None]);
        assert_eq!((need.least(), need.most(), need.rise()), (None, None, None));
        assert!(need.idle_share(1.0) < 1e-9);
    }
}
