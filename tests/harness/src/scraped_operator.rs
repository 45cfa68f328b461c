//! The operator's own metrics in Prometheus: a pod, a Service and a ServiceMonitor as in the chart.

use kube::Client;
use serde_json::{Value, json};

use crate::{neighbours::NODE, objects::apply};

/// The namespace of the release admits only pods with restricted security settings.
const NAMESPACE: &str = "monitoring";
const NAME: &str = "kthena-keda-operator";

/// Has Prometheus scrape an operator that listens on this port, at this interval.
pub(crate) async fn scrape(client: &Client, port: u16, interval: &str) {
    let labels = json!({"app.kubernetes.io/name": NAME});
    let metadata = |labels: &Value| json!({"name": NAME, "namespace": NAMESPACE, "labels": labels});
    let container = json!({"name": "kthena-keda", "image": "kthena-keda", "ports": [{"name": "http", "containerPort": port}]});
    apply(
        client,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata(&labels), "spec": {"nodeName": NODE, "containers": [container]}}),
    )
    .await;
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
    apply(
        client,
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata(&labels), "spec": {"selector": labels, "ports": ports}}),
    )
    .await;
    let endpoint = json!({"port": "http", "interval": interval, "honorLabels": true});
    apply(
        client,
        json!({
            "apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor", "metadata": metadata(&labels),
            "spec": {"selector": {"matchLabels": labels}, "endpoints": [endpoint]},
        }),
    )
    .await;
}
