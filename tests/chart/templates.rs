//! Rendered templates for several sets of values, validation of values, and alert rules.

use std::process::{Command, Output};

use harness::control_plane::binary;

fn helm(arguments: &[&str]) -> Output {
    Command::new(binary("helm")).args(arguments).output().unwrap()
}

fn render(values: &[&str]) -> Result<String, String> {
    let mut arguments = vec!["template", "kthena-keda", "charts/kthena-keda", "--namespace", "kthena-keda"];
    arguments.extend(values.iter().flat_map(|value| ["--set", value]));
    let output = helm(&arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

const URL: &str = "prometheus.url=http://prometheus:9090";

#[test]
fn helm_lint_finds_nothing() {
    let output = helm(&["lint", "--strict", "charts/kthena-keda", "--set", URL]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn rejects_missing_and_misspelled_values_with_a_remedy() {
    let error = |values: &[&str]| render(values).expect_err("invalid values");
    assert!(error(&[]).contains("--set prometheus.url="));
    assert!(error(&["prometheus.url=http://prometheus:9090/"]).contains("url"));
    assert!(error(&[URL, "replica=3"]).contains("replica"));
    assert!(error(&[URL, "monitors.label.a=b"]).contains("label"));
    assert!(error(&[URL, "replicas=2", "leaderElection.enabled=false"]).contains("set replicas to 1"));
    assert!(error(&[URL, "keda.grant.enabled=perhaps"]).contains("enabled"));
}

/// Snapshots of the RBAC rules, the Deployment and all other documents, for typical sets of values.
#[test]
fn values_render_as_in_the_snapshots() {
    let sets: [(&str, &[&str]); 4] = [
        ("default", &[URL]),
        (
            "shard",
            &[
                URL,
                "selector=shard=a",
                "clusterDuties=false",
                "admissionPolicy.enabled=false",
                "keda.grant.enabled=false",
            ],
        ),
        (
            "namespaced",
            &[
                URL,
                "watchNamespaces={team-a,team-b}",
                "monitors.labels.release=prometheus",
                "prometheus.bearerTokenSecret.name=token",
            ],
        ),
        (
            "single",
            &[
                URL,
                "replicas=1",
                "leaderElection.enabled=false",
                "networkPolicy.egress.enabled=true",
                "metrics.serviceMonitor.enabled=true",
                "tracing.endpoint=http://tempo:4318",
            ],
        ),
    ];
    for (name, values) in sets {
        let rendered = render(values).unwrap();
        // The dashboard and the policies have their own tests.
        let separate = ["/dashboard.yaml", "/admissionpolicy.yaml", "/operatorpolicy.yaml"];
        let documents = rendered
            .split("\n---\n")
            .filter(|document| !separate.iter().any(|template| document.contains(template)));
        insta::assert_snapshot!(name, documents.collect::<Vec<_>>().join("\n---\n"));
    }
}

/// Each release has a service account of its own.
#[test]
fn bounds_the_service_account_of_the_release() {
    let policy = |values: &[&str]| {
        let rendered = render(&[&[URL], values].concat()).unwrap();
        let documents =
            rendered.split("\n---\n").filter(|document| document.contains("/operatorpolicy.yaml"));
        documents.map(str::to_owned).collect::<Vec<_>>().join("\n")
    };
    let matched = |account: &str| format!("username == 'system:serviceaccount:kthena-keda:{account}'");
    assert!(policy(&[]).contains(&matched("kthena-keda")));
    assert!(policy(&["serviceAccount.name=scaler"]).contains(&matched("scaler")));
    assert!(policy(&["serviceAccount.create=false"]).contains(&matched("default")));
    assert!(policy(&["fullnameOverride=shard-a"]).contains("name: shard-a-operator"));
    assert_eq!(policy(&["operatorPolicy.enabled=false"]), "");
}

/// The policy for ModelBoosters has its own test in the loop, with Kthena's controllers.
#[test]
fn keeps_the_scale_of_model_boosters_only_on_request() {
    let values = |extra: &'static [&'static str]| -> Vec<&'static str> { [&[URL], extra].concat() };
    assert!(!render(&values(&[])).unwrap().contains("MutatingAdmissionPolicy"));
    let account = "modelBooster.controller.serviceAccount.namespace=serving";
    let mut arguments = vec!["template", "kthena-keda", "charts/kthena-keda", "--kube-version=1.36.0"];
    arguments.extend(["--set", URL, "--set", "modelBooster.keepScaling=true", "--set", account]);
    let rendered = String::from_utf8(helm(&arguments).stdout).unwrap();
    assert!(rendered.contains("'system:serviceaccount:serving:kthena-controller-manager'"), "{rendered}");
    arguments[3] = "--kube-version=1.35.0";
    assert!(!String::from_utf8(helm(&arguments).stdout).unwrap().contains("MutatingAdmissionPolicy"));
}

#[test]
fn alerts_fire_as_specified() {
    for arguments in [
        ["check", "rules", "charts/kthena-keda/alerts/kthena-keda.yaml"],
        ["test", "rules", "charts/kthena-keda/alerts/kthena-keda_test.yaml"],
    ] {
        let output = Command::new(binary("promtool")).args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Kustomize builds each folder, and its output has the expected kinds.
#[test]
fn kustomize_builds_what_the_chart_installs() {
    for (folder, kinds) in [
        ("config", &["kind: Deployment", "kind: CustomResourceDefinition"][..]),
        ("config/monitoring", &["kind: ServiceMonitor", "kind: PrometheusRule"]),
    ] {
        let output = Command::new(binary("kubectl")).args(["kustomize", folder]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && kinds.iter().all(|kind| text.contains(kind)),
            "{folder}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
