//! Leader election: of two processes only the leader writes, even if it is killed, terminated or suspended.

use harness::{
    Crds, Process, Settings, Stack, ask,
    stack::resource,
    wait::{until, until_asked},
};
use kube::{Api, api::DynamicObject};

const BINARY: &str = env!("CARGO_BIN_EXE_kthena-keda");

struct Instances {
    stack: Stack,
    lease_seconds: u32,
}

impl Instances {
    async fn start(lease_seconds: u32) -> Self {
        Self { stack: Stack::start(&[Crds::kthena(), Crds::keda()]).await, lease_seconds }
    }

    fn instance(&self, name: &str) -> Process {
        let settings = Settings::new(BINARY)
            .with("--leader-elect=true")
            .with(&format!("--lease-duration={}", self.lease_seconds))
            .with(&format!("--lease-identity={name}"))
            // No collector listens at this endpoint; that must not delay the operator or its exit.
            .with("--otlp-endpoint=http://127.0.0.1:9");
        self.stack.start_operator(&settings)
    }

    async fn is_led_by(&self, name: &str) {
        let leases: Api<DynamicObject> = Api::namespaced_with(
            self.stack.client().await,
            "kthena-keda",
            &resource("coordination.k8s.io", "v1", "Lease", "leases"),
        );
        let holds = |found: Option<&DynamicObject>| {
            found.is_some_and(|found| found.data["spec"]["holderIdentity"] == name)
        };
        until(&leases, "kthena-keda", &format!("is held by {name}"), holds).await;
    }

    /// Number of writes, without those of the Lease.
    fn writes(&self) -> usize {
        self.stack.writes().iter().filter(|write| write.object_ref.resource != "leases").count()
    }
}

/// Value of a series in the process's metrics.
async fn metric(process: &Process, series: &str) -> Option<String> {
    let (_, text) = ask(process, "/metrics").await;
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned))
}

const LEADER_STATUS: &str = "leader_election_master_status{name=\"kthena-keda\"}";

#[tokio::test]
async fn the_follower_takes_over_from_a_killed_leader() {
    let instances = Instances::start(3).await;
    let first = instances.instance("first");
    instances.is_led_by("first").await;
    let second = instances.instance("second");
    let models = instances.stack.namespace().await;
    let chat = models.model_serving("chat").opts_in().create().await;
    chat.scaled_object().await;
    for (process, is_leader) in [(&first, "1"), (&second, "0")] {
        assert_eq!(metric(process, LEADER_STATUS).await.as_deref(), Some(is_leader));
        assert_eq!(ask(process, "/healthz").await.0, 200);
        until_asked("the process is ready", async || ask(process, "/readyz").await, |(code, _)| *code == 200)
            .await;
    }
    assert_eq!(
        metric(&first, "kthena_keda_models{status=\"Unknown\",reason=\"Pending\"}").await.as_deref(),
        Some("1")
    );
    assert_eq!(instances.writes(), 2, "{:?}", harness::audit::summary(&instances.stack.writes()));
    drop(first);
    instances.is_led_by("second").await;
    models.model_serving("later").opted_in("later").create().await.scaled_object().await;
    assert_eq!(metric(&second, LEADER_STATUS).await.as_deref(), Some("1"));
    assert_eq!(
        instances.writes(),
        4,
        "the new leader rewrote existing objects: {:?}",
        harness::audit::summary(&instances.stack.writes())
    );
}

/// The lease duration is longer than the test.
#[tokio::test]
async fn a_terminated_leader_releases_the_lease_at_once() {
    let instances = Instances::start(3600).await;
    let first = instances.instance("first");
    instances.is_led_by("first").await;
    let second = instances.instance("second");
    until_asked(
        "the second process follows",
        async || metric(&second, LEADER_STATUS).await,
        |leads| leads.as_deref() == Some("0"),
    )
    .await;
    assert!(first.terminate());
    instances.is_led_by("second").await;
    instances.stack.namespace().await.model_serving("chat").opts_in().create().await.scaled_object().await;
    // A follower exits with 0, too, and leaves the lease unchanged.
    let third = instances.instance("third");
    until_asked(
        "the third process follows",
        async || metric(&third, LEADER_STATUS).await,
        |leads| leads.as_deref() == Some("0"),
    )
    .await;
    assert!(third.terminate());
    instances.is_led_by("second").await;
}

#[tokio::test]
async fn a_leader_suspended_beyond_its_lease_writes_nothing_and_exits() {
    let instances = Instances::start(3).await;
    let mut first = instances.instance("first");
    instances.is_led_by("first").await;
    let chat = instances.stack.namespace().await.model_serving("chat").opts_in().create().await;
    chat.scaled_object().await;
    chat.reason("Pending").await;
    first.signal("STOP");
    let second = instances.instance("second");
    instances.is_led_by("second").await;
    // No other process is left, so any write is one of the first.
    drop(second);
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("7"))]).await;
    let before = instances.writes();
    first.signal("CONT");
    let first = std::sync::Mutex::new(first);
    until_asked(
        "the first process exits",
        async || first.lock().unwrap().has_ended(),
        |has_ended| *has_ended,
    )
    .await;
    let first = first.into_inner().unwrap();
    assert!(first.log().contains("lost the leader lease"), "{}", first.log());
    assert_eq!(instances.writes(), before, "{:?}", harness::audit::summary(&instances.stack.writes()));
    let _third = instances.instance("third");
    chat.scaled_object_until("has a maximum of 7", |found| found.data["spec"]["maxReplicaCount"] == 7).await;
}
