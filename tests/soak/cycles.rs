//! Ten thousand models created and deleted, as over months: memory, files, threads and metric series do not
//! grow.

use std::{collections::BTreeMap, fs, time::Duration};

use futures::{StreamExt as _, stream};
use harness::{Crds, Namespace, Process, Settings, Stack, ask, kinds, wait::until_asked_within};
use kube::api::{DeleteParams, ListParams, PostParams};

const BINARY: &str = env!("CARGO_BIN_EXE_kthena-keda");
/// Models before the first measurement, after which the process has reached its steady state.
const WARM_UP: usize = 1000;
const CYCLES: usize = 10_000;
/// Models that are created together, and deleted once all have a ScaledObject.
const BATCH: usize = 200;

/// Resources of a process.
#[derive(Debug)]
struct Resources {
    kibibytes: u64,
    files: usize,
    threads: String,
    series: BTreeMap<String, usize>,
    /// Series of `rest_client_requests_total`, one for each kind of response: their number depends on the
    /// responses of the API server, not on models.
    request_series: usize,
}

impl Resources {
    async fn of(operator: &Process) -> Self {
        let pid = operator.pid().expect("a process");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let threads = status.lines().find(|line| line.starts_with("Threads:")).unwrap_or_default().to_owned();
        let (_, metrics) = ask(operator, "/metrics").await;
        let mut series = BTreeMap::new();
        for line in metrics.lines().filter(|line| !line.starts_with('#')) {
            *series.entry(line.split(['{', ' ']).next().unwrap_or_default().to_owned()).or_default() += 1;
        }
        let request_series = series.remove("rest_client_requests_total").unwrap_or_default();
        let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").count();
        Self { kibibytes: operator.memory().expect("a process").0, files, threads, series, request_series }
    }
}

#[tokio::test]
async fn deleted_models_leave_no_resources_behind() {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let operator = stack.start_operator(&Settings::new(BINARY).without("--log-level"));
    let models = stack.namespace().await;
    create_and_delete(&models, WARM_UP).await;
    let before = Resources::of(&operator).await;
    create_and_delete(&models, CYCLES).await;
    let after = Resources::of(&operator).await;
    println!("before: {before:?}\nafter:  {after:?}");
    assert_eq!((after.series, after.threads), (before.series, before.threads));
    assert!(
        after.request_series <= before.request_series + 8,
        "{} series of requests, {} before",
        after.request_series,
        before.request_series
    );
    assert!(after.files <= before.files + 2, "{} open files, {} before", after.files, before.files);
    // The allocator does not return all memory at once. A leak of a few hundred bytes per model would exceed
    // this.
    assert!(
        after.kibibytes <= before.kibibytes + 3 * 1024,
        "{} KiB of memory, {} before",
        after.kibibytes,
        before.kibibytes
    );
}

async fn create_and_delete(models: &Namespace, count: usize) {
    for batch in 0..count / BATCH {
        create(models, batch).await;
        delete(models).await;
    }
}

async fn create(models: &Namespace, batch: usize) {
    let api = models.api(&kinds::model_serving());
    let create_one = async |i: usize| {
        let name = format!("chat-{batch}-{i}");
        let object = models.model_serving(&name).opted_in(&format!("llama-{batch}-{i}")).object();
        api.create(&PostParams::default(), &object).await.expect("a ModelServing");
    };
    stream::iter(0..BATCH).for_each_concurrent(16, create_one).await;
    has_scaled_objects(models, BATCH).await;
}

/// Deletes all ModelServings, and all ScaledObjects, because the stack has no garbage collector.
async fn delete(models: &Namespace) {
    for kind in [kinds::model_serving(), kinds::scaled_object()] {
        models
            .api(&kind)
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await
            .expect("a deletion");
    }
    has_scaled_objects(models, 0).await;
}

async fn has_scaled_objects(models: &Namespace, count: usize) {
    let number = async || {
        models
            .api(&kinds::scaled_object())
            .list_metadata(&ListParams::default())
            .await
            .expect("a list")
            .items
            .len()
    };
    until_asked_within(Duration::from_mins(1), &format!("{count} ScaledObjects exist"), number, |number| {
        *number == count
    })
    .await;
}
