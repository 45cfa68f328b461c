//! The operator itself: the real binary, under the rights that it is shipped with.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::{certificates::Identity, process::Process, wait::until_asked, web};

/// What `explain` says of a model as JSON, and with which exit code, or what it complains about.
pub fn explain(
    binary: &Path,
    kubeconfig: &Path,
    arguments: &[&str],
) -> (Result<serde_json::Value, String>, Option<i32>) {
    let mut command = Command::new(binary);
    command.arg("explain").args(arguments).args(["-o", "json"]).env("KUBECONFIG", kubeconfig);
    let output = command.output().expect("the operator's binary");
    let said = serde_json::from_slice(&output.stdout)
        .map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned());
    (said, output.status.code())
}

/// What a running operator answers at a path of its own port, and with which status.
pub async fn ask(operator: &Process, path: &str) -> (u16, String) {
    let address = async || {
        let log = operator.log();
        log.lines()
            .find(|line| line.contains("serving metrics and probes"))?
            .rsplit_once("address=")
            .map(|(_, address)| address.to_owned())
    };
    let address =
        until_asked("it serves metrics and probes", address, Option::is_some).await.unwrap_or_default();
    until_asked("it answers", async || web::get(&format!("http://{address}{path}")).await, Option::is_some)
        .await
        .unwrap_or_default()
}

/// Who the operator is.
pub const OPERATOR: Identity = Identity::ServiceAccount("kthena-keda", "kthena-keda");

/// How it is started.
#[derive(Clone, Debug)]
pub struct Settings {
    binary: PathBuf,
    arguments: Vec<String>,
}

impl Settings {
    /// The operator with a Prometheus address and quick discovery.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let arguments = [
            "run",
            "--prometheus-url=http://prometheus:9090",
            "--discovery-interval=1",
            "--listen=127.0.0.1:0",
            "--check-interval=1",
            "--log-level=info,kthena_keda=debug",
        ];
        Self { binary: binary.into(), arguments: arguments.map(str::to_owned).to_vec() }
    }

    /// One more argument.
    #[must_use]
    pub fn with(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Without the arguments that start like this.
    #[must_use]
    pub fn without(mut self, argument: &str) -> Self {
        self.arguments.retain(|found| !found.starts_with(argument));
        self
    }

    /// Starts it with this way to the API server.
    pub fn start(&self, folder: &Path, kubeconfig: &Path) -> Process {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let mut command = Command::new(&self.binary);
        command.args(&self.arguments).env("KUBECONFIG", kubeconfig).env_remove("KTHENA_KEDA_PROMETHEUS_URL");
        Process::start(folder, &format!("operator-{}", COUNT.fetch_add(1, Ordering::Relaxed)), &command)
    }
}
