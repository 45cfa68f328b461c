//! The running operator, as far as the caller may see it: its flags, and whether an instance leads.

use k8s_openapi::{
    api::{apps::v1::Deployment, coordination::v1::Lease},
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt as _, api::ListParams};

use kthena_keda_core::domain::{PrometheusUrl, shortened};

/// Label of the Deployment that the chart creates.
const LABEL: &str = "app.kubernetes.io/name=kthena-keda";

/// A Deployment of the operator.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Operator {
    /// `<namespace>/<name>`.
    pub(super) place: String,
    /// `--prometheus-url`.
    pub(super) prometheus_url: Option<PrometheusUrl>,
    /// `--router-namespace`.
    pub(super) router_namespace: Option<String>,
    /// `--hpa-sync-period`, in seconds.
    pub(super) hpa_sync_period: Option<u64>,
    /// `--stand-in-image`.
    pub(super) stand_in_image: Option<String>,
    /// `--scale-roles`.
    pub(super) scales_roles: bool,
    lease: String,
    lease_namespace: String,
}

impl Operator {
    /// The only Deployment of the operator; `None` if there is none, or the caller may not list Deployments.
    ///
    /// # Errors
    /// A text for users if there are several: any user may label a Deployment of a namespace.
    pub(super) async fn find(client: &Client) -> Result<Option<Self>, String> {
        let api: Api<Deployment> = Api::all(client.clone());
        let found = api.list(&ListParams::default().labels(LABEL)).await;
        found.map_or(Ok(None), |found| Self::only(&found.items))
    }

    fn only(found: &[Deployment]) -> Result<Option<Self>, String> {
        match found {
            [] => Ok(None),
            [deployment] => Ok(Self::of(deployment)),
            _ => Err(format!(
                "several Deployments have the label {LABEL}, so the operator's flags are unknown; pass --prometheus-url and --router-namespace"
            )),
        }
    }

    fn of(deployment: &Deployment) -> Option<Self> {
        let containers = &deployment.spec.as_ref()?.template.spec.as_ref()?.containers;
        let arguments: Vec<&str> = containers
            .iter()
            .flat_map(|container| container.args.iter().flatten())
            .map(String::as_str)
            .collect();
        let value = |flag: &str| arguments.iter().find_map(|argument| argument.strip_prefix(flag));
        let (namespace, name) = (deployment.namespace()?, deployment.name_any());
        Some(Self {
            place: format!("{namespace}/{name}"),
            prometheus_url: value("--prometheus-url=").and_then(|url| url.parse().ok()),
            router_namespace: value("--router-namespace=").map(str::to_owned),
            hpa_sync_period: value("--hpa-sync-period=").and_then(|seconds| seconds.parse().ok()),
            stand_in_image: value("--stand-in-image=").map(str::to_owned),
            scales_roles: value("--scale-roles=") == Some("true"),
            lease: value("--lease-name=").unwrap_or("kthena-keda").to_owned(),
            lease_namespace: value("--lease-namespace=").map_or(namespace, str::to_owned),
        })
    }

    /// Holder and age of the leader lease, as a clause for a message; `None` if it cannot be read.
    pub(super) async fn leader(&self, client: &Client) -> Option<String> {
        let api: Api<Lease> = Api::namespaced(client.clone(), &self.lease_namespace);
        let lease = api.get_opt(&self.lease).await.ok()??;
        Some(leader(&lease, Timestamp::now()))
    }
}

fn leader(lease: &Lease, now: Timestamp) -> String {
    let spec = lease.spec.clone().unwrap_or_default();
    let (Some(holder), Some(renewed)) =
        (spec.holder_identity.filter(|holder| !holder.is_empty()), spec.renew_time)
    else {
        return "no instance holds its Lease".to_owned();
    };
    let age = now.duration_since(renewed.0).as_secs();
    let holder = shortened(&holder);
    if age > i64::from(spec.lease_duration_seconds.unwrap_or(15)) {
        format!("its last leader {holder} renewed the Lease {age} s ago, so none leads")
    } else {
        format!("{holder} leads")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn deployment(args: &[&str]) -> Deployment {
        let template = json!({"spec": {"containers": [{"name": "c", "args": args}]}});
        let deployment = json!({"metadata": {"name": "keda", "namespace": "ops"}, "spec": {"selector": {}, "template": template}});
        serde_json::from_value(deployment).unwrap()
    }

    #[test]
    fn reads_the_flags_of_the_deployment() {
        let args = [
            "run",
            "--prometheus-url=http://p:9090",
            "--router-namespace=routers",
            "--lease-name=one",
            "--hpa-sync-period=30",
            "--stand-in-image=registry/kthena-keda:1",
            "--scale-roles=true",
        ];
        let found = Operator::of(&deployment(&args)).unwrap();
        let expected = Operator {
            place: "ops/keda".to_owned(),
            prometheus_url: Some("http://p:9090".parse().unwrap()),
            router_namespace: Some("routers".to_owned()),
            hpa_sync_period: Some(30),
            stand_in_image: Some("registry/kthena-keda:1".to_owned()),
            scales_roles: true,
            lease: "one".to_owned(),
            lease_namespace: "ops".to_owned(),
        };
        assert_eq!(found, expected);
        let elsewhere = Operator::of(&deployment(&["run", "--lease-namespace=leases"])).unwrap();
        assert_eq!(elsewhere.lease_namespace, "leases");
    }

    #[test]
    fn trusts_no_deployment_of_several() {
        let of_operator = deployment(&["run", "--prometheus-url=http://p:9090"]);
        let of_tenant = deployment(&["run", "--prometheus-url=http://thief:9090"]);
        assert!(Operator::only(&[]).unwrap().is_none());
        assert!(Operator::only(std::slice::from_ref(&of_operator)).unwrap().is_some());
        let note = Operator::only(&[of_tenant, of_operator]).unwrap_err();
        assert!(note.contains("pass --prometheus-url"), "{note}");
    }

    #[rstest]
    #[case(json!({"holderIdentity": "pod-1", "renewTime": "2026-01-01T00:00:50.000000Z", "leaseDurationSeconds": 15}), "pod-1 leads")]
    #[case(json!({"holderIdentity": "pod-1", "renewTime": "2026-01-01T00:00:00.000000Z", "leaseDurationSeconds": 15}), "its last leader pod-1 renewed the Lease 60 s ago, so none leads")]
    #[case(json!({"holderIdentity": "", "renewTime": "2026-01-01T00:00:50.000000Z"}), "no instance holds its Lease")]
    fn tells_whether_an_instance_leads(#[case] spec: Value, #[case] expected: &str) {
        let lease: Lease = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        assert_eq!(leader(&lease, "2026-01-01T00:01:00Z".parse().unwrap()), expected);
    }
}
