//! `completion` and `man`: what shells and readers of manuals want to know of the command line.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Args, Command};
use clap_complete::{Shell, generate};
use clap_mangen::Man;

#[derive(Args)]
pub(super) struct Completion {
    /// The shell to complete in.
    #[arg(value_enum)]
    shell: Shell,
    /// The name that the program is called by, where it is not its own.
    #[arg(long, default_value = "kthena-keda")]
    name: String,
}

#[derive(Args)]
pub(super) struct Manual {
    /// The command whose page to print; without it that of the program.
    command: Option<String>,
}

impl Completion {
    pub(super) fn run(&self, mut cli: Command) -> ExitCode {
        let mut script = Vec::new();
        generate(self.shell, &mut cli, &self.name, &mut script);
        print(&script)
    }
}

impl Manual {
    pub(super) fn run(&self, mut cli: Command) -> ExitCode {
        // Only then do its commands know what all of them have in common.
        cli.build();
        let page = match &self.command {
            None => Some(cli),
            Some(name) => cli.find_subcommand(name).cloned(),
        };
        let Some(page) = page else {
            let _ = writeln!(io::stderr(), "error: there is no such command; see `kthena-keda help`");
            return ExitCode::FAILURE;
        };
        let mut text = Vec::new();
        match Man::new(page).render(&mut text) {
            Ok(()) => print(&text),
            Err(error) => fail(&error),
        }
    }
}

fn print(text: &[u8]) -> ExitCode {
    match io::stdout().lock().write_all(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &io::Error) -> ExitCode {
    let _ = writeln!(io::stderr(), "error: cannot print: {error}");
    ExitCode::FAILURE
}
