//! `man`: manual pages.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Args, Command};
use clap_mangen::Man as Page;

use super::print;

#[derive(Args)]
pub(super) struct Man {
    /// Command of the page to print; by default the page of the program.
    command: Option<String>,
}

impl Man {
    pub(super) fn run(&self, mut cli: Command) -> ExitCode {
        // Completes the arguments that all commands share.
        cli.build();
        let page = match &self.command {
            None => Some(cli),
            Some(name) => cli.find_subcommand(name).cloned(),
        };
        let Some(page) = page else {
            let _ = writeln!(
                io::stderr(),
                "error: unknown command; run `kthena-keda help` for the list of commands"
            );
            return ExitCode::FAILURE;
        };
        let mut text = Vec::new();
        match Page::new(page).render(&mut text) {
            Ok(()) => print::bytes(&text),
            Err(error) => print::failed(&error),
        }
    }
}
