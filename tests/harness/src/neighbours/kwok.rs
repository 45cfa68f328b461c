//! kwok, a simulated kubelet: pods get an address, load for a while, become ready and are deleted. Pods whose containers
//! really run only get an address.

use std::process::Command;

use kube::Client;
use serde_json::json;

use super::Program;
use crate::{
    certificates::Identity,
    control_plane::{ControlPlane, binary},
    objects::apply,
    process::write,
};

/// The only node. Pods name it in `spec.nodeName`, because there is no scheduler.
pub const NODE: &str = "kwok-0";
/// Pod annotation with the time that the pod loads before it is ready, such as `5s`.
pub const LOADING: &str = "stack.test/loading";

/// Networks of pod addresses, all of which are local in the tests' network namespace (RFC 5737). Two clusters whose
/// containers really run need two.
pub const POD_NETWORKS: [&str; 2] = ["192.0.2.0/24", "198.51.100.0/24"];
const NODE_ADDRESS: &str = "192.0.2.10";

/// Lifecycle of nodes and pods: a node is ready at once, a new pod after its loading time, and a terminating
/// pod is deleted. Pods with [`RUNTIME`](super::vllm::RUNTIME) or a readiness gate run at once and are not ready.
const STAGES: &str = r#"
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: node-ready}
spec:
  resourceRef: {apiGroup: v1, kind: Node}
  selector:
    matchExpressions:
      - {key: .status.phase, operator: NotIn, values: [Running]}
  next:
    statusTemplate: |
      phase: Running
      conditions: [{type: Ready, status: "True", reason: KubeletReady, message: "", lastTransitionTime: {{ Now | Quote }}, lastHeartbeatTime: {{ Now | Quote }}}]
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: ready}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
      - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
      - {key: .status.podIP, operator: DoesNotExist}
      - {key: '.metadata.annotations["stack.test/runtime"]', operator: DoesNotExist}
      - {key: '.spec.readinessGates', operator: DoesNotExist}
  delay:
    durationMilliseconds: 200
    durationFrom: {expressionFrom: '.metadata.annotations["stack.test/loading"]'}
  next:
    statusTemplate: |
      phase: Running
      startTime: {{ Now | Quote }}
      {{ with PodIPsWith .spec.nodeName false .metadata.uid .metadata.name .metadata.namespace }}
      podIP: {{ index . 0 | Quote }}
      podIPs: [{ip: {{ index . 0 | Quote }}}]
      {{ end }}
      conditions:
      {{ range list "Initialized" "ContainersReady" "Ready" }}
      - {type: {{ . }}, status: "True", lastTransitionTime: {{ Now | Quote }}}
      {{ end }}
      containerStatuses:
      {{ range .spec.containers }}
      - {name: {{ .name | Quote }}, image: {{ .image | Quote }}, ready: true, started: true, restartCount: 0, state: {running: {startedAt: {{ Now | Quote }}}}}
      {{ end }}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: gone}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
      - {key: .metadata.deletionTimestamp, operator: Exists}
      - {key: '.metadata.annotations["stack.test/runtime"]', operator: DoesNotExist}
      - {key: '.spec.readinessGates', operator: DoesNotExist}
  next: {delete: true}
"#;

/// Stage of pods whose containers really run, where they have the field `FIELD`: they get an address and are not ready.
const RUNS: &str = r#"---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: NAME}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
      - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
      - {key: .status.podIP, operator: DoesNotExist}
      - {key: 'FIELD', operator: Exists}
  next:
    statusTemplate: |
      phase: Running
      startTime: {{ Now | Quote }}
      {{ with PodIPsWith .spec.nodeName false .metadata.uid .metadata.name .metadata.namespace }}
      podIP: {{ index . 0 | Quote }}
      podIPs: [{ip: {{ index . 0 | Quote }}}]
      {{ end }}
      conditions:
      - {type: Initialized, status: "True", lastTransitionTime: {{ Now | Quote }}}
      {{ range list "ContainersReady" "Ready" }}
      - {type: {{ . }}, status: "False", reason: ContainersNotReady, lastTransitionTime: {{ Now | Quote }}}
      {{ end }}
"#;

/// Names of such stages, and the fields of their pods.
const RUNNING: [(&str, &str); 2] =
    [("running", r#".metadata.annotations["stack.test/runtime"]"#), ("gated", ".spec.readinessGates")];

/// The running kwok.
#[derive(Debug)]
pub struct Kwok {
    /// The program.
    pub program: Program,
}

impl Kwok {
    /// Starts kwok with one node, whose pods have addresses of `pod_network`.
    pub async fn start(control_plane: &ControlPlane, client: &Client, pod_network: &str) -> Self {
        let running = RUNNING.map(|(name, field)| RUNS.replace("NAME", name).replace("FIELD", field));
        let stages = [STAGES].into_iter().chain(running.iter().map(String::as_str)).collect::<String>();
        let stages = write(control_plane.folder.join("stages.yaml"), &stages);
        let kubeconfig = control_plane.kubeconfig(&Identity::Admin);
        let mut command = Command::new(binary("kwok"));
        command
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--config={}", stages.display()))
            .args([
                "--manage-all-nodes",
                &format!("--cidr={pod_network}"),
                &format!("--node-ip={NODE_ADDRESS}"),
            ])
            .arg("--server-address=127.0.0.1:0");
        let program = Program::new("kwok", &control_plane.folder, command);
        let labels = json!({"kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux"});
        apply(
            client,
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "labels": labels}}),
        )
        .await;
        Self { program }
    }
}
