//! The process under test, at an address of its own.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
};

use harness::{Process, chain::can_run, wait::until_asked, web};

use super::client::PORT;

/// Name of the engines.
const ENGINES: &str = "engines.models.svc";

/// Mounts the hosts file and no name server, in a mount namespace of its own.
const MOUNT_HOSTS: &str =
    r#"mount --bind "$1" /etc/hosts && mount --bind /dev/null /etc/resolv.conf && shift && exec "$@""#;

/// A running stand-in.
pub struct StandIn {
    pub process: Process,
    pub address: IpAddr,
    hosts: PathBuf,
}

/// An address that no other test has.
pub fn address() -> IpAddr {
    static LAST: AtomicU8 = AtomicU8::new(20);
    IpAddr::from([192, 0, 2, LAST.fetch_add(1, Ordering::Relaxed)])
}

impl StandIn {
    /// Starts a stand-in of the model `chat` without ready engines; `None` where it cannot run.
    pub async fn start(arguments: &[&str]) -> Option<Self> {
        if !can_run() {
            return None;
        }
        let address = address();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hold-{address}"));
        fs::create_dir_all(&folder).unwrap();
        let hosts = folder.join("hosts");
        fs::write(&hosts, "").unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["-m", "--propagation", "private", "sh", "-c", MOUNT_HOSTS, "sh"])
            .arg(&hosts)
            .arg(env!("CARGO_BIN_EXE_kthena-keda"))
            .args(["hold", "--model=chat"])
            .args([format!("--port={PORT}"), format!("--engines={ENGINES}"), format!("--address={address}")])
            .args(arguments)
            .env("KTHENA_KEDA_HOLD_KEEP_ALIVE_AFTER", "1s");
        let process = Process::start(&folder, "hold", &command);
        let stand_in = Self { process, address, hosts };
        let ready = async || web::get(&stand_in.probe_url("readyz")).await;
        until_asked("the stand-in is ready", ready, |found| found.as_ref().is_some_and(|(s, _)| *s == 200))
            .await;
        Some(stand_in)
    }

    fn probe_url(&self, path: &str) -> String {
        format!("http://{}:8081/{path}", self.address)
    }

    /// Sets the ready engines.
    pub fn engines(&self, ready: &[IpAddr]) {
        let lines: Vec<String> = ready.iter().map(|address| format!("{address} {ENGINES}\n")).collect();
        fs::write(&self.hosts, lines.concat()).unwrap();
    }

    /// Value of a metric; zero without such a series.
    pub async fn metric(&self, series: &str) -> u64 {
        let (_, text) = web::get(&self.probe_url("metrics")).await.expect("metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{series} ")));
        line.map_or(0, |value| value.parse().expect("a number"))
    }

    /// Waits until this number of requests is held.
    pub async fn holds(&self, requests: u64) {
        let held = async || self.metric("kthena_keda_hold_requests").await;
        until_asked(&format!("{requests} requests are held"), held, |held| *held == requests).await;
    }
}
