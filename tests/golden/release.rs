//! Scripts of the release workflow.

use std::process::{Command, Output};

fn run(script: &str, argument: &str) -> Output {
    Command::new(script).arg(argument).output().unwrap()
}

#[test]
fn a_tag_of_another_version_is_refused() {
    let refused = run(".github/check-version", "v99.0.0");
    assert!(!refused.status.success());
    let errors = String::from_utf8(refused.stderr).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        errors.contains(&format!("the tag has version 99.0.0, but Cargo.toml has {version}")),
        "{errors}"
    );
}

#[test]
fn the_notes_of_a_release_are_its_section_of_the_changelog() {
    let notes = run(".github/release-notes", "0.1.0");
    let text = String::from_utf8(notes.stdout).unwrap();
    assert!(notes.status.success() && text.trim_start().starts_with("###"), "{text}");
    assert!(!text.contains("\n## "), "another section: {text}");
    assert!(!run(".github/release-notes", "99.0.0").status.success());
}
