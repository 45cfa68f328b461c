//! CoreDNS with the names of the cluster's Services.

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
};

use tokio::net::TcpStream;

use super::Program;
use crate::{
    certificates::Identity,
    control_plane::{ControlPlane, binary},
    process::write,
    wait::until_asked,
};

/// A running CoreDNS.
#[derive(Debug)]
pub struct Dns {
    /// The program.
    pub program: Program,
    address: String,
    folder: PathBuf,
}

impl Dns {
    /// Starts it on port 53, which `/etc/resolv.conf` cannot change, of a loopback address of its own. Only the tests' network
    /// namespace permits that port.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn start(control_plane: &ControlPlane) -> Self {
        static COUNT: AtomicU8 = AtomicU8::new(1);
        let address = format!("127.53.0.{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let kubeconfig = control_plane.kubeconfig(&Identity::Admin);
        let corefile = format!(
            ".:53 {{\n  bind {address}\n  errors\n  kubernetes cluster.local {{\n    kubeconfig {}\n  }}\n}}\n",
            kubeconfig.display()
        );
        let corefile = write(control_plane.folder.join("Corefile"), corefile);
        let mut command = Command::new(binary("coredns"));
        command.arg("-conf").arg(corefile);
        let program = Program::new("coredns", &control_plane.folder, command);
        let connect = async || {
            TcpStream::connect((address.as_str(), 53)).await.map(drop).map_err(|error| error.to_string())
        };
        until_asked("CoreDNS listens", connect, Result::is_ok).await.expect("a listener");
        Self { program, address, folder: control_plane.folder.clone() }
    }

    /// The `/etc/resolv.conf` that a kubelet gives the pods of a namespace.
    pub fn resolv_conf(&self, namespace: &str) -> PathBuf {
        let Self { address, folder, .. } = self;
        let content = format!(
            "search {namespace}.svc.cluster.local svc.cluster.local cluster.local\nnameserver {address}\noptions ndots:5\n"
        );
        write(folder.join(format!("{namespace}.resolv.conf")), content)
    }
}
