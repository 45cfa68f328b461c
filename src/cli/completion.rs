//! `completion`: shell completion scripts.

use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::{Shell, generate};

use super::print;

#[derive(Args)]
pub(super) struct Completion {
    /// Shell that the script is for.
    #[arg(value_enum)]
    shell: Shell,
    /// Name of the executable.
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
