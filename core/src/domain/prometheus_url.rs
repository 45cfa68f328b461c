//! The address of a Prometheus.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use super::ValueError;

/// Longest URL, in bytes.
const LENGTH_MAX: usize = 512;

/// Regular expression for the same URLs as [`PrometheusUrl`] accepts, for the CRD.
pub fn prometheus_url_pattern() -> String {
    let hex = "[0-9A-Fa-f]{1,4}";
    let compressed =
        (1..=6).map(|left| format!("({hex}:){{1,{}}}(:{hex}){{1,{left}}}", 7 - left)).collect::<Vec<_>>();
    let address =
        format!("({hex}:){{7}}{hex}|({hex}:){{1,7}}:|{}|:((:{hex}){{1,7}}|:)", compressed.join("|"));
    let port = "[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]";
    let path = r"(/[!-\x22$->@-~]*[!-\x22$-.0->@-~])?";
    format!(r"^https?://([A-Za-z0-9_][-A-Za-z0-9_.]*|\[({address})\])(:({port}))?{path}$")
}

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
    if url.len() > LENGTH_MAX {
        return Err("of at most 512 bytes");
    }
    if url.contains(['?', '#']) || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("without query, fragment, white space and characters beyond ASCII");
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("without credentials");
    }
    let (host, port) = split_port(authority);
    if !is_host(host) {
        return Err("with a host");
    }
    if port
        .is_some_and(|port| port.starts_with(['0', '+']) || !port.parse::<u16>().is_ok_and(|port| port > 0))
    {
        return Err("with a port from 1 to 65535");
    }
    if path.ends_with('/') {
        return Err("without a trailing slash, because KEDA appends the path");
    }
    Ok(())
}

/// Host and port; an IPv6 address keeps its brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    let after_address = authority.rfind(']').map_or(0, |end| end + 1);
    match authority.get(after_address..).and_then(|rest| rest.find(':')) {
        Some(colon) => {
            let (host, port) = authority.split_at(after_address + colon);
            (host, port.strip_prefix(':'))
        }
        None => (authority, None),
    }
}

/// A name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']').filter(|address| !address.contains('.'));
        return address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') && host.chars().all(is_name)
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
    #[case("http://[fd00:10:96::a]:9090", true)]
    #[case("http://[::1]", true)]
    #[case("http://[1:2:3:4:5:6:7:8]:1/x/y", true)]
    #[case("http://[1:2:3:4:5:6:7::]", true)]
    #[case("http://[:::]", false)]
    #[case("http://[1:2:3]", false)]
    #[case("http://[::1", false)]
    #[case("http://::1", false)]
    #[case("http://[fd00::a%25eth0]", false)]
    #[case("http://p:0", false)]
    #[case("http://p:65535", true)]
    #[case("http://p:65536", false)]
    #[case("http://p:", false)]
    #[case("http://p:+1", false)]
    #[case("http://prometheus.svc.:9090", true)]
    #[case("http://p/a?b", false)]
    #[case("http://p/a#b", false)]
    #[case("http://p//", false)]
    #[case("http://pé", false)]
    fn checks_prometheus_urls(#[case] url: &str, #[case] valid: bool) {
        assert_eq!(url.parse::<PrometheusUrl>().is_ok(), valid);
    }
}
