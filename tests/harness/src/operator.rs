//! The operator's real binary, with the permissions of its release.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::{certificates::Identity, process::Process, wait::until_asked, web};

/// Runs `explain -o json`. Returns its JSON, or standard error if the output is no JSON, and the exit code.
pub fn explain(
    binary: &Path,
    kubeconfig: &Path,
    arguments: &[&str],
) -> (Result<serde_json::Value, String>, Option<i32>) {
    let mut command = Command::new(binary);
    command.arg("explain").args(arguments).args(["-o", "json"]).env("KUBECONFIG", kubeconfig);
    let output = command.output().expect("the operator's binary");
    let report = serde_json::from_slice(&output.stdout)
        .map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned());
    (report, output.status.code())
}

/// Sends a GET request to the operator's metrics and probe server; returns status and body.
pub async fn ask(operator: &Process, path: &str) -> (u16, String) {
    let address = async || {
        let log = operator.log();
        log.lines()
            .find(|line| line.contains("serving metrics and probes"))?
            .rsplit_once("address=")
            .map(|(_, address)| address.to_owned())
    };
    let address =
        until_asked("the operator logs its address", address, Option::is_some).await.unwrap_or_default();
    until_asked(
        "the operator responds",
        async || web::get(&format!("http://{address}{path}")).await,
        Option::is_some,
    )
    .await
    .unwrap_or_default()
}

/// Service account of the operator.
pub const OPERATOR: Identity = Identity::ServiceAccount("kthena-keda", "kthena-keda");

/// Binary and arguments of the operator.
#[derive(Clone, Debug)]
pub struct Settings {
    binary: PathBuf,
    arguments: Vec<String>,
}

impl Settings {
    /// Arguments with a Prometheus address, short intervals and debug logs.
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

    /// Adds an argument.
    #[must_use]
    pub fn with(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Removes the arguments that start with `argument`.
    #[must_use]
    pub fn without(mut self, argument: &str) -> Self {
        self.arguments.retain(|found| !found.starts_with(argument));
        self
    }

    /// Starts the operator with a kubeconfig; its log is written to `folder`.
    pub fn start(&self, folder: &Path, kubeconfig: &Path) -> Process {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let mut command = Command::new(&self.binary);
        command.args(&self.arguments).env("KUBECONFIG", kubeconfig).env_remove("KTHENA_KEDA_PROMETHEUS_URL");
        Process::start(folder, &format!("operator-{}", COUNT.fetch_add(1, Ordering::Relaxed)), &command)
    }
}
