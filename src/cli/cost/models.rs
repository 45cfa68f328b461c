//! The models whose costs are read.

use kube::ResourceExt as _;

use super::Cost;
use crate::cli::{
    backtest::{cluster::view, failure::Failure, subject::select},
    cluster_view::ClusterView,
    plan_args::model_name,
};
use kthena_keda_core::api::kthena::ModelServing;

impl Cost {
    /// The cluster, read once for all models.
    pub(super) async fn view(&self) -> Result<ClusterView, Failure> {
        let namespace = match self.named()? {
            Some((namespace, _)) => Some(namespace),
            None if !self.all_namespaces && self.namespace.is_none() => {
                return Err(Failure::Input(
                    "pass the NAMESPACE/NAME of a ModelServing, -n NAMESPACE, -A, or files with --history"
                        .to_owned(),
                ));
            }
            None => self.namespace.as_deref(),
        };
        view(&self.access, namespace).await
    }

    /// The model of the flags, or all that are opted in.
    pub(super) fn selected<'a>(&self, view: &'a ClusterView) -> Result<Vec<&'a ModelServing>, Failure> {
        if let Some(name) = self.named()? {
            return Ok(vec![select(view.models(), Some(name))?]);
        }
        // The caller may be allowed to read more than the namespace of the flag.
        let is_selected = |model: &&ModelServing| {
            model.is_opted_in()
                && self.namespace.as_ref().is_none_or(|of| model.namespace().as_ref() == Some(of))
        };
        let models: Vec<&ModelServing> = view.models().filter(is_selected).collect();
        if models.is_empty() {
            let missing = view.live.missing.join("; ");
            let missing = if missing.is_empty() { String::new() } else { format!(": {missing}") };
            return Err(Failure::Input(format!(
                "no ModelServing is opted in{missing}; see docs/annotations.md"
            )));
        }
        Ok(models)
    }

    fn named(&self) -> Result<Option<(&str, &str)>, Failure> {
        let name = self.model.as_deref().map(|model| model_name(model, self.namespace.as_deref()));
        name.transpose().map_err(Failure::Input)
    }
}
