//! One client for every Prometheus.

use std::{collections::HashMap, fs, path::PathBuf, time::Duration};

use prometheus_http_query::{Client, Error as QueryError};
use reqwest::{
    Certificate, StatusCode,
    header::{AUTHORIZATION, HeaderName, HeaderValue},
};

use crate::intent::PrometheusSettings;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(8);
/// How long Prometheus itself may take, in milliseconds; less, so that it says so itself.
const EVALUATION: i64 = 5000;
/// How long it may take to reach it.
const CONNECT: Duration = Duration::from_secs(3);

/// How the operator itself is let in.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// A file that holds a bearer token, read again for each question: such tokens are replaced from time to time.
    pub bearer_token_file: Option<PathBuf>,
    /// A file of certificate authorities besides the system's, PEM.
    pub ca_file: Option<PathBuf>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file cannot be read.
    #[error("cannot read {0}")]
    File(PathBuf, #[source] std::io::Error),
    /// It does not hold what it should, or there are no system certificates.
    #[error("cannot make a client for Prometheus")]
    Client(#[source] reqwest::Error),
}

/// One element of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    /// Its labels.
    pub labels: HashMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// Asks any Prometheus.
#[derive(Clone, Debug)]
pub struct Prometheus {
    http: reqwest::Client,
    lenient: reqwest::Client,
    access: Access,
}

impl Prometheus {
    /// A client that is let in like this.
    ///
    /// # Errors
    /// When the file of certificate authorities cannot be used.
    pub fn new(access: Access) -> Result<Self, AccessError> {
        let authorities = match &access.ca_file {
            Some(file) => {
                let pem = fs::read(file).map_err(|error| AccessError::File(file.clone(), error))?;
                Certificate::from_pem_bundle(&pem).map_err(AccessError::Client)?
            }
            None => Vec::new(),
        };
        let builder = || {
            let builder = reqwest::Client::builder().timeout(LIMIT).connect_timeout(CONNECT).redirect(reqwest::redirect::Policy::none());
            builder.tls_certs_merge(authorities.clone())
        };
        let http = builder().build().map_err(AccessError::Client)?;
        let lenient = builder().tls_danger_accept_invalid_certs(true).build().map_err(AccessError::Client)?;
        Ok(Self { http, lenient, access })
    }

    /// Asks once.
    ///
    /// # Errors
    /// Why there is no answer, in words for a message.
    pub(super) async fn ask(&self, settings: &PrometheusSettings, query: &str) -> Result<Vec<Element>, String> {
        let http = if settings.unsafe_ssl { &self.lenient } else { &self.http };
        let client = Client::from(http.clone(), &settings.url.to_string()).map_err(|error| error.to_string())?;
        let mut question = client.query(query).timeout(EVALUATION);
        if let Some(token) = self.token()? {
            question = question.header(AUTHORIZATION, token);
        }
        for (name, value) in &settings.headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
                question = question.header(name, value);
            }
        }
        let result = question.get().await.map_err(|error| words(&error))?;
        let elements = result.data().clone().into_vector().map_err(|_| "the answer is no vector".to_owned())?;
        Ok(elements.into_iter().map(|element| Element { value: element.sample().value(), labels: element.metric().clone() }).collect())
    }

    fn token(&self) -> Result<Option<HeaderValue>, String> {
        let Some(file) = &self.access.bearer_token_file else { return Ok(None) };
        let token = fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let mut value: HeaderValue =
            format!("Bearer {}", token.trim()).parse().map_err(|_| format!("{} holds no token", file.display()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// The innermost cause tells most, and an HTTP status tells the cure.
fn words(error: &QueryError) -> String {
    let mut source: &dyn std::error::Error = error;
    while let Some(inner) = source.source() {
        if let Some(status) = inner.downcast_ref::<reqwest::Error>().and_then(reqwest::Error::status) {
            return status_words(status);
        }
        source = inner;
    }
    source.to_string()
}

fn status_words(status: StatusCode) -> String {
    let cure = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "; give the operator a token for its own questions by --prometheus-bearer-token-file"
        }
        _ => "",
    };
    format!("it answers with status: {}{cure}", status.as_u16())
}
