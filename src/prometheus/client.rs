//! Client for every Prometheus that models are scaled by.

use std::{fs, path::PathBuf, time::Duration};

use reqwest::{
    Certificate, Response, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue},
};

use super::response;
use crate::runtime::delays::{PROMETHEUS_CONNECT, PROMETHEUS_EVALUATION_MILLIS, PROMETHEUS_REQUEST};
use kthena_keda_core::{intent::PrometheusSettings, observed::Sample};

/// Longest response body, in bytes: tens of thousands of samples. Another server at the address may respond
/// without end.
const BODY_MAX: usize = 8 << 20;

/// Longest address of a query, in bytes. Proxies in front of a Prometheus accept 4 to 8 kB of address and headers; a longer query goes into
/// the body of a POST, which Prometheus accepts for every query.
const URL_MAX: usize = 3000;

/// Credentials of the operator's own queries.
#[derive(Clone, Debug, Default)]
pub struct ClientConfig {
    /// File that holds a bearer token, read again for each query, since such tokens are rotated.
    pub bearer_token_file: Option<PathBuf>,
    /// PEM file of certificate authorities to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
}

/// Error of [`Prometheus::new`].
#[derive(Debug, thiserror::Error)]
pub enum ClientConfigError {
    /// The file of certificate authorities cannot be read.
    #[error("cannot read {0}; correct --prometheus-ca-file")]
    File(PathBuf, #[source] std::io::Error),
    /// The file holds no PEM certificates, or the system has no certificate authorities.
    #[error("cannot create the Prometheus client; check --prometheus-ca-file and the system's certificates")]
    Client(#[source] reqwest::Error),
}

/// HTTP client for any Prometheus.
#[derive(Clone, Debug)]
pub struct Prometheus {
    http: reqwest::Client,
    /// Accepts any certificate, for profiles with `unsafeSsl`.
    lenient: reqwest::Client,
    config: ClientConfig,
}

impl Prometheus {
    /// A client with these credentials.
    ///
    /// # Errors
    /// [`ClientConfigError::File`] and [`ClientConfigError::Client`] if the certificate authorities cannot be
    /// used.
    pub fn new(config: ClientConfig) -> Result<Self, ClientConfigError> {
        let authorities = match &config.ca_file {
            Some(file) => {
                let pem = fs::read(file).map_err(|error| ClientConfigError::File(file.clone(), error))?;
                Certificate::from_pem_bundle(&pem).map_err(ClientConfigError::Client)?
            }
            None => Vec::new(),
        };
        let http = builder(&authorities).build().map_err(ClientConfigError::Client)?;
        let lenient = builder(&authorities).tls_danger_accept_invalid_certs(true);
        let lenient = lenient.build().map_err(ClientConfigError::Client)?;
        Ok(Self { http, lenient, config })
    }

    /// Runs an instant query.
    ///
    /// # Errors
    /// A text for users with the reason for which there are no samples.
    pub(super) async fn query(
        &self,
        settings: &PrometheusSettings,
        query: &str,
    ) -> Result<Vec<Sample>, String> {
        let limit = evaluation_limit(settings);
        let request = Request::new(settings, "query", &[("query", query), ("timeout", &limit)])?;
        let (status, body) = self.send(settings, request, settings.query_limit()).await?;
        match response::decode(&body) {
            Ok(result) => result,
            Err(_) if !status.is_success() => Err(status_message(status)),
            Err(error) => Err(response::unexpected(&error)),
        }
    }

    /// Requests a path of the API with these parameters within a time, and returns the status and the body.
    pub(super) async fn api(
        &self,
        settings: &PrometheusSettings,
        path: &str,
        parameters: &[(&str, &str)],
        limit: Duration,
    ) -> Result<(StatusCode, Vec<u8>), String> {
        self.send(settings, Request::new(settings, path, parameters)?, Some(limit)).await
    }

    async fn send(
        &self,
        settings: &PrometheusSettings,
        Request { url, form }: Request,
        limit: Option<Duration>,
    ) -> Result<(StatusCode, Vec<u8>), String> {
        let http = if settings.unsafe_ssl { &self.lenient } else { &self.http };
        let mut request = match form {
            Some(form) => http.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form),
            None => http.get(url),
        };
        // Includes the response.
        if let Some(limit) = limit {
            request = request.timeout(limit);
        }
        if let Some(token) = self.token()? {
            request = request.header(AUTHORIZATION, token);
        }
        for (name, value) in &settings.headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
                request = request.header(name, value);
            }
        }
        let response = request.send().await.map_err(|error| innermost_cause(&error))?;
        Ok((response.status(), read_body(response).await?))
    }

    fn token(&self) -> Result<Option<HeaderValue>, String> {
        let Some(file) = &self.config.bearer_token_file else { return Ok(None) };
        let token = fs::read_to_string(file).map_err(|error| {
            format!("cannot read {}: {error}; correct --prometheus-bearer-token-file", file.display())
        })?;
        let mut value: HeaderValue = format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| format!("{} does not hold a bearer token; correct the file", file.display()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// A request for a path of the API.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    url: Url,
    /// Body of a POST; `None` for a GET.
    form: Option<String>,
}

impl Request {
    /// The request with these parameters. Those of the profile stay in the address, since they may be for a proxy.
    fn new(settings: &PrometheusSettings, path: &str, parameters: &[(&str, &str)]) -> Result<Self, String> {
        let whole = url(settings, path, parameters)?;
        if whole.as_str().len() <= URL_MAX {
            return Ok(Self { url: whole, form: None });
        }
        let form = Url::parse_with_params("http://form", parameters).map_err(|error| error.to_string())?;
        let form = form.query().unwrap_or_default().to_owned();
        Ok(Self { url: url(settings, path, &[])?, form: Some(form) })
    }
}

/// Limit of the evaluation of an instant query. It is shorter than that of the request, so that Prometheus itself reports
/// the timeout.
fn evaluation_limit(settings: &PrometheusSettings) -> String {
    let evaluation = match settings.timeout {
        Some(seconds) => i64::from(seconds) * 800,
        None => PROMETHEUS_EVALUATION_MILLIS,
    };
    format!("{evaluation}ms")
}

/// Address of a path of the API, with the parameters of the profile.
fn url(settings: &PrometheusSettings, path: &str, parameters: &[(&str, &str)]) -> Result<Url, String> {
    let of_profile = settings.query_parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let parameters = parameters.iter().copied().chain(of_profile);
    Url::parse_with_params(&format!("{}/api/v1/{path}", settings.url), parameters)
        .map_err(|error| error.to_string())
}

fn builder(authorities: &[Certificate]) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .timeout(PROMETHEUS_REQUEST)
        .connect_timeout(PROMETHEUS_CONNECT)
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_merge(authorities.to_vec())
}

async fn read_body(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| innermost_cause(&error))? {
        if body.len() + chunk.len() > BODY_MAX {
            return Err(format!(
                "unexpected response (is this a Prometheus?): it has more than {BODY_MAX} bytes"
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The text of the innermost cause, which is the most specific.
fn innermost_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The text for a response with an error status, with a remedy if the status implies one.
pub(super) fn status_message(status: StatusCode) -> String {
    let remedy = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "; give the operator a token for its own queries with --prometheus-bearer-token-file"
        }
        StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            ": a query is too long for Prometheus or a proxy in front of it; raise the limit of the proxy, or let prometheus.url lead past it"
        }
        _ => "",
    };
    format!("the response has HTTP status {}{remedy}", status.as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kthena_keda_core::domain::PrometheusUrl;
    use rstest::rstest;

    #[rstest]
    #[case::unauthorized(401, "--prometheus-bearer-token-file")]
    #[case::long_address(414, "too long for Prometheus or a proxy")]
    #[case::long_header(431, "too long for Prometheus or a proxy")]
    #[case::unavailable(503, "the response has HTTP status 503")]
    fn names_the_remedy_for_a_status(#[case] status: u16, #[case] expected: &str) {
        let message = status_message(StatusCode::from_u16(status).unwrap());
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn carries_the_parameters_and_the_limit_of_a_profile() {
        let url: PrometheusUrl = "http://thanos:9090/prefix".parse().unwrap();
        let mut settings = PrometheusSettings::from(url);
        let query_url = |settings: &PrometheusSettings, query: &str| {
            super::url(settings, "query", &[("query", query), ("timeout", &evaluation_limit(settings))])
        };
        let address = query_url(&settings, "a{b=\"c\"}").unwrap();
        assert_eq!(
            address.as_str(),
            "http://thanos:9090/prefix/api/v1/query?query=a%7Bb%3D%22c%22%7D&timeout=5000ms"
        );
        assert_eq!(settings.query_limit(), None);
        settings.query_parameters.insert("dedup".to_owned(), "true".to_owned());
        settings.timeout = Some(30);
        let address = query_url(&settings, "up").unwrap();
        assert_eq!(address.query(), Some("query=up&timeout=24000ms&dedup=true"));
        assert_eq!(settings.query_limit(), Some(std::time::Duration::from_secs(30)));
    }
    #[test]
    fn a_long_query_is_the_body_of_a_post() {
        let url: PrometheusUrl = "http://thanos:9090".parse().unwrap();
        let mut settings = PrometheusSettings::from(url);
        settings.query_parameters.insert("dedup".to_owned(), "true".to_owned());
        let request = |query: &str| Request::new(&settings, "query_range", &[("query", query)]).unwrap();
        let short = request("up");
        assert_eq!((short.url.query(), short.form), (Some("query=up&dedup=true"), None));
        let long = request(&"up + ".repeat(700));
        assert_eq!(long.url.as_str(), "http://thanos:9090/api/v1/query_range?dedup=true");
        let form = long.form.unwrap();
        assert!(form.starts_with("query=up+%2B+up") && !form.contains("dedup"), "{form}");
    }
}
