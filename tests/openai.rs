//! The provider `openai-project` against a strict copy of the calls that it makes, which checks method, path, headers and
//! fields as OpenAI documents them ("API reference", Administration, Project service accounts).
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use sandbox::credential::held::Held;
use sandbox::credential::key_source::KeyError;
use sandbox::credential::openai::OpenaiError;
use sandbox::credential::spec::{CredentialSpec, KeySource, OpenaiProjectSpec, ProviderSpec};
use sandbox::credential::{CredentialError, IssueContext, Issued, Revocation, aws, issue, revoke, store, vault};
use sandbox::project::{CredentialName, ProjectName, SandboxName};
use serde_json::{Value, json};

#[path = "federation/server.rs"]
mod server;
mod support;

use server::{Request, serve};
use support::{Home, Project, assert_no_canary, eventually, supervisors};

const ADMIN: &str = "sk-admin-canary0123456789abcdef";
const PROJECT: &str = "proj_abc";
/// Seconds that the tests' keys live.
const LIFE: i64 = 3600;

#[derive(Default)]
struct State {
    /// Service accounts that are there: id, name, key.
    accounts: Vec<(String, String, String)>,
    made: usize,
    /// Requests: method and path.
    log: Vec<String>,
    /// Changes the answer that has a key.
    tamper: Option<fn(&mut Value)>,
    /// Answers this status to all; to none but those that make an account when the second is set.
    refuse: Option<u16>,
    /// Makes the account, and says this status all the same; 0 ends the connection.
    forget: Option<u16>,
    /// Says of a deletion that it did not happen.
    keeps: bool,
}

#[derive(Clone)]
struct Openai {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Openai {
    fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let kept = Arc::clone(&state);
        let address = serve(move |request| {
            let (status, body) = answer(request, &mut kept.lock().unwrap());
            (status, body.to_string())
        });
        Self { address, state }
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    /// The keys of the accounts that are there.
    fn good(&self) -> Vec<String> {
        self.state.lock().unwrap().accounts.iter().map(|(_, _, key)| key.clone()).collect()
    }
}

/// The form of errors ("Error codes").
fn error(status: u16, message: &str) -> (u16, Value) {
    (status, json!({ "error": { "message": message, "type": "invalid_request_error", "param": null, "code": null } }))
}

fn answer(request: &Request, state: &mut State) -> (u16, Value) {
    state.log.push(format!("{} {}", request.method, request.path));
    if request.header("authorization") != format!("Bearer {ADMIN}") {
        return error(401, "Incorrect API key provided: sk-admin-***. You can find your API key in the settings.");
    }
    if let Some(status) = state.refuse {
        return error(status, "no");
    }
    let Some(rest) = request.path.strip_prefix("/v1/organization/projects/") else { return error(404, "Unknown path") };
    let (project, rest) = rest.split_once('/').unwrap();
    if project != PROJECT {
        return error(404, "No project found with this id");
    }
    match (request.method.as_str(), rest) {
        ("POST", "service_accounts") => {
            assert_eq!(request.header("content-type"), "application/json");
            make(&serde_json::from_slice(&request.body).unwrap(), state)
        }
        ("GET", list) => {
            let query = list.strip_prefix("service_accounts?limit=100").unwrap();
            let after = query.strip_prefix("&after=");
            assert!(query.is_empty() || after.is_some(), "{query} is not documented");
            let begin = after.map_or(0, |id| state.accounts.iter().position(|(own, _, _)| own == id).unwrap() + 1);
            let page: Vec<Value> = state.accounts[begin..]
                .iter()
                .take(100)
                .map(|(id, name, _)| {
                    json!({ "object": "organization.project.service_account", "id": id, "name": name, "role": "member",
                            "created_at": Timestamp::now().as_second() })
                })
                .collect();
            let more = begin + page.len() < state.accounts.len();
            let ends = |value: Option<&Value>| value.map(|account| account["id"].clone());
            let (first, last) = (ends(page.first()), ends(page.last()));
            (200, json!({ "object": "list", "data": page, "first_id": first, "last_id": last, "has_more": more }))
        }
        ("DELETE", account) => {
            let id = account.strip_prefix("service_accounts/").unwrap();
            assert!(request.body.is_empty());
            let Some(at) = state.accounts.iter().position(|(own, _, _)| own == id) else {
                return error(404, "No service account found with this id");
            };
            if !state.keeps {
                state.accounts.remove(at);
            }
            let object = "organization.project.service_account.deleted";
            (200, json!({ "object": object, "id": id, "deleted": !state.keeps }))
        }
        _ => error(405, "Not allowed"),
    }
}

fn make(asked: &Value, state: &mut State) -> (u16, Value) {
    let fields: Vec<&str> = asked.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["name", "expires_in_seconds"], "not what is documented, or not all of it");
    let life = asked["expires_in_seconds"].as_i64().unwrap();
    assert!((1..=31_536_000).contains(&life), "{life}");
    state.made += 1;
    let number = state.made;
    let (id, name) = (format!("svc_acct_{number}"), asked["name"].as_str().unwrap().to_owned());
    let key = format!("sk-svcacct-canary{number:020}");
    state.accounts.push((id.clone(), name.clone(), key.clone()));
    if let Some(status) = state.forget {
        return error(status, "The server had an error while processing your request");
    }
    let now = Timestamp::now().as_second();
    let mut body = json!({
        "object": "organization.project.service_account",
        "id": id,
        "name": name,
        "role": "member",
        "created_at": now,
        "api_key": {
            "object": "organization.project.service_account.api_key",
            "value": key,
            "name": "Secret Key",
            "created_at": now,
            "id": format!("key_{number}"),
            "expires_at": now + life,
        },
    });
    if let Some(tamper) = state.tamper {
        tamper(&mut body);
    }
    (200, body)
}

/// The developer's side: a home with the admin key, and a project beside it.
struct Side {
    folder: tempfile::TempDir,
    root: PathBuf,
    project: ProjectName,
    sandbox: SandboxName,
}

impl Side {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("project");
        std::fs::create_dir(&root).unwrap();
        let side = Self { folder, root, project: "payments".parse().unwrap(), sandbox: SandboxName::main() };
        side.write("admin", &format!("{ADMIN}\n"));
        side
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(path);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
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
            vault: vault::Environment::default(),
            aws: aws::Environment::default(),
            identity: sandbox::credential::identity::Authority::default(),
            held: Held::default(),
            session: None,
            reason: "up",
        }
    }

    async fn issue(&self, spec: &CredentialSpec) -> Result<Issued, CredentialError> {
        issue(&name(), spec, &self.context()).await
    }

    async fn revoke(&self, spec: &CredentialSpec, handle: &str) -> Result<Revocation, CredentialError> {
        revoke(&name(), spec, Some(handle), &self.context()).await
    }

    async fn refused(&self, spec: &CredentialSpec) -> OpenaiError {
        match self.issue(spec).await.unwrap_err() {
            CredentialError::Openai(error) => {
                let shown = format!("{error:?} {error}");
                assert!(!shown.contains("canary"), "{shown}");
                error
            }
            other => panic!("{other:?}"),
        }
    }
}

fn name() -> CredentialName {
    "openai".parse().unwrap()
}

fn spec(openai: &Openai) -> CredentialSpec {
    let text = format!(
        "version: 1\nproject: payments\nimage: agent\ncredentials:\n  openai: {{ provider: openai-project, address: \"{}\", \
         project_id: {PROJECT}, ttl: 1h, key_file: ~/admin }}\n",
        openai.address
    );
    let manifest = sandbox::project::manifest::parse(&text, std::path::Path::new("/nowhere/sandbox.yaml")).unwrap();
    manifest.credentials.into_values().next().unwrap()
}

fn with(openai: &Openai, change: impl FnOnce(&mut OpenaiProjectSpec)) -> CredentialSpec {
    let mut spec = spec(openai);
    let ProviderSpec::OpenaiProject(project) = &mut spec.provider else { panic!("{spec:?}") };
    change(project);
    spec
}

#[tokio::test]
async fn a_service_account_is_made_for_the_sandbox_and_deleted_with_its_key() {
    let (openai, side) = (Openai::start(), Side::new());
    let spec = spec(&openai);
    let issued = side.issue(&spec).await.unwrap();
    let accounts = openai.state.lock().unwrap().accounts.clone();
    assert_eq!(accounts.len(), 1);
    let (_, name, key) = &accounts[0];
    assert!(name.starts_with("sandbox payments.main "), "{name}");
    assert_eq!(issued.value.expose(), key.as_bytes());
    let left = issued.expires_at.unwrap().as_second() - Timestamp::now().as_second();
    assert!((LIFE - 5..=LIFE).contains(&left), "{left}");
    let handle = issued.handle.unwrap();
    assert!(!handle.contains("canary") && handle.ends_with("|proj_abc|svc_acct_1"), "{handle}");
    assert_eq!(spec.places(), ["api.openai.com".parse().unwrap()]);
    // Whoever has the journal and the admin key ends it; this is another process.
    assert_eq!(side.revoke(&spec, &handle).await.unwrap(), Revocation::Revoked);
    assert!(openai.good().is_empty());
    assert_eq!(side.revoke(&spec, &handle).await.unwrap(), Revocation::Revoked, "it was gone before");
    for wrong in ["", "a|b", "t|http://127.0.0.1|proj_abc|../keys"] {
        let error = side.revoke(&spec, wrong).await.unwrap_err();
        assert!(matches!(error, CredentialError::Openai(OpenaiError::Handle)), "{error:?}");
    }
}

#[tokio::test]
async fn what_is_good_for_more_than_was_asked_for_is_deleted_and_refused() {
    let (openai, side) = (Openai::start(), Side::new());
    let tampers: [fn(&mut Value); 6] = [
        |body| body["role"] = json!("owner"),
        |body| body["api_key"]["expires_at"] = Value::Null,
        |body| body["api_key"]["expires_at"] = json!(Timestamp::now().as_second() + LIFE + 120),
        |body| body["api_key"]["value"] = json!("two\nlines"),
        |body| body["api_key"] = Value::Null,
        |body| body["object"] = json!("organization.project.user"),
    ];
    for (number, tamper) in tampers.into_iter().enumerate() {
        openai.set(|state| state.tamper = Some(tamper));
        let error = side.refused(&spec(&openai)).await;
        assert_eq!(matches!(error, OpenaiError::Wider { fate: "was deleted", .. }), number < 3, "{error:?}");
        assert!(openai.good().is_empty(), "{number}: the account lives on");
    }
    openai.set(|state| state.keeps = true);
    openai.set(|state| state.tamper = Some(|body| body["role"] = json!("owner")));
    let error = side.refused(&spec(&openai)).await;
    assert!(matches!(error, OpenaiError::Wider { fate: "could not be deleted", .. }), "{error:?}");
}

#[tokio::test]
async fn an_account_whose_making_was_not_answered_is_found_and_deleted() {
    let side = Side::new();
    for status in [0, 500, 503] {
        let openai = Openai::start();
        // It is on the second page, behind accounts of others, which stay.
        openai.set(|state| {
            state.accounts =
                (0..130).map(|n| (format!("svc_acct_other{n}"), format!("other {n}"), String::new())).collect();
            state.forget = Some(status);
        });
        let error = side.refused(&spec(&openai)).await;
        let unanswered = matches!(error, OpenaiError::Unreachable { .. } | OpenaiError::Busy { .. });
        assert!(unanswered, "{status}: {error:?}");
        let state = openai.state.lock().unwrap();
        assert_eq!((state.made, state.accounts.len()), (1, 130), "{:?}", state.log);
    }
    let openai = Openai::start();
    openai.set(|state| state.tamper = Some(|body| body["id"] = json!("../keys")));
    assert!(matches!(side.refused(&spec(&openai)).await, OpenaiError::Answer(_)));
    assert!(openai.good().is_empty());
}

#[tokio::test]
async fn every_refusal_is_told_apart_and_none_repeats_a_key() {
    let (openai, side) = (Openai::start(), Side::new());
    let refuse = |status| openai.set(|state| state.refuse = Some(status));
    refuse(429);
    assert!(matches!(side.refused(&spec(&openai)).await, OpenaiError::Busy { status: 429, .. }));
    refuse(403);
    assert!(matches!(side.refused(&spec(&openai)).await, OpenaiError::Forbidden(_)));
    refuse(400);
    assert!(matches!(side.refused(&spec(&openai)).await, OpenaiError::Failed { status: 400, .. }));
    openai.set(|state| state.refuse = None);
    let other = with(&openai, |project| project.project = "proj_other".to_owned());
    assert!(matches!(side.refused(&other).await, OpenaiError::NoProject(_)));
    let command = |words: &[&str]| KeySource::Command(words.iter().map(|word| (*word).to_owned()).collect());
    let wrong = with(&openai, |project| project.key = command(&["echo", "sk-canary-of-another"]));
    let error = side.refused(&wrong).await;
    assert!(matches!(&error, OpenaiError::Unauthenticated(said) if said.contains("Incorrect API key")), "{error:?}");
    let wrong = with(&openai, |project| project.key = command(&["printf", "canary\\nlines"]));
    assert!(matches!(side.refused(&wrong).await, OpenaiError::Key));
    let inside = side.write("project/admin", ADMIN);
    let wrong = with(&openai, |project| project.key = KeySource::File(inside));
    assert!(matches!(side.refused(&wrong).await, OpenaiError::KeySource(KeyError::Place { .. })));
    let wrong = with(&openai, |project| project.address = "http://api.example.com".to_owned());
    assert!(matches!(side.refused(&wrong).await, OpenaiError::Address { .. }));
    assert!(openai.good().is_empty() && openai.state.lock().unwrap().made == 0);
}

fn manifest(openai: &Openai, deliver: &str) -> String {
    format!(
        "image: agent
command: [bash, -l]
network:
  allow: [api.openai.com]
credentials:
  openai:
    provider: openai-project
    address: {}
    project_id: {PROJECT}
    key_file: ~/admin
    deliver: {deliver}
",
        openai.address
    )
}

fn run(home: &Home, words: &[&str]) -> String {
    let output = home.sandbox().args(words).env("HOME", home.path()).output().unwrap();
    let (said, errors) = (support::text(&output.stdout), support::text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{words:?}: {errors}{said}");
    assert!(!errors.contains("canary"), "{errors}");
    said
}

fn with_key() -> Home {
    let home = Home::new();
    let key = home.path().join("admin");
    std::fs::write(&key, ADMIN).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    home
}

#[test]
fn a_session_has_an_account_of_its_own_until_it_ends() {
    let (openai, home) = (Openai::start(), with_key());
    let project = Project::new(&home, "openai", &manifest(&openai, "{ file: openai }"));
    let name = project.name();
    assert!(run(&home, &["plan", name]).contains("openai from openai-project"));
    run(&home, &["credential", "check", name]);
    assert!(openai.good().is_empty(), "the account of a check is deleted");
    run(&home, &["up", name, "--detach", "--", "sleep", "300"]);
    let first = openai.good().pop().unwrap();
    let read = || run(&home, &["exec", name, "--", "cat", "/run/secrets/openai"]);
    assert_eq!(read(), first);
    run(&home, &["credential", "rotate", "openai", name]);
    eventually("the new key's arrival", Duration::from_secs(30), || read() != first);
    assert_eq!(openai.good().len(), 2, "the replaced one goes on for its grace");
    // The admin key is in no file of the launcher's but the one that it was read from.
    std::fs::rename(home.path().join("admin"), project.path().with_extension("admin")).unwrap();
    assert_no_canary(&home, name, &[&first, ADMIN]);
    std::fs::rename(project.path().with_extension("admin"), home.path().join("admin")).unwrap();
    run(&home, &["down", "--discard", name]);
    assert!(openai.good().is_empty(), "{:?} outlive the session", openai.good());
    let log = run(&home, &["audit", "log", "--format", "json"]);
    assert!(log.contains("credential.revoked") && !log.contains("credential.left_to_expire"), "{log}");
}

#[test]
fn after_a_crash_the_account_is_deleted_by_its_id() {
    let (openai, home) = (Openai::start(), with_key());
    // What is brokered is in no file, and the supervisor's memory is gone.
    let project = Project::new(&home, "crash", &manifest(&openai, "{ broker: api.openai.com }"));
    let name = project.name();
    run(&home, &["up", "--offline", name, "--detach", "--", "sleep", "300"]);
    assert_eq!(openai.good().len(), 1);
    let process = rustix::process::Pid::from_raw(supervisors(project.path())[0]).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    eventually("the supervisor's end", Duration::from_secs(10), || supervisors(project.path()).is_empty());
    let rows: Value =
        serde_json::from_str(&run(&home, &["credential", "revoke", "--all", name, "--format", "json"])).unwrap();
    assert_eq!((&rows[0]["provider"], &rows[0]["result"]), (&"openai-project".into(), &"revoked".into()), "{rows}");
    assert!(openai.good().is_empty());
}
