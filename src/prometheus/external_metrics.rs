//! Values that KEDA serves to the HPA, for a caller who reaches neither Prometheus nor the service proxy.

use kube::Client;
use serde::Deserialize;

#[derive(Deserialize)]
struct Metrics {
    items: Vec<Metric>,
}

#[derive(Deserialize)]
struct Metric {
    value: String,
}

/// The value of a ScaledObject's trigger, by its index, read with the caller's RBAC permissions.
///
/// KEDA names metrics by the index of their trigger (`pkg/scalers/scaler.go`).
///
/// # Errors
/// A text for users with the reason for which there is no value.
pub async fn external_metric(
    client: &Client,
    namespace: &str,
    scaled_object: &str,
    trigger: usize,
) -> Result<f64, String> {
    let path = format!(
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/s{trigger}-prometheus?labelSelector=scaledobject.keda.sh%2Fname%3D{scaled_object}"
    );
    let request = http::Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    let metrics: Metrics = client.request(request).await.map_err(|error| error.to_string())?;
    metrics.items.first().and_then(|metric| parse_quantity(&metric.value)).ok_or_else(|| "no data".to_owned())
}

/// Parses a quantity as external metrics have it: an integer, or thousandths with the suffix `m`.
fn parse_quantity(quantity: &str) -> Option<f64> {
    match quantity.strip_suffix('m') {
        Some(thousandths) => Some(thousandths.parse::<f64>().ok()? / 1000.0),
        None => quantity.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_integers_and_thousandths() {
        assert_eq!(
            (parse_quantity("27"), parse_quantity("1500m"), parse_quantity("x")),
            (Some(27.0), Some(1.5), None)
        );
    }
}
