//! Shows in a terminal what one annotation gives: a real control plane, the operator, and what a user would type.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::expect_used, clippy::indexing_slicing, reason = "it talks to a person")]

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use harness::{Crds, Identity, Settings, Stack, control_plane::binary, kinds, stack::root, wait};
use kube::{Api, Client, api::DynamicObject};

const SAMPLE: &str = "config/samples/model-serving.yaml";
const ROUTER: &str = "config/samples/router-service.yaml";

#[tokio::main]
async fn main() -> ExitCode {
    // Whatever goes wrong is said in one line, with where the logs are.
    std::panic::set_hook(Box::new(|panic| eprintln!("\nthe demo stopped: {}", panic.payload_as_str().unwrap_or("unknown"))));
    let Some(operator) = std::env::args_os().nth(1) else {
        eprintln!("usage: demo OPERATOR-BINARY");
        return ExitCode::from(2);
    };
    match tokio::spawn(show(PathBuf::from(operator))).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn show(operator: PathBuf) {
    say("Starting etcd and kube-apiserver, with the definitions of Kthena, KEDA and the Prometheus Operator.");
    let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let client = stack.client().await;
    let shell = Shell { kubectl: binary("kubectl"), kubeconfig: stack.control_plane.kubeconfig(&Identity::Admin) };
    let wait = Wait { client };

    say("Starting kthena-keda under the rights in config/rbac.yaml.");
    let _operator = stack.start_operator(&Settings::new(operator));

    say("The router's Service, as Kthena's chart makes it, and a ModelServing with one annotation.");
    shell.kubectl(&["apply", "--server-side", "-f", ROUTER]);
    shell.kubectl(&["apply", "--server-side", "-f", SAMPLE]);

    say("KEDA's ScaledObject is there.");
    wait.for_scaled_object("exists", |found| found.is_some()).await;
    shell.kubectl(&["get", "scaledobjects"]);
    shell.kubectl(&["get", "scaledobject", "chat", "-o", "yaml"]);

    say("Prometheus scrapes the router, once for all models.");
    let monitors: Api<DynamicObject> = Api::namespaced_with(wait.client.clone(), "kthena-system", &kinds::service_monitor());
    wait::until(&monitors, "kthena-keda-router", "exists", |found| found.is_some()).await;
    shell.kubectl(&["get", "servicemonitor", "kthena-keda-router", "-n", "kthena-system", "-o", "yaml"]);

    say("The HPA will find one pod per ServingGroup by the selector that the scale subresource now has.");
    shell.kubectl(&["get", "modelserving", "chat", "-o", "jsonpath={.status.labelSelector}{\"\\n\"}"]);
    shell.kubectl(&["get", "modelserving", "chat", "--subresource=scale"]);

    say("An annotation changes: at most four ServingGroups.");
    shell.kubectl(&["annotate", "modelserving", "chat", "autoscaling.kthena.io/max-replicas=4"]);
    wait.for_scaled_object("has a maximum of 4", |found| found.is_some_and(|found| found.data["spec"]["maxReplicaCount"] == 4)).await;
    shell.kubectl(&["get", "scaledobjects"]);

    say("A typo tears nothing down and does not pass silently.");
    shell.kubectl(&["annotate", "modelserving", "chat", "autoscaling.kthena.io/min-replica=2"]);
    shell.kubectl(&[
        "wait",
        "modelserving",
        "chat",
        "--for=jsonpath={.status.conditions[?(@.type==\"AutoscalingReady\")].reason}=InvalidConfiguration",
    ]);
    shell.kubectl(&[
        "get",
        "modelserving",
        "chat",
        "-o",
        "jsonpath={.status.conditions[?(@.type==\"AutoscalingReady\")].message}{\"\\n\"}",
    ]);
    shell.kubectl(&["annotate", "modelserving", "chat", "autoscaling.kthena.io/min-replica-"]);

    say("Opting out takes away what was generated; the model runs on as it is.");
    shell.kubectl(&["annotate", "modelserving", "chat", "kthena.io/model-name-"]);
    wait.for_scaled_object("is gone", |found| found.is_none()).await;
    wait::until(&monitors, "kthena-keda-router", "is gone", |found| found.is_none()).await;
    shell.kubectl(&["get", "scaledobjects,servicemonitors", "-A"]);
    shell.kubectl(&["get", "modelservings"]);
    say("Done. `make playground` leaves all of this running for you to try.");
}

fn say(text: &str) {
    if std::io::stdout().is_terminal() { println!("\n\x1b[1m{text}\x1b[0m") } else { println!("\n# {text}") }
}

struct Wait {
    client: Client,
}

impl Wait {
    async fn for_scaled_object(&self, what: &str, done: impl Fn(Option<&DynamicObject>) -> bool) {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), "default", &kinds::scaled_object());
        wait::until(&api, "chat", &format!("'s ScaledObject {what}"), done).await;
    }
}

struct Shell {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
}

impl Shell {
    /// Shows a command and what it answers.
    fn kubectl(&self, arguments: &[&str]) {
        println!("\n$ kubectl {}", arguments.iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(" "));
        let status = self.command(&self.kubectl, arguments).status().expect("kubectl starts");
        assert!(status.success(), "kubectl {} failed: {status}", arguments.join(" "));
    }

    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig).current_dir(root());
        command
    }
}

/// As somebody would type it.
fn quoted(argument: &str) -> String {
    let plain = argument.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=:,".contains(c));
    if plain { argument.to_owned() } else { format!("'{argument}'") }
}
