//! The address of a Prometheus.

use std::{fmt, str::FromStr};

use super::ValueError;

/// Base URL of the Prometheus that KEDA queries: http or https, without credentials, query, fragment or
/// trailing slash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PrometheusUrl(String);

impl FromStr for PrometheusUrl {
    type Err = ValueError;

    fn from_str(url: &str) -> Result<Self, ValueError> {
        check(url).map_err(|requirement| {
            ValueError::expected(format!(
                "a URL {requirement}, such as http://prometheus-operated.monitoring.svc:9090"
            ))
        })?;
        Ok(Self(url.to_owned()))
    }
}

/// # Errors
/// The requirement that the URL does not meet.
fn check(url: &str) -> Result<(), &'static str> {
    let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else {
        return Err("that starts with http:// or https://");
    };
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.is_empty() || authority.starts_with(':') {
        return Err("with a host");
    }
    if authority.contains('@') {
        return Err("without credentials");
    }
    if url.ends_with('/') {
        return Err("without a trailing slash, because KEDA appends the path");
    }
    if url.contains(['?', '#']) || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("without query, fragment and white space");
    }
    Ok(())
}

impl fmt::Display for PrometheusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("http://prometheus:9090", true)]
    #[case("https://mimir.example/prometheus", true)]
    #[case("prometheus:9090", false)]
    #[case("http://", false)]
    #[case("http://:9090", false)]
    #[case("http://prometheus:9090/", false)]
    #[case("http://prometheus:9090/?x=1", false)]
    #[case("http://user:secret@prometheus:9090", false)]
    #[case("http://prome theus", false)]
    fn checks_prometheus_urls(#[case] url: &str, #[case] valid: bool) {
        assert_eq!(url.parse::<PrometheusUrl>().is_ok(), valid);
    }
}
