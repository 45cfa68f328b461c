//! The command line as a user types it.

use std::process::{Command, Output};

use rstest::rstest;

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
fn one_annotation_gives_a_scaled_object() {
    let output = render(&["config/samples/model-serving.yaml", PROMETHEUS]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    insta::assert_snapshot!(text(&output.stdout));
}

#[test]
fn without_a_prometheus_there_is_no_scaled_object_but_the_cure() {
    let output = render(&["config/samples/model-serving.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!text(&output.stdout).contains("ScaledObject"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("--prometheus-url"), "{}", text(&output.stderr));
}

#[test]
fn the_sample_profile_is_what_is_built_in() {
    let sample = ["config/samples/model-serving.yaml", "config/samples/router-service.yaml"];
    let url = "--prometheus-url=http://prometheus-operated.monitoring.svc:9090";
    let (built_in, profile) = (
        render(&[sample[0], sample[1], url]),
        render(&[sample[0], sample[1], "--default-profile=config/samples/autoscaling-profile.yaml"]),
    );
    assert!(profile.status.success(), "{}", text(&profile.stderr));
    assert_eq!(text(&profile.stdout), text(&built_in.stdout));
}

#[test]
fn a_profile_that_is_wrong_is_named_by_file_and_field() {
    let folder = std::env::temp_dir().join(format!("kthena-keda-profile-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("bad.yaml");
    let head = "apiVersion: autoscaling.kthena.io/v1alpha1\nkind: AutoscalingProfile\n";
    for (spec, why) in
        [("spec: {pollingInterval: soon}", "pollingInterval"), ("spec: {polling: 1s}", "unknown field"), ("speck: {}", "spec")]
    {
        std::fs::write(&file, format!("{head}{spec}\n")).unwrap();
        let output = render(&["config/samples/model-serving.yaml", &format!("--default-profile={}", file.display())]);
        let error = text(&output.stderr);
        assert!(output.status.code() == Some(1) && error.contains("bad.yaml: ") && error.contains(why), "{error}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

fn manifest(annotations: &[(&str, &str)]) -> String {
    let annotations: serde_json::Map<String, serde_json::Value> = annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
    serde_json::json!({
        "apiVersion": "workload.serving.volcano.sh/v1alpha1",
        "kind": "ModelServing",
        "metadata": {"name": "chat", "namespace": "models", "uid": "7e1", "annotations": annotations},
        "spec": {"replicas": 2, "template": {"roles": [{"name": "engine"}]}},
    })
    .to_string()
}

#[test]
fn all_annotations_together() {
    let output = stdin(
        &manifest(&[
            ("kthena.io/model-name", "llama \"3\", sql.adapter"),
            ("autoscaling.kthena.io/min-replicas", "0"),
            ("autoscaling.kthena.io/max-replicas", "4"),
            ("autoscaling.kthena.io/signals", "active-requests=12,queued-requests=2.5,request-rate=3,output-tokens=900"),
            ("autoscaling.kthena.io/paused", "scale-in"),
        ]),
        &[PROMETHEUS],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    insta::assert_snapshot!(text(&output.stdout));
}

#[rstest]
#[case(&[("kthena.io/model-name", "")], "a model name is empty")]
#[case(&[("kthena.io/model-name", "m"), ("autoscaling.kthena.io/max-replicas", "1")], "")]
#[case(&[("kthena.io/model-name", "m"), ("autoscaling.kthena.io/min-replicas", "11")], "min-replicas 11 is greater than max-replicas 10")]
#[case(&[("kthena.io/model-name", "m"), ("autoscaling.kthena.io/profile", "gold")], "ProfileNotFound")]
#[case(&[("kthena.io/model-name", "m"), ("autoscaling.kthena.io/maxreplicas", "4")], "did you mean autoscaling.kthena.io/max-replicas?")]
fn bad_annotations_are_named(#[case] annotations: &[(&str, &str)], #[case] why: &str) {
    let output = stdin(&manifest(annotations), &[PROMETHEUS]);
    assert_eq!(output.status.success(), why.is_empty(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
}

#[test]
fn a_file_that_is_no_yaml_is_named() {
    let output = stdin("a: [", &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("error: -: "), "{}", text(&output.stderr));
}
