//! The stand-in pod and its Service, as the operator creates them.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, HTTPGetAction, Pod, PodCondition, PodReadinessGate,
        PodSecurityContext, PodSpec, PodStatus, Probe, ResourceRequirements, SeccompProfile, SecurityContext,
        Service, ServicePort, ServiceSpec, Sysctl,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, Time},
        util::intstr::IntOrString,
    },
    jiff::Timestamp,
};

use super::{super::owner, Endpoint};
use crate::{
    api::{
        kthena::ModelServing,
        metadata::{MANAGED_BY, OPERATOR},
        stand_in::{IS_STAND_IN, SPEC_HASH, STAND_IN, TAKES_REQUESTS},
    },
    domain::{Hold, names::fnv1a},
};

/// User and group of the image.
const USER: i64 = 65532;
/// Port of health and metrics, unless an engine has it.
const PROBE_PORT: u16 = 8081;
/// Name of that port, by which a PodMonitor selects it.
const PROBE_PORT_NAME: &str = "metrics";
/// Memory of a stand-in without the bodies that it holds, in MiB: connections and buffers of so many requests.
const BASE_MEMORY: i32 = 64;
const BASE_REQUESTS: i32 = 1_000;
/// Requests whose connections and buffers take one more MiB.
const REQUESTS_PER_MEBIBYTE: i32 = 32;
/// Without it, cluster-autoscaler does not remove a node that has a pod of a controller that it does not know.
const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";
/// Ports below need a permission of the kernel that only root has by default.
const UNPRIVILEGED: u16 = 1024;

/// Settings of a stand-in.
pub(super) struct Content<'a> {
    pub(super) model_serving: &'a ModelServing,
    pub(super) endpoint: &'a Endpoint,
    pub(super) hold: Hold,
    pub(super) image: &'a str,
}

/// The pod. It is never changed, only replaced: nearly all of its spec is immutable, and the API server sets half of it.
pub(super) fn pod(content: &Content<'_>) -> Pod {
    let spec = spec(content);
    // These types have no maps with keys other than strings, so serialization to JSON cannot fail.
    let hash = fnv1a(&serde_json::to_vec(&spec).unwrap_or_default());
    let mut labels = content.endpoint.labels.clone();
    labels.extend(own_labels());
    let annotations = BTreeMap::from([
        (SPEC_HASH.to_owned(), format!("{hash:016x}")),
        (SAFE_TO_EVICT.to_owned(), "true".to_owned()),
    ]);
    let metadata = metadata(content.model_serving, labels);
    Pod {
        metadata: ObjectMeta { annotations: Some(annotations), ..metadata },
        spec: Some(spec),
        status: None,
    }
}

/// The Service, whose name resolves to the addresses of the engines that are ready.
pub(super) fn service(content: &Content<'_>) -> Service {
    let port = |port: &u16| ServicePort {
        name: Some(format!("http-{port}")),
        port: i32::from(*port),
        target_port: Some(IntOrString::Int(i32::from(*port))),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    };
    Service {
        metadata: metadata(content.model_serving, own_labels()),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            selector: Some(content.endpoint.engines.clone()),
            ports: Some(content.endpoint.ports.iter().map(port).collect()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn own_labels() -> BTreeMap<String, String> {
    [(STAND_IN, IS_STAND_IN), (MANAGED_BY, OPERATOR)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn metadata(model_serving: &ModelServing, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(model_serving.stand_in_name()),
        namespace: model_serving.metadata.namespace.clone(),
        labels: Some(labels),
        owner_references: owner(model_serving).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn spec(content: &Content<'_>) -> PodSpec {
    let ports = &content.endpoint.ports;
    let needs_sysctl = ports.iter().any(|port| *port < UNPRIVILEGED);
    let sysctl = Sysctl { name: "net.ipv4.ip_unprivileged_port_start".to_owned(), value: "0".to_owned() };
    PodSpec {
        containers: vec![container(content)],
        readiness_gates: Some(vec![PodReadinessGate { condition_type: TAKES_REQUESTS.to_owned() }]),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        // Requests that were handed over have as long to end as a request may be held.
        termination_grace_period_seconds: Some(content.hold.timeout.into()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            sysctls: needs_sysctl.then(|| vec![sysctl]),
            ..PodSecurityContext::default()
        }),
        ..PodSpec::default()
    }
}

fn container(content: &Content<'_>) -> Container {
    let probe_port = probe_port(content.endpoint);
    let further = (content.hold.max_requests - BASE_REQUESTS).max(0) / REQUESTS_PER_MEBIBYTE;
    let memory = BASE_MEMORY + further + content.hold.max_bodies.mebibytes();
    let port = |name: Option<&str>, port: u16| ContainerPort {
        name: name.map(str::to_owned),
        container_port: port.into(),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let ports = content.endpoint.ports.iter().map(|engine| port(None, *engine));
    Container {
        name: "stand-in".to_owned(),
        image: Some(content.image.to_owned()),
        args: Some(args(content, probe_port)),
        ports: Some(ports.chain([port(Some(PROBE_PORT_NAME), probe_port)]).collect()),
        liveness_probe: Some(probe("/healthz", probe_port, 10)),
        readiness_probe: Some(probe("/readyz", probe_port, 1)),
        resources: Some(ResourceRequirements {
            requests: Some(quantities("5m", "16Mi")),
            limits: Some(quantities("1", &format!("{memory}Mi"))),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn args(Content { model_serving, endpoint, hold, .. }: &Content<'_>, probe_port: u16) -> Vec<String> {
    let namespace = model_serving.metadata.namespace.as_deref().unwrap_or_default();
    let Hold { timeout, max_requests, max_body, max_bodies, keep_alive_after } = hold;
    let ports = endpoint.ports.iter().map(|port| format!("--port={port}"));
    // The kubelet expands $(NAME) in arguments, and $$ is a dollar sign.
    let models = endpoint.models.iter().map(|model| format!("--model={}", model.replace('$', "$$")));
    let settings = [
        format!("--engines={}.{namespace}.svc", model_serving.stand_in_name()),
        format!("--timeout={timeout}s"),
        format!("--max-requests={max_requests}"),
        format!("--max-body={max_body}"),
        format!("--max-bodies={max_bodies}"),
        format!("--keep-alive-after={keep_alive_after}s"),
        format!("--probe-port={probe_port}"),
    ];
    ["hold".to_owned()].into_iter().chain(ports).chain(settings).chain(models).collect()
}

/// Status of the pod with this uid in which only the condition of its readiness gate is set.
pub fn readiness_gate(uid: &str, is_open: bool, now: Timestamp) -> Pod {
    let (status, reason) =
        if is_open { ("True", "NoReadyServingGroup") } else { ("False", "ServingGroupsReady") };
    let condition = PodCondition {
        type_: TAKES_REQUESTS.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    };
    Pod {
        metadata: ObjectMeta { uid: Some(uid.to_owned()), ..ObjectMeta::default() },
        status: Some(PodStatus { conditions: Some(vec![condition]), ..PodStatus::default() }),
        spec: None,
    }
}

/// The first port that no engine has.
fn probe_port(endpoint: &Endpoint) -> u16 {
    (PROBE_PORT..=u16::MAX).find(|port| !endpoint.ports.contains(port)).unwrap_or(PROBE_PORT)
}

fn probe(path: &str, port: u16, period: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(port.into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(3),
        ..Probe::default()
    }
}

fn quantities(cpu: &str, memory: &str) -> BTreeMap<String, Quantity> {
    [("cpu", cpu), ("memory", memory)]
        .map(|(resource, quantity)| (resource.to_owned(), Quantity(quantity.to_owned())))
        .into()
}
