//! The addresses of the ready engines, from DNS.

use std::{collections::BTreeSet, fs, io, net::IpAddr};

/// Source of the addresses of ready engines.
pub trait Resolve: Send + Sync + 'static {
    /// The present addresses.
    fn resolve(&self) -> impl Future<Output = io::Result<BTreeSet<IpAddr>>> + Send;
}

/// DNS name of a headless Service.
#[derive(Debug)]
pub struct Dns {
    host: String,
}

impl Dns {
    /// The name `<service>.<namespace>.svc` in the cluster of this pod, and any other as it is.
    pub fn new(host: String) -> Self {
        let resolv_conf = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        Self { host: absolute(&host, &resolv_conf).unwrap_or(host) }
    }
}

/// The absolute name of a Service. The search list of a pod has its `<namespace>.svc.<cluster domain>`; every other entry could lead a
/// relative name to another host, while the Service has no address.
fn absolute(host: &str, resolv_conf: &str) -> Option<String> {
    let (_, of_namespace) = host.split_once('.')?;
    let lists = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("search"));
    let mut domains = lists.flat_map(str::split_whitespace);
    let domain = domains.find_map(|entry| entry.strip_prefix(of_namespace)?.strip_prefix('.'))?;
    Some(format!("{host}.{}.", domain.trim_end_matches('.')))
}

impl Resolve for Dns {
    async fn resolve(&self) -> io::Result<BTreeSet<IpAddr>> {
        let found = tokio::net::lookup_host((self.host.as_str(), 0)).await?;
        Ok(found.map(|address| address.ip()).filter(is_remote).collect())
    }
}

/// An engine is a pod: it has neither a loopback nor an unspecified address.
fn is_remote(address: &IpAddr) -> bool {
    !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const POD: &str = "search team-a.svc.k8s.example svc.k8s.example k8s.example corp.example\nnameserver 10.96.0.10\noptions ndots:5\n";

    #[rstest]
    #[case::service("chat-stand-in.team-a.svc", POD, Some("chat-stand-in.team-a.svc.k8s.example."))]
    #[case::other_namespace("chat-stand-in.team-b.svc", POD, None)]
    #[case::absolute("chat-stand-in.team-a.svc.k8s.example.", POD, None)]
    #[case::address("192.0.2.7", POD, None)]
    #[case::no_search_list("chat-stand-in.team-a.svc", "nameserver 192.0.2.1", None)]
    fn a_service_is_found_by_its_absolute_name(
        #[case] host: &str,
        #[case] resolv_conf: &str,
        #[case] expected: Option<&str>,
    ) {
        assert_eq!(absolute(host, resolv_conf).as_deref(), expected);
    }
}
