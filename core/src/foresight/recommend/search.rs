//! Search for settings: constraints first, then GPU-hours, then the fewest changes of the number of ServingGroups.

use std::thread;

use crate::{
    foresight::{
        backtest::{Setup, autoscaled},
        report::Slo,
        settings::Settings,
        spec::Rules,
    },
    intent::{Policy, PolicyKind, Select},
};

/// Savings of this part count as equal.
const EQUAL: f64 = 0.01;
/// Stabilization windows for removing ServingGroups, in seconds.
const WINDOWS: [i32; 6] = [120, 300, 600, 1200, 1800, 3600];
/// Policies for removing ServingGroups.
const POLICIES: [Policy; 5] = [
    Policy { kind: PolicyKind::Pods, value: 1, period: 120 },
    Policy { kind: PolicyKind::Pods, value: 1, period: 60 },
    Policy { kind: PolicyKind::Pods, value: 2, period: 60 },
    Policy { kind: PolicyKind::Percent, value: 25, period: 60 },
    Policy { kind: PolicyKind::Percent, value: 100, period: 60 },
];

/// Settings to try, and the changes that lead to them.
#[derive(Clone, Debug)]
pub(super) struct Tried {
    /// Changes as of `--set`.
    pub(super) changes: Vec<String>,
    pub(super) settings: Settings,
}

/// Figures of settings.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Figures {
    hours: f64,
    changes: u32,
    over: f64,
    is_met: bool,
}

/// Result of a search.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Index of the best candidate; 0 are the settings in force.
    pub(super) best: usize,
    /// `true` if a candidate keeps the objective and lets no more requests wait than the settings in force.
    pub(super) keeps_objective: bool,
}

/// Settings that add `rise` ServingGroups a minute; `None` if they do already, or add none at all.
pub(super) fn with_up(base: &Tried, rise: Option<u32>) -> Option<Tried> {
    let policy = Policy { kind: PolicyKind::Pods, value: i32::try_from(rise?).ok()?, period: 60 };
    let mut tried = base.clone();
    let up = &mut tried.settings.hpa.scale_up;
    let up_select = up.select;
    if up.policies.as_slice() == [policy] || up_select == Select::Disabled {
        return None;
    }
    *up = Rules { policies: vec![policy], select: Select::Max, ..up.clone() };
    if up_select != Select::Max {
        tried.changes.push("scaleUp.select=Max".to_owned());
    }
    tried.changes.push(format!("scaleUp.policies={}", text(policy)));
    Some(tried)
}

/// Settings that remove ServingGroups as soon as a window of two minutes allows it, or those in force if they remove none.
pub(super) fn eager(base: &Tried, current: &Settings) -> Tried {
    let policy = Policy { kind: PolicyKind::Percent, value: 100, period: 60 };
    with_down(base, current, WINDOWS.iter().copied().min().unwrap_or(0), policy)
}

/// Settings with each pair of a window and a policy for removing ServingGroups.
fn downs(base: &Tried, current: &Settings) -> Vec<Tried> {
    let pairs = WINDOWS.iter().flat_map(|window| POLICIES.iter().map(move |policy| (*window, *policy)));
    pairs.map(|(window, policy)| with_down(base, current, window, policy)).collect()
}

fn with_down(base: &Tried, current: &Settings, window: i32, policy: Policy) -> Tried {
    let mut tried = base.clone();
    // It is off on purpose, such as by a pause.
    if current.hpa.scale_down.select == Select::Disabled {
        return tried;
    }
    tried.changes.retain(|change| !change.starts_with("scaleDown."));
    let in_force = &current.hpa.scale_down;
    if in_force.window != window {
        tried.changes.push(format!("scaleDown.stabilizationWindow={window}s"));
    }
    if in_force.policies.as_slice() != [policy] || in_force.select != Select::Max {
        tried.changes.push(format!("scaleDown.policies={}", text(policy)));
    }
    if in_force.select != Select::Max {
        tried.changes.push("scaleDown.select=Max".to_owned());
    }
    let down = &mut tried.settings.hpa.scale_down;
    *down = Rules { window, policies: vec![policy], select: Select::Max, ..down.clone() };
    tried
}

fn text(policy: Policy) -> String {
    let percent = if policy.kind == PolicyKind::Percent { "%" } else { "" };
    format!("{}{percent}/{}s", policy.value, policy.period)
}

/// The best of the candidates, of which the first are the settings in force, on this many threads.
///
/// The speeds of removing ServingGroups are tried for the best of them, and for the cheapest, which may let too many
/// requests wait with the speed in force.
pub(super) fn search(
    setup: &Setup<'_>,
    first: Option<i32>,
    slo: Slo,
    mut tried: Vec<Tried>,
    threads: usize,
) -> (Vec<Tried>, Found) {
    let mut figures = simulated(setup, first, slo, &tried, threads);
    let best = choose(&figures).best;
    let cheapest = figures.iter().enumerate().min_by(|(_, a), (_, b)| a.hours.total_cmp(&b.hours));
    let cheapest = cheapest.map(|(index, _)| index).filter(|index| *index != best);
    let bases: Vec<Tried> =
        std::iter::once(best).chain(cheapest).filter_map(|index| tried.get(index).cloned()).collect();
    let Some(current) = tried.first().map(|tried| tried.settings.clone()) else {
        return (tried, Found { best: 0, keeps_objective: false });
    };
    let more: Vec<Tried> = bases.iter().flat_map(|base| downs(base, &current)).collect();
    figures.extend(simulated(setup, first, slo, &more, threads));
    tried.extend(more);
    let found = choose(&figures);
    (tried, found)
}

fn simulated(
    setup: &Setup<'_>,
    first: Option<i32>,
    slo: Slo,
    tried: &[Tried],
    threads: usize,
) -> Vec<Figures> {
    let figures = |tried: &Tried| {
        let outcome = autoscaled(setup, &tried.settings, first);
        Figures {
            hours: outcome.totals.group_seconds / 3600.0,
            changes: outcome.changes,
            over: outcome.waits.share_over(),
            is_met: slo.is_met(&outcome.waits),
        }
    };
    let part = tried.len().div_ceil(threads.max(1)).max(1);
    thread::scope(|scope| {
        let parts =
            tried.chunks(part).map(|part| scope.spawn(|| part.iter().map(figures).collect::<Vec<_>>()));
        let parts: Vec<_> = parts.collect();
        parts.into_iter().flat_map(|part| part.join().unwrap_or_default()).collect()
    })
}

fn choose(figures: &[Figures]) -> Found {
    let Some(now) = figures.first() else { return Found { best: 0, keeps_objective: false } };
    let is_allowed = |it: &Figures| it.is_met && it.over <= now.over + 1e-6;
    let allowed = || figures.iter().enumerate().filter(|(_, it)| is_allowed(it));
    let Some(least) = allowed().map(|(_, it)| it.hours).reduce(f64::min) else {
        let best = figures.iter().enumerate().min_by(|(_, a), (_, b)| a.over.total_cmp(&b.over));
        return Found { best: best.map_or(0, |(index, _)| index), keeps_objective: false };
    };
    let is_cheap = |it: &Figures| it.hours <= least * (1.0 + EQUAL);
    if is_allowed(now) && is_cheap(now) {
        return Found { best: 0, keeps_objective: true };
    }
    let cheap = allowed().filter(|(_, it)| is_cheap(it));
    let best = cheap.min_by(|(_, a), (_, b)| a.changes.cmp(&b.changes).then(a.hours.total_cmp(&b.hours)));
    Found { best: best.map_or(0, |(index, _)| index), keeps_objective: true }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn figures(hours: f64, changes: u32, over: f64, is_met: bool) -> Figures {
        Figures { hours, changes, over, is_met }
    }

    #[rstest]
    #[case::keeps_what_is_as_cheap([figures(100.5, 90, 0.01, true), figures(100.0, 10, 0.0, true)], 0, true)]
    #[case::cheaper([figures(110.0, 10, 0.01, true), figures(100.0, 90, 0.01, true)], 1, true)]
    #[case::more_waiting([figures(110.0, 10, 0.01, true), figures(100.0, 10, 0.02, true)], 0, true)]
    #[case::objective([figures(90.0, 10, 0.2, false), figures(100.0, 10, 0.02, true)], 1, true)]
    #[case::none([figures(90.0, 10, 0.2, false), figures(100.0, 10, 0.1, false)], 1, false)]
    fn chooses(#[case] tried: [Figures; 2], #[case] best: usize, #[case] keeps_objective: bool) {
        let found = choose(&tried);
        assert_eq!((found.best, found.keeps_objective), (best, keeps_objective));
    }

    #[test]
    fn the_fewest_changes_win_among_equal_savings() {
        let tried =
            [figures(120.0, 1, 0.0, true), figures(100.0, 50, 0.0, true), figures(100.9, 20, 0.0, true)];
        assert_eq!(choose(&tried).best, 2);
    }
}
