//! Objects of a tenant who fills every field up to the limits of the API server: a plan stays small.

use rstest::rstest;
use serde_json::{Value, json};

use super::{action, explained};
use crate::{
    domain::{Reason, VerdictReason, printable},
    observed::{LiveModelRoute, LiveModelServer, RouteDigest, ServerDigest, fixture::Fixture, targets},
    plan::diagnose,
};

/// Largest object that etcd stores, in bytes.
const OBJECT_MAX: usize = 3 << 19;

fn many(count: usize, name: impl Fn(usize) -> String) -> String {
    (0..count).map(name).collect::<Vec<_>>().join(",")
}

#[test]
fn keeps_the_scaled_object_of_a_model_with_huge_annotations() {
    let names = format!("{}{}", "a,".repeat(64), many(63_500, |i| i.to_string()));
    for fixture in [
        Fixture::model(&names),
        Fixture::model("m").annotated("signals", &many(43_000, |i| format!("s{i}=1"))),
        Fixture::model("m")
            .annotated("profile", "none")
            .annotated("signals", &"a=1,".repeat(9_000))
            .annotated("paused", "true"),
        Fixture::model("m").annotated(&"n".repeat(60), &"x".repeat(250_000)),
    ] {
        let fixture = fixture.scaled_object(&[]);
        let observed = fixture.observed();
        let kept: usize =
            observed.model_serving.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert!(kept < 1024, "{kept} bytes are kept");
        let (plan, explanation) = explained(&fixture);
        assert_eq!(explanation.verdict.reason, VerdictReason::Problem(Reason::InvalidConfiguration));
        assert!(
            explanation.verdict.message.contains("hold more than 16 KiB"),
            "{}",
            explanation.verdict.message
        );
        assert_eq!(action(&plan.scaled_object), "keep");
    }
}

/// 2,000 short annotations that sort before the opt-in.
fn crowded(prefix: &str) -> Value {
    let crowd = (0..2_000).map(|i| (format!("{prefix}{i:04}"), json!("")));
    crowd.chain([("kthena.io/model-name".to_owned(), json!("llama"))]).collect()
}

#[rstest]
#[case::of_keda("autoscaling.keda.sh/x", None)]
#[case::pauses_of_keda("autoscaling.keda.sh/paused", None)]
#[case::near_misses("kthena.io/model-.", None)]
#[case::of_others("autoscaling.example.com/x", None)]
#[case::own("autoscaling.kthena.io/x", Some(Reason::InvalidConfiguration))]
fn an_opt_in_among_many_annotations_stays(#[case] prefix: &str, #[case] expected: Option<Reason>) {
    let annotations = crowded(prefix);
    let on_itself = Fixture::model("llama").with("/metadata/annotations", &annotations);
    let on_booster = Fixture::opted_out().booster(&annotations);
    for fixture in [on_itself, on_booster] {
        let fixture = fixture.scaled_object(&[]);
        let observed = fixture.observed();
        assert!(observed.model_serving.effective_annotations().len() <= 66, "annotations are bounded");
        let (plan, _) = explained(&fixture);
        assert_eq!(plan.findings.first().map(|finding| finding.reason), expected);
        assert_eq!(action(&plan.scaled_object), if expected.is_some() { "keep" } else { "apply" });
    }
}

#[test]
fn ignores_names_that_no_model_can_have() {
    let route = json!({"metadata": {"name": "r"}, "spec": {
        "modelName": "x".repeat(OBJECT_MAX), "loraAdapters": ["y".repeat(257), "adapter", ""],
    }});
    let route: LiveModelRoute = serde_json::from_value(route).unwrap();
    assert_eq!(RouteDigest::from(&route).names().collect::<Vec<_>>(), ["adapter"]);
}

#[test]
fn keeps_a_bounded_part_of_a_huge_route() {
    let target = |i: usize| json!({"modelServerName": format!("s{i}")});
    let rules: Vec<Value> = vec![json!({"targetModels": (0..20_000).map(target).collect::<Vec<_>>()})];
    let adapters: Vec<String> = (0..50_000).map(|i| i.to_string()).collect();
    let route = json!({"metadata": {"name": "r"}, "spec": {"loraAdapters": adapters, "rules": rules}});
    let digest = RouteDigest::from(&serde_json::from_value::<LiveModelRoute>(route).unwrap());
    assert_eq!((digest.names().count(), digest.servers().count()), (64, 256));
}

#[test]
fn a_selector_with_more_labels_than_are_compared_selects_nothing() {
    let labels = |count: usize| (0..count).map(|i| (format!("l{i:05}"), json!("v"))).collect::<Value>();
    let selects = |count: usize| {
        let fixture = Fixture::model("m").with(
            "/spec/template/roles",
            &json!([{"name": "engine", "entryTemplate": {"metadata": {"labels": labels(100_000)}}}]),
        );
        let observed = fixture.observed();
        let kept = observed.model_serving.spec.template.roles[0].labels.len();
        assert_eq!(kept, 64);
        let server =
            json!({"metadata": {"name": "s"}, "spec": {"workloadSelector": {"matchLabels": labels(count)}}});
        let server = ServerDigest::from(&serde_json::from_value::<LiveModelServer>(server).unwrap());
        server.selects(&observed.model_serving)
    };
    assert_eq!([1, 64, 65, 100_000].map(selects), [true, true, false, false]);
}

#[test]
fn looks_at_a_bounded_number_of_destinations_those_of_its_own_namespace_first() {
    let key = |namespace: &str| (namespace.to_owned(), "r".to_owned());
    let route = |servers: &[String]| {
        let targets: Vec<Value> = servers.iter().map(|name| json!({"modelServerName": name})).collect();
        let route = json!({"metadata": {"name": "r"}, "spec": {"modelName": "m", "rules": [{"targetModels": targets}]}});
        RouteDigest::from(&serde_json::from_value::<LiveModelRoute>(route).unwrap())
    };
    let many: Vec<String> = (0..200).map(|i| format!("a{i:03}")).collect();
    let (foreign, own) = ((key("a-team"), route(&many)), (key("models"), route(&["chat".to_owned()])));
    let targets = targets("models", &["m"], &[(&foreign.0, &foreign.1), (&own.0, &own.1)]);
    assert_eq!((targets.len(), targets.first()), (64, Some(&("models", Some("chat")))));
}

/// Escape sequences, marks of direction and characters without width, and a lot of them.
fn odd_text() -> String {
    format!("\u{1b}]0;pwned\u{7}\u{1b}[2J\u{202e}\u{200b}\r\nlevel=error \u{2028}{}", "é".repeat(40_000))
}

fn odd_fixtures() -> Vec<Fixture> {
    let odd = odd_text();
    let condition = ("Ready", "False", odd.as_str(), odd.as_str());
    let short: String = odd.chars().filter(|c| !c.is_control()).take(100).collect();
    let odd_signals: Vec<String> = (0..32).map(|i| format!("{i}{short}=1")).collect();
    vec![
        Fixture::model(&odd),
        Fixture::model("m").annotated("signals", &format!("{odd}=abc")),
        Fixture::model("m").annotated("signals", &format!("active-requests=1,{short}=x")),
        Fixture::model("m").annotated("signals", &odd_signals.join(",")),
        Fixture::model("m").annotated("profile", &short).annotated("paused", &short),
        Fixture::model("m").annotated(&short, "").annotated("engine", &short),
        Fixture::model(&short).route("other", &["chat"]),
        Fixture::model(&short).route(&format!("{short}x"), &["chat"]).without_prometheus(),
        Fixture::healthy().scaled_object(&[condition]),
        Fixture::healthy().hpa(&[("AbleToScale", "False", odd.as_str(), odd.as_str())]),
        Fixture::healthy().second_writer(&odd),
        Fixture::healthy().rejected(&odd),
        Fixture::healthy().probe_error(&odd),
        Fixture::healthy().with(
            "/metadata/ownerReferences",
            &json!([{"kind": "LeaderWorkerSet", "name": odd, "uid": "u"}]),
        ),
        Fixture::healthy().with("/status/labelSelector", &json!(odd)),
        Fixture::model("m").profile(&json!({"scaleUp": {"select": odd}})),
        Fixture::model("m").profile(&json!({"prometheus": {"url": odd, "headers": {odd.as_str(): odd}}})),
    ]
}

#[test]
fn escapes_and_cuts_text_of_others_in_every_message() {
    for fixture in odd_fixtures() {
        let (plan, explanation) = explained(&fixture);
        let links = diagnose(&fixture.observed(), &plan, &explanation);
        let details = links.into_iter().map(|link| link.detail);
        let findings = plan.findings.iter().chain(&explanation.runtime_findings);
        let texts =
            findings.map(|finding| finding.message.clone()).chain(details).chain(plan.warnings.clone());
        for text in texts.chain([explanation.verdict.message.clone()]) {
            assert_eq!(printable(&text), text, "unescaped");
            assert!(text.len() <= 2000, "{} bytes: {text}", text.len());
        }
        if let VerdictReason::Problem(reason) = explanation.verdict.reason {
            let link = format!("troubleshooting.md#{}", reason.as_str().to_lowercase());
            assert!(explanation.verdict.message.contains(&link), "{}", explanation.verdict.message);
        }
    }
}

#[test]
fn a_claim_from_another_namespace_stops_no_model_that_is_scaled() {
    let claimed = Fixture::model("llama").other_in("a-team", "thief", "llama");
    assert_eq!(explained(&claimed).1.verdict.reason, VerdictReason::Problem(Reason::SharedModelName));
    let scaled = claimed.clone().scaled_object(&[]);
    let (plan, _) = explained(&scaled);
    assert_eq!(action(&plan.scaled_object), "apply");
    assert!(
        plan.warnings.iter().any(|warning| warning.contains("another namespace by a-team/thief")),
        "{:?}",
        plan.warnings
    );
    let local = scaled.other("twin", "llama");
    assert_eq!(explained(&local).1.verdict.reason, VerdictReason::Problem(Reason::SharedModelName));
}
