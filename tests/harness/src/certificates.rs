//! The cluster's certificate authority and the certificates of all components.
//!
//! A component gets the identity of its service account, so that the RBAC manifests of its release apply
//! unchanged.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

use crate::process::write;

/// Identity in a client certificate.
#[derive(Clone, Debug)]
pub enum Identity {
    /// Member of `system:masters`, with all permissions.
    Admin,
    /// A user name without groups.
    User(&'static str),
    /// A service account: namespace and name.
    ServiceAccount(&'static str, &'static str),
}

impl Identity {
    /// User name as the API server sees it, such as `system:serviceaccount:keda:keda-operator`.
    pub fn user(&self) -> String {
        match self {
            Self::Admin => "admin".to_owned(),
            Self::User(name) => (*name).to_owned(),
            Self::ServiceAccount(namespace, name) => format!("system:serviceaccount:{namespace}:{name}"),
        }
    }

    fn groups(&self) -> Vec<String> {
        match self {
            Self::Admin => vec!["system:masters".to_owned()],
            Self::User(_) => Vec::new(),
            Self::ServiceAccount(namespace, _) => {
                vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
            }
        }
    }
}

/// Paths of a certificate and its private key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// PEM file.
    pub certificate: PathBuf,
    /// PEM file, PKCS#8.
    pub key: PathBuf,
}

/// A certificate authority that writes its files to one folder.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// PEM file of its own certificate.
    pub certificate: PathBuf,
}

impl Authority {
    /// Creates an authority; `name` is its common name and the name of its certificate file.
    pub fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
        let key = key();
        let certificate = params.self_signed(&key).expect("a certificate authority");
        let certificate = write(folder.join(format!("{name}.crt")), certificate.pem());
        Self { folder: folder.to_owned(), issuer: Issuer::new(params, key), certificate }
    }

    /// Signs a server certificate for these DNS names and IP addresses.
    pub fn server(&self, name: &str, hosts: &[&str]) -> Pair {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let params = CertificateParams::new(hosts).expect("names of hosts");
        self.sign(name, params, vec![ExtendedKeyUsagePurpose::ServerAuth])
    }

    /// Signs a client certificate.
    pub fn client(&self, name: &str, identity: &Identity) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, identity.user());
        // The API server reads one group from each organization entry.
        for group in identity.groups() {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        self.sign(name, params, vec![ExtendedKeyUsagePurpose::ClientAuth])
    }

    /// Signs a certificate for servers and clients into a folder laid out like a mounted Secret: `ca.crt`,
    /// `tls.crt` and `tls.key`.
    pub fn folder_of(&self, name: &str, hosts: &[&str]) -> PathBuf {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).expect("a folder");
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let params = CertificateParams::new(hosts).expect("names of hosts");
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&format!("{name}/tls"), params, usages);
        fs::copy(&self.certificate, folder.join("ca.crt")).expect("a copy");
        folder
    }

    fn sign(&self, name: &str, mut params: CertificateParams, usages: Vec<ExtendedKeyUsagePurpose>) -> Pair {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = usages;
        let key = key();
        let certificate = params.signed_by(&key, &self.issuer).expect("a signed certificate");
        Pair {
            certificate: write(self.folder.join(format!("{name}.crt")), certificate.pem()),
            key: write(self.folder.join(format!("{name}.key")), key.serialize_pem()),
        }
    }
}

/// Key pair that signs and verifies service-account tokens.
#[derive(Clone, Debug)]
pub struct SigningKey {
    /// PEM file of the private key, PKCS#8.
    pub private: PathBuf,
    /// PEM file of the public key.
    pub public: PathBuf,
}

/// Creates the key pair for service-account tokens.
pub fn signing_key(folder: &Path) -> SigningKey {
    let key = key();
    SigningKey {
        private: write(folder.join("service-accounts.key"), key.serialize_pem()),
        public: write(folder.join("service-accounts.pub"), key.public_key_pem()),
    }
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key pair")
}
