//! The table of watched kinds, in the permissions and in the documentation.

use std::fs;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kthena_keda::sources::kinds::{Area, Availability, KindVisitor, Requeues, Row, WatchedKind, visit_all};
use serde_json::Value;

use super::docs::generated;

struct Watched {
    kind: String,
    group: String,
    plural: String,
    row: Row,
}

fn watched() -> Vec<Watched> {
    struct Collect(Vec<Watched>);
    impl KindVisitor for Collect {
        fn visit<K: WatchedKind>(&mut self) {
            let (kind, group, plural) =
                (K::kind(&()).into_owned(), K::group(&()).into_owned(), K::plural(&()).into_owned());
            self.0.push(Watched { kind, group, plural, row: K::ROW });
        }
    }
    let mut kinds = Collect(Vec::new());
    visit_all(&mut kinds);
    kinds.0
}

fn rules() -> Vec<PolicyRule> {
    let text = fs::read_to_string("config/install/rbac.yaml").unwrap();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let rules = |object: Value| match object["kind"].as_str() {
        Some("ClusterRole") => serde_json::from_value::<ClusterRole>(object).unwrap().rules,
        Some("Role") => serde_json::from_value::<Role>(object).unwrap().rules,
        _ => None,
    };
    documents.into_iter().filter_map(rules).flatten().collect()
}

fn allows(rule: &PolicyRule, kind: &Watched) -> bool {
    let has = |list: &Option<Vec<String>>, item: &str| list.iter().flatten().any(|found| found == item);
    has(&rule.api_groups, &kind.group)
        && has(&rule.resources, &kind.plural)
        && rule.verbs.iter().any(|verb| verb == "list")
        && rule.verbs.iter().any(|verb| verb == "watch")
}

#[test]
fn the_chart_permits_every_watch() {
    let rules = rules();
    // Stand-ins are off by default, and have a file of their own.
    let by_default = |kind: &Watched| kind.row.area != Area::StandIns;
    for kind in watched().into_iter().filter(by_default) {
        assert!(rules.iter().any(|rule| allows(rule, &kind)), "no rule lists and watches {}", kind.plural);
    }
}

#[test]
fn the_security_page_lists_every_watch() {
    let page = fs::read_to_string("docs/security.md").unwrap();
    for kind in watched() {
        let row = page.lines().find(|line| {
            line.starts_with('|')
                && line.contains(&format!("`{}`", kind.plural))
                && line.contains("list, watch")
        });
        assert!(row.is_some(), "no row of docs/security.md lists and watches {}", kind.plural);
    }
}

/// `make docs` writes the table.
#[test]
fn the_architecture_page_has_the_table() {
    let mut rows: Vec<String> = [
        "| kind | served by | watched in | awaited before a plan | a change requeues |",
        "|---|---|---|---|---|",
    ]
    .map(str::to_owned)
    .into();
    rows.extend(watched().iter().map(|Watched { kind, row, .. }| {
        let awaited = if row.is_input_of_plans { "yes" } else { "no" };
        let (served, area, requeues) = (served(row.availability), area(row.area), requeues(row.requeues));
        format!("| {} | {served} | {area} | {awaited} | {requeues} |", name(kind))
    }));
    generated("docs/architecture.md", "<!-- kinds: generated from the code -->\n", &rows);
}

/// Each instance's own ModelServings are no row: they have a store of their own.
fn name(kind: &str) -> &str {
    if kind == "ModelServing" { "ModelServing (opt-ins of all instances)" } else { kind }
}

fn served(availability: Availability) -> &'static str {
    match availability {
        Availability::BuiltIn => "Kubernetes",
        Availability::Optional(_) => "a component that may be missing",
        Availability::SomeReleases => "some releases of Kthena",
        Availability::OwnCrd => "a CRD of kthena-keda",
    }
}

fn area(area: Area) -> &'static str {
    match area {
        Area::Models => "the namespaces of the models",
        Area::ModelsAndRouter => "the namespaces of the models and of the router",
        Area::Router => "the router's namespace",
        Area::Cluster => "the cluster",
        Area::ModelsOrClusterDuties => "the namespaces of the models; the cluster, with `clusterDuties`",
        Area::StandIns => "the namespaces of the models, with `standIns.enabled`; only those with the label",
        Area::ClusterDuties => "the cluster, with `clusterDuties` and a part of the models",
    }
}

fn requeues(requeues: Requeues) -> &'static str {
    match requeues {
        Requeues::Targets => "the models that it scales, and the one that owns it",
        Requeues::PolicyTargets => "the models that it or its bindings scale, and the one that owns it",
        Requeues::TargetsAndRouterMonitor => {
            "the models that it scales, the one that owns it, and the router's ServiceMonitor"
        }
        Requeues::RouterMonitor => "the router's ServiceMonitor",
        Requeues::ClusterWriters => "the router's ServiceMonitor and the status of profiles",
        Requeues::ProfileUsers => {
            "the models that use it, the router's ServiceMonitor, the status of profiles and the signal probe"
        }
        Requeues::Controlled => "the models that it controls, and the cluster workers",
        Requeues::RouteUsers => "the models whose names it carries, and those that it leads to",
        Requeues::ModelServerUsers => "the models that it selects, and those whose names lead to it",
    }
}
