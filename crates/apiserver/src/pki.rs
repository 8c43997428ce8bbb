//! The certificates of a server and of those who trust it, and the kubeconfig that brings both together.

use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use thiserror::Error;

/// Certificates could not be made or used.
#[derive(Debug, Error)]
pub enum PkiError {
    /// A certificate could not be made.
    #[error("cannot make the certificate of the API server for {names}: {source}")]
    Certificate {
        /// The names that it should hold.
        names: String,
        /// What failed.
        source: rcgen::Error,
    },
    /// TLS does not take the certificate.
    #[error("cannot use the certificate of the API server: {0}")]
    Tls(#[from] rustls::Error),
}

/// A certificate authority made for one server, and that server's certificate. Keys exist in memory only.
pub struct Pki {
    authority: String,
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

impl Pki {
    /// A new authority, and a certificate for the names and addresses that clients call the server by.
    pub fn new<S: AsRef<str>>(subject_alt_names: &[S]) -> Result<Self, PkiError> {
        let names: Vec<String> = subject_alt_names.iter().map(|n| n.as_ref().to_owned()).collect();
        let joined = names.join(", ");
        Self::make(names).map_err(|source| PkiError::Certificate {
            names: joined,
            source,
        })
    }

    fn make(names: Vec<String>) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "tombolo-lab-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let mut params = CertificateParams::new(names)?;
        params
            .distinguished_name
            .push(DnType::CommonName, "tombolo-lab-apiserver");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?;
        Ok(Self {
            authority: authority.pem(),
            certificate: certificate.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
        })
    }

    /// The authority's certificate in PEM, for clients.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// TLS as the server speaks it: this certificate, HTTP/2 or HTTP/1.1.
    pub fn server_config(&self) -> Result<rustls::ServerConfig, PkiError> {
        let provider = rustls::crypto::ring::default_provider();
        let mut config = rustls::ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![self.certificate.clone()],
                PrivateKeyDer::Pkcs8(self.key.clone_key()),
            )?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// The kubeconfig with which `user` reaches the server at `server_url` (`https://host:port`).
    pub fn kubeconfig(&self, server_url: &str, user: &str, token: &str) -> String {
        kubeconfig(&self.authority, server_url, user, token)
    }
}

/// The kubeconfig of a server whose certificate the authority (in PEM) has signed. It is JSON, and so
/// also YAML.
pub fn kubeconfig(authority: &str, server_url: &str, user: &str, token: &str) -> String {
    let name = "tombolo-lab";
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": name,
            "cluster": {
                "server": server_url,
                "certificate-authority-data": ByteString(authority.as_bytes().to_vec()),
            },
        }],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
        "current-context": name,
    });
    format!("{config:#}\n")
}
