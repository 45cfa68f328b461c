//! The composition root: builds every task and joins them. Any task that ends ends the process.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{FutureExt as _, StreamExt as _, stream};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        reflector::{self, ObjectRef},
        watcher,
    },
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::sleep,
};

use crate::{
    api::{kthena::ModelServing, profile::AutoscalingProfile},
    cluster::{
        self, Error,
        capabilities::{self, Served},
        events,
    },
    controllers::{
        Context,
        model_serving::{self, Memory},
        profile, router_monitor, signals_check,
    },
    observed::{
        LiveBinding, LiveHpa, LiveModelRoute, LiveModelServer, LivePodMonitor, LivePolicy, LiveScaledObject, LiveServiceMonitor, Stores,
    },
    plan::{pod_monitor_name, scaled_object_name},
    process::{
        backoff::Failures,
        follow::{Change, follow},
        gate::{self, Gate},
    },
    prometheus::{Asker, Prometheus},
    settings::{RunSettings, Settings},
};

/// How long what was begun may take to finish once the process is told to end; Kubernetes kills it after 30 s.
const DRAIN: Duration = Duration::from_secs(7);

/// Runs the controller manager until `stop` is done.
///
/// # Errors
/// When there is no way to a cluster. Everything else is survived.
pub async fn run(settings: Settings, run_settings: RunSettings, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
    let prometheus = Asker::Direct(Prometheus::new(run_settings.access)?);
    let client = cluster::connect().await?;
    let (reader, writer) = reflector::store::<ModelServing>();
    let stores = Arc::new(Stores::new(reader));
    let (served_tx, served) = watch::channel(None);
    let (series_tx, series) = watch::channel(None);
    let rediscover = Arc::new(Notify::new());
    let gate = |is_open: fn(Served) -> bool| Gate::new(served.clone(), move |served: &Option<Served>| served.is_some_and(is_open));
    let (wake, woken) = mpsc::unbounded_channel();
    let singletons = Arc::new(Singletons::default());
    let wake = Wake { stores: stores.clone(), models: wake, singletons: singletons.clone() };

    let (events, teller) = events::events();
    let context = Context {
        client: client.clone(),
        settings: settings.clone(),
        served: served.clone(),
        rediscover: rediscover.clone(),
        stores: stores.clone(),
    };
    let models = Arc::new(model_serving::Models {
        context: context.clone(),
        router: series.clone(),
        failures: Failures::default(),
        memory: Memory::default(),
        writes_conditions: run_settings.write_conditions,
        events,
    });
    let changes = gate::watch(Api::<ModelServing>::all(client.clone()), gate(|served| served.model_servings)).reflect(writer);
    // Behind the reflector, so that whoever is woken finds the change in the store. A list comes in pages, of which the store shows
    // nothing before the last: then all are looked at again.
    let on_change = wake.clone();
    let mut listed = BTreeSet::new();
    let changes = changes.inspect(move |event| {
        singletons.wake();
        let Ok(event) = event else { return };
        for change in on_change.stores.peers.take(event, &mut listed) {
            on_change.singletons.checks.notify_one();
            on_change.peers(&change);
        }
        if matches!(event, watcher::Event::InitDone) {
            on_change.models(&Change::All);
        }
    });
    let changes = changes.touched_objects();
    let woken = stream::unfold(woken, |mut woken| async { woken.recv().await.map(|object| (object, woken)) });
    let (stopping_tx, stopping) = watch::channel(false);

    let router = |_: Change| wake.singletons.router.notify_one();
    let profile = |change: Change| {
        wake.singletons.wake();
        wake.singletons.checks.notify_one();
        wake.users(&change);
    };
    let services = Api::<Service>::namespaced(client.clone(), &settings.router_namespace);
    let service_monitors = Api::<LiveServiceMonitor>::all(client.clone());
    let pod_monitors = Api::<LivePodMonitor>::all(client.clone());
    let scaled_objects = Api::<LiveScaledObject>::all(client.clone());
    let profiles = Api::<AutoscalingProfile>::all(client.clone());
    let model_routes = Api::<LiveModelRoute>::all(client.clone());
    let model_servers = Api::<LiveModelServer>::all(client.clone());
    let hpas = Api::<LiveHpa>::all(client.clone());
    let policies = Api::<LivePolicy>::all(client.clone());
    let bindings = Api::<LiveBinding>::all(client.clone());
    let network = |_: Change| wake.opted_in();
    let autoscaler = |change: Change| wake.scaled(&change);
    let pod_monitor = |change: Change| {
        wake.singletons.router.notify_one();
        wake.models(&change);
    };
    tokio::select! {
        () = model_serving::run(changes, woken, told(stopping), models) => tracing::info!("stopped"),
        () = router_monitor::run(context.clone(), series_tx, &wake.singletons.router) => {}
        () = profile::run(context.clone(), &wake.singletons.profiles) => {}
        () = signals_check::run(context, series.clone(), prometheus, run_settings.check, &wake.singletons.checks, || wake.opted_in()) => {}
        () = teller.run(client.clone()) => {}
        () = capabilities::follow(client, run_settings.discovery, &rediscover, &served_tx) => {}
        () = follow(services, gate(|_| true), &stores.services, router) => {}
        () = follow(service_monitors, gate(|served| served.service_monitors), &stores.service_monitors, router) => {}
        () = follow(pod_monitors, gate(|served| served.plan.pod_monitors), &stores.pod_monitors, pod_monitor) => {}
        () = follow(scaled_objects, gate(|served| served.plan.keda.is_some()), &stores.scaled_objects, autoscaler) => {}
        () = follow(hpas, gate(|_| true), &stores.hpas, autoscaler) => {}
        () = follow(policies, gate(|served| served.policies.policies), &stores.policies, network) => {}
        () = follow(bindings, gate(|served| served.policies.bindings), &stores.bindings, network) => {}
        () = follow(model_routes, gate(|served| served.network.routes), &stores.routes, network) => {}
        () = follow(model_servers, gate(|served| served.network.servers), &stores.servers, network) => {}
        () = follow(profiles, gate(|served| served.profiles), &stores.profiles, profile) => {}
        () = replan(served.clone(), series, &wake) => {}
        () = drain(stop, &stopping_tx, &stores) => {}
    }
    Ok(())
}

/// What there is once for all models, and is looked at again when something that it depends on changes.
#[derive(Default)]
struct Singletons {
    router: Notify,
    profiles: Notify,
    checks: Notify,
}

impl Singletons {
    fn wake(&self) {
        self.router.notify_one();
        self.profiles.notify_one();
    }
}

/// Has objects looked at again.
#[derive(Clone)]
struct Wake {
    stores: Arc<Stores>,
    models: mpsc::UnboundedSender<ObjectRef<ModelServing>>,
    singletons: Arc<Singletons>,
}

impl Wake {
    /// The models of which something that is generated changed.
    fn models(&self, change: &Change) {
        let is_named = |object: &ModelServing, name: &String| scaled_object_name(object) == *name || pod_monitor_name(object) == *name;
        self.those(|object| match change {
            Change::All => true,
            Change::One((namespace, name)) => object.namespace().as_ref() == Some(namespace) && is_named(object, name),
        });
    }

    /// The models that a ScaledObject or HPA scales or scaled, whoever's it is.
    fn scaled(&self, change: &Change) {
        self.those(|object| match change {
            Change::All => true,
            Change::One(key) => self.stores.is_scaled_by(object, key),
        });
    }

    /// The models that a change of a ModelServing concerns, itself aside.
    fn peers(&self, change: &Change) {
        match change {
            Change::All => self.opted_in(),
            Change::One(key) => self.those(|object| object.is_opted_in() && self.stores.are_related(object, key)),
        }
    }

    /// Every model: who serves whose names may have changed.
    fn opted_in(&self) {
        self.those(ModelServing::is_opted_in);
    }

    /// The models that use a profile.
    fn users(&self, change: &Change) {
        self.those(|object| match change {
            Change::All => true,
            Change::One((_, name)) => object.profile() == *name,
        });
    }

    fn those(&self, concerned: impl Fn(&ModelServing) -> bool) {
        // Nobody listens any more only when the process is ending.
        self.stores.model_servings.state_filter(concerned).iter().for_each(|object| drop(self.models.send(ObjectRef::from_obj(&**object))));
    }
}

/// Plans everything again when the cluster serves something else, or the router's series are found elsewhere.
async fn replan<S, R>(mut served: watch::Receiver<S>, mut series: watch::Receiver<R>, wake: &Wake) {
    loop {
        let changed = tokio::select! {
            changed = served.changed() => changed,
            changed = series.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        wake.singletons.wake();
        wake.singletons.checks.notify_one();
        wake.models(&Change::All);
    }
}

async fn told(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Ends a while after `stop` is done, whatever is still under way.
async fn drain(stop: impl Future<Output = ()>, stopping: &watch::Sender<bool>, stores: &Stores) {
    stop.await;
    stopping.send_replace(true);
    // A controller that has not seen its first list has begun nothing, and does not end by itself.
    if stores.model_servings.wait_until_ready().now_or_never().is_none() {
        tracing::info!("stopped");
        return;
    }
    sleep(DRAIN).await;
    tracing::warn!("stopped; something that was begun did not finish in time");
}
