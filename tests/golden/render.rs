//! The command `render`, with files and standard input.

use std::process::{Command, Output};

use rstest::rstest;
use serde_json::json;

fn render(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kthena-keda")).arg("render").args(args).env_clear().output().unwrap()
}

fn stdin(manifest: &str, args: &[&str]) -> Output {
    use std::{io::Write, process::Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_kthena-keda"))
        .args(["render", "-"])
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

const PROMETHEUS: &str = "--prometheus-url=http://prometheus:9090";

#[test]
fn one_annotation_renders_a_scaled_object() {
    let output = render(&["config/samples/model-serving.yaml", PROMETHEUS]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    insta::assert_snapshot!(text(&output.stdout));
}

/// The ModelServer supplies the engine and its port, and the output has a PodMonitor.
#[test]
fn engine_signals_render_a_pod_monitor() {
    let output = render(&["config/samples/engine-signals.yaml", PROMETHEUS]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    insta::assert_snapshot!(text(&output.stdout));
}

const ASLEEP: &str = "
apiVersion: workload.serving.volcano.sh/v1alpha1
kind: ModelServing
metadata: {name: chat, namespace: models, uid: u1, annotations: {kthena.io/model-name: llama, autoscaling.kthena.io/profile: sleeping}}
spec: {replicas: 0, template: {roles: [{name: engine}]}}
---
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelServer
metadata: {name: chat, namespace: models}
spec:
  workloadSelector: {matchLabels: {modelserving.volcano.sh/name: chat}}
  workloadPort: {port: 8000}
---
";

/// Without the image the notes name what the operator needs; with it they name the refusals that only a cluster would show
/// otherwise.
#[test]
fn the_image_of_stand_ins_renders_the_pod_and_its_service() {
    let profile = std::fs::read_to_string("config/samples/autoscaling-profile-hold.yaml").unwrap();
    let manifests = format!("{ASLEEP}{profile}");
    let without = stdin(&manifests, &[PROMETHEUS]);
    assert!(
        without.status.success() && !text(&without.stdout).contains("kind: Pod\n"),
        "{}",
        text(&without.stdout)
    );
    assert!(
        text(&without.stderr).contains("this operator makes no stand-in pods"),
        "{}",
        text(&without.stderr)
    );
    let image = "--stand-in-image=ghcr.io/volcano-sh/kthena-keda:1.2.3";
    let with = stdin(&manifests, &[PROMETHEUS, image]);
    assert!(with.status.success(), "{}", text(&with.stderr));
    assert!(text(&with.stderr).contains("are for review; do not apply them"), "{}", text(&with.stderr));
    let stdout = text(&with.stdout);
    insta::assert_snapshot!(&stdout[stdout.find("---\napiVersion: v1").unwrap()..]);
    let refused = stdin(&manifests.replace("workloadPort: {port: 8000}", ""), &[PROMETHEUS, image]);
    let stderr = text(&refused.stderr);
    assert!(stderr.contains("requests at zero are not held: no ModelServer with a workloadPort"), "{stderr}");
    assert!(!text(&refused.stdout).contains("kind: Pod\n"), "{}", text(&refused.stdout));
}

#[rstest]
fn renders_every_sample_without_an_error(
    #[files("config/samples/*.yaml")]
    #[mode = path]
    sample: std::path::PathBuf,
) {
    let output = render(&[sample.to_str().unwrap(), PROMETHEUS]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn reports_a_shared_model_name_unless_routes_separate_the_requests() {
    let canary = std::fs::read_to_string("config/samples/canary.yaml").unwrap();
    let routed = stdin(&canary, &[PROMETHEUS]);
    assert!(
        routed.status.success() && text(&routed.stdout).contains("default/canary"),
        "{}",
        text(&routed.stderr)
    );
    let without_route: Vec<&str> =
        canary.split("---").filter(|document| !document.contains("kind: ModelRoute")).collect();
    let unrouted = stdin(&without_route.join("---"), &[PROMETHEUS]);
    assert_eq!(unrouted.status.code(), Some(1));
    assert_eq!(text(&unrouted.stderr).matches("SharedModelName").count(), 2, "{}", text(&unrouted.stderr));
    assert!(text(&unrouted.stderr).contains("note: no ModelRoute is given"), "{}", text(&unrouted.stderr));
}

#[test]
fn reports_a_route_that_reaches_no_pod() {
    let route = json!({"apiVersion": "networking.serving.volcano.sh/v1alpha1", "kind": "ModelRoute",
        "metadata": {"name": "llama", "namespace": "models"},
        "spec": {"modelName": "llama", "rules": [{"targetModels": [{"modelServerName": "chta"}]}]}});
    let model = json!({"apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing",
        "metadata": {"name": "chat", "namespace": "models", "annotations": {"kthena.io/model-name": "llama"}},
        "spec": {"replicas": 1, "template": {"roles": [{"name": "engine"}]}}});
    let output = stdin(&format!("{model}\n---\n{route}\n"), &[PROMETHEUS]);
    let stderr = text(&output.stderr);
    assert!(output.status.success() && text(&output.stdout).contains("kind: ScaledObject"), "{stderr}");
    let expected = r#"ModelNotSeen: the ModelRoute models/llama sends requests for "llama" to the ModelServer models/chta, which does not exist"#;
    assert!(stderr.contains(expected), "{stderr}");
}

#[test]
fn reports_a_missing_prometheus_url_with_the_remedy() {
    let output = render(&["config/samples/model-serving.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!text(&output.stdout).contains("ScaledObject"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("--prometheus-url"), "{}", text(&output.stderr));
}

#[test]
fn the_sample_profile_equals_the_built_in_defaults() {
    let url = "--prometheus-url=http://prometheus-operated.monitoring.svc:9090";
    let built_in = render(&["config/samples/model-serving.yaml", "config/samples/router-service.yaml", url]);
    let files = ["model-serving", "router-service", "autoscaling-profile"]
        .map(|name| format!("config/samples/{name}.yaml"));
    let profile = render(&files.each_ref().map(String::as_str));
    assert!(profile.status.success(), "{}", text(&profile.stderr));
    assert_eq!(text(&profile.stdout), text(&built_in.stdout));
}

#[rstest]
#[case("{pollingInterval: soon}", "invalid value \"soon\" for spec.pollingInterval: expected a duration")]
#[case("{polling: 1s}", "unknown field spec.polling")]
#[case(
    "{scaleUp: {policies: [{type: Pods, value: 1, period: 1s, perod: 2s}]}}",
    "unknown field spec.scaleUp.policies.perod"
)]
#[case("{replicas: {min: one}}", "invalid type")]
fn reports_an_invalid_profile(#[case] spec: &str, #[case] why: &str) {
    let profile = format!(
        "apiVersion: autoscaling.kthena.io/v1alpha1\nkind: AutoscalingProfile\nmetadata: {{name: default}}\nspec: {spec}\n"
    );
    let output =
        stdin(&format!("{profile}---\n{}", manifest(&[("kthena.io/model-name", "m")])), &[PROMETHEUS]);
    let error = text(&output.stderr);
    assert!(output.status.code() == Some(1) && error.contains(why), "{error}");
}

#[test]
fn the_generated_crds_equal_the_files() {
    let kinds = ["autoscalingprofiles", "modelservingroles"];
    let printed = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_kthena-keda")).arg("crds").args(arguments).output();
        text(&output.unwrap().stdout).to_owned()
    };
    let files =
        kinds.map(|kind| std::fs::read_to_string(format!("crds/autoscaling.kthena.io_{kind}.yaml")).unwrap());
    for (kind, file) in kinds.iter().zip(&files) {
        assert_eq!(printed(&["--only", kind]), *file, "run `make crds`");
    }
    assert_eq!(printed(&[]), files.join("---\n"));
}

fn manifest(annotations: &[(&str, &str)]) -> String {
    let annotations: serde_json::Map<String, serde_json::Value> =
        annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
    serde_json::json!({
        "apiVersion": "workload.serving.volcano.sh/v1alpha1",
        "kind": "ModelServing",
        "metadata": {"name": "chat", "namespace": "models", "uid": "7e1", "annotations": annotations},
        "spec": {"replicas": 2, "template": {"roles": [{"name": "engine"}]}},
    })
    .to_string()
}

#[test]
fn renders_all_annotations_together() {
    let output = stdin(
        &manifest(&[
            ("kthena.io/model-name", "llama \"3\", sql.adapter"),
            ("autoscaling.kthena.io/min-replicas", "0"),
            ("autoscaling.kthena.io/max-replicas", "4"),
            (
                "autoscaling.kthena.io/signals",
                "active-requests=12,queued-requests=2.5,request-rate=3,output-tokens=900",
            ),
            ("autoscaling.kthena.io/paused", "scale-in"),
        ]),
        &[PROMETHEUS],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    insta::assert_snapshot!(text(&output.stdout));
}

#[rstest]
#[case(&[("kthena.io/model-name", "")], "for kthena.io/model-name: expected 1 to 16 model names")]
#[case(&[("kthena.io/model-name", "m"), ("autoscaling.kthena.io/max-replicas", "1")], "")]
#[case(&[("kthena.io/model-name", "m"), ("autoscaling.kthena.io/min-replicas", "11")], "expected an integer <= 10, the profile's spec.replicas.max")]
#[case(&[("kthena.io/model-name", "m"), ("autoscaling.kthena.io/profile", "gold")], "ProfileNotFound")]
#[case(&[("kthena.io/model-name", "m"), ("autoscaling.kthena.io/signals", "kv-cache=0.7")], "engine: missing, and no ModelServer selects")]
#[case(&[("kthena.io/model-name", "m"), ("autoscaling.kthena.io/role", "decode")], "roles are scaled by autoscaling.kthena.io/roles")]
#[case(&[("kthena.io/model-name", "m"), ("autoscaling.kthena.io/target-role", "prefill")], "docs/roles.md")]
#[case(&[("kthena.io/model-name", "m"), ("autoscaling.kthena.io/maxreplicas", "4")], "the most similar one is autoscaling.kthena.io/max-replicas")]
fn reports_invalid_annotations(#[case] annotations: &[(&str, &str)], #[case] why: &str) {
    let output = stdin(&manifest(annotations), &[PROMETHEUS]);
    assert_eq!(output.status.success(), why.is_empty(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
}

/// The API server would reject these manifests, and the watch skips such objects.
#[rstest]
#[case::number(
    "metadata: {name: chat, annotations: {kthena.io/model-name: m, autoscaling.kthena.io/max-replicas: 4}}",
    "invalid value 4 for autoscaling.kthena.io/max-replicas: expected a string; put it in quotes"
)]
#[case::no_name("metadata: {namespace: models}", "metadata.name is missing")]
#[case::no_metadata("metadata: chat", "metadata: invalid type")]
#[case::roles(
    "metadata: {name: chat}\nspec: {template: {roles: {name: engine}}}",
    "spec.template.roles must be a list"
)]
#[case::role(
    "metadata: {name: chat}\nspec: {template: {roles: [engine]}}",
    "spec.template.roles must be a list"
)]
fn reports_a_manifest_of_the_wrong_shape(#[case] fields: &str, #[case] why: &str) {
    let output = stdin(
        &format!("apiVersion: workload.serving.volcano.sh/v1alpha1\nkind: ModelServing\n{fields}\n"),
        &[PROMETHEUS],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
    assert!(!text(&output.stderr).contains("nothing to print"), "{}", text(&output.stderr));
}

#[rstest]
#[case::no_yaml("a: [", "error: -: ")]
#[case::no_object("timestamp,requests", "error: -, document 1: not a Kubernetes object")]
#[case::no_kind("a: {}\n---\nb: {}", "error: -, document 1: not a Kubernetes object")]
fn reports_a_file_without_manifests_in_one_line(#[case] input: &str, #[case] why: &str) {
    let output = stdin(input, &[]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.starts_with(why) && error.lines().count() == 1 && !error.contains("\\n"), "{error}");
}

const BOOSTED: &str = r"
apiVersion: workload.serving.volcano.sh/v1alpha1
kind: ModelServing
metadata:
  name: demo-backend
  namespace: default
  uid: c
  ownerReferences: [{apiVersion: workload.serving.volcano.sh/v1alpha1, kind: ModelBooster, name: demo, uid: b, controller: true}]
spec: {template: {roles: [{name: engine}]}}
";

const BOOSTER: &str = r#"
---
apiVersion: workload.serving.volcano.sh/v1alpha1
kind: ModelBooster
metadata:
  name: demo
  namespace: default
  uid: b
  annotations: {kthena.io/model-name: demo, autoscaling.kthena.io/max-replicas: "4"}
"#;

#[test]
fn renders_a_model_serving_by_the_annotations_of_its_model_booster() {
    let output = stdin(&format!("{BOOSTED}{BOOSTER}"), &[PROMETHEUS]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("maxReplicaCount: 4"), "{}", text(&output.stdout));
}

#[test]
fn notes_a_model_booster_that_is_not_given() {
    let output = stdin(
        &BOOSTED.replace("uid: c", "uid: c\n  annotations: {kthena.io/model-name: demo}"),
        &[PROMETHEUS],
    );
    assert!(text(&output.stdout).contains("kind: ScaledObject"), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains(r#"note: -, document 1: the ModelBooster "demo""#),
        "{}",
        text(&output.stderr)
    );
}

const MISTYPED: &str = "
apiVersion: workload.serving.volcano.sh/v1alpha1
kind: ModelServing
metadata: {name: chat, namespace: models, annotations: {KEY: llama}}
spec: {template: {roles: [{name: engine}]}}
";

#[rstest]
fn a_mistyped_opt_in_is_an_error(
    #[values(
        "kthena.io/modelName",
        "kthena.io/model_name",
        "kthena.io/model",
        "autoscaling.kthena.io/min-replicas",
        "autoscaling.kthena.io/model-name"
    )]
    key: &str,
) {
    let output = stdin(&MISTYPED.replace("KEY", key), &[PROMETHEUS]);
    let expected =
        format!("error: -, document 1: the annotation \"{key}\" has no effect without kthena.io/model-name");
    assert!(!output.status.success() && text(&output.stderr).contains(&expected), "{}", text(&output.stderr));
}

#[test]
fn a_missing_namespace_is_an_error_unless_a_flag_sets_it() {
    let manifest = MISTYPED.replace("KEY", "kthena.io/model-name").replace(" namespace: models,", "");
    let output = stdin(&manifest, &[PROMETHEUS]);
    assert!(
        !output.status.success() && text(&output.stderr).contains("pass --namespace"),
        "{}",
        text(&output.stderr)
    );
    let output = stdin(&manifest, &[PROMETHEUS, "--namespace=team-a"]);
    assert!(
        output.status.success() && text(&output.stdout).contains("namespace: team-a"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn names_of_strangers_cannot_act_on_the_terminal() {
    let manifest = MISTYPED.replace(
        "{KEY: llama}",
        r#"{kthena.io/model-name: m, autoscaling.kthena.io/signals: "\e]0;pwned\a\e[2J\u202e=abc"}"#,
    );
    let output = stdin(&manifest, &[PROMETHEUS]);
    let stderr = text(&output.stderr);
    assert!(stderr.contains(r"\u{1b}[2J") && !stderr.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{stderr}");
}
