//! What the chart renders from different values, what it refuses, and its alert rules.

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
fn the_chart_has_nothing_for_helm_to_complain_about() {
    let output = helm(&["lint", "--strict", "charts/kthena-keda", "--set", URL]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn what_is_missing_or_misspelt_is_refused_with_what_to_write() {
    let refused = |values: &[&str]| render(values).expect_err("bad values");
    assert!(refused(&[]).contains("--set prometheus.url="));
    assert!(refused(&["prometheus.url=http://prometheus:9090/"]).contains("url"));
    assert!(refused(&[URL, "replica=3"]).contains("replica"));
    assert!(refused(&[URL, "monitors.label.a=b"]).contains("label"));
    assert!(refused(&[URL, "replicas=2", "leaderElection.enabled=false"]).contains("set replicas to 1"));
    assert!(refused(&[URL, "keda.grant.enabled=perhaps"]).contains("enabled"));
}

/// The rules, the Deployment and whatever else differs, for the ways in which the chart is used.
#[test]
fn values_render_as_before() {
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
        // The dashboard and the policy have tests of their own.
        let documents = rendered.split("\n---\n").filter(|document| {
            !document.contains("/dashboard.yaml") && !document.contains("/admissionpolicy.yaml")
        });
        insta::assert_snapshot!(name, documents.collect::<Vec<_>>().join("\n---\n"));
    }
}

#[test]
fn alerts_fire_when_they_should_and_not_otherwise() {
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

/// What is applied by kustomize is one set of objects, each of which kustomize can read.
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
