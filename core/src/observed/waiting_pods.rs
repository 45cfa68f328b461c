//! Causes for which ServingGroups do not become ready, from the pods of a model.

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use strum::IntoStaticStr;

use super::normalize_message;

/// Cause for which ServingGroups of a model do not become ready.
#[derive(Clone, Debug, PartialEq, Eq, IntoStaticStr)]
pub enum WaitingPods {
    /// The scheduler finds no node for a pod, or waits for more pods of its gang; in its own words.
    Unschedulable(String),
    /// No scheduler has looked at a pod; the name of the scheduler that the pod asks for.
    NoScheduler(String),
    /// The image of a pod cannot be pulled; in the words of the kubelet.
    ImagePull(String),
    /// No pod waits for a node or an image: engines load for long or fail, or pods could not be created.
    NotReady,
}

impl WaitingPods {
    /// The cause that keeps the first of these pods from starting; `None` if none waits for a node or an image. Pods that are younger
    /// than `created_before` are skipped, since a scheduler and a kubelet need a moment.
    pub fn of(pods: &[Pod], created_before: &Time) -> Option<Self> {
        let is_old =
            |pod: &&Pod| pod.metadata.creation_timestamp.as_ref().is_some_and(|at| at < created_before);
        let present = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).filter(is_old);
        let mut causes: Vec<Self> = present.filter_map(Self::of_pod).collect();
        causes.sort_by_key(Self::rank);
        causes.into_iter().next()
    }

    fn of_pod(pod: &Pod) -> Option<Self> {
        let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref());
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let scheduled = conditions.iter().find(|condition| condition.type_ == "PodScheduled");
        match scheduled {
            Some(found) if found.status == "False" => {
                let reason = found.reason.as_deref().unwrap_or("Unschedulable");
                let message = found.message.as_deref().unwrap_or_default();
                Some(Self::Unschedulable(normalize_message(&format!("{reason}: {message}"))))
            }
            None if spec.node_name.is_none() => {
                let name = spec.scheduler_name.as_deref().unwrap_or("default-scheduler");
                Some(Self::NoScheduler(normalize_message(name)))
            }
            _ => image_pull(pod).map(Self::ImagePull),
        }
    }

    const fn rank(&self) -> u8 {
        match self {
            Self::Unschedulable(_) => 0,
            Self::NoScheduler(_) => 1,
            Self::ImagePull(_) => 2,
            Self::NotReady => 3,
        }
    }

    /// The cause as metrics carry it.
    pub fn cause(&self) -> &'static str {
        self.into()
    }

    /// The words of the component that reports the cause, escaped and cut.
    pub fn words(&self) -> Option<&str> {
        match self {
            Self::Unschedulable(text) | Self::NoScheduler(text) | Self::ImagePull(text) => Some(text),
            Self::NotReady => None,
        }
    }
}

/// The kubelet's report of a container whose image cannot be pulled.
fn image_pull(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = [&status.init_container_statuses, &status.container_statuses];
    let waiting = containers.into_iter().flatten().flatten();
    let waiting = waiting.filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    let failed = waiting.filter_map(|found| {
        let reason = found.reason.as_deref().filter(|reason| reason.contains("Image"))?;
        Some(normalize_message(&format!("{reason}: {}", found.message.as_deref().unwrap_or_default())))
    });
    failed.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn pod(spec: &Value, status: &Value) -> Pod {
        let metadata = json!({"name": "chat-0", "creationTimestamp": "2026-01-01T00:00:00Z"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
    }

    fn at(time: &str) -> Time {
        serde_json::from_value(json!(time)).unwrap()
    }

    fn cause(spec: &Value, status: &Value) -> Option<WaitingPods> {
        let mut spec = spec.clone();
        spec["containers"] = json!([]);
        WaitingPods::of(&[pod(&spec, status)], &at("2026-01-01T00:01:00Z"))
    }

    fn conditions(reason: &str, message: &str) -> Value {
        json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": reason, "message": message}]})
    }

    #[test]
    fn repeats_the_words_of_the_scheduler() {
        let found = cause(
            &json!({}),
            &conditions("Unschedulable", "0/5 nodes are available: 5 Insufficient nvidia.com/gpu."),
        );
        let expected = "Unschedulable: …/… nodes are available: … Insufficient nvidia.com/gpu.";
        assert_eq!(found, Some(WaitingPods::Unschedulable(expected.to_owned())));
    }

    #[test]
    fn escapes_and_cuts_foreign_text() {
        let found =
            cause(&json!({}), &conditions("Unschedulable", &format!("\u{1b}[31m{}", "x".repeat(9000))));
        let Some(WaitingPods::Unschedulable(text)) = found else { panic!("{found:?}") };
        assert!(!text.contains('\u{1b}') && text.len() < 1000, "{text}");
    }

    #[rstest]
    #[case::gang(json!({}), conditions("Unschedulable", "pod group is not ready"), Some("Unschedulable"))]
    #[case::gated(json!({}), conditions("SchedulingGated", ""), Some("Unschedulable"))]
    #[case::no_scheduler(json!({"schedulerName": "volcano"}), json!({}), Some("NoScheduler"))]
    #[case::starting(json!({"nodeName": "a"}), json!({}), None)]
    #[case::image(json!({"nodeName": "a"}), json!({"containerStatuses": [waiting("ImagePullBackOff")]}), Some("ImagePull"))]
    #[case::init_image(json!({"nodeName": "a"}), json!({"initContainerStatuses": [waiting("ErrImagePull")]}), Some("ImagePull"))]
    #[case::creating(json!({"nodeName": "a"}), json!({"containerStatuses": [waiting("ContainerCreating")]}), None)]
    fn finds_the_cause(#[case] spec: Value, #[case] status: Value, #[case] expected: Option<&str>) {
        assert_eq!(cause(&spec, &status).map(|found| found.cause()), expected);
    }

    fn waiting(reason: &str) -> Value {
        let state = json!({"waiting": {"reason": reason, "message": "m"}});
        json!({"name": "e", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state})
    }

    #[test]
    fn skips_young_and_deleted_pods() {
        let young = pod(&json!({"containers": []}), &json!({}));
        assert_eq!(WaitingPods::of(std::slice::from_ref(&young), &at("2026-01-01T00:00:00Z")), None);
        let mut deleted = young;
        deleted.metadata.deletion_timestamp = Some(at("2026-01-01T00:00:00Z"));
        assert_eq!(WaitingPods::of(&[deleted], &at("2026-01-01T00:01:00Z")), None);
    }
}
