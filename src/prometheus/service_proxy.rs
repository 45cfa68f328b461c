//! Queries of a Prometheus in the cluster from outside of it, through the API server's service proxy.

use std::time::Duration;

use kube::{Client, core::Status};
use reqwest::{StatusCode, Url};

use super::{range::shown, response};
use kthena_keda_core::{intent::PrometheusSettings, observed::Sample};

/// Runs an instant query with the caller's RBAC permissions (`get` on `services/proxy`).
///
/// # Errors
/// A text for users; also if the address is not that of a Service in the cluster.
pub(super) async fn query(
    client: &Client,
    settings: &PrometheusSettings,
    query: &str,
) -> Result<Vec<Sample>, String> {
    let request = api_request(settings, "query", &[("query", query)])?;
    let body = client.request_text(request).await.map_err(|error| message(settings, error))?;
    response::read(body.as_bytes())
}

/// A failure in words. The API server itself answers for a Service that does not exist, and for one without endpoints.
fn message(settings: &PrometheusSettings, error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) if is_missing_service(&status) => {
            let url = settings.url.to_string();
            let host = url.split(['/', ':']).find(|part| part.contains('.')).unwrap_or(&url);
            format!("the Service {host} does not exist, so correct the address of Prometheus")
        }
        kube::Error::Api(status) => {
            format!("HTTP status {}: {}", status.code, shown(&status.message))
        }
        error => error.to_string(),
    }
}

/// `true` for the API server's own response; one of Prometheus has no reason.
fn is_missing_service(status: &Status) -> bool {
    status.reason == "NotFound"
}

/// Requests a path of the API with these parameters within a time, and returns the status and the body.
///
/// # Errors
/// A text for users; also if the address is not that of a Service in the cluster.
pub(super) async fn api(
    client: &Client,
    settings: &PrometheusSettings,
    path: &str,
    parameters: &[(&str, &str)],
    limit: Duration,
) -> Result<(StatusCode, Vec<u8>), String> {
    let request = api_request(settings, path, parameters)?;
    let response = tokio::time::timeout(limit, client.request_text(request)).await;
    match response.map_err(|_| format!("no response within {} s", limit.as_secs()))? {
        Ok(body) => Ok((StatusCode::OK, body.into_bytes())),
        Err(kube::Error::Api(status)) if !is_missing_service(&status) => {
            let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::BAD_GATEWAY);
            Ok((code, status.message.clone().into_bytes()))
        }
        Err(error) => Err(message(settings, error)),
    }
}

fn api_request(
    settings: &PrometheusSettings,
    path: &str,
    parameters: &[(&str, &str)],
) -> Result<http::Request<Vec<u8>>, String> {
    let url = settings.url.to_string();
    let proxy = proxy_path(&url).ok_or_else(|| {
        format!("{url} is not a Service of the cluster, so pass --prometheus-url with an address that is reachable from here")
    })?;
    // The host is a placeholder: only the path and the query are used.
    let of_profile = settings.query_parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let parameters = parameters.iter().copied().chain(of_profile);
    let address = Url::parse_with_params(&format!("http://api{proxy}/api/v1/{path}"), parameters)
        .map_err(|error| error.to_string())?;
    request(settings, &format!("{}?{}", address.path(), address.query().unwrap_or_default()))
}

/// Headers that the API server reads itself, in lower case: with a profile's values it would authenticate or impersonate
/// another user, or encode the response differently.
const RESERVED_HEADERS: [&str; 4] = ["authorization", "host", "cookie", "accept"];
/// Prefixes of the headers that name a user, in lower case.
const RESERVED_PREFIXES: [&str; 2] = ["impersonate-", "x-remote-"];

fn is_reserved(header: &str) -> bool {
    let header = header.to_ascii_lowercase();
    RESERVED_HEADERS.contains(&header.as_str())
        || RESERVED_PREFIXES.iter().any(|prefix| header.starts_with(prefix))
}

/// The request with the headers of the profile, such as that of a tenant, which the API server passes on. Those that the
/// API server reads itself are left out.
fn request(settings: &PrometheusSettings, path: &str) -> Result<http::Request<Vec<u8>>, String> {
    let headers = settings.headers.iter().filter(|(name, _)| !is_reserved(name));
    let request =
        headers.fold(http::Request::get(path), |request, (name, value)| request.header(name, value));
    request.body(Vec::new()).map_err(|error| error.to_string())
}

/// The proxy's path for `http://name.namespace.svc:9090/path`; `None` for any other kind of address.
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

    #[test]
    fn sends_the_headers_of_the_profile() {
        let url: kthena_keda_core::domain::PrometheusUrl = "http://p.n.svc:9090".parse().unwrap();
        let headers = [("X-Scope-OrgID".to_owned(), "team-a".to_owned())].into();
        let settings = PrometheusSettings { headers, ..PrometheusSettings::from(url) };
        assert_eq!(request(&settings, "/x").unwrap().headers()["x-scope-orgid"], "team-a");
    }

    /// A Prometheus that answers with 404 is there.
    #[rstest]
    #[case(
        "NotFound",
        "the Service prometheus.monitoring.svc does not exist, so correct the address of Prometheus"
    )]
    #[case("Failed to parse error data", "HTTP status 404: page not found")]
    fn distinguishes_a_missing_service_from_a_missing_page(#[case] reason: &str, #[case] expected: &str) {
        let url: kthena_keda_core::domain::PrometheusUrl =
            "http://prometheus.monitoring.svc:9090/x".parse().unwrap();
        let status = Status::failure("page not found", reason).with_code(404);
        let error = kube::Error::Api(Box::new(status));
        assert_eq!(message(&PrometheusSettings::from(url), error), expected);
    }

    #[rstest]
    #[case("Authorization")]
    #[case("authorization")]
    #[case("Impersonate-User")]
    #[case("IMPERSONATE-GROUP")]
    #[case("impersonate-extra-scopes")]
    #[case("X-Remote-User")]
    #[case("Cookie")]
    #[case("Host")]
    #[case("Accept")]
    fn keeps_headers_of_the_profile_from_the_api_server(#[case] name: &str) {
        let url: kthena_keda_core::domain::PrometheusUrl = "http://p.n.svc:9090".parse().unwrap();
        let headers = [(name.to_owned(), "x".to_owned())].into();
        let settings = PrometheusSettings { headers, ..PrometheusSettings::from(url) };
        assert!(request(&settings, "/x").unwrap().headers().is_empty());
    }

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
    fn proxies_addresses_of_services(#[case] url: &str, #[case] path: Option<&str>) {
        assert_eq!(proxy_path(url).as_deref(), path);
    }
}
