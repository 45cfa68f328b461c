//! `completion`: shell completion scripts.

use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::{Shell, generate};

use super::print;

#[derive(Args)]
pub(super) struct Completion {
    /// Shell to complete in.
    #[arg(value_enum)]
    shell: Shell,
    /// Name by which the program is called.
    #[arg(long, default_value = "kthena-keda")]
    name: String,
}

impl Completion {
    pub(super) fn run(&self, mut cli: Command) -> ExitCode {
        let mut script = Vec::new();
        generate(self.shell, &mut cli, &self.name, &mut script);
        print::bytes(&script)
    }
}
