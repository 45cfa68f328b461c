//! Tables and entries of the documentation, compared with the code.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use kthena_keda::telemetry::metrics::MetricSpec;
use kthena_keda_core::{
    api::{
        annotations::{AnnotationKey, MODEL_NAME},
        profile::AutoscalingProfile,
    },
    domain::Reason,
    signals::Signal,
};
use kube::CustomResourceExt as _;
use serde_json::Value;
use strum::VariantArray as _;

fn read(page: &str) -> String {
    fs::read_to_string(page).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// Cells of the table after `mark`, without its header.
fn table(page: &str, mark: &str) -> Vec<Vec<String>> {
    let text = read(page);
    let (_, rest) = text.split_once(mark).unwrap_or_else(|| panic!("{page} has no {mark}"));
    let lines = rest.lines().skip(1).take_while(|line| line.starts_with('|')).skip(2);
    lines
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

#[test]
fn every_annotation_has_a_row() {
    let rows: BTreeSet<String> = table("docs/annotations.md", "<!-- annotations")
        .into_iter()
        .map(|row| row[0].replace('`', ""))
        .collect();
    let known =
        AnnotationKey::VARIANTS.iter().map(ToString::to_string).chain([MODEL_NAME.to_owned()]).collect();
    assert_eq!(rows, known);
}

#[test]
fn every_signal_has_a_row() {
    let rows: Vec<[String; 3]> = table("docs/signals.md", "<!-- signals")
        .into_iter()
        .map(|row| [row[0].replace('`', ""), row[1].clone(), row[3].clone()])
        .collect();
    let known = Signal::all().map(|signal| {
        let kind = match signal {
            Signal::Demand(_) => "demand",
            Signal::Saturation(_) => "saturation",
            Signal::Latency(_) => "latency",
        };
        let target = signal.default_target().map_or("none".to_owned(), |target| target.to_string());
        [signal.name().to_owned(), kind.to_owned(), target]
    });
    assert_eq!(rows, known.collect::<Vec<_>>());
}

/// Condition messages link to these entries.
#[test]
fn every_reason_has_an_entry() {
    let text = read("docs/troubleshooting.md");
    let entries: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    for reason in Reason::VARIANTS
        .iter()
        .map(|reason| reason.as_str())
        .chain(["Scaling", "Idle", "Paused", "Shadow", "Pending"])
    {
        assert!(entries.contains(&reason), "{reason} has no entry");
    }
}

/// The table has every field of the CRD; `make docs` writes it.
#[test]
fn every_field_of_a_profile_has_a_row() {
    let crd = serde_json::to_value(AutoscalingProfile::crd()).unwrap();
    let spec = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap();
    let mut rows = vec!["| field | default | |".to_owned(), "|---|---|---|".to_owned()];
    fields("", spec, spec.get("default"), &mut rows);
    generated("docs/profiles.md", "<!-- fields: generated from the code -->\n", &rows);
}

/// The table has every metric of the code; `make docs` writes it.
#[test]
fn every_metric_has_a_row() {
    let row = |metric: &&MetricSpec| {
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        format!(
            "| `{}` | {kind} | {} | {} |",
            metric.name(),
            labels.join(", "),
            metric.help.replace('<', "\\<")
        )
    };
    let tables: [(&str, &[&MetricSpec]); 2] =
        [("metrics", &MetricSpec::ALL), ("hold metrics", &MetricSpec::HOLD)];
    for (name, metrics) in tables {
        let head = ["| metric | kind | labels | meaning |", "|---|---|---|---|"].map(str::to_owned);
        let rows: Vec<String> = head.into_iter().chain(metrics.iter().map(row)).collect();
        generated("docs/metrics.md", &format!("<!-- {name}: generated from the code -->\n"), &rows);
    }
}

/// Checks that the lines between `start` and the end mark are `rows`; with `UPDATE_DOCS` set, writes them.
pub(super) fn generated(page: &str, start: &str, rows: &[String]) {
    let end = "<!-- end -->";
    let text = read(page);
    let (before, rest) = text.split_once(start).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    let wanted = format!("{before}{start}{}\n{end}{after}", rows.join("\n"));
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(page, &wanted).unwrap();
    }
    assert!(read(page) == wanted, "{page} is out of date: run `make docs`");
}

/// Appends a row for each field of `schema`, with nested fields after their parent.
fn fields(path: &str, schema: &Value, default: Option<&Value>, rows: &mut Vec<String>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    for (name, field) in properties {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let default = default.and_then(|default| default.get(name)).or_else(|| field.get("default"));
        let items = field.get("items").filter(|items| items.get("properties").is_some());
        let described =
            field["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        let is_parent = field.get("properties").is_some();
        let shown = default
            .filter(|default| !is_parent && !default.as_object().is_some_and(serde_json::Map::is_empty));
        let shown = shown
            .map(|default| default.as_str().map_or_else(|| default.to_string(), str::to_owned))
            .filter(|shown| shown != "[]");
        rows.push(format!(
            "| `{path}` | {} | {described} |",
            shown.map(|shown| format!("`{shown}`")).unwrap_or_default()
        ));
        fields(&path, field, default, rows);
        if let Some(items) = items {
            fields(&format!("{path}[]"), items, None, rows);
        }
    }
}

/// Relative links have a target in the tree, and those with a fragment lead to a heading.
#[test]
fn relative_links_have_a_target() {
    let docs = fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path());
    let pages: Vec<PathBuf> = docs
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .chain(["README", "CHANGELOG", "CONTRIBUTING", "SECURITY"].map(|name| format!("{name}.md").into()))
        .chain(["charts/kthena-keda/README.md".into()])
        .collect();
    assert!(pages.len() > 20, "{pages:?}");
    let dead: Vec<String> = pages.iter().flat_map(|page| dead_links(page)).collect();
    assert!(dead.is_empty(), "{dead:#?}");
}

fn dead_links(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
    let relative = links.filter(|link| !link.starts_with("http") && !link.starts_with("mailto:"));
    let is_dead = |link: &&str| {
        let (file, fragment) = link.split_once('#').map_or((*link, None), |(file, name)| (file, Some(name)));
        let target = if file.is_empty() { page.to_owned() } else { page.parent().unwrap().join(file) };
        !target.exists() || fragment.is_some_and(|name| !anchors(&target).contains(name))
    };
    relative.filter(is_dead).map(|link| format!("{}: {link}", page.display())).collect()
}

/// Fragments of the headings of a page, as GitHub forms them.
fn anchors(page: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(page).unwrap();
    let headings =
        text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let fragment = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(fragment).collect()
}

/// Messages and alerts link to sections of the troubleshooting page.
#[test]
fn links_from_messages_and_alerts_lead_to_a_section() {
    let anchors = anchors(Path::new("docs/troubleshooting.md"));
    let mut links = BTreeSet::new();
    for source in
        ["charts/kthena-keda/alerts/kthena-keda.yaml", "core/src/plan/mod.rs", "core/src/plan/verdict.rs"]
    {
        let text = read(source);
        let targets =
            ["troubleshooting.md#", "{HELP}#"].into_iter().flat_map(|mark| text.split(mark).skip(1));
        let target =
            |rest: &str| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect::<String>();
        links.extend(targets.map(target).filter(|anchor| !anchor.is_empty()));
    }
    assert!(links.len() >= 9, "links were not found: {links:?}");
    let dead: Vec<&String> = links.difference(&anchors).collect();
    assert!(dead.is_empty(), "no section for {dead:?}");
}

/// The policy that keeps the scale of ModelBoosters tells refused models by the reasons of their condition.
#[test]
fn the_policy_for_model_boosters_lists_the_reasons_of_refused_models() {
    let policy = std::fs::read_to_string("charts/kthena-keda/templates/keepscaling.yaml").unwrap();
    for reason in Reason::VARIANTS {
        let is_refused = !reason.is_external() && !reason.is_unknown() && *reason != Reason::SelectorMismatch;
        let is_listed = policy.contains(&format!("'{}'", reason.as_str()));
        assert_eq!(is_listed, is_refused, "{}", reason.as_str());
    }
}
