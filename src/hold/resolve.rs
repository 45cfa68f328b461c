//! The addresses of the ready engines, from DNS.

use std::{collections::BTreeSet, io, net::IpAddr};

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
    pub fn new(host: String) -> Self {
        Self { host }
    }
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
