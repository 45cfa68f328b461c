//! Commands as a user types them, with their output.

use std::{io::IsTerminal as _, path::PathBuf, process::Command};

use harness::{Identity, Stack, control_plane::binary, stack::root};

/// Prints a heading.
pub fn print_heading(text: &str) {
    if std::io::stdout().is_terminal() { println!("\n\x1b[1m{text}\x1b[0m") } else { println!("\n# {text}") }
}

/// Runs commands against a cluster.
#[derive(Debug)]
pub struct Shell {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
}

impl Shell {
    /// Shell with all permissions.
    pub fn new(stack: &Stack) -> Self {
        Self { kubectl: binary("kubectl"), kubeconfig: stack.control_plane.kubeconfig(&Identity::Admin) }
    }

    /// Prints and runs a kubectl command; its output goes to the terminal.
    ///
    /// # Panics
    /// If it fails.
    pub fn kubectl(&self, arguments: &[&str]) {
        println!(
            "\n$ kubectl {}",
            arguments.iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(" ")
        );
        let status = Command::new(&self.kubectl)
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .current_dir(root())
            .status();
        let status = status.expect("kubectl starts");
        assert!(status.success(), "kubectl {} failed: {status}", arguments.join(" "));
    }
}

/// Argument with shell quotes if it needs them.
fn quoted(argument: &str) -> String {
    let plain = argument.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=:,".contains(c));
    if plain { argument.to_owned() } else { format!("'{argument}'") }
}
