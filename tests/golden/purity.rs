//! The core stays pure: whoever reads or changes it needs no cluster, clock or runtime to reason about it.

use std::{fs, path::Path};

/// What only the shell around the core may use.
const IMPURE: [&str; 12] = [
    "async ",
    "await",
    "tokio",
    "tracing",
    "std::env",
    "std::fs",
    "std::time",
    "SystemTime",
    "Instant",
    "kube::Client",
    "crate::cluster",
    "crate::process",
];

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
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            for line in code {
                let found = IMPURE.iter().find(|word| line.contains(**word));
                assert_eq!(found, None, "{}: {line}", file.display());
            }
        }
    }
}
