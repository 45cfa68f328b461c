//! The cluster's certificate authority, and certificates for whoever takes part.
//!
//! A component gets the identity of its service account, so that the RBAC manifests which it is shipped with apply unchanged.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

use crate::process::write;

/// Who a client certificate speaks for.
#[derive(Clone, Debug)]
pub enum Identity {
    /// May do anything.
    Admin,
    /// A component that Kubernetes knows by name.
    User(&'static str),
    /// A service account: namespace and name.
    ServiceAccount(&'static str, &'static str),
}

impl Identity {
    /// The name that the API server calls it by.
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

/// The files of a certificate and its key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM, PKCS#8.
    pub key: PathBuf,
}

/// A certificate authority whose files lie in one folder.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub certificate: PathBuf,
}

impl Authority {
    /// Makes one; its files are named after it.
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

    /// A server's certificate for these DNS names and addresses.
    pub fn server(&self, name: &str, hosts: &[&str]) -> Pair {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let params = CertificateParams::new(hosts).expect("names of hosts");
        self.sign(name, params, vec![ExtendedKeyUsagePurpose::ServerAuth])
    }

    /// A client's certificate.
    pub fn client(&self, name: &str, identity: &Identity) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, identity.user());
        // One organization an entry is what the API server reads as several groups.
        for group in identity.groups() {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        self.sign(name, params, vec![ExtendedKeyUsagePurpose::ClientAuth])
    }

    /// A folder with a certificate for both ends of a connection, as Kubernetes mounts a Secret: `ca.crt`, `tls.crt`, `tls.key`.
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

/// The key that service-account tokens are signed with, and the public one that they are checked with.
#[derive(Clone, Debug)]
pub struct SigningKey {
    /// PEM, PKCS#8.
    pub private: PathBuf,
    /// PEM.
    pub public: PathBuf,
}

/// Makes a key for service-account tokens.
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
