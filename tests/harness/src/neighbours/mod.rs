//! The real components around the operator, one file each. Each can be stopped and started again on the same
//! ports.

mod controller_manager;
mod dns;
mod keda;
mod kthena;
mod kubelet;
mod kwok;
mod prometheus;
pub mod vllm;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

pub use controller_manager::ControllerManager;
pub use dns::Dns;
pub use keda::Keda;
pub use kthena::{Kthena, MAX_WAITING, Router, RouterSettings};
pub use kubelet::{Kubelet, STAND_IN};
pub(crate) use kubelet::{MOCK, bind};
pub use kwok::{Kwok, LOADING, NODE, POD_NETWORKS};
pub use prometheus::{Bare, Guarded, Prometheus, PrometheusSettings};

pub use vllm::Vllm;

use crate::{control_plane::built, process::Process};

/// A program that can be stopped and started again with the same command.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    folder: PathBuf,
    command: Command,
    process: Option<Process>,
    starts: usize,
}

impl Program {
    pub(crate) fn new(name: &'static str, folder: &Path, command: Command) -> Self {
        let mut program = Self { name, folder: folder.to_owned(), command, process: None, starts: 0 };
        program.start();
        program
    }

    /// Starts the program unless it is running.
    pub fn start(&mut self) {
        if self.process.is_none() {
            self.process =
                Some(Process::start(&self.folder, &format!("{}-{}", self.name, self.starts), &self.command));
            self.starts += 1;
        }
    }

    /// Kills the program.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Sends a signal by name. After `STOP` the program accepts connections and does not respond.
    pub fn signal(&mut self, signal: &str) {
        if let Some(process) = &mut self.process {
            process.signal(signal);
        }
    }

    /// CPU time of the running process; zero while it is stopped.
    pub fn cpu(&self) -> Duration {
        self.process.as_ref().and_then(Process::cpu).unwrap_or_default()
    }

    /// Log of the running process; empty while it is stopped.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }
}

/// Path below the folder of the components' released manifests.
pub(crate) fn manifests(path: &str) -> PathBuf {
    built().join("manifests").join(path)
}
