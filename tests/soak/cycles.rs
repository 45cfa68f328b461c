//! Models that come and go, ten thousand of them, as in months: nothing of them stays.

use std::{collections::BTreeMap, fs, time::Duration};

use futures::{StreamExt as _, stream};
use harness::{Crds, Namespace, Process, Settings, Stack, ask, kinds, wait::until_asked_within};
use kube::api::{DeleteParams, ListParams, PostParams};

const BINARY: &str = env!("CARGO_BIN_EXE_kthena-keda");
/// After so many the process holds whatever it will ever hold.
const BEFORE: usize = 1000;
const CYCLES: usize = 10_000;
/// How many come at a time, and go again once all are there.
const CROWD: usize = 200;

/// What a process holds.
#[derive(Debug)]
struct Held {
    kibibytes: u64,
    files: usize,
    threads: String,
    series: BTreeMap<String, usize>,
    /// Series of requests, one for each kind of answer: more of them come with what the API server happens to say, but not with models.
    answers: usize,
}

impl Held {
    async fn by(operator: &Process) -> Self {
        let pid = operator.pid().expect("a process");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let threads = status.lines().find(|line| line.starts_with("Threads:")).unwrap_or_default().to_owned();
        let (_, metrics) = ask(operator, "/metrics").await;
        let mut series = BTreeMap::new();
        for line in metrics.lines().filter(|line| !line.starts_with('#')) {
            *series.entry(line.split(['{', ' ']).next().unwrap_or_default().to_owned()).or_default() += 1;
        }
        let answers = series.remove("rest_client_requests_total").unwrap_or_default();
        let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").count();
        Self { kibibytes: operator.memory().expect("a process").0, files, threads, series, answers }
    }
}

#[tokio::test]
async fn models_that_came_and_went_leave_nothing() {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let operator = stack.start_operator(&Settings::new(BINARY).without("--log-level"));
    let models = stack.namespace().await;
    come_and_go(&models, BEFORE).await;
    let before = Held::by(&operator).await;
    come_and_go(&models, CYCLES).await;
    let after = Held::by(&operator).await;
    println!("before: {before:?}\nafter:  {after:?}");
    assert_eq!((after.series, after.threads), (before.series, before.threads));
    assert!(
        after.answers <= before.answers + 8,
        "{} series of requests, and {} were",
        after.answers,
        before.answers
    );
    assert!(after.files <= before.files + 2, "{} files are open, and {} were", after.files, before.files);
    // An allocator does not give everything back at once; a few hundred bytes of each model would be as much.
    assert!(
        after.kibibytes <= before.kibibytes + 3 * 1024,
        "{} KiB are held, and {} were",
        after.kibibytes,
        before.kibibytes
    );
}

async fn come_and_go(models: &Namespace, count: usize) {
    for crowd in 0..count / CROWD {
        come(models, crowd).await;
        go(models).await;
    }
}

async fn come(models: &Namespace, crowd: usize) {
    let api = models.api(&kinds::model_serving());
    let create = async |i: usize| {
        let name = format!("chat-{crowd}-{i}");
        let object = models.model_serving(&name).opted_in(&format!("llama-{crowd}-{i}")).object();
        api.create(&PostParams::default(), &object).await.expect("a ModelServing");
    };
    stream::iter(0..CROWD).for_each_concurrent(16, create).await;
    remain(models, CROWD).await;
}

/// Nobody collects garbage here, so that the ScaledObjects are taken away as well.
async fn go(models: &Namespace) {
    for kind in [kinds::model_serving(), kinds::scaled_object()] {
        models
            .api(&kind)
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await
            .expect("they go");
    }
    remain(models, 0).await;
}

async fn remain(models: &Namespace, count: usize) {
    let there = async || {
        models
            .api(&kinds::scaled_object())
            .list_metadata(&ListParams::default())
            .await
            .expect("a list")
            .items
            .len()
    };
    until_asked_within(Duration::from_mins(1), &format!("there are {count} ScaledObjects"), there, |there| {
        *there == count
    })
    .await;
}
