//! One client for every Prometheus.

use std::{fs, path::PathBuf, time::Duration};

use prometheus_http_query::Client;
use reqwest::{
    Certificate, Response, StatusCode,
    header::{AUTHORIZATION, HeaderName, HeaderValue},
};

use super::response;
use kthena_keda_core::{intent::PrometheusSettings, observed::Sample};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(8);
/// How long Prometheus itself may take, in milliseconds; less, so that it says so itself.
const EVALUATION: i64 = 5000;
/// How long it may take to reach it.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an answer may be, in bytes: hundreds of thousands of elements. Whatever else stands under the address may answer without end.
const LONGEST: usize = 64 << 20;

/// How the operator itself is let in.
#[derive(Clone, Debug, Default)]
pub struct ClientConfig {
    /// A file that holds a bearer token, read again for each question: such tokens are replaced from time to time.
    pub bearer_token_file: Option<PathBuf>,
    /// A file of certificate authorities besides the system's, PEM.
    pub ca_file: Option<PathBuf>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientConfigError {
    /// A file cannot be read.
    #[error("cannot read {0}")]
    File(PathBuf, #[source] std::io::Error),
    /// It does not hold what it should, or there are no system certificates.
    #[error("cannot make a client for Prometheus")]
    Client(#[source] reqwest::Error),
}

/// Asks any Prometheus.
#[derive(Clone, Debug)]
pub struct Prometheus {
    http: reqwest::Client,
    lenient: reqwest::Client,
    config: ClientConfig,
}

impl Prometheus {
    /// A client that is let in like this.
    ///
    /// # Errors
    /// When the file of certificate authorities cannot be used.
    pub fn new(config: ClientConfig) -> Result<Self, ClientConfigError> {
        let authorities = match &config.ca_file {
            Some(file) => {
                let pem = fs::read(file).map_err(|error| ClientConfigError::File(file.clone(), error))?;
                Certificate::from_pem_bundle(&pem).map_err(ClientConfigError::Client)?
            }
            None => Vec::new(),
        };
        let builder = || {
            let builder = reqwest::Client::builder()
                .timeout(LIMIT)
                .connect_timeout(CONNECT)
                .redirect(reqwest::redirect::Policy::none());
            builder.tls_certs_merge(authorities.clone())
        };
        let http = builder().build().map_err(ClientConfigError::Client)?;
        let lenient =
            builder().tls_danger_accept_invalid_certs(true).build().map_err(ClientConfigError::Client)?;
        Ok(Self { http, lenient, config })
    }

    /// Asks once.
    ///
    /// # Errors
    /// Why there is no answer, in words for a message.
    pub(super) async fn query(
        &self,
        settings: &PrometheusSettings,
        query: &str,
    ) -> Result<Vec<Sample>, String> {
        let http = if settings.unsafe_ssl { &self.lenient } else { &self.http };
        let client =
            Client::from(http.clone(), &settings.url.to_string()).map_err(|error| error.to_string())?;
        let mut trigger = client.query(query).timeout(EVALUATION);
        if let Some(token) = self.token()? {
            trigger = trigger.header(AUTHORIZATION, token);
        }
        for (name, value) in &settings.headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
                trigger = trigger.header(name, value);
            }
        }
        let response = trigger.get_raw().await.map_err(|error| words(&error))?;
        let status = response.status();
        let body = body(response).await?;
        match response::said(&body) {
            Ok(said) => said,
            Err(_) if !status.is_success() => Err(status_words(status)),
            Err(error) => Err(response::unlike(&error)),
        }
    }

    fn token(&self) -> Result<Option<HeaderValue>, String> {
        let Some(file) = &self.config.bearer_token_file else { return Ok(None) };
        let token =
            fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let mut value: HeaderValue = format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| format!("{} holds no token", file.display()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

async fn body(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| words(&error))? {
        if body.len() + chunk.len() > LONGEST {
            return Err(format!("it answers more than {LONGEST} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The innermost cause tells most.
fn words(error: &dyn std::error::Error) -> String {
    let mut source = error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    source.to_string()
}

/// An HTTP status tells the cure.
fn status_words(status: StatusCode) -> String {
    let cure = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "; give the operator a token for its own queries with --prometheus-bearer-token-file"
        }
        _ => "",
    };
    format!("it answers with status: {}{cure}", status.as_u16())
}
