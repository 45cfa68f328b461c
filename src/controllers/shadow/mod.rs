//! Dry runs: simulates KEDA and the HPA for each model in shadow, on the values that they would read.
//!
//! Each observed model has at most one query in flight, and none waits for that of another model: a slow Prometheus
//! delays only its own models. No reconcile waits for any of them, and nothing is written.

mod history;
mod player;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, future::LocalBoxFuture, stream::FuturesUnordered};
use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{Context, model_serving::RouterReceiver};
use crate::{prometheus::Querier, settings::ShadowSettings, telemetry::unix_time};
pub use history::{Past, Resumed};
use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::{Key, key},
    foresight::{autoscaler::Autoscaler, time::Time},
    observed::ShadowState,
    plan::{Plan, plan},
};
pub use player::Target;
use player::{Player, Values};

/// Time between two looks at the models in shadow.
const TICK: Duration = Duration::from_secs(1);

/// A query round of one model.
type Round = LocalBoxFuture<'static, (Key, Answer)>;

/// Result of a query round.
enum Answer {
    /// Present value of each trigger.
    Values(Values),
    /// The simulation of these settings after the last minutes.
    Resumed(Box<(Autoscaler, Target)>),
}

/// Runs for the life of the process, and calls `changed` with each model whose state differs from the last one.
pub async fn run(
    context: Context,
    router: RouterReceiver,
    prometheus: Querier,
    settings: ShadowSettings,
    changed: impl Fn(Key),
) {
    context.caches.model_digests.wait_synced().await;
    let mut shadows = Shadows { context, router, prometheus, settings, players: BTreeMap::new() };
    let mut rounds = FuturesUnordered::<Round>::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = shadows.due();
        tokio::select! {
            _ = ticks.tick() => shadows.follow().into_iter().for_each(&changed),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            Some((key, answer)) = rounds.next(), if !rounds.is_empty() => {
                shadows.end_round(&key, answer).into_iter().for_each(&changed);
            }
        }
        rounds.extend(shadows.begin_rounds(Instant::now()));
    }
}

/// The models in shadow that are observed.
struct Shadows {
    context: Context,
    router: RouterReceiver,
    prometheus: Querier,
    settings: ShadowSettings,
    players: BTreeMap<Key, Player>,
}

impl Shadows {
    /// Follows the annotations. Returns the models that are beyond the limit from now on.
    fn follow(&mut self) -> Vec<Key> {
        let caches = &self.context.caches;
        let (observed, beyond) = oldest(caches.models_in_shadow(), self.settings.max);
        let keys: HashSet<Key> = observed.iter().map(|model| key(&**model)).collect();
        self.players.retain(|key, _| keys.contains(key));
        let beyond_keys: Vec<Key> = beyond.iter().map(|model| key(&**model)).collect();
        caches.shadows.retain(|key| keys.contains(key) || beyond_keys.contains(key));
        // Models that begin together, as after a restart, do not query together.
        let spread =
            if observed.len() > self.players.len() + 1 { self.settings.hpa_sync_period } else { TICK };
        for model in observed {
            let uid = model.metadata.uid.clone().unwrap_or_default();
            let is_same = |player: &mut Player| player.is_of(&uid);
            if !self.players.get_mut(&key(&*model)).is_some_and(is_same) {
                let start = Instant::now() + spread.mul_f64(fastrand::f64());
                self.players.insert(key(&*model), Player::new(uid, start));
            }
        }
        beyond_keys
            .into_iter()
            .filter(|key| self.context.caches.shadows.record_beyond(key, self.settings.max))
            .collect()
    }

    /// Time of the next query round.
    fn due(&self) -> Option<Instant> {
        self.players.values().filter_map(Player::due).min()
    }

    /// Begins the query rounds that are due.
    fn begin_rounds(&mut self, now: Instant) -> Vec<Round> {
        let is_due = |player: &Player| player.due().is_some_and(|due| due <= now);
        let due: Vec<Key> =
            self.players.iter().filter(|(_, player)| is_due(player)).map(|(key, _)| key.clone()).collect();
        due.into_iter().filter_map(|key| self.begin_round(key, now)).collect()
    }

    fn begin_round(&mut self, key: Key, now: Instant) -> Option<Round> {
        let planned = self.planned(&key);
        let (period, prometheus) = (self.settings.hpa_sync_period, self.prometheus.clone());
        let player = self.players.get_mut(&key)?;
        if let Some((model, target)) = planned {
            if let Some(ShadowState::Observed(range)) =
                ShadowState::reported(&model).filter(|_| player.is_new())
            {
                player.await_history();
                let past =
                    Past { key: key.clone(), replicas: model.replicas(), since: Some(range.since), period };
                let resumed =
                    async move { (key, Answer::Resumed(Box::new(past.resumed(&prometheus, target).await))) };
                return Some(resumed.boxed_local());
            }
            player.set_target(target, model.replicas(), simulated_now(), period);
        }
        let queries = player.begin(now, simulated_now(), period)?;
        Some(async move { (key, Answer::Values(queries.run(&prometheus).await)) }.boxed_local())
    }

    /// The settings in force; `None` while there is no complete plan, so that the last ones stay, as they do in a cluster.
    fn planned(&self, key: &Key) -> Option<(Arc<ModelServing>, Target)> {
        let model = self.context.caches.model_serving(key)?;
        let served = self.context.served.borrow().clone()?;
        let router = self.router.borrow().clone()?;
        let observed = self.context.caches.observe(&model, &served, router);
        let Plan { shadow, explanation, .. } =
            plan(&observed, served.capabilities, &self.context.settings.defaults);
        let prometheus = explanation?.resolved?.intent.profile.prometheus?;
        let object = shadow?;
        let target = Target::new(&object, prometheus)
            .inspect_err(|error| tracing::debug!(?key, %error, "cannot simulate the settings"))
            .ok()?;
        Some((model, target))
    }

    /// Decides on the values of a round. Returns the model if its state has changed.
    fn end_round(&mut self, key: &Key, answer: Answer) -> Option<Key> {
        let player = self.players.get_mut(key)?;
        let replicas = match answer {
            Answer::Values(values) => player.end(&values)?,
            Answer::Resumed(resumed) => player.resume(resumed.0, resumed.1)?,
        };
        let model = self.context.caches.model_serving(key)?;
        let reported = ShadowState::reported(&model);
        let caches = &self.context.caches;
        caches.shadows.record(key, replicas, Timestamp::now(), reported).then(|| key.clone())
    }
}

/// The oldest models, at most `max`, and the others.
fn oldest(
    mut models: Vec<Arc<ModelServing>>,
    max: usize,
) -> (Vec<Arc<ModelServing>>, Vec<Arc<ModelServing>>) {
    models.sort_by_cached_key(|model| {
        let created = model.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, key(&**model))
    });
    let others = models.split_off(max.min(models.len()));
    (models, others)
}

/// This time for the simulation, in which time begins in 1970.
fn simulated_now() -> Time {
    Time::from_seconds_f64(unix_time())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn observes_the_oldest_models() {
        let model = |name: &str, created: &str| {
            let metadata = json!({"name": name, "namespace": "models", "creationTimestamp": created});
            Arc::new(serde_json::from_value(json!({"metadata": metadata})).unwrap())
        };
        let models = || {
            vec![
                model("young", "2026-03-01T00:00:00Z"),
                model("b", "2026-02-01T00:00:00Z"),
                model("a", "2026-02-01T00:00:00Z"),
                model("old", "2026-01-01T00:00:00Z"),
            ]
        };
        let names = |models: &[Arc<ModelServing>]| -> Vec<String> {
            models.iter().map(|model| model.name().to_owned()).collect()
        };
        let (observed, beyond) = oldest(models(), 2);
        assert_eq!(
            (names(&observed), names(&beyond)),
            (vec!["old".into(), "a".into()], vec!["b".into(), "young".into()])
        );
        assert!(oldest(models(), 9).1.is_empty() && oldest(models(), 0).0.is_empty());
    }
}
