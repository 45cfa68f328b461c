//! The benchmark page: tables and plots in `docs/benchmarks/`, generated from the results in that folder.

mod plot;
mod table;

use std::{fs, path::Path};

use crate::figures::Run;

/// Writes the results of a run, and then the page from all results.
pub fn write(folder: &Path, run: &Run) {
    fs::create_dir_all(folder).expect("a folder");
    fs::write(
        folder.join(format!("{}.json", run.models)),
        serde_json::to_string_pretty(run).expect("JSON") + "\n",
    )
    .expect("a file");
    pages(folder);
}

/// Writes the page and the plots from all results in a folder.
pub fn pages(folder: &Path) {
    let runs = read(folder);
    fs::write(folder.join("README.md"), table::page(&runs)).expect("a file");
    plot::time(&folder.join("time.svg"), &runs);
    plot::memory(&folder.join("memory.svg"), &runs);
}

fn read(folder: &Path) -> Vec<Run> {
    let files = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    let texts = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(fs::read_to_string);
    let mut runs: Vec<Run> =
        texts.map(|text| serde_json::from_str(&text.expect("a file")).expect("a run")).collect();
    runs.sort_by_key(|run| run.models);
    runs
}
