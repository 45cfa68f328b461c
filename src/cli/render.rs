//! `render`: ModelServings in, the objects that `run` would apply out; no cluster.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::PlanArgs;
use crate::{
    api::{kthena::ModelServing, metadata::OPERATOR},
    observed::Observed,
    plan::{self, Capabilities, Desired},
    settings::Settings,
    signals::{RouterSeries, ScrapeSource},
};

#[derive(Args)]
pub(super) struct Render {
    /// YAML or JSON files with ModelServings; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Format::Yaml)]
    output: Format,
    #[command(flatten)]
    plan: PlanArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

/// A document and where it stands.
struct Document {
    place: String,
    object: Value,
}

impl Render {
    pub(super) fn run(&self) -> ExitCode {
        let (mut objects, mut errors) = (Vec::new(), Vec::new());
        let settings = self.plan.settings();
        for file in &self.files {
            match read(file) {
                Ok(documents) => documents.iter().for_each(|document| render(document, &settings, &mut objects, &mut errors)),
                Err(error) => errors.push(error),
            }
        }
        if let Err(error) = self.print(&objects) {
            errors.push(format!("cannot print: {error}"));
        }
        let mut stderr = io::stderr().lock();
        let _ = writeln!(stderr, "note: assuming the newest KEDA, and the router's Service kthena-router in {}", settings.router_namespace);
        for error in &errors {
            let _ = writeln!(stderr, "error: {error}");
        }
        if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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

fn read(file: &PathBuf) -> Result<Vec<Document>, String> {
    let name = file.display();
    let mut text = String::new();
    let done = if file.as_os_str() == "-" {
        io::stdin().read_to_string(&mut text).map(drop)
    } else {
        fs::read_to_string(file).map(|read| text = read)
    };
    done.map_err(|error| format!("{name}: {error}"))?;
    let values: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|error| format!("{name}: {error}"))?;
    let documents = values.into_iter().enumerate().filter(|(_, object)| !object.is_null());
    Ok(documents.flat_map(|(i, object)| items(format!("{name}, document {}", i + 1), object)).collect())
}

/// The objects of a `List`, or the object itself.
fn items(place: String, mut object: Value) -> Vec<Document> {
    match object.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => {
            items.into_iter().enumerate().map(|(i, object)| Document { place: format!("{place}, item {}", i + 1), object }).collect()
        }
        _ => vec![Document { place, object }],
    }
}

fn render(document: &Document, settings: &Settings, objects: &mut Vec<Value>, errors: &mut Vec<String>) {
    let place = &document.place;
    if document.object.get("kind").and_then(Value::as_str) != Some(ModelServing::KIND) {
        return;
    }
    let model_serving = match ModelServing::deserialize(&document.object) {
        Ok(model_serving) => model_serving,
        Err(error) => return errors.push(format!("{place}: {error}")),
    };
    let observed = Observed {
        model_serving,
        scaled_object: None,
        router: RouterSeries { namespace: settings.router_namespace.clone(), source: ScrapeSource::Service("kthena-router".to_owned()) },
    };
    let plan = plan::plan(&observed, Capabilities::NEWEST, &settings.defaults);
    errors.extend(plan.findings.iter().map(|finding| format!("{place}: {}: {}", finding.reason.as_str(), finding.message)));
    if let Desired::Apply(scaled_object) = plan.scaled_object {
        match serde_json::to_value(&scaled_object) {
            Ok(object) => objects.push(object),
            Err(error) => errors.push(format!("{place}: {OPERATOR} cannot write the ScaledObject: {error}")),
        }
    }
}
