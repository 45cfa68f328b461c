//! What KEDA answers the HPA: a signal's value for who reaches neither Prometheus nor its proxy.

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

/// The value of the trigger in this place of a ScaledObject, with the caller's own rights.
///
/// KEDA names metrics by the place of their trigger (`pkg/scalers/scaler.go`).
///
/// # Errors
/// Why there is none, in words for a message.
pub async fn external(
    client: &Client,
    namespace: &str,
    scaled_object: &str,
    place: usize,
) -> Result<f64, String> {
    let path = format!(
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/s{place}-prometheus?labelSelector=scaledobject.keda.sh%2Fname%3D{scaled_object}"
    );
    let request = http::Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    let metrics: Metrics = client.request(request).await.map_err(|error| error.to_string())?;
    metrics.items.first().and_then(|metric| number(&metric.value)).ok_or_else(|| "no data".to_owned())
}

/// Reads a quantity as metrics have them: whole, or in thousandths.
fn number(quantity: &str) -> Option<f64> {
    match quantity.strip_suffix('m') {
        Some(thousandths) => Some(thousandths.parse::<f64>().ok()? / 1000.0),
        None => quantity.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_quantities() {
        assert_eq!((number("27"), number("1500m"), number("x")), (Some(27.0), Some(1.5), None));
    }
}
