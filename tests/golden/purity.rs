//! The core stays pure: whoever reads or changes it needs no cluster, clock or runtime to reason about it.

use std::{fs, path::Path};

/// What only the shell around the core may use, as words, however it is imported.
const IMPURE: [&str; 14] = [
    "async",
    "await",
    "tokio",
    "tracing",
    "env",
    "fs",
    "SystemTime",
    "Instant",
    "Client",
    "cluster",
    "process",
    "controllers",
    "println",
    "thread",
];

/// The first word of a line of code that the core must not use.
fn impure(line: &str) -> Option<&'static str> {
    let code = line.trim_start();
    if code.starts_with("//") {
        return None;
    }
    // What stands in quotes is text.
    let code: String = code.split('"').step_by(2).collect();
    let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.find_map(|word| IMPURE.into_iter().find(|impure| *impure == word))
}

#[test]
fn words_are_found_however_they_are_imported() {
    for line in
        ["use crate::{cluster::Error, api};", "use std::{env, fs};", "use kube::{Api, Client};", "    env::var(x)", "async fn f() {"]
    {
        assert!(impure(line).is_some(), "{line}");
    }
    for line in ["// an async world", "    /// fs", "let message = \"the process ended\";", "use kube::core::Selector;"] {
        assert_eq!(impure(line), None, "{line}");
    }
}

fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

#[test]
fn the_core_knows_no_client_clock_environment_or_log() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for folder in ["intent", "promql", "signals", "plan"] {
        let files = sources(&root.join(folder));
        assert!(!files.is_empty());
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for line in text.lines() {
                assert_eq!(impure(line), None, "{}: {line}", file.display());
            }
        }
    }
}
