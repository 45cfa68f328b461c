//! The models whose costs are read.

use kube::ResourceExt as _;

use super::Cost;
use crate::{
    cli::{
        backtest::{cluster::Location, failure::Failure},
        operator::Operator,
        plan_args::model_name,
        prometheus_route::ROUTER_NAMESPACE,
    },
    cluster::{self, discovery},
    prometheus::ClientConfig,
    sources::{kinds::optional_apis, live},
};

/// A model of the cluster.
pub(super) struct Target {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Cost {
    /// The model of the flags, or all that are opted in.
    pub(super) async fn targets(&self) -> Result<Vec<Target>, Failure> {
        if let Some(model) = &self.model {
            let (namespace, name) = model_name(model, self.namespace.as_deref()).map_err(Failure::Input)?;
            return Ok(vec![Target { namespace: namespace.to_owned(), name: name.to_owned() }]);
        }
        if !self.all_namespaces && self.namespace.is_none() {
            return Err(Failure::Input(
                "pass the NAMESPACE/NAME of a ModelServing, -n NAMESPACE, -A, or files with --history"
                    .to_owned(),
            ));
        }
        let client = cluster::connect(self.context.clone()).await.map_err(Failure::input)?;
        let served = discovery::discover(&client, &optional_apis())
            .await
            .map_err(|error| Failure::Input(format!("discovery of the cluster's APIs failed: {error}")))?;
        let router = if let Some(router) = &self.router_namespace {
            router.clone()
        } else {
            let operator = Operator::find(&client).await.map_err(Failure::Input)?;
            operator.and_then(|found| found.router_namespace).unwrap_or_else(|| ROUTER_NAMESPACE.to_owned())
        };
        let live = live::read(&client, &served, self.namespace.as_deref(), &router).await;
        let models = live.objects.model_servings.iter().filter(|(_, model)| model.is_opted_in());
        let targets: Vec<Target> = models
            .map(|(_, model)| Target {
                namespace: model.namespace().unwrap_or_default(),
                name: model.name_any(),
            })
            .collect();
        if targets.is_empty() {
            let missing = live.missing.join("; ");
            let missing = if missing.is_empty() { String::new() } else { format!(": {missing}") };
            return Err(Failure::Input(format!(
                "no ModelServing is opted in{missing}; see docs/annotations.md"
            )));
        }
        Ok(targets)
    }

    pub(super) fn location<'a>(&'a self, target: &'a Target) -> Location<'a> {
        Location {
            namespace: &target.namespace,
            name: &target.name,
            context: self.context.as_deref(),
            router_namespace: self.router_namespace.as_deref(),
            prometheus_url: self.prometheus_url.as_ref(),
            client: ClientConfig {
                bearer_token_file: self.prometheus_bearer_token_file.clone(),
                ca_file: self.prometheus_ca_file.clone(),
            },
        }
    }
}
