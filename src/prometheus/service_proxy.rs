//! Asks a Prometheus in the cluster through the API server, for who is not in the cluster.

use kube::Client;
use reqwest::Url;

use super::response;
use kthena_keda_core::{intent::PrometheusSettings, observed::Sample};

/// Asks once, by the service proxy, with the caller's own rights.
///
/// # Errors
/// Why there is no answer, in words for a message; also where the address names no Service of the cluster.
pub(super) async fn query(
    client: &Client,
    settings: &PrometheusSettings,
    query: &str,
) -> Result<Vec<Sample>, String> {
    let url = settings.url.to_string();
    let path = proxy_path(&url).ok_or_else(|| format!("{url} names no Service of the cluster"))?;
    // Any host will do: the path and the query are all that is taken of it.
    let address = Url::parse_with_params(&format!("http://api{path}/api/v1/query"), [("query", query)])
        .map_err(|error| error.to_string())?;
    let request = http::Request::get(format!("{}?{}", address.path(), address.query().unwrap_or_default()))
        .body(Vec::new())
        .map_err(|error| error.to_string())?;
    let body = client.request_text(request).await.map_err(|error| error.to_string())?;
    response::read(body.as_bytes())
}

/// `http://name.namespace.svc:9090/path` as the API server's proxy has it.
fn proxy_path(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let (authority, path) = rest
        .split_once('/')
        .map_or((rest, String::new()), |(authority, path)| (authority, format!("/{path}")));
    let (host, port) =
        authority.split_once(':').unwrap_or((authority, if scheme == "https" { "443" } else { "80" }));
    let mut parts = host.split('.');
    let (name, namespace) = (parts.next()?, parts.next()?);
    (parts.next()? == "svc")
        .then(|| format!("/api/v1/namespaces/{namespace}/services/{scheme}:{name}:{port}/proxy{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(
        "http://prometheus-operated.monitoring.svc:9090",
        Some("/api/v1/namespaces/monitoring/services/http:prometheus-operated:9090/proxy")
    )]
    #[case(
        "https://mimir.obs.svc.cluster.local/prometheus",
        Some("/api/v1/namespaces/obs/services/https:mimir:443/proxy/prometheus")
    )]
    #[case("https://mimir.example.com", None)]
    #[case("http://127.0.0.1:9090", None)]
    fn the_path_of_a_service(#[case] url: &str, #[case] path: Option<&str>) {
        assert_eq!(proxy_path(url).as_deref(), path);
    }
}
