//! TLS settings of a scrape, as the Prometheus Operator's monitors and the AutoscalingProfile write them.
//!
//! Source: Prometheus Operator `pkg/apis/monitoring/v1/types.go` (`SafeTLSConfig`). Paths of files are left
//! out: they would let a profile read files of Prometheus.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::api::profile::tls_rules;

/// Protocol by which Prometheus scrapes the router: https where Kthena's chart turns TLS of the router on. Only
/// the profile named default configures it.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Scheme {
    /// Plain HTTP.
    #[default]
    Http,
    /// HTTP over TLS.
    Https,
}

/// TLS settings of a scrape.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = tls_rules()))]
pub struct TlsConfig {
    /// Certificate authorities that the router's certificate is checked against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<SecretOrConfigMap>,
    /// Client certificate of Prometheus; requires keySecret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<SecretOrConfigMap>,
    /// Private key of the client certificate; requires cert.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_secret: Option<KeyReference>,
    /// Name that the router's certificate must have. Default: the address of the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?$"), length(min = 1, max = 253))]
    pub server_name: Option<String>,
    /// Set to true to have Prometheus accept any certificate of the router.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure_skip_verify: bool,
}

/// A key of a Secret or of a ConfigMap.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SecretOrConfigMap {
    /// A key of a Secret in the router's namespace.
    Secret(KeyReference),
    /// A key of a ConfigMap in the router's namespace.
    ConfigMap(KeyReference),
}

/// A key of an object.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReference {
    /// Name of the object.
    #[schemars(regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"), length(min = 1, max = 253))]
    pub name: String,
    /// Key in its data.
    #[schemars(regex(pattern = "^[-._a-zA-Z0-9]+$"), length(min = 1, max = 253))]
    pub key: String,
}
