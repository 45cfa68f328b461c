//! Differences between what `explain` plans and what exists in the cluster.

use serde_json::Value;

use kthena_keda_core::{
    api::{keda::ScaledObject, kthena::AutoscalingReady},
    domain::{field_path, shortened},
    observed::{LiveObject as _, LiveScaledObject, desired_spec},
    plan::is_load_reason,
};

/// Most fields in one message.
const MAX_LISTED: usize = 5;

/// Fields in which a ScaledObject differs from the plan, each with both values; empty if there is none.
pub(super) fn differing_fields(live: &LiveScaledObject, planned: &ScaledObject) -> Vec<String> {
    let desired = desired_spec(&planned.spec);
    let difference = live.spec().difference(&desired);
    let fields = difference.changed.iter().chain(&difference.added);
    let differing = fields.map(|pointer| {
        let planned = pointer.strip_prefix("/spec").and_then(|below| desired.pointer(below));
        let name = field_path(pointer);
        format!("{name} is {}, planned {}", text(live.spec().value_at(pointer)), text(planned))
    });
    differing.take(MAX_LISTED).collect()
}

fn text(value: Option<&Value>) -> String {
    value.map_or_else(|| "missing".to_owned(), |value| shortened(&value.to_string()))
}

/// Warning that the ScaledObject differs from the plan; `operator` is a clause about the leader, if it is known.
pub(super) fn differs(fields: &[String], operator: Option<&str>) -> String {
    let operator = operator.unwrap_or("check that the operator runs and leads");
    format!(
        "the ScaledObject differs from the plan: {}; the operator writes it within seconds where it runs and nothing rejects the object: {operator}, and read its condition AutoscalingReady",
        fields.join(", ")
    )
}

/// The condition that the operator wrote, where it has another reason than `explain` finds: it knows its flags and
/// rejections by the API server and webhooks. `Scaling` and `Idle` count as one, since the operator throttles changes between them.
pub(super) fn other_condition(condition: Option<&AutoscalingReady>, planned: &str) -> Option<String> {
    let is_same = |reason: &str| reason == planned || (is_load_reason(reason) && is_load_reason(planned));
    let condition = condition.filter(|condition| !is_same(&condition.reason))?;
    let AutoscalingReady { status, reason, message, .. } = condition;
    let message = message.text().unwrap_or_default();
    Some(format!("the operator's condition AutoscalingReady is {status}, {reason}: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kthena_keda_core::api::kthena::ModelServing;
    use serde_json::json;

    #[rstest::rstest]
    #[case::the_same("Idle", "Idle", false)]
    #[case::load_alone("Scaling", "Idle", false)]
    #[case::a_problem("NameConflict", "Idle", true)]
    #[case::a_problem_that_is_over("Idle", "NameConflict", true)]
    fn reports_a_condition_of_another_reason(
        #[case] planned: &str,
        #[case] written: &str,
        #[case] is_reported: bool,
    ) {
        let model: ModelServing = serde_json::from_value(json!({"status": {"conditions": [{
            "type": "AutoscalingReady", "status": "True", "reason": written, "message": "m",
            "lastTransitionTime": "2026-11-26T05:00:00Z",
        }]}}))
        .unwrap();
        let found = other_condition(model.condition(), planned);
        assert_eq!(found.is_some(), is_reported, "{found:?}");
    }

    #[test]
    fn names_each_differing_field_with_both_values() {
        let target = json!({"apiVersion": "v1", "kind": "K", "name": "chat"});
        let spec = |max: i32| json!({"scaleTargetRef": target, "maxReplicaCount": max, "triggers": []});
        let planned: ScaledObject = serde_json::from_value(json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "chat"}, "spec": spec(20),
        }))
        .unwrap();
        let live = |spec: Value| -> LiveScaledObject {
            serde_json::from_value(json!({"metadata": {"name": "chat"}, "spec": spec})).unwrap()
        };
        assert_eq!(differing_fields(&live(spec(20)), &planned), [""; 0]);
        assert_eq!(differing_fields(&live(spec(10)), &planned), ["spec.maxReplicaCount is 10, planned 20"]);
        let mut more = spec(20);
        more["idleReplicaCount"] = json!(0);
        assert_eq!(differing_fields(&live(more), &planned), ["spec.idleReplicaCount is 0, planned missing"]);
        let warning = differs(&["spec.maxReplicaCount is 10, planned 20".to_owned()], Some("pod-1 leads"));
        assert!(warning.contains("is 10, planned 20") && warning.contains("pod-1 leads"), "{warning}");
    }
}
