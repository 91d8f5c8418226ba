//! The provider `vault` against a real OpenBao with a real PostgreSQL behind it, and against servers that misbehave.
//!
//! | case | where |
//! | --- | --- |
//! | log-in by token, AppRole, JWT, certificate | `reads_stored_values…`, `a_role_logs_in…`, `a_signed_identity…` and `identity`, `certificate` |
//! | stored values of both versions, absent, forbidden, a deleted version | `reads_stored_values…` |
//! | a lease, its own child token, its end in PostgreSQL | `a_database_role…`, `session` |
//! | renewed, and read anew when it cannot be | `renewal`, `long_session` |
//! | a wrapped secret id, and one that was opened before | `a_role_logs_in…` |
//! | namespaces | `namespaces` |
//! | sealed, gone, an authority that is not trusted | `says_that_a_server_is_sealed…`, `trusts_the_authority…` |
//! | a standby, 429 and 502 to 504 for a moment and for good, 500, no answer, an endless one, a redirection | `misbehaving` |
//! | a child token with more than was asked for | `misbehaving` |
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use sandbox::credential::held::Held;
use sandbox::credential::identity::Authority;
use sandbox::credential::secret::Secret;
use sandbox::credential::spec::{
    CredentialSpec, Delivery, JwtSource, ProviderSpec, SecretSource, VaultAuth, VaultFields, VaultSpec,
};
use sandbox::credential::vault::{CertificateFault, Environment, VaultError};
use sandbox::credential::{
    CredentialError, Delivered, IssueContext, Issued, Revocation, deliver, issue, revoke, store,
};
use sandbox::project::{CredentialName, ProjectName, SandboxName};
use serde_json::Value;

mod certificate;
mod identity;
mod long_session;
mod misbehaving;
#[path = "../aws/moto.rs"]
mod moto;
mod namespaces;
mod renewal;
mod server;
mod session;
#[path = "../support/mod.rs"]
mod support;

use server::{Bao, Postgres};

/// What an issue needs from the developer's side.
struct Side {
    folder: tempfile::TempDir,
    project: ProjectName,
    sandbox: SandboxName,
    environment: Environment,
    held: Held,
}

impl Side {
    fn new(address: &str, token: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment {
            address: Some(address.to_owned()),
            token: Some(Secret::new(token.as_bytes().to_vec())),
            token_file: folder.path().join("absent"),
            ..Environment::default()
        };
        Self {
            folder,
            project: "payments".parse().unwrap(),
            sandbox: SandboxName::main(),
            environment,
            held: Held::default(),
        }
    }

    fn identity(&self) -> Authority {
        let issuer = Some("https://identity.example.com".to_owned());
        Authority { folder: self.folder.path().join("issuer"), issuer }
    }

    fn context(&self) -> IssueContext<'_> {
        let root = self.folder.path();
        IssueContext {
            project: &self.project,
            project_root: root,
            sandbox: &self.sandbox,
            actor: "ada",
            store: store::Store {
                folder: root.join("credentials"),
                recipients: root.join("recipients"),
                identity: store::IdentityPlace::made(root.join("identity.txt")),
                owner: "ada".to_owned(),
            },
            state: root,
            home: root,
            vault: self.environment.clone(),
            aws: sandbox::credential::aws::Environment::default(),
            identity: self.identity(),
            held: self.held.clone(),
            session: None,
            reason: "up",
        }
    }

    async fn issue(&self, spec: &VaultSpec) -> Result<Issued, CredentialError> {
        issue(&name(), &credential(spec), &self.context()).await
    }

    async fn refused(&self, spec: &VaultSpec) -> VaultError {
        match self.issue(spec).await.unwrap_err() {
            CredentialError::Vault(error) => error,
            other => panic!("{other:?}"),
        }
    }

    async fn revoke(&self, spec: &VaultSpec, handle: Option<&str>) -> Result<Revocation, CredentialError> {
        revoke(&name(), &credential(spec), handle, &self.context()).await
    }
}

fn name() -> CredentialName {
    "database".parse().unwrap()
}

fn credential(spec: &VaultSpec) -> CredentialSpec {
    CredentialSpec {
        provider: ProviderSpec::Vault(Box::new(spec.clone())),
        deliver: Delivery::File { name: "database".to_owned() },
        max_age: None,
        shared_with: None,
        accept_personal: None,
        on_expiry: Default::default(),
        hosts: Vec::new(),
    }
}

fn spec(path: &str, fields: &[&str]) -> VaultSpec {
    let fields: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
    VaultSpec {
        address: None,
        namespace: None,
        auth: VaultAuth::Token,
        path: path.to_owned(),
        fields: if fields.len() == 1 { VaultFields::One(fields[0].clone()) } else { VaultFields::Several(fields) },
        ttl: Duration::from_secs(600),
        max_ttl: Duration::ZERO,
        policies: Vec::new(),
    }
}

/// The value as the sandbox gets it.
fn value(issued: Issued, spec: &VaultSpec) -> String {
    let credential = credential(spec);
    let Delivered { mut files, .. } = deliver(vec![(&credential, issued)]).unwrap();
    serde_json::to_value(files.remove(0)).unwrap()["content"].to_string()
}

const READ: &str = r#"
path "secret/data/payments/*" { capabilities = ["read"] }
path "plain/*" { capabilities = ["read"] }
path "database/creds/payments" { capabilities = ["read"] }
path "auth/token/create" { capabilities = ["update"] }
path "auth/token/revoke-accessor" { capabilities = ["update"] }
"#;

#[tokio::test]
async fn reads_stored_values_of_both_versions_and_leaves_no_token_behind() {
    let bao = Bao::start();
    bao.policy("payments", READ);
    bao.run(&["kv", "put", "secret/payments/api", "key=of-version-two", "number=7"]);
    bao.run(&["secrets", "enable", "-path=plain", "-version=1", "kv"]);
    bao.run(&["kv", "put", "plain/api", "key=of-version-one"]);
    let side = Side::new(&bao.address, &bao.token(&["payments"]));
    let before = bao.accessors().len();
    for (path, expected) in [
        ("secret/payments/api", "of-version-two"),
        ("secret/data/payments/api", "of-version-two"),
        ("plain/api", "of-version-one"),
    ] {
        let spec = spec(path, &["key"]);
        let issued = side.issue(&spec).await.unwrap();
        // A stored value lives on at its issuer, whatever happens to the token that read it.
        assert_eq!((issued.handle.as_deref(), issued.expires_at), (None, None));
        assert_eq!(side.revoke(&spec, None).await.unwrap(), Revocation::StaticRemains);
        let plain = Secret::new(expected.as_bytes().to_vec());
        assert!(issued.value.equals(&plain), "{path}: {}", value(issued, &spec));
    }
    assert_eq!(bao.accessors().len(), before);

    let refused = side.refused(&spec("secret/payments/api", &["absent"])).await;
    assert!(matches!(&refused, VaultError::Field(field) if field == "absent"), "{refused:?}");
    let refused = side.refused(&spec("secret/payments/none", &["key"])).await;
    assert!(matches!(&refused, VaultError::Absent { .. }), "{refused:?}");
    let refused = side.refused(&spec("secret/others/api", &["key"])).await;
    assert!(matches!(&refused, VaultError::Denied { .. }), "{refused:?}");
    let refused = side.refused(&spec("nothing/here", &["key"])).await;
    assert!(matches!(&refused, VaultError::Denied { path, .. } if path == "nothing/here"), "{refused:?}");
    bao.run(&["kv", "delete", "secret/payments/api"]);
    let refused = side.refused(&spec("secret/payments/api", &["key"])).await;
    assert!(matches!(&refused, VaultError::Deleted { .. }), "{refused:?}");
    assert_eq!(bao.accessors().len(), before, "a failure left a token behind");

    let stranger = Side::new(&bao.address, "s.nobody");
    let refused = stranger.refused(&spec("secret/payments/api", &["key"])).await;
    assert!(matches!(&refused, VaultError::Denied { path, .. } if path == "auth/token/create"), "{refused:?}");
}

/// A role of OpenBao's that makes roles of PostgreSQL's.
fn with_database(bao: &Bao, postgres: &Postgres) {
    bao.run(&["secrets", "enable", "database"]);
    let address = format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres", postgres.port);
    bao.run(&[
        "write",
        "database/config/main",
        "plugin_name=postgresql-database-plugin",
        "allowed_roles=payments",
        &format!("connection_url={address}?sslmode=disable"),
        "username=owner",
        "password=unused",
    ]);
    bao.run(&[
        "write",
        "database/roles/payments",
        "db_name=main",
        r#"creation_statements=CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';"#,
        "default_ttl=1h",
        "max_ttl=24h",
    ]);
}

#[tokio::test]
async fn a_database_role_lives_as_long_as_the_credential_and_no_longer() {
    let (bao, postgres) = (Bao::start(), Postgres::start());
    with_database(&bao, &postgres);
    bao.policy("payments", READ);
    let side = Side::new(&bao.address, &bao.token(&["payments"]));
    let roles = || postgres.query("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'");
    let spec = spec("database/creds/payments", &["username", "password"]);

    let issued = side.issue(&spec).await.unwrap();
    assert_eq!(roles(), "1");
    let now = Timestamp::now();
    let left = issued.expires_at.unwrap().as_second() - now.as_second();
    assert!((590..=600).contains(&left), "the child token ends in {left} s, before the lease of an hour");
    let handle = issued.handle.clone().unwrap();
    let accessor = handle.split('|').next().unwrap();
    let token = bao.json(&["token", "lookup", "-accessor", accessor]);
    assert_eq!(token["data"]["explicit_max_ttl"], 600, "{token:#}");
    assert_eq!(token["data"]["meta"]["project"], "payments");
    assert_eq!(token["data"]["meta"]["actor"], "ada");

    assert_eq!(side.revoke(&spec, Some(&handle)).await.unwrap(), Revocation::Revoked);
    // A lease ends in the background of the server.
    for _ in 0..50 {
        if roles() == "0" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(roles(), "0");
    assert!(!bao.accessors().iter().any(|found| found == accessor));
    // Again, as after a crash: it is gone, and that is well.
    assert_eq!(side.revoke(&spec, Some(&handle)).await.unwrap(), Revocation::Revoked);

    let narrowed = VaultSpec { policies: vec!["default".to_owned()], ..spec };
    let refused = side.refused(&narrowed).await;
    assert!(matches!(&refused, VaultError::Denied { .. }), "{refused:?}");
    assert_eq!(roles(), "0");
}

#[tokio::test]
async fn a_role_logs_in_with_its_secret_id_and_tells_when_somebody_opened_it_before() {
    let (bao, postgres) = (Bao::start(), Postgres::start());
    with_database(&bao, &postgres);
    bao.policy("payments", READ);
    bao.run(&["auth", "enable", "approle"]);
    bao.run(&["write", "auth/approle/role/agents", "token_policies=payments", "token_ttl=5m"]);
    let role_id = bao.run(&["read", "-field=role_id", "auth/approle/role/agents/role-id"]);
    let side = Side::new(&bao.address, "unused");
    let file = side.folder.path().join("secret-id");
    let write = |text: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let auth = |secret_id, wrapped| VaultAuth::Approle {
        mount: "approle".to_owned(),
        role_id: role_id.clone(),
        secret_id,
        wrapped,
    };
    let before = bao.accessors().len();
    write(&bao.run(&["write", "-f", "-field=secret_id", "auth/approle/role/agents/secret-id"]));
    let spec = spec("database/creds/payments", &["username", "password"]);
    let by_file = VaultSpec { auth: auth(SecretSource::File(PathBuf::from("secret-id")), false), ..spec.clone() };
    let issued = side.issue(&by_file).await.unwrap();
    let left = issued.expires_at.unwrap().as_second() - Timestamp::now().as_second();
    assert!((290..=300).contains(&left), "a child ends with its parent, in {left} s");
    assert_eq!(bao.accessors().len(), before + 2);
    assert_eq!(side.revoke(&by_file, issued.handle.as_deref()).await.unwrap(), Revocation::Revoked);
    assert_eq!(bao.accessors().len(), before, "the log-in, its child and the log-in to revoke are all gone");

    let command = ["cat", "secret-id"].map(str::to_owned).to_vec();
    let wrapped = VaultSpec { auth: auth(SecretSource::Command(command), true), ..spec };
    let wrap = ["write", "-wrap-ttl=5m", "-f", "-field=wrapping_token", "auth/approle/role/agents/secret-id"];
    write(&bao.run(&wrap));
    let issued = side.issue(&wrapped).await.unwrap();
    write(&bao.run(&wrap));
    assert_eq!(side.revoke(&wrapped, issued.handle.as_deref()).await.unwrap(), Revocation::Revoked);
    // The same one again is what an interception looks like; so is one that was made elsewhere.
    let refused = side.refused(&wrapped).await;
    assert!(matches!(refused, VaultError::Intercepted), "{refused:?}");
    let planted = ["write", "-wrap-ttl=5m", "-field=wrapping_token", "sys/wrapping/wrap", "secret_id=planted"];
    write(&bao.run(&planted));
    let refused = side.refused(&wrapped).await;
    assert!(matches!(refused, VaultError::Intercepted), "{refused:?}");
}

/// A token of an identity provider, signed by `openssl`: RS256 (RFC 7518, section 3.3).
fn signed(key: &std::path::Path, claims: &Value) -> String {
    use base64::Engine as _;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let text = format!("{}.{}", encode(br#"{"alg":"RS256","typ":"JWT"}"#), encode(claims.to_string().as_bytes()));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &text).unwrap();
    format!("{text}.{}", encode(&openssl(&["dgst", "-sha256", "-sign", path_of(key), path_of(file.path())])))
}

fn openssl(words: &[&str]) -> Vec<u8> {
    let output = std::process::Command::new("openssl").args(words).output().unwrap_or_else(|error| {
        panic!("this test needs `openssl` (Debian package `openssl`): {error}");
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn path_of(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn a_signed_identity_logs_in_and_another_audience_does_not() {
    let (bao, postgres) = (Bao::start(), Postgres::start());
    with_database(&bao, &postgres);
    bao.policy("payments", READ);
    let side = Side::new(&bao.address, "unused");
    let key = side.folder.path().join("key.pem");
    openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", path_of(&key)]);
    let public = String::from_utf8(openssl(&["pkey", "-in", path_of(&key), "-pubout"])).unwrap();
    bao.run(&["auth", "enable", "jwt"]);
    bao.run(&["write", "auth/jwt/config", &format!("jwt_validation_pubkeys={}", public.trim())]);
    let role =
        ["role_type=jwt", "bound_audiences=sandbox", "user_claim=sub", "token_policies=payments", "token_ttl=10m"];
    bao.run(&[&["write", "auth/jwt/role/agents"], role.as_slice()].concat());
    let write = |audience: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        let file = side.folder.path().join("identity.jwt");
        let now = Timestamp::now().as_second();
        let claims =
            serde_json::json!({ "sub": "ada", "aud": audience, "iat": now, "nbf": now - 60, "exp": now + 300 });
        std::fs::write(&file, signed(&key, &claims)).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let jwt = SecretSource::File(PathBuf::from("identity.jwt"));
    let auth = VaultAuth::Jwt { mount: "jwt".to_owned(), role: "agents".to_owned(), jwt: JwtSource::Given(jwt) };
    let spec = VaultSpec { auth, ..spec("database/creds/payments", &["username", "password"]) };
    write("sandbox");
    let issued = side.issue(&spec).await.unwrap();
    assert_eq!(side.revoke(&spec, issued.handle.as_deref()).await.unwrap(), Revocation::Revoked);
    write("another");
    let refused = side.refused(&spec).await;
    assert!(matches!(&refused, VaultError::Failed { .. } | VaultError::Denied { .. }), "{refused:?}");
    assert!(!format!("{refused:?}").contains("eyJ"), "{refused:?}");
}

#[tokio::test]
async fn says_that_a_server_is_sealed_or_not_there() {
    let bao = Bao::start();
    let side = Side::new(&bao.address, Bao::ROOT);
    bao.run(&["kv", "put", "secret/payments/api", "key=value-of-the-test"]);
    let spec = spec("secret/payments/api", &["key"]);
    side.issue(&spec).await.unwrap();
    bao.run(&["operator", "seal"]);
    let refused = side.refused(&spec).await;
    assert!(matches!(refused, VaultError::Sealed(_)), "{refused:?}");
    drop(bao);
    let refused = side.refused(&spec).await;
    assert!(matches!(refused, VaultError::Unreachable { .. }), "{refused:?}");
}

#[tokio::test]
async fn trusts_the_authority_that_the_environment_names_and_no_other() {
    let certificates = tempfile::tempdir().unwrap();
    let bao = Bao::start_with_tls(certificates.path());
    bao.run(&["kv", "put", "secret/payments/api", "key=value-of-the-test"]);
    let spec = spec("secret/payments/api", &["key"]);
    let mut side = Side::new(&bao.address, Bao::ROOT);
    let refused = side.refused(&spec).await;
    assert!(matches!(&refused, VaultError::Untrusted { fault: CertificateFault::Issuer, .. }), "{refused:?}");
    let file = std::fs::read_dir(certificates.path()).unwrap().map(|entry| entry.unwrap().path());
    side.environment.ca_file = file.into_iter().find(|path| path.to_str().unwrap().ends_with("-ca.pem"));
    assert!(side.environment.ca_file.is_some());
    side.issue(&spec).await.unwrap();
    // A file without a certificate must not mean that the system's authorities count.
    let empty = certificates.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    side.environment.ca_file = Some(empty);
    let refused = side.refused(&spec).await;
    assert!(matches!(&refused, VaultError::Certificates { .. }), "{refused:?}");
}

#[tokio::test]
async fn needs_a_token_and_an_address() {
    let mut side = Side::new("http://127.0.0.1:1", "unused");
    side.environment.token = None;
    let spec = spec("secret/payments/api", &["key"]);
    assert!(matches!(side.refused(&spec).await, VaultError::NoToken));
    side.environment.address = None;
    assert!(matches!(side.refused(&spec).await, VaultError::NoAddress));
    let open = VaultSpec { address: Some("http://vault.example.com".to_owned()), ..spec };
    assert!(matches!(side.refused(&open).await, VaultError::Address { .. }));
}

/// JSON of the fields that were asked for, no more.
#[tokio::test]
async fn several_fields_come_as_json() {
    let bao = Bao::start();
    bao.run(&["kv", "put", "secret/payments/api", "user=u", "password=p-of-the-test", "other=o"]);
    let side = Side::new(&bao.address, Bao::ROOT);
    let issued = side.issue(&spec("secret/payments/api", &["user", "password"])).await.unwrap();
    let expected: Value = serde_json::json!({ "user": "u", "password": "p-of-the-test" });
    assert!(issued.value.equals(&Secret::new(expected.to_string().into_bytes())));
}
