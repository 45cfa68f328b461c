//! Commands as a user types them, with their output.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use harness::{Identity, Stack, control_plane::binary, stack::root};

/// Prints a heading.
pub fn print_heading(text: &str) {
    if std::io::stdout().is_terminal() { println!("\n\x1b[1m{text}\x1b[0m") } else { println!("\n# {text}") }
}

/// Runs commands against a cluster.
#[derive(Debug)]
pub struct Shell {
    kubectl: PathBuf,
    operator: PathBuf,
    kubeconfig: PathBuf,
}

impl Shell {
    /// Shell with all permissions, and with this binary of the operator.
    pub fn new(stack: &Stack, operator: PathBuf) -> Self {
        let kubeconfig = stack.control_plane.kubeconfig(&Identity::Admin);
        Self { kubectl: binary("kubectl"), operator, kubeconfig }
    }

    /// Prints and runs a kubectl command; its output goes to the terminal.
    ///
    /// # Panics
    /// If it fails.
    pub fn kubectl(&self, arguments: &[&str]) {
        self.run("kubectl", &self.kubectl, arguments);
    }

    /// The same with a command of kthena-keda.
    ///
    /// # Panics
    /// If it fails.
    pub fn kthena_keda(&self, arguments: &[&str]) {
        self.run("kthena-keda", &self.operator, arguments);
    }

    /// The same with a command that the data does not suffice for.
    ///
    /// # Panics
    /// If it ends otherwise.
    pub fn kthena_keda_unfit(&self, arguments: &[&str]) {
        let code = self.status("kthena-keda", &self.operator, arguments).code();
        assert_eq!(code, Some(3), "kthena-keda {}", arguments.join(" "));
    }

    fn run(&self, name: &str, program: &Path, arguments: &[&str]) {
        let status = self.status(name, program, arguments);
        assert!(status.success(), "{name} {} failed: {status}", arguments.join(" "));
    }

    fn status(&self, name: &str, program: &Path, arguments: &[&str]) -> ExitStatus {
        println!(
            "\n$ {name} {}",
            arguments.iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(" ")
        );
        let status = Command::new(program)
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .current_dir(root())
            .status();
        status.expect("the program starts")
    }
}

/// Argument with shell quotes if it needs them.
fn quoted(argument: &str) -> String {
    let plain = argument.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=:,".contains(c));
    if plain { argument.to_owned() } else { format!("'{argument}'") }
}
