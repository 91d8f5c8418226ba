//! The provider `aws-sts` against moto, which looks at signatures and policies, and boto3, which reads what is delivered.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use base64::Engine as _;
use jiff::Timestamp;
use sandbox::credential::aws::{Environment, StsError};
use sandbox::credential::held::Held;
use sandbox::credential::identity::Authority;
use sandbox::credential::secret::Secret;
use sandbox::credential::spec::{AwsSource, AwsStsSpec, CredentialSpec, Delivery, ProviderSpec};
use sandbox::credential::{CredentialError, IssueContext, Issued, Revocation, deliver, issue, revoke, store, vault};
use sandbox::project::{CredentialName, ProjectName, SandboxName};

mod identity;
mod moto;
#[path = "../federation/server.rs"]
mod server;
mod session;
mod signed;
#[path = "../support/mod.rs"]
mod support;
#[path = "../federation/token.rs"]
mod token;

use moto::{Moto, programs, python};

impl Moto {
    fn spec(&self) -> AwsStsSpec {
        AwsStsSpec {
            address: Some(self.address.clone()),
            role: "arn:aws:iam::123456789012:role/agents".to_owned(),
            region: "eu-central-1".to_owned(),
            source: AwsSource::Environment,
            ttl: Duration::from_secs(900),
            policy: Some(r#"{"Version":"2012-10-17","Statement":[]}"#.to_owned()),
            policy_arns: Vec::new(),
            tags: [("project".to_owned(), "payments".to_owned())].into(),
            external_id: None,
            source_identity: true,
        }
    }
}

struct Side {
    folder: tempfile::TempDir,
    project: ProjectName,
    sandbox: SandboxName,
    environment: Environment,
}

impl Side {
    fn new(id: &str, secret: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment {
            access_key_id: Some(id.to_owned()),
            secret_access_key: Some(Secret::new(secret.as_bytes().to_vec())),
            credentials_file: folder.path().join("credentials.ini"),
            ..Environment::default()
        };
        Self { folder, project: "payments".parse().unwrap(), sandbox: SandboxName::main(), environment }
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
            actor: "ada lovelace",
            store: store::Store {
                folder: root.join("credentials"),
                recipients: root.join("recipients"),
                identity: store::IdentityPlace::made(root.join("identity.txt")),
                owner: "ada".to_owned(),
            },
            state: root,
            home: root,
            vault: vault::Environment::default(),
            aws: self.environment.clone(),
            identity: self.identity(),
            held: Held::default(),
            session: Some("s-0123456789".to_owned()),
            reason: "up",
        }
    }

    async fn issue(&self, spec: &AwsStsSpec) -> Result<Issued, CredentialError> {
        issue(&name(), &credential(spec), &self.context()).await
    }

    async fn refused(&self, spec: &AwsStsSpec) -> StsError {
        match self.issue(spec).await.unwrap_err() {
            CredentialError::Aws(error) => error,
            other => panic!("{other:?}"),
        }
    }
}

fn name() -> CredentialName {
    "aws".parse().unwrap()
}

fn credential(spec: &AwsStsSpec) -> CredentialSpec {
    CredentialSpec {
        provider: ProviderSpec::AwsSts(Box::new(spec.clone())),
        deliver: Delivery::File { name: "aws".to_owned() },
        max_age: None,
        shared_with: None,
        accept_personal: None,
        on_expiry: Default::default(),
        hosts: Vec::new(),
    }
}

const ARN: &str = "arn:aws:sts::123456789012:assumed-role/agents/payments-ada_lovelace-s-0123456789";

#[tokio::test]
async fn boto3_is_the_role_by_the_delivered_files_alone() {
    let moto = Moto::start();
    let side = Side::new(&moto.id, &moto.secret);
    let spec = moto.spec();
    let issued = side.issue(&spec).await.unwrap();
    assert_eq!(issued.scope.as_deref(), Some(ARN));
    let (end, handle) = (issued.expires_at.unwrap(), issued.handle.clone().unwrap());
    let left = end.as_second() - Timestamp::now().as_second();
    assert!((890..=901).contains(&left), "{left}");

    let credential = credential(&spec);
    let delivered = deliver(vec![(&credential, issued)]).unwrap();
    assert_eq!(delivered.environment["AWS_CONFIG_FILE"], "/run/secrets/aws-aws-config");
    // The same files at another place, since this test is in no sandbox.
    let secrets = side.folder.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    for file in &delivered.files {
        let content = serde_json::to_value(file).unwrap()["content"].as_str().unwrap().to_owned();
        let content = base64::engine::general_purpose::STANDARD.decode(content).unwrap();
        let text = String::from_utf8(content).unwrap().replace("/run/secrets", secrets.to_str().unwrap());
        std::fs::write(secrets.join(&file.name), text).unwrap();
    }
    let output =
        python(&moto.address, "identity").env("AWS_CONFIG_FILE", secrets.join("aws-aws-config")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), ARN, "{}", String::from_utf8_lossy(&output.stderr));

    // It cannot be ended singly, and is never said to be revoked.
    let ended = revoke(&name(), &credential, Some(&handle), &side.context()).await.unwrap();
    assert_eq!(ended, Revocation::ExpiresAt(end));
    assert!(ended.result().contains("expires at") && ended.action() != "credential.revoked");
}

/// Puts what is delivered into a folder, as the gateway does: a new file in place of the old one. The ends are put off by so
/// many seconds, for a reader whose clock is ahead.
fn put(secrets: &std::path::Path, credential: &CredentialSpec, issued: Issued, ahead: i64) -> String {
    let mut id = String::new();
    for file in deliver(vec![(credential, issued)]).unwrap().files {
        let content = serde_json::to_value(&file).unwrap()["content"].as_str().unwrap().to_owned();
        let content = base64::engine::general_purpose::STANDARD.decode(content).unwrap();
        let mut text = String::from_utf8(content).unwrap().replace("/run/secrets", secrets.to_str().unwrap());
        if let Ok(mut keys) = serde_json::from_str::<serde_json::Value>(&text) {
            let end: Timestamp = keys["Expiration"].as_str().unwrap().parse().unwrap();
            let later = end + jiff::SignedDuration::from_secs(ahead);
            keys["Expiration"] = later.to_string().into();
            keys["AccessKeyId"].as_str().unwrap().clone_into(&mut id);
            text = keys.to_string();
        }
        std::fs::write(secrets.join("..next"), text).unwrap();
        std::fs::rename(secrets.join("..next"), secrets.join(&file.name)).unwrap();
    }
    id
}

/// A static file of credentials is read once by every SDK; what a `credential_process` says is asked for again.
#[tokio::test]
async fn a_living_process_of_boto3s_takes_the_new_keys_when_the_old_ones_ran_out() {
    use std::io::{BufRead as _, Write as _};
    let moto = Moto::start();
    let side = Side::new(&moto.id, &moto.secret);
    let spec = moto.spec();
    let credential = credential(&spec);
    let secrets = side.folder.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    let mut id = put(&secrets, &credential, side.issue(&spec).await.unwrap(), 0);
    let mut process = python(&moto.address, "living")
        .env("AWS_CONFIG_FILE", secrets.join("aws-aws-config"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = std::io::BufReader::new(process.stdout.take().unwrap()).lines();
    let mut input = process.stdin.take().unwrap();
    for turn in 1..=4 {
        assert_eq!(told.next().unwrap().unwrap(), id, "turn {turn}");
        let next = put(&secrets, &credential, side.issue(&spec).await.unwrap(), turn * 901);
        assert_ne!(next, id);
        id = next;
        writeln!(input, "901").unwrap();
    }
    assert_eq!(told.next().unwrap().unwrap(), id);
    drop(input);
    assert!(process.wait().unwrap().success());
}

#[tokio::test]
async fn keys_come_from_the_environment_a_profile_or_a_command() {
    let moto = Moto::start();
    let mut side = Side::new(&moto.id, &moto.secret);
    let file = side.environment.credentials_file.clone();
    let keys = format!("aws_access_key_id = {}\naws_secret_access_key = {}\n", moto.id, moto.secret);
    std::fs::write(&file, format!("[default]\naws_access_key_id = AKIANOBODY\n\n[work]\n{keys}")).unwrap();
    (side.environment.access_key_id, side.environment.secret_access_key) = (None, None);
    let with = |source| AwsStsSpec { source, ..moto.spec() };
    let refused = side.refused(&with(AwsSource::Environment)).await;
    assert!(matches!(&refused, StsError::NoKeys { profile, .. } if profile == "default"), "{refused:?}");
    side.issue(&with(AwsSource::Profile("work".to_owned()))).await.unwrap();
    side.environment.profile = Some("work".to_owned());
    side.issue(&with(AwsSource::Environment)).await.unwrap();
    let json = format!(r#"{{"Version":1,"AccessKeyId":"{}","SecretAccessKey":"{}"}}"#, moto.id, moto.secret);
    std::fs::write(side.folder.path().join("keys.json"), json).unwrap();
    let command = |words: [&str; 2]| with(AwsSource::Command(words.map(str::to_owned).to_vec()));
    side.issue(&command(["cat", "keys.json"])).await.unwrap();
    assert!(matches!(side.refused(&command(["echo", "canary"])).await, StsError::CommandAnswer));
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(side.refused(&with(AwsSource::Profile("work".to_owned()))).await, StsError::NoKeys { .. }));
}

#[tokio::test]
async fn a_wrong_signature_and_an_unknown_key_are_refused_by_name() {
    let moto = Moto::start();
    let refused = Side::new(&moto.id, "canary-of-the-test").refused(&moto.spec()).await;
    let StsError::Refused { status: 403, code, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!(code, "SignatureDoesNotMatch");
    assert!(!format!("{refused:?} {refused}").contains("canary"), "{refused:?}");
    let refused = Side::new("AKIANOBODY", &moto.secret).refused(&moto.spec()).await;
    assert!(matches!(&refused, StsError::Refused { code, .. } if code == "InvalidClientTokenId"), "{refused:?}");
    let gone = AwsStsSpec { address: Some("http://127.0.0.1:1".to_owned()), ..moto.spec() };
    assert!(matches!(Side::new("A", "b").refused(&gone).await, StsError::Unreachable { .. }));
    let open = AwsStsSpec { address: Some("http://sts.example.com".to_owned()), ..moto.spec() };
    assert!(matches!(Side::new("A", "b").refused(&open).await, StsError::Address { .. }));
}
