//! Of two instances one writes: real processes, one of which is killed, told to end, or held up.

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
            // Nobody takes the traces, which holds nothing up, the end of the process least of all.
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

    /// What was written besides the Lease.
    fn writes(&self) -> usize {
        self.stack.writes().iter().filter(|write| write.object_ref.resource != "leases").count()
    }
}

/// The value of a series in what it shows.
async fn shows(process: &Process, series: &str) -> Option<String> {
    let (_, text) = ask(process, "/metrics").await;
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned))
}

const LEADS: &str = "leader_election_master_status{name=\"kthena-keda\"}";

#[tokio::test]
async fn one_leads_and_the_other_takes_over_when_it_is_killed() {
    let instances = Instances::start(3).await;
    let first = instances.instance("first");
    instances.is_led_by("first").await;
    let second = instances.instance("second");
    let models = instances.stack.namespace().await;
    let chat = models.model_serving("chat").opts_in().create().await;
    chat.scaled_object().await;
    for (process, leads) in [(&first, "1"), (&second, "0")] {
        assert_eq!(shows(process, LEADS).await.as_deref(), Some(leads));
        assert_eq!(ask(process, "/healthz").await.0, 200);
        until_asked("it is ready", async || ask(process, "/readyz").await, |(code, _)| *code == 200).await;
    }
    assert_eq!(
        shows(&first, "kthena_keda_models{status=\"Unknown\",reason=\"Pending\"}").await.as_deref(),
        Some("1")
    );
    assert_eq!(instances.writes(), 2, "{:?}", harness::audit::summary(&instances.stack.writes()));
    drop(first);
    instances.is_led_by("second").await;
    models.model_serving("later").opted_in("later").create().await.scaled_object().await;
    assert_eq!(shows(&second, LEADS).await.as_deref(), Some("1"));
    assert_eq!(
        instances.writes(),
        4,
        "what was there is not written again: {:?}",
        harness::audit::summary(&instances.stack.writes())
    );
}

/// With a lease that nobody could wait for.
#[tokio::test]
async fn one_that_leaves_in_order_hands_over_at_once() {
    let instances = Instances::start(3600).await;
    let first = instances.instance("first");
    instances.is_led_by("first").await;
    let second = instances.instance("second");
    until_asked(
        "the second waits",
        async || shows(&second, LEADS).await,
        |leads| leads.as_deref() == Some("0"),
    )
    .await;
    assert!(first.terminate());
    instances.is_led_by("second").await;
    instances.stack.namespace().await.model_serving("chat").opts_in().create().await.scaled_object().await;
    // One that waits ends in order, too, and takes nothing with it.
    let third = instances.instance("third");
    until_asked(
        "the third waits",
        async || shows(&third, LEADS).await,
        |leads| leads.as_deref() == Some("0"),
    )
    .await;
    assert!(third.terminate());
    instances.is_led_by("second").await;
}

#[tokio::test]
async fn one_that_was_held_up_beyond_its_time_writes_nothing_and_ends() {
    let instances = Instances::start(3).await;
    let mut first = instances.instance("first");
    instances.is_led_by("first").await;
    let chat = instances.stack.namespace().await.model_serving("chat").opts_in().create().await;
    chat.scaled_object().await;
    chat.reason("Pending").await;
    first.signal("STOP");
    let second = instances.instance("second");
    instances.is_led_by("second").await;
    // Nobody is left who could do the work: if the first one did it, that would show.
    drop(second);
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("7"))]).await;
    let before = instances.writes();
    first.signal("CONT");
    let first = std::sync::Mutex::new(first);
    until_asked("the first one ends", async || first.lock().unwrap().has_ended(), |has_ended| *has_ended)
        .await;
    let first = first.into_inner().unwrap();
    assert!(first.log().contains("lost the leader lease"), "{}", first.log());
    assert_eq!(instances.writes(), before, "{:?}", harness::audit::summary(&instances.stack.writes()));
    let _third = instances.instance("third");
    chat.scaled_object_until("has a maximum of 7", |found| found.data["spec"]["maxReplicaCount"] == 7).await;
}
