//! The model of a backtest, and plans for it: from a cluster, from files, from a history, or built in.

use std::path::PathBuf;

use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::failure::Failure;
use crate::{
    cli::documents::{Document, read},
    settings::Settings as PlanSettings,
    sources::Manifests,
};
use kthena_keda_core::{
    api::{
        annotations::{AnnotationKey, MODEL_NAME},
        keda::ScaledObject,
        kthena::ModelServing,
    },
    domain::{Backlog, Capabilities, PrometheusUrl, ServiceTime, ServiceTimeSetting, quoted},
    foresight::{
        backtest::Periods,
        gpus::gpus_per_group,
        history::History,
        overrides::{self, Override},
        settings::{Settings, SignalModel},
        time::Time,
    },
    intent::{Profile, PrometheusSettings},
    observed::{Observed, ScrapeEvidence},
    plan::{self, Desired, ResolvedIntent, plan_router},
};

/// Stands in for the address of Prometheus in plans that are only simulated.
const PLACEHOLDER: &str = "http://prometheus.invalid";

/// The inputs of plans for one model.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Subject {
    pub(in crate::cli) observed: Observed,
    pub(in crate::cli) capabilities: Capabilities,
    pub(in crate::cli) defaults: Profile,
    /// GPUs of one ServingGroup, by the limits of its pods.
    pub(in crate::cli) gpus: Option<u32>,
    /// Period of the HPA's syncs that the operator is started with, in seconds.
    pub(in crate::cli) sync_period: Option<u64>,
    /// `true` for the built-in settings.
    pub(in crate::cli) is_built_in: bool,
}

/// A plan of the operator, and the settings that are simulated.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Planned {
    pub(in crate::cli) scaled_object: ScaledObject,
    pub(in crate::cli) backlog: Backlog,
    pub(in crate::cli) resolved: ResolvedIntent,
    pub(in crate::cli) settings: Settings,
}

impl Subject {
    /// The model with the built-in settings.
    pub(in crate::cli) fn built_in() -> Result<Self, Failure> {
        let mut manifests = Manifests::default();
        manifests.add("built-in model", built_in_model("default", "model")).map_err(Failure::Input)?;
        let mut defaults = Profile::built_in();
        defaults.prometheus = placeholder();
        let mut subject = Self::of_manifests(&mut manifests, None, defaults, "kthena-system")?;
        subject.is_built_in = true;
        Ok(subject)
    }

    /// The model of a history, with the settings that it holds as far as changes of them are planned.
    pub(in crate::cli) fn of_history(history: &History) -> Result<Self, Failure> {
        let mut manifests = Manifests::default();
        let model = built_in_model(&history.namespace, &history.name);
        manifests.add("model of the history", model).map_err(Failure::Input)?;
        let mut defaults = overrides::profile_of(&history.scaled_object, history.backlog)
            .map_err(|error| Failure::Unfit(format!("{}/{}: {error}", history.namespace, history.name)))?;
        defaults.prometheus = placeholder();
        Self::of_manifests(&mut manifests, None, defaults, "kthena-system")
    }

    /// The model of files with this name, or the only one that is opted in.
    pub(in crate::cli) fn of_files(
        files: &[PathBuf],
        name: Option<(&str, &str)>,
        namespace: Option<&str>,
        settings: PlanSettings,
    ) -> Result<Self, Failure> {
        let mut manifests = Manifests::default();
        let mut templates = Vec::new();
        for file in files {
            for Document { place, mut object } in read(file).map_err(Failure::Input)? {
                if let (Some(namespace), Some(Value::Object(metadata))) =
                    (namespace, object.get_mut("metadata"))
                {
                    metadata.entry("namespace").or_insert_with(|| namespace.into());
                }
                templates.push(object.clone());
                manifests.add(&place, object).map_err(Failure::Input)?;
            }
        }
        manifests.complete();
        let PlanSettings { mut defaults, router_namespace, scale_roles: _ } = settings;
        defaults.prometheus = defaults.prometheus.or_else(placeholder);
        let mut subject = Self::of_manifests(&mut manifests, name, defaults, &router_namespace)?;
        let model = &subject.observed.model_serving;
        let (name, namespace) = (model.name_any(), model.namespace().unwrap_or_default());
        let is_model = |object: &&Value| {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            text("/kind") == "ModelServing"
                && text("/metadata/name") == name
                && text("/metadata/namespace") == namespace
        };
        subject.gpus = templates.iter().find(is_model).and_then(gpus_per_group);
        Ok(subject)
    }

    fn of_manifests(
        manifests: &mut Manifests,
        name: Option<(&str, &str)>,
        defaults: Profile,
        router_namespace: &str,
    ) -> Result<Self, Failure> {
        let (mut router, _) = manifests.observe_router(router_namespace);
        router.evidence = ScrapeEvidence::Known(std::collections::BTreeSet::new());
        let profile = manifests.default_profile();
        let router = plan_router(&router, profile.as_ref(), &defaults, true).router;
        let models = manifests.model_servings.iter().map(|(_, model)| model.as_ref());
        let model = select(models, name)?;
        Ok(Self {
            observed: manifests.observe(model, router),
            capabilities: Capabilities::NEWEST,
            defaults,
            gpus: None,
            sync_period: None,
            is_built_in: false,
        })
    }

    /// Sets the time that the operator would measure, in seconds, unless it is known.
    pub(in crate::cli) fn measure(&mut self, service_time: f64) {
        let measured = &mut self.observed.measured;
        measured.service_time = measured.service_time.or_else(|| ServiceTime::from_measured(service_time));
    }

    /// `<namespace>/<name>`.
    pub(in crate::cli) fn name(&self) -> String {
        let model = &self.observed.model_serving;
        format!("{}/{}", model.namespace().unwrap_or_default(), model.name_any())
    }

    /// Periods of the cluster: the scrapes are those of the profile, and the syncs those of a flag or of the operator.
    pub(in crate::cli) fn periods(&self, planned: &Planned, sync_period: Option<u64>) -> Periods {
        let interval = planned.resolved.intent.profile.monitors.interval.seconds();
        Periods {
            sync: sync_period.or(self.sync_period).map_or(Periods::default().sync, Time::from_seconds),
            scrape: Time::from_seconds(interval.into()),
        }
    }

    /// The plan, with another profile and changes.
    pub(in crate::cli) fn plan(
        &self,
        profile: Option<&Profile>,
        changes: &[Override],
    ) -> Result<Planned, Failure> {
        let mut observed = self.observed.clone();
        if let Some(profile) = profile {
            let mut profile = profile.clone().with_flag_defaults(&self.defaults);
            profile.prometheus = profile.prometheus.or_else(placeholder);
            observed.profile = Some(Ok(profile));
        }
        if !changes.is_empty() {
            overrides::apply(changes, &mut observed, &self.defaults).map_err(Failure::input)?;
        }
        if observed.asks_for_roles() {
            return Err(Failure::Input(format!(
                "the roles of {} are scaled and its number of ServingGroups stays as it is, which this command simulates; pass a model without {} and without spec.roles in its AutoscalingProfile",
                self.name(),
                AnnotationKey::Roles
            )));
        }
        let plan = plan::plan(&observed, self.capabilities, &self.defaults);
        let resolved = plan.explanation.and_then(|explanation| explanation.resolved);
        let object = match plan.scaled_object {
            Desired::Apply(object) => Some(object),
            // A model in shadow is planned in full, and not scaled.
            Desired::Keep | Desired::Remove => plan.shadow,
        };
        let (Some(object), Some(resolved)) = (object, resolved) else {
            let reasons: Vec<String> = plan
                .findings
                .iter()
                .map(|finding| format!("{}: {}", finding.reason.as_str(), finding.message))
                .collect();
            let reasons =
                if reasons.is_empty() { "run explain for the cause".to_owned() } else { reasons.join("; ") };
            return Err(Failure::Input(format!(
                "the operator would write no ScaledObject for {}, so there is nothing to simulate: {reasons}",
                self.name()
            )));
        };
        let backlog = match (&resolved.triggers.backlog, resolved.triggers.service_time) {
            (Some(_), Some(time)) => {
                Backlog { service_time: ServiceTimeSetting::Fixed(time), ..resolved.intent.backlog }
            }
            _ => Backlog::default(),
        };
        let settings = Settings::from_scaled_object(&object, backlog).map_err(Failure::input)?;
        Ok(Planned { scaled_object: *object, backlog, resolved, settings })
    }
}

impl Planned {
    /// These settings, with the recorded queries of triggers that differ in nothing else: the model of a history is
    /// planned without its routes. `in_force` are the settings as they are planned without changes.
    pub(in crate::cli) fn with_recorded_queries(mut self, history: &History, in_force: &Settings) -> Self {
        let same_backlog = self.backlog == history.backlog;
        for trigger in &mut self.settings.triggers {
            let before = in_force.triggers.iter().find(|other| other.name == trigger.name);
            let is_same = match trigger.signal {
                // The requests that run count beside a signal of the engines.
                SignalModel::ActiveRequests(_) => {
                    same_backlog && before.is_some_and(|before| before.signal == trigger.signal)
                }
                // Its values are those of its query.
                SignalModel::Unknown { .. } => before.is_some_and(|before| before.query == trigger.query),
                _ => true,
            };
            if let Some(query) = history.query(&trigger.name).filter(|_| is_same) {
                trigger.query.clone_from(query);
            }
        }
        self
    }
}

/// The opted-in model with this name, or the only one.
pub(in crate::cli) fn select<'a>(
    models: impl Iterator<Item = &'a ModelServing>,
    name: Option<(&str, &str)>,
) -> Result<&'a ModelServing, Failure> {
    let is_named = |model: &&ModelServing| {
        name.is_none_or(|(namespace, name)| {
            model.namespace().as_deref() == Some(namespace) && model.name_any() == name
        })
    };
    let found: Vec<&ModelServing> = models.filter(is_named).collect();
    let opted_in: Vec<&ModelServing> = found.iter().copied().filter(|model| model.is_opted_in()).collect();
    let shown = |(namespace, name): (&str, &str)| quoted(&format!("{namespace}/{name}"));
    match (opted_in.as_slice(), found.first(), name) {
        ([model], ..) => Ok(model),
        ([], Some(model), Some(name)) => Err(Failure::Input(plan::not_opted_in(model).unwrap_or_else(|| {
            format!("the ModelServing {} has no annotation {MODEL_NAME}, so it is not scaled; set it, or try it in a copy with -f", shown(name))
        }))),
        ([], None, Some(name)) => Err(Failure::Input(format!(
            "the ModelServing {} does not exist; correct the namespace and the name",
            shown(name)
        ))),
        ([], ..) => Err(Failure::Input(format!(
            "no ModelServing in the files has the annotation {MODEL_NAME}; set it to opt in"
        ))),
        (several, ..) => {
            let names: Vec<String> = several
                .iter()
                .take(5)
                .map(|model| format!("{}/{}", model.namespace().unwrap_or_default(), model.name_any()))
                .collect();
            Err(Failure::Input(format!(
                "the files have several models; pass the NAMESPACE/NAME of one: {}",
                names.join(", ")
            )))
        }
    }
}

fn built_in_model(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing",
        "metadata": {"name": name, "namespace": namespace, "annotations": {MODEL_NAME: "model"}},
        "spec": {"replicas": 1, "template": {"roles": [{"name": "engine"}]}},
    })
}

fn placeholder() -> Option<PrometheusSettings> {
    PLACEHOLDER.parse::<PrometheusUrl>().ok().map(PrometheusSettings::from)
}

/// `true` if no address of Prometheus is known.
pub(in crate::cli) fn is_placeholder(settings: &PrometheusSettings) -> bool {
    settings.url.to_string() == PLACEHOLDER
}
