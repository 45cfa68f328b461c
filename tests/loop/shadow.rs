//! Dry runs beside the real autoscalers.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use harness::{
    Chain, ChainSettings, Identity, Model, ask, chain::can_run, stack::resource, wait::until_asked,
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::shared::{BINARY, SETTLED, chain};

const SHADOW: &str = "autoscaling.kthena.io/shadow";

/// Speeds by which each step of the load takes several decisions in both directions.
const PACED: &str = "
apiVersion: autoscaling.kthena.io/v1alpha1
kind: AutoscalingProfile
metadata: {name: paced}
spec:
  pollingInterval: 2s
  scaleUp: {policies: [{type: Pods, value: 2, period: 8s}]}
  scaleDown: {stabilizationWindow: 12s, policies: [{type: Pods, value: 1, period: 6s}]}
";

/// A window that keeps the number long after the load has gone.
const PATIENT: &str = "
apiVersion: autoscaling.kthena.io/v1alpha1
kind: AutoscalingProfile
metadata: {name: patient}
spec:
  scaleUp: {policies: [{type: Pods, value: 100, period: 1s}]}
  scaleDown: {stabilizationWindow: 3m, policies: [{type: Percent, value: 100, period: 1s}]}
";

/// Greatest difference of the times for which both hold a number. Each decision comes up to a sync later, a policy that misses a sync acts a
/// period later, and a number between a rise and a fall is held for longer or shorter by all the delays of the rise.
const DIFFERENCE: Duration = Duration::from_secs(14);

/// The number that a model in shadow would hold.
async fn would_hold(chain: &Chain, model: &Model) -> Option<i64> {
    let namespace = &model.serving.namespace.name;
    let series = format!("kthena_keda_shadow_replicas{{namespace=\"{namespace}\",model_serving=\"chat\"}} ");
    let (_, metrics) = ask(chain.operator.as_ref()?, "/metrics").await;
    metrics.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok())
}

async fn would_come_to_hold(chain: &Chain, model: &Model, count: i64) {
    let what = format!("{} would hold {count} ServingGroups", model.name);
    until_asked(&what, async || would_hold(chain, model).await, |found| *found == Some(count)).await;
}

async fn in_shadow(chain: &Chain, name: &str, profile: Option<&str>) -> Model {
    chain
        .model_with(name, |builder| {
            let builder = builder.annotated(SHADOW, "true");
            match profile {
                Some(profile) => builder.annotated("autoscaling.kthena.io/profile", profile),
                None => builder,
            }
        })
        .await
}

async fn replicas(model: &Model) -> i64 {
    model.serving.get().await.data["spec"]["replicas"].as_i64().unwrap()
}

/// Two models with the same load and settings: KEDA and the HPA scale one, and the other is in shadow.
#[tokio::test]
async fn would_hold_what_the_real_autoscaler_holds() {
    let Some(chain) = chain().await else { return };
    chain.apply_profile(PACED).await;
    let paced =
        |builder: harness::ModelServingBuilder| builder.annotated("autoscaling.kthena.io/profile", "paced");
    let real = chain.model_with("twin-real", paced).await;
    let twin = in_shadow(chain, "twin-in-shadow", Some("paced")).await;
    real.serves(chain).await;
    twin.serves(chain).await;
    real.keda_says("Ready", "True").await;
    real.hpa().await;
    would_come_to_hold(chain, &twin, 1).await;
    let loads = [chain.load(&real), chain.load(&twin)];
    let start = Instant::now();
    let (mut held, mut simulated) = (Vec::new(), Vec::new());
    for (seconds, load) in [(30, 57), (40, 23), (30, 95), (75, 0)] {
        for it in &loads {
            it.hold(load);
        }
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            let (real, twin) = tokio::join!(replicas(&real), would_hold(chain, &twin));
            held.push((start.elapsed(), real));
            simulated.push((start.elapsed(), twin.unwrap()));
            sleep(Duration::from_millis(500)).await;
        }
    }
    assert_eq!(replicas(&twin).await, 1, "a model in shadow is not scaled");
    let (held, simulated) = (course(&held), course(&simulated));
    eprintln!("real {held:?}\nshadow {simulated:?}");
    let numbers = |course: &[(i64, Duration)]| course.iter().map(|(number, _)| *number).collect::<Vec<_>>();
    assert!(held.len() > 8, "the load has to move the number: {held:?}");
    assert_eq!(numbers(&simulated), numbers(&held), "the same numbers, one after the other");
    // The last number is held until the end of the test.
    for (own, theirs) in held.iter().zip(&simulated).rev().skip(1) {
        assert!(own.1.abs_diff(theirs.1) <= DIFFERENCE, "held {own:?}, simulated {theirs:?}");
    }
}

/// The numbers, one after the other, and the time for which each was held.
fn course(samples: &[(Duration, i64)]) -> Vec<(i64, Duration)> {
    let mut course: Vec<(i64, Duration)> = Vec::new();
    let mut since = Duration::ZERO;
    for (at, number) in samples {
        match course.last_mut() {
            Some((last, time)) if last == number => *time = at.abs_diff(since),
            _ => {
                since = *at;
                course.push((*number, Duration::ZERO));
            }
        }
    }
    course
}

/// The HPA of another user keeps its minimum, since its metric has no value.
#[tokio::test]
async fn runs_beside_another_hpa() {
    let Some(chain) = chain().await else { return };
    let chat = in_shadow(chain, "beside-an-hpa", None).await;
    let models = &chat.serving.namespace;
    let kind = resource("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers");
    let target =
        json!({"apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing", "name": "chat"});
    let metric = json!({"type": "External", "external": {"metric": {"name": "theirs"}, "target": {"type": "AverageValue", "averageValue": "1"}}});
    let spec = json!({"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 3, "metrics": [metric]});
    models.create(&kind, json!({"metadata": {"name": "theirs"}, "spec": spec})).await;
    chat.has_replicas(2).await;
    let load = chain.load(&chat);
    load.hold(47);
    would_come_to_hold(chain, &chat, 5).await;
    chat.keeps_replicas(2, SETTLED).await;
    load.hold(0);
    would_come_to_hold(chain, &chat, 1).await;
    chat.keeps_replicas(2, SETTLED).await;
    let note = format!("HorizontalPodAutoscaler {}/theirs scales it now", models.name);
    chat.serving.says("Shadow", &note).await;
}

/// Kthena's own autoscaler counts the requests that run in the engines, and so both come to the same number; each by its own data.
#[tokio::test]
async fn compares_with_an_autoscaling_policy() {
    let Some(chain) = chain().await else { return };
    let chat = in_shadow(chain, "beside-a-metric", None).await;
    let models = &chat.serving.namespace;
    let kind =
        resource("workload.serving.volcano.sh", "v1alpha1", "AutoscalingPolicy", "autoscalingpolicies");
    chat.serves(chain).await;
    let source = json!({"pod": {"name": "vllm:num_requests_running", "port": chain.engine.port}});
    let target =
        json!({"targetRef": {"kind": "ModelServing", "name": "chat"}, "metricSources": {"running": source}});
    let scaled = json!({"target": target, "minReplicas": 1, "maxReplicas": 8});
    let spec = json!({"metrics": [{"name": "running", "targetValue": "10"}], "homogeneousTarget": scaled});
    models.create(&kind, json!({"metadata": {"name": "theirs"}, "spec": spec})).await;
    let load = chain.load(&chat);
    load.hold(47);
    would_come_to_hold(chain, &chat, 5).await;
    chat.wants_replicas_within(Duration::from_mins(2), 5).await;
    let shown = shown(chain, &chat);
    assert_eq!((&shown["holds"], &shown["wouldHold"]), (&json!(5), &json!(5)), "{shown}");
    let note = format!("AutoscalingPolicy {}/theirs scales it now", models.name);
    chat.serving.says("Shadow", &note).await;
}

/// Output of the command for one model.
fn shown(chain: &Chain, model: &Model) -> Value {
    let kubeconfig = chain.stack.control_plane.kubeconfig(&Identity::Admin);
    let output = Command::new(Path::new(BINARY))
        .args([
            "shadow",
            &format!("{}/chat", model.serving.namespace.name),
            "-o",
            "json",
            "--hpa-sync-period=2",
        ])
        .arg(format!("--prometheus-url={}", chain.prometheus.url))
        .env("KUBECONFIG", kubeconfig)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    rows[0].clone()
}

/// The values of the last minutes keep the number up, and a restart does not forget them.
#[tokio::test]
async fn continues_after_a_restart() {
    if !can_run() {
        return;
    }
    let mut chain = Chain::start(&ChainSettings::quick(BINARY)).await;
    chain.apply_profile(PATIENT).await;
    let chat = in_shadow(&chain, "restarted", Some("patient")).await;
    chat.serves(&chain).await;
    let load = chain.load(&chat);
    load.hold(47);
    would_come_to_hold(&chain, &chat, 5).await;
    // A peak that only one decision sees may lie between the steps that are read back.
    sleep(SETTLED).await;
    load.hold(0);
    chain
        .prometheus
        .until(
            "sum(kthena_router_active_downstream_requests{model=\"restarted\"}) or on () vector(0)",
            |value| value == Some(0.0),
        )
        .await;
    sleep(SETTLED).await;
    assert_eq!(would_hold(&chain, &chat).await, Some(5), "the window of three minutes");
    let held = chat.serving.reason("Shadow").await;
    chain.operator = None;
    chain.start_operator();
    let first = until_asked(
        "the operator has decided again",
        async || would_hold(&chain, &chat).await,
        Option::is_some,
    )
    .await;
    assert_eq!(first, Some(5));
    sleep(SETTLED).await;
    assert_eq!(would_hold(&chain, &chat).await, Some(5));
    assert_eq!(chat.serving.reason("Shadow").await, held, "the condition is not rewritten");
    let row = shown(&chain, &chat);
    assert_eq!(
        (&row["holds"], &row["wouldHold"], &row["decision"]),
        (&json!(1), &json!(5), &json!("ScaleDownStabilized")),
        "{row}"
    );
}
