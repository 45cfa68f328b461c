//! GPUs of one ServingGroup.

use serde_json::Value;

/// GPUs that the pods of one ServingGroup are limited to; `None` without any.
///
/// A role has `replicas` entry pods with `workerReplicas` workers each (Kthena
/// `pkg/apis/workload/v1alpha1/model_serving_types.go`).
pub fn gpus_per_group(model_serving: &Value) -> Option<u32> {
    let roles = model_serving.pointer("/spec/template/roles")?.as_array()?;
    let of_role = |role: &Value| {
        let count = |field: &str, default: u64| role.get(field).and_then(Value::as_u64).unwrap_or(default);
        let of_template = |field: &str| role.get(field).map_or(0, gpus_of_pod);
        let workers = count("workerReplicas", 0).saturating_mul(of_template("workerTemplate"));
        count("replicas", 1).saturating_mul(of_template("entryTemplate").saturating_add(workers))
    };
    let total = roles.iter().map(of_role).fold(0, u64::saturating_add);
    u32::try_from(total).ok().filter(|gpus| *gpus > 0)
}

fn gpus_of_pod(template: &Value) -> u64 {
    let containers = template.pointer("/spec/containers").and_then(Value::as_array);
    let limits =
        containers.into_iter().flatten().filter_map(|it| it.pointer("/resources/limits")?.as_object());
    let gpus = limits.flatten().filter(|(name, _)| is_gpu(name)).filter_map(|(_, amount)| number(amount));
    gpus.fold(0, u64::saturating_add)
}

/// `true` for resources such as `nvidia.com/gpu`, `gpu.intel.com/i915`, `huawei.com/Ascend910` and MIG devices.
fn is_gpu(resource: &str) -> bool {
    let name = resource.to_ascii_lowercase();
    ["/gpu", "gpu.", "ascend", "nvidia.com/mig-", "/npu"].iter().any(|part| name.contains(part))
}

fn number(amount: &Value) -> Option<u64> {
    amount.as_u64().or_else(|| amount.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_entries_and_workers_of_all_roles() {
        let pod = |resource: &str, gpus: Value| json!({"spec": {"containers": [{"resources": {"limits": {resource: gpus, "cpu": "4"}}}, {}]}});
        let roles = json!([
            {"replicas": 2, "workerReplicas": 3, "entryTemplate": pod("nvidia.com/gpu", json!("4")), "workerTemplate": pod("nvidia.com/gpu", json!(8))},
            {"entryTemplate": pod("huawei.com/Ascend910", json!("1"))},
        ]);
        assert_eq!(gpus_per_group(&json!({"spec": {"template": {"roles": roles}}})), Some(2 * (4 + 24) + 1));
    }

    #[test]
    fn none_are_not_zero() {
        assert_eq!(
            gpus_per_group(&json!({"spec": {"template": {"roles": [{"entryTemplate": 3}, 4]}}})),
            None
        );
        assert_eq!(gpus_per_group(&json!({})), None);
    }
}
