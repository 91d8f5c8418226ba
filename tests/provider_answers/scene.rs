//! Every provider with an issuer that answers whatever a test wants, and the search for what it answered in all that is
//! shown: errors, their debugging form, handles, scopes, warnings and the log at its finest level.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sandbox::credential::held::Held;
use sandbox::credential::identity::Authority;
use sandbox::credential::secret::Secret;
use sandbox::credential::spec::{
    AnthropicSpec, AwsSource, AwsStsSpec, AzureSpec, CredentialSpec, Delivery, GcpSpec, GithubAccess, GithubAppSpec,
    GithubRepositories, KeySource, OauthSpec, OpenaiProjectSpec, ProviderSpec, SecretSource, VaultAuth, VaultFields,
    VaultSpec,
};
use sandbox::credential::{IssueContext, aws, issue, oauth, store, vault};
use sandbox::project::{CredentialName, ProjectName, SandboxName};
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

/// What every secret of an answer is made of.
pub(crate) const CANARY: &str = "zK7canaryQ2wX9vB4nM6tR1yL8pD3sF5hJ0g";
/// The longest piece of it that may be shown: less is no use to anybody, and every word has some of it.
const PIECE: usize = 20;

/// An answer of an issuer to requests whose path has this part.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) part: String,
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn new(part: &str, status: u16, body: impl ToString) -> Self {
        Self { part: part.to_owned(), status, body: body.to_string().into_bytes() }
    }
}

/// A provider, and what its issuer answers when all is well. The first `open` of them may be anything.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) answers: Vec<Answer>,
    pub(crate) open: usize,
    provider: ProviderSpec,
}

/// All that the program logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

pub(crate) struct Scene {
    folder: tempfile::TempDir,
    root: PathBuf,
    project: ProjectName,
    sandbox: SandboxName,
    runtime: tokio::runtime::Runtime,
    answers: Arc<Mutex<Vec<Answer>>>,
    address: String,
    log: Log,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("app.pem");
        let made = Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048").output();
        assert!(made.is_ok_and(|made| made.status.success()), "this needs `openssl` (Debian package `openssl`)");
        let root = folder.path().join("project");
        std::fs::create_dir(&root).unwrap();
        let log = Log::default();
        // As the program has it at its finest.
        let filter = "trace,bollard=info,hyper=info,hyper_util=info,reqwest=info,rustls=info,h2=info";
        let logging = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(log.clone());
        let _ = logging.try_init();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let answers = Arc::new(Mutex::new(Vec::new()));
        let served = Arc::clone(&answers);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let served = Arc::clone(&served);
                std::thread::spawn(move || serve(stream.unwrap(), &served));
            }
        });
        Self {
            folder,
            root,
            project: "payments".parse().unwrap(),
            sandbox: SandboxName::main(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            answers,
            address,
            log,
        }
    }

    fn context(&self) -> IssueContext<'_> {
        let root = self.folder.path();
        IssueContext {
            project: &self.project,
            project_root: &self.root,
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
            vault: vault::Environment {
                address: Some(self.address.clone()),
                token: Some(Secret::new(b"s.developer".to_vec())),
                ..vault::Environment::default()
            },
            aws: aws::Environment {
                access_key_id: Some("AKIADEVELOPER".to_owned()),
                secret_access_key: Some(Secret::new(b"of-the-developer".to_vec())),
                ..aws::Environment::default()
            },
            identity: Authority {
                folder: root.join("issuer"),
                issuer: Some("https://identity.example.com".to_owned()),
            },
            held: Held::default(),
            session: Some("s1".to_owned()),
            reason: "up",
        }
    }

    /// Has a credential issued with these answers. Gives what is shown of it; the log is in it.
    pub(crate) fn shown(&self, case: &Case, answers: &[Answer]) -> String {
        let name: CredentialName = "token".parse().unwrap();
        let spec = CredentialSpec {
            provider: case.provider.clone(),
            deliver: Delivery::File { name: "token".to_owned() },
            max_age: None,
            shared_with: None,
            accept_personal: None,
            on_expiry: Default::default(),
            hosts: Vec::new(),
        };
        let context = self.context();
        if case.name.starts_with("exec") {
            std::fs::write(context.project_root.join("answer"), &answers[0].body).unwrap();
        }
        let issued = self.runtime.block_on(async {
            if let ProviderSpec::Oauth(spec) = &case.provider {
                // Logged in, and due.
                self.answers.lock().unwrap().clone_from(&case.answers);
                let tokens = oauth::take_over(spec, None, &Secret::new(b"refresh".to_vec())).await.unwrap();
                oauth::keep(&name, spec, &context, &tokens).await.unwrap();
                oauth::expire(&name, &context).await.unwrap();
            }
            self.answers.lock().unwrap().clone_from(&answers.to_vec());
            self.log.0.lock().unwrap().clear();
            issue(&name, &spec, &context).await
        });
        let mut shown = match &issued {
            Ok(issued) => format!(
                "{issued:?} {:?} {:?} {:?} {}",
                issued.handle, issued.scope, issued.warnings, issued.fingerprint
            ),
            Err(error) => {
                let mut text = format!("{error} {error:?}");
                let mut source = std::error::Error::source(error);
                while let Some(cause) = source {
                    text.push_str(&format!(" {cause} {cause:?}"));
                    source = cause.source();
                }
                text
            }
        };
        shown.push_str(&String::from_utf8_lossy(&self.log.0.lock().unwrap()));
        shown
    }

    /// All providers.
    pub(crate) fn cases(&self) -> Vec<Case> {
        let time = |seconds: i64| {
            let time = Timestamp::now() + SignedDuration::from_secs(seconds);
            time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
        };
        let address = self.address.clone();
        let child = json!({ "auth": {
            "client_token": format!("s.{CANARY}"), "accessor": "a1", "policies": ["default"], "lease_duration": 600,
        } });
        let mounted =
            |kind: &str, path: &str| json!({ "data": { "type": kind, "path": path, "options": { "version": "2" } } });
        let ended = || Answer::new("auth/token/revoke-self", 204, "");
        let vault = |auth, path: &str, fields: VaultFields| VaultSpec {
            address: None,
            namespace: None,
            auth,
            path: path.to_owned(),
            fields,
            ttl: Duration::from_secs(600),
            max_ttl: Duration::from_secs(1200),
            policies: Vec::new(),
        };
        let one = || VaultFields::One("key".to_owned());
        let approle = VaultAuth::Approle {
            mount: "approle".to_owned(),
            role_id: "r1".to_owned(),
            secret_id: SecretSource::Command(["echo", "wrapping"].map(str::to_owned).to_vec()),
            wrapped: true,
        };
        let session = "payments-ada-s1";
        let aws = format!(
            "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>{CANARY}\
             </SecretAccessKey><SessionToken>{CANARY}</SessionToken><Expiration>{}</Expiration></Credentials><AssumedRoleUser>\
             <Arn>arn:aws:sts::123456789012:assumed-role/agents/{session}</Arn></AssumedRoleUser></AssumeRoleResult>\
             </AssumeRoleResponse>",
            time(890)
        );
        let github = json!({
            "token": format!("ghs_{CANARY}"), "expires_at": time(3590), "permissions": { "contents": "read" },
            "repository_selection": "selected", "repositories": [{ "id": 1, "name": "payments" }],
        });
        let exec = |name, answer: String| Case {
            name,
            answers: vec![Answer::new("", 200, answer)],
            open: 1,
            provider: ProviderSpec::Exec {
                command: ["cat", "answer"].map(str::to_owned).to_vec(),
                revoke_command: None,
            },
        };
        vec![
            Case {
                name: "vault, stored",
                answers: vec![
                    Answer::new(
                        "secret/data/x",
                        200,
                        json!({ "data": {
                        "data": { "key": CANARY }, "metadata": { "created_time": time(-60) } } }),
                    ),
                    Answer::new("auth/token/create", 200, &child),
                    Answer::new("sys/internal/ui/mounts", 200, mounted("kv", "secret/")),
                    Answer::new("auth/token/lookup-self", 200, json!({ "data": { "ttl": 0 } })),
                    ended(),
                ],
                open: 4,
                provider: ProviderSpec::Vault(Box::new(vault(VaultAuth::Token, "secret/x", one()))),
            },
            Case {
                name: "vault, leased",
                answers: vec![
                    Answer::new(
                        "database/creds/x",
                        200,
                        json!({
                        "lease_id": format!("database/creds/x/{CANARY}"), "lease_duration": 60, "renewable": true,
                        "data": { "user": "u", "key": CANARY } }),
                    ),
                    Answer::new("auth/approle/login", 200, &child),
                    Answer::new(
                        "sys/wrapping/lookup",
                        200,
                        json!({ "data": {
                        "creation_path": "auth/approle/role/agents/secret-id" } }),
                    ),
                    Answer::new("sys/wrapping/unwrap", 200, json!({ "data": { "secret_id": CANARY } })),
                    Answer::new("auth/token/create", 200, &child),
                    Answer::new("sys/internal/ui/mounts", 200, mounted("database", "database/")),
                    ended(),
                ],
                open: 6,
                provider: ProviderSpec::Vault(Box::new(vault(
                    approle,
                    "database/creds/x",
                    VaultFields::Several(vec!["user".to_owned(), "key".to_owned()]),
                ))),
            },
            Case {
                name: "github-app",
                answers: vec![
                    Answer::new("access_tokens", 201, github),
                    Answer::new("installation/token", 204, ""),
                    Answer::new("installation/repositories", 401, json!({ "message": "Bad credentials" })),
                ],
                open: 1,
                provider: ProviderSpec::GithubApp(Box::new(GithubAppSpec {
                    address: address.clone(),
                    app: "Iv23li".to_owned(),
                    installation: 1,
                    repositories: GithubRepositories::Names(["payments".to_owned()].into()),
                    permissions: [("contents".to_owned(), GithubAccess::Read)].into(),
                    key: KeySource::File(PathBuf::from("~/app.pem")),
                })),
            },
            Case {
                name: "aws-sts",
                answers: vec![Answer::new("/", 200, aws)],
                open: 1,
                provider: ProviderSpec::AwsSts(Box::new(AwsStsSpec {
                    address: Some(address.clone()),
                    role: "arn:aws:iam::123456789012:role/agents".to_owned(),
                    region: "eu-central-1".to_owned(),
                    source: AwsSource::Environment,
                    ttl: Duration::from_secs(900),
                    policy: None,
                    policy_arns: Vec::new(),
                    tags: Default::default(),
                    external_id: None,
                    source_identity: false,
                })),
            },
            Case {
                name: "gcp",
                answers: vec![
                    Answer::new("generateAccessToken", 200, json!({ "accessToken": CANARY, "expireTime": time(890) })),
                    Answer::new(
                        "/v1/token",
                        200,
                        json!({
                        "access_token": CANARY, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                        "token_type": "Bearer", "expires_in": 3599 }),
                    ),
                ],
                open: 2,
                provider: ProviderSpec::Gcp(
                    GcpSpec {
                        address: Some(address.clone()),
                        audience:
                            "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/a/providers/s"
                                .into(),
                        service_account: "agents@acme.iam.gserviceaccount.com".into(),
                        scopes: vec!["https://www.googleapis.com/auth/devstorage.read_only".into()],
                        ttl: Duration::from_secs(900),
                    }
                    .into(),
                ),
            },
            Case {
                name: "azure",
                answers: vec![Answer::new(
                    "oauth2/v2.0/token",
                    200,
                    json!({
                    "token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": CANARY }),
                )],
                open: 1,
                provider: ProviderSpec::Azure(
                    AzureSpec {
                        address: address.clone(),
                        audience: "api://AzureADTokenExchange".into(),
                        tenant: "11111111-2222-3333-4444-555555555555".into(),
                        client: "66666666-7777-8888-9999-000000000000".into(),
                        scope: "https://storage.azure.com/.default".into(),
                    }
                    .into(),
                ),
            },
            Case {
                name: "anthropic-wif",
                answers: vec![Answer::new(
                    "/v1/oauth/token",
                    200,
                    json!({
                    "access_token": format!("sk-ant-oat01-{CANARY}"), "token_type": "Bearer", "expires_in": 600 }),
                )],
                open: 1,
                provider: ProviderSpec::AnthropicWif(
                    AnthropicSpec {
                        address: address.clone(),
                        audience: "https://api.anthropic.com".into(),
                        rule: "fdrl_01abc".into(),
                        organization: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee".into(),
                        service_account: "svac_01abc".into(),
                        workspace: None,
                    }
                    .into(),
                ),
            },
            Case {
                name: "oauth",
                answers: vec![Answer::new(
                    "/oauth/token",
                    200,
                    json!({
                    "access_token": CANARY, "refresh_token": format!("r-{CANARY}"), "token_type": "Bearer",
                    "expires_in": 3600 }),
                )],
                open: 1,
                provider: ProviderSpec::Oauth(
                    OauthSpec {
                        agent: None,
                        client_secret: None,
                        authorize_url: None,
                        redirect_url: None,
                        authorize_parameters: Default::default(),
                        revoke_url: None,
                        json_requests: false,
                        client_id: "client".into(),
                        token_url: format!("{address}/oauth/token"),
                        device_url: None,
                        scopes: Vec::new(),
                    }
                    .into(),
                ),
            },
            Case {
                name: "openai-project",
                answers: vec![
                    // Deleted, and looked for, at addresses of their own.
                    Answer::new(
                        "/service_accounts/",
                        200,
                        json!({
                        "object": "organization.project.service_account.deleted", "id": "svc_acct_1", "deleted": true }),
                    ),
                    Answer::new("/service_accounts?", 200, json!({ "object": "list", "data": [], "has_more": false })),
                    Answer::new(
                        "/service_accounts",
                        200,
                        json!({
                        "object": "organization.project.service_account", "id": "svc_acct_1", "name": "sandbox",
                        "role": "member", "created_at": Timestamp::now().as_second(),
                        "api_key": {
                            "object": "organization.project.service_account.api_key", "value": format!("sk-svcacct-{CANARY}"),
                            "name": "Secret Key", "created_at": Timestamp::now().as_second(), "id": "key_1",
                            "expires_at": Timestamp::now().as_second() + 900,
                        } }),
                    ),
                ],
                open: 3,
                provider: ProviderSpec::OpenaiProject(
                    OpenaiProjectSpec {
                        address: address.clone(),
                        project: "proj_1".into(),
                        ttl: Duration::from_secs(900),
                        key: KeySource::Command(["echo", "sk-admin-of-the-organisation"].map(str::to_owned).to_vec()),
                    }
                    .into(),
                ),
            },
            exec("exec, text", format!("{CANARY}\n")),
            exec(
                "exec, ours",
                json!({
                "value": CANARY, "expires_at": time(900), "handle": "h1", "scope": "read" })
                .to_string(),
            ),
            exec(
                "exec, Kubernetes",
                json!({
                "kind": "ExecCredential", "status": { "token": CANARY, "expirationTimestamp": time(900) } })
                .to_string(),
            ),
            exec(
                "exec, AWS",
                json!({
                "Version": 1, "AccessKeyId": "ASIA1", "SecretAccessKey": CANARY, "SessionToken": CANARY,
                "Expiration": time(900) })
                .to_string(),
            ),
        ]
    }
}

/// The first piece of the canary that stands in a text.
pub(crate) fn leaked(shown: &str) -> Option<&'static str> {
    (0..=CANARY.len() - PIECE).map(|at| &CANARY[at..at + PIECE]).find(|piece| shown.contains(piece))
}

fn serve(mut stream: TcpStream, answers: &Mutex<Vec<Answer>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).ok()? == 0 {
            return None;
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = text.trim().parse().ok()?;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        reader.read_exact(&mut vec![0; length]).ok()?;
        let path = first.split(' ').nth(1)?.to_owned();
        let found = answers.lock().unwrap().iter().find(|answer| path.contains(&answer.part)).cloned();
        let answer = found.unwrap_or_else(|| Answer::new("", 404, "{}"));
        let bodyless = answer.status == 204 || answer.status == 304;
        let body = if bodyless { &[][..] } else { &answer.body };
        // In one write: a second one waits for the acknowledgement of the first.
        let head = format!("HTTP/1.1 {} X\r\ncontent-length: {}\r\n\r\n", answer.status, body.len());
        stream.write_all(&[head.as_bytes(), body].concat()).ok()?;
    }
}
