//! The certificate authority of one session. Its key lives in this process's memory and nowhere else; a gateway that is
//! started again has another one.
//!
//! It vouches for the hosts that have rules, to this session's agent alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::network::name::HostName;

/// How long certificates are good for. A session is shorter.
const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How far back they are good, for clocks that differ.
const SKEW: Duration = Duration::from_secs(24 * 3600);

/// How many hosts' certificates are kept. A wildcard stands for any number.
const LEAF_LIMIT: usize = 256;

/// Why TLS cannot be terminated.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A certificate or a key could not be made.
    #[error("make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library refused its configuration.
    #[error("set up TLS")]
    Tls(#[from] rustls::Error),
    /// The text of further authorities cannot be used.
    #[error("read the certificates of further authorities")]
    Roots(#[source] rustls::pki_types::pem::Error),
    /// A panic of another task left certificates in an unknown state.
    #[error("use certificates that another task was changing")]
    Poisoned,
}

/// Makes certificates for the agent, and knows whom to trust upstream.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    leaf_key: KeyPair,
    leaves: Mutex<HashMap<HostName, CertificateDer<'static>>>,
    roots: Mutex<Arc<RootCertStore>>,
    provider: Arc<CryptoProvider>,
}

impl Authority {
    /// Makes a new authority. Upstream, the web's authorities are trusted.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate() -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut parameters = parameters(Vec::new(), "sandbox session authority")?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = parameters.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(parameters, key),
            certificate,
            leaf_key: KeyPair::generate()?,
            leaves: Mutex::default(),
            roots: Mutex::new(Arc::new(web())),
            provider: Arc::new(rustls::crypto::ring::default_provider()),
        })
    }

    /// Trusts these authorities upstream, in PEM, beside the web's; those of an earlier call no longer.
    ///
    /// # Errors
    /// When the text is not one of certificates; nothing changes then.
    pub fn trust(&self, further: &str) -> Result<(), AuthorityError> {
        let mut roots = web();
        for certificate in CertificateDer::pem_slice_iter(further.as_bytes()) {
            roots.add(certificate.map_err(AuthorityError::Roots)?)?;
        }
        *self.roots.lock().map_err(|_| AuthorityError::Poisoned)? = Arc::new(roots);
        Ok(())
    }

    /// The authority's certificate, in PEM. It is public.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// How to be this host towards the agent.
    ///
    /// # Errors
    /// When no certificate can be made for it.
    pub fn server(&self, host: &HostName, protocols: Vec<Vec<u8>>) -> Result<ServerConfig, AuthorityError> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![self.leaf(host)?], key)?;
        config.alpn_protocols = protocols;
        Ok(config)
    }

    /// How to be a client of the real host.
    ///
    /// # Errors
    /// When the TLS library refuses.
    pub fn client(&self, protocols: Vec<Vec<u8>>) -> Result<ClientConfig, AuthorityError> {
        let roots = self.roots.lock().map_err(|_| AuthorityError::Poisoned)?.clone();
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols;
        Ok(config)
    }

    fn leaf(&self, host: &HostName) -> Result<CertificateDer<'static>, AuthorityError> {
        let mut leaves = self.leaves.lock().map_err(|_| AuthorityError::Poisoned)?;
        if let Some(leaf) = leaves.get(host) {
            return Ok(leaf.clone());
        }
        if leaves.len() >= LEAF_LIMIT {
            // Making one again takes less than a millisecond.
            leaves.clear();
        }
        let mut parameters = parameters(vec![host.to_string()], "sandbox gateway")?;
        parameters.use_authority_key_identifier_extension = true;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = parameters.signed_by(&self.leaf_key, &self.issuer)?.der().clone();
        leaves.insert(host.clone(), leaf.clone());
        Ok(leaf)
    }
}

/// The authorities that the web's browsers trust.
fn web() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

fn parameters(names: Vec<String>, common_name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(names)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    parameters.distinguished_name = name;
    let now = SystemTime::now();
    parameters.not_before = (now - SKEW).into();
    parameters.not_after = (now + LIFE).into();
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_of_certificates_is_bounded_and_keeps_what_it_made() {
        let authority = Authority::generate().unwrap();
        let host = |number: usize| format!("h{number}.example").parse::<HostName>().unwrap();
        let first = authority.leaf(&host(0)).unwrap();
        assert_eq!(authority.leaf(&host(0)).unwrap(), first);
        for number in 1..LEAF_LIMIT + 5 {
            authority.leaf(&host(number)).unwrap();
        }
        assert!(authority.leaves.lock().unwrap().len() <= LEAF_LIMIT);
    }

    #[test]
    fn trusts_further_authorities_until_it_is_told_others() {
        let authority = Authority::generate().unwrap();
        let count = || authority.roots.lock().unwrap().len();
        let web = count();
        authority.trust(Authority::generate().unwrap().certificate()).unwrap();
        assert_eq!(count(), web + 1);
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(authority.trust(broken).is_err());
        assert_eq!(count(), web + 1);
        authority.trust("").unwrap();
        assert_eq!(count(), web);
    }

    #[test]
    fn no_two_sessions_have_one_authority() {
        let one = Authority::generate().unwrap();
        let other = Authority::generate().unwrap();
        assert_ne!(one.certificate(), other.certificate());
        assert!(one.certificate().starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(!one.certificate().contains("PRIVATE"));
    }
}
