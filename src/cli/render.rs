//! `render`: prints the objects that `run` would apply for manifests, without a cluster.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{
    documents::{Document, read},
    plan_args::{PlanArgs, namespace},
};
use crate::{settings::Settings, sources::Manifests};
use kthena_keda_core::{
    api::{
        annotations::{AnnotationKey, MODEL_NAME},
        kthena::ModelServing,
    },
    domain::{Capabilities, Reason, names::ROUTER_SERVICE_MONITOR, printable},
    observed::{LocatedRouter, ScrapeEvidence},
    plan::{self, Finding, Plan, RouterPlan, StandInState, plan_router},
};

#[derive(Args)]
pub(super) struct Render {
    /// YAML or JSON files with ModelServings and the objects that affect their plans: AutoscalingProfiles,
    /// ModelBoosters, ModelRoutes, ModelServers, the router's Services, monitors and ScaledObjects; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Namespace of the objects in the files that name none.
    #[arg(short, long, value_parser = namespace)]
    namespace: Option<String>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Format::Yaml)]
    output: Format,
    /// Image of stand-in pods, as in the flag of `run`. With it the output has the pod and the Service of each model whose
    /// profile sets scaleToZero.hold, for review only: the operator creates them while the model is at zero.
    #[arg(long, value_name = "IMAGE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    stand_in_image: Option<String>,
    #[command(flatten)]
    plan: PlanArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

/// Objects for standard output, notes and errors for standard error.
#[derive(Default)]
struct Output {
    objects: Vec<Value>,
    notes: Vec<String>,
    errors: Vec<String>,
}

impl Render {
    pub(super) fn run(&self) -> ExitCode {
        let mut output = Output::default();
        let mut manifests = self.read(&mut output.errors);
        output.notes.extend(manifests.complete());
        render(&manifests, &self.plan.settings(), self.stand_in_image.as_deref(), &mut output);
        if let Err(error) = self.print(&output.objects) {
            output.errors.push(format!("cannot write to standard output: {error}"));
        }
        let mut stderr = io::stderr().lock();
        // Errors are ignored: a closed standard error leaves no place to report them.
        output.notes.iter().for_each(|note| drop(writeln!(stderr, "note: {}", printable(note))));
        output.errors.iter().for_each(|error| drop(writeln!(stderr, "error: {}", printable(error))));
        if output.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn read(&self, errors: &mut Vec<String>) -> Manifests {
        let mut manifests = Manifests::default();
        for file in &self.files {
            let documents = read(file).unwrap_or_else(|error| {
                errors.push(error);
                Vec::new()
            });
            for Document { place, mut object } in documents {
                self.default_namespace(&mut object);
                errors.extend(manifests.add(&place, object).err());
            }
        }
        manifests
    }

    fn default_namespace(&self, object: &mut Value) {
        let Some(namespace) = &self.namespace else { return };
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            metadata.entry("namespace").or_insert_with(|| namespace.as_str().into());
        }
    }

    fn print(&self, objects: &[Value]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self.output {
            Format::Json => {
                let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
                writeln!(out, "{}", serde_json::to_string_pretty(&list)?)
            }
            Format::Yaml => objects.iter().try_for_each(|object| {
                let text = serde_saphyr::to_string(object).map_err(io::Error::other)?;
                write!(out, "---\n{text}")
            }),
        }
    }
}

fn render(manifests: &Manifests, settings: &Settings, stand_in_image: Option<&str>, output: &mut Output) {
    check_model_servings(manifests, output);
    if !manifests.any_opted_in() {
        // After an error the input may have one that could not be read.
        if output.errors.is_empty() {
            output.notes.push(format!(
                "no ModelServing in the input has the annotation {MODEL_NAME}; nothing to print"
            ));
        }
        return;
    }
    output.notes.push("assuming the newest KEDA release".to_owned());
    let router = render_router(manifests, settings, output);
    if !manifests.has_routes() {
        output.notes.push(
            "no ModelRoute is given; assuming that each ModelServing receives all requests for its model name".to_owned(),
        );
    }
    let complete = manifests.model_servings.iter().filter(|(_, model_serving)| has_namespace(model_serving));
    for (place, model_serving) in complete {
        let mut observed = manifests.observe(model_serving, router.clone());
        observed.stand_in.image = stand_in_image.map(str::to_owned);
        observed.may_scale_roles = settings.scale_roles;
        if observed.asks_for_roles() {
            output.notes.push(format!(
                "{place}: assuming that the operator may scale roles (roles.enabled of the chart)"
            ));
        }
        render_model(place, &plan::plan(&observed, Capabilities::NEWEST, &settings.defaults), output);
    }
}

/// Reports ModelServings that cannot be planned: those without a namespace, and mistyped opt-ins.
fn check_model_servings(manifests: &Manifests, output: &mut Output) {
    for (place, model_serving) in &manifests.model_servings {
        if model_serving.is_opted_in() && !has_namespace(model_serving) {
            output.errors.push(format!(
                "{place}: metadata.namespace is missing, and the queries and the ScaledObject depend on it; set it, or pass --namespace"
            ));
        }
        if let Some(problem) = plan::mistyped_opt_in(model_serving) {
            output.errors.push(format!("{place}: {problem}"));
        }
    }
}

/// Prints the router's ServiceMonitor, and returns what plans depend on.
fn render_router(manifests: &Manifests, settings: &Settings, output: &mut Output) -> LocatedRouter {
    let (mut router, assumed) = manifests.observe_router(&settings.router_namespace);
    // Prometheus cannot be asked whether it uses a foreign monitor.
    router.evidence = ScrapeEvidence::Known(BTreeSet::new());
    if assumed {
        output.notes.push(format!(
            "no Service of namespace {} is given; assuming kthena-router as Kthena's chart installs it",
            router.namespace
        ));
    }
    let profile = manifests.default_profile();
    let RouterPlan { service_monitor, router, beside, needs_evidence: _ } =
        plan_router(&router, profile.as_ref(), &settings.defaults, true);
    output.notes.extend(router.problem.as_ref().map(|problem| problem.message().to_owned()));
    output.notes.extend(beside.map(|reason| format!("{reason}; printing the operator's own ServiceMonitor, which run creates unless Prometheus shows that the other one is enough")));
    push(service_monitor.object().map(Vec::from_iter), ROUTER_SERVICE_MONITOR, output);
    router
}

/// Prints the objects of one ModelServing, and the problems that the input shows.
fn render_model(place: &str, plan: &Plan, output: &mut Output) {
    output.errors.extend(plan.findings.iter().map(|finding| located(place, finding)));
    output.notes.extend(plan.warnings.iter().map(|warning| format!("{place}: {warning}")));
    let reported = plan.explanation.iter().flat_map(|found| &found.runtime_findings);
    let of_routes = reported.filter(|finding| finding.reason == Reason::ModelNotSeen);
    output.notes.extend(of_routes.map(|finding| located(place, finding)));
    if plan.shadow.is_some() {
        output.notes.push(format!(
            "{place}: in shadow, so there is no ScaledObject; remove the annotation {} to start scaling",
            AnnotationKey::Shadow
        ));
    }
    push(plan.objects(), place, output);
    if plan.stand_in.state == StandInState::Holds {
        output.notes.push(format!(
            "{place}: the stand-in pod and its Service are for review; do not apply them, because only the operator creates and deletes them"
        ));
        push(plan.stand_in.objects(), place, output);
    }
}

fn located(place: &str, finding: &Finding) -> String {
    format!("{place}: {}: {}", finding.reason.as_str(), finding.message)
}

fn has_namespace(model_serving: &ModelServing) -> bool {
    model_serving.metadata.namespace.as_deref().is_some_and(|namespace| !namespace.is_empty())
}

fn push(objects: serde_json::Result<Vec<Value>>, place: &str, output: &mut Output) {
    match objects {
        Ok(objects) => output.objects.extend(objects),
        Err(error) => output.errors.push(format!("{place}: cannot serialize the object: {error}")),
    }
}
