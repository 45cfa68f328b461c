//! The composition root: builds every task and joins them. Any task that ends ends the process.

use std::sync::Arc;

use futures::stream;
use kube::{
    Api, ResourceExt as _,
    runtime::{WatchStreamExt as _, reflector},
};
use tokio::sync::{Notify, mpsc, watch};

use crate::{
    api::kthena::ModelServing,
    cluster::{self, Error, capabilities},
    controllers::model_serving,
    observed::LiveScaledObject,
    plan::scaled_object_name,
    process::{
        backoff::Failures,
        follow::{self, Change, Digests},
        gate::{self, Gate},
    },
    settings::{Intervals, Settings},
    signals::{RouterSeries, ScrapeSource},
};

/// Runs the controller manager until `stop` is done.
///
/// # Errors
/// When there is no way to a cluster. Everything else is survived.
pub async fn run(settings: Settings, intervals: Intervals, stop: impl Future<Output = ()> + Send + Sync + 'static) -> Result<(), Error> {
    let client = cluster::connect().await?;
    let (served_tx, served) = watch::channel(None);
    let rediscover = Arc::new(Notify::new());
    let scaled_objects = Arc::new(Digests::default());
    let (reader, writer) = reflector::store::<ModelServing>();
    let router = RouterSeries { namespace: settings.router_namespace.clone(), source: ScrapeSource::Service("kthena-router".to_owned()) };
    let (_router_tx, router) = watch::channel(Some(router));
    let context = Arc::new(model_serving::Context {
        client: client.clone(),
        settings,
        served: served.clone(),
        rediscover: rediscover.clone(),
        scaled_objects: scaled_objects.clone(),
        router,
        failures: Failures::default(),
    });

    let (wake, woken) = mpsc::unbounded_channel();
    let woken = stream::unfold(woken, |mut woken| async { woken.recv().await.map(|object| (object, woken)) });
    let wake_all = || reader.state().iter().for_each(|object| drop(wake.send(reflector::ObjectRef::from_obj(&**object))));
    let wake_one = |change| match change {
        Change::All => wake_all(),
        Change::One((namespace, name)) => reader
            .state()
            .iter()
            .filter(|object| object.namespace().as_deref() == Some(&namespace) && scaled_object_name(object) == name)
            .for_each(|object| drop(wake.send(reflector::ObjectRef::from_obj(&**object)))),
    };

    let api: Api<ModelServing> = Api::all(client.clone());
    let model_servings = Gate::new(served.clone(), |served| served.is_some_and(|served| served.model_servings));
    let changes = gate::watch(api, model_servings).reflect(writer).touched_objects();
    let controller = model_serving::run(changes, reader.clone(), woken, stop, context);

    let mut woken_by_discovery = served.clone();
    let replan = async {
        while woken_by_discovery.changed().await.is_ok() {
            wake_all();
        }
    };
    let keda = Gate::new(served, |served| served.is_some_and(|served| served.plan.keda.is_some()));
    tokio::select! {
        () = controller => tracing::info!("stopped"),
        () = capabilities::follow(client.clone(), intervals.discovery, &rediscover, &served_tx) => {}
        () = follow::follow(Api::<LiveScaledObject>::all(client.clone()), keda, &scaled_objects, wake_one) => {}
        () = replan => {}
    }
    Ok(())
}
