//! Logging in with a client's certificate.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use sandbox::credential::secret::Secret;
use sandbox::credential::spec::{SecretSource, VaultAuth, VaultSpec};
use sandbox::credential::vault::VaultError;

use crate::server::Bao;
use crate::{READ, Side, spec};

/// An authority, and a certificate of it with its private key, as PEM.
fn authority() -> (String, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let own = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::new(vec!["ada.example.com".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client = KeyPair::generate().unwrap();
    let signed = params.signed_by(&client, &issuer).unwrap();
    (own, signed.pem() + &client.serialize_pem())
}

#[tokio::test]
async fn a_certificate_logs_in_and_one_of_another_authority_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let bao = Bao::start_with_tls(folder.path());
    bao.run(&["kv", "put", "secret/payments/api", "key=value-of-the-test"]);
    bao.policy("payments", READ);
    let (trusted, identity) = authority();
    let (_, foreign) = authority();
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, trusted).unwrap();
    bao.run(&["auth", "enable", "cert"]);
    let certificate = format!("certificate=@{}", file.display());
    bao.run(&["write", "auth/cert/certs/agents", &certificate, "token_policies=payments", "token_ttl=5m"]);

    let mut side = Side::new(&bao.address, "unused");
    let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    side.environment.ca_file = entries.into_iter().find(|path| path.to_str().unwrap().ends_with("-ca.pem"));
    let write = |text: &str| {
        let file = side.folder.path().join("client.pem");
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let spec = |role: Option<&str>| VaultSpec {
        auth: VaultAuth::Cert {
            mount: "cert".to_owned(),
            role: role.map(str::to_owned),
            identity: SecretSource::File(PathBuf::from("client.pem")),
        },
        ..spec("secret/payments/api", &["key"])
    };
    write(&identity);
    for role in [None, Some("agents")] {
        let issued = side.issue(&spec(role)).await.unwrap();
        assert!(issued.value.equals(&Secret::new(b"value-of-the-test".to_vec())));
    }
    let refused = side.refused(&spec(Some("absent"))).await;
    assert!(matches!(&refused, VaultError::Failed { status: 400, .. }), "{refused:?}");
    write(&foreign);
    let refused = side.refused(&spec(None)).await;
    assert!(matches!(&refused, VaultError::Failed { .. } | VaultError::Unreachable { .. }), "{refused:?}");
    for half in ["", "no certificate", identity.split("-----BEGIN PRIVATE").next().unwrap()] {
        write(half);
        let refused = side.refused(&spec(None)).await;
        assert!(matches!(&refused, VaultError::Identity | VaultError::File(_)), "{refused:?}");
    }
}
