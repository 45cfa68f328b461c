//! Imports between folders point one way, in both crates.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use syn::{UseTree, visit::Visit};

/// The folders of the core, lowest first. No folder imports a later one.
const CORE: &[&[&str]] = &[
    &["domain"],
    &["api"],
    &["promql"],
    &["signals"],
    &["intent"],
    &["observed"],
    &["plan"],
    &["foresight"],
];
/// The folders of the operator, lowest first. Folders in one group may import each other one way.
const OPERATOR: &[&[&str]] = &[
    &["telemetry", "cache", "runtime"],
    &["watch", "cluster", "prometheus"],
    &["hold"],
    &["settings"],
    &["sources"],
    &["controllers"],
    &["app"],
    &["cli"],
];

/// The folders of this crate that a file imports: the first segment after `crate`, in `use` items and in
/// paths.
#[derive(Default)]
struct Imports(BTreeSet<String>);

impl Visit<'_> for Imports {
    fn visit_item_use(&mut self, item: &syn::ItemUse) {
        if let UseTree::Path(path) = &item.tree
            && path.ident == "crate"
        {
            self.first_segments(&path.tree);
        }
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let mut segments = path.segments.iter().map(|segment| segment.ident.to_string());
        if segments.next().as_deref() == Some("crate") {
            self.0.extend(segments.next());
        }
        syn::visit::visit_path(self, path);
    }
}

impl Imports {
    fn first_segments(&mut self, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => drop(self.0.insert(path.ident.to_string())),
            UseTree::Name(name) => drop(self.0.insert(name.ident.to_string())),
            UseTree::Rename(rename) => drop(self.0.insert(rename.ident.to_string())),
            UseTree::Glob(_) => {}
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.first_segments(tree)),
        }
    }

    fn of(source: &str) -> BTreeSet<String> {
        let mut imports = Self::default();
        imports.visit_file(&syn::parse_file(source).unwrap());
        imports.0
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// Every import of one folder by another, as `(importing, imported)`.
fn edges(source: &Path) -> BTreeSet<(String, String)> {
    let mut edges = BTreeSet::new();
    for file in files(source) {
        let inside = file.strip_prefix(source).unwrap();
        let folder = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let imports = Imports::of(&fs::read_to_string(&file).unwrap());
        edges.extend(imports.into_iter().filter(|to| *to != folder).map(|to| (folder.clone(), to)));
    }
    edges
}

fn level(order: &[&[&str]], folder: &str) -> Option<usize> {
    order.iter().position(|group| group.contains(&folder))
}

fn check(source: &str, order: &[&[&str]]) {
    let edges = edges(&Path::new(env!("CARGO_MANIFEST_DIR")).join(source));
    assert!(edges.len() >= order.len(), "{source}: imports were not found: {edges:?}");
    for (from, to) in &edges {
        let (Some(from_level), Some(to_level)) = (level(order, from), level(order, to)) else { continue };
        assert!(to_level <= from_level, "{source}: {from} imports {to}, which is above it");
        assert!(!edges.contains(&(to.clone(), from.clone())), "{source}: {from} and {to} import each other");
    }
    let folders = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(source)).unwrap();
    for folder in folders.map(|entry| entry.unwrap()).filter(|entry| entry.file_type().unwrap().is_dir()) {
        let name = folder.file_name().into_string().unwrap();
        assert!(level(order, &name).is_some(), "{source}: {name} is missing in the order");
    }
}

#[test]
fn imports_are_read_from_groups_and_paths() {
    let source =
        "use crate::{cluster::Error, api::{a, b}}; use std::env; fn f() { crate::telemetry::metrics::g(); }";
    assert_eq!(Imports::of(source), ["api", "cluster", "telemetry"].map(str::to_owned).into());
}

#[test]
fn the_core_imports_one_way() {
    check("core/src", CORE);
}

#[test]
fn the_operator_imports_one_way() {
    check("src", OPERATOR);
}
