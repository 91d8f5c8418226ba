//! The provider `github-app` against a strict copy of the calls that it makes, which checks signature, claims, headers and
//! fields as GitHub documents them.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use jiff::Timestamp;
use sandbox::credential::github::GithubError;
use sandbox::credential::held::Held;
use sandbox::credential::key_source::KeyError;
use sandbox::credential::secret::Secret;
use sandbox::credential::spec::{
    CredentialSpec, Delivery, GithubAccess, GithubAppSpec, GithubRepositories, KeySource, ProviderSpec,
};
use sandbox::credential::{CredentialError, IssueContext, Issued, Revocation, issue, revoke, store, vault};
use sandbox::project::{CredentialName, ProjectName, SandboxName};
use serde_json::{Value, json};

mod server;
mod session;
#[path = "../support/mod.rs"]
mod support;

use server::{APP, Github, INSTALLATION};

/// The developer's side: a home with the app's key, and a project beside it.
struct Side {
    folder: tempfile::TempDir,
    root: PathBuf,
    project: ProjectName,
    sandbox: SandboxName,
    held: Held,
}

impl Side {
    fn new(github: &Github) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("project");
        std::fs::create_dir(&root).unwrap();
        let (project, sandbox) = ("payments".parse().unwrap(), SandboxName::main());
        let side = Self { folder, root, project, sandbox, held: Held::default() };
        side.write("key.pem", &github.key(), 0o600);
        side
    }

    fn write(&self, path: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.folder.path().join(path);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
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
            aws: sandbox::credential::aws::Environment::default(),
            identity: sandbox::credential::identity::Authority::default(),
            held: self.held.clone(),
            session: None,
            reason: "up",
        }
    }

    async fn issue(&self, spec: &GithubAppSpec) -> Result<Issued, CredentialError> {
        issue(&name(), &credential(spec), &self.context()).await
    }

    async fn refused(&self, spec: &GithubAppSpec) -> GithubError {
        match self.issue(spec).await.unwrap_err() {
            CredentialError::Github(error) => {
                let text = format!("{error} {error:?}");
                assert!(!text.contains("canary") && !text.contains("PRIVATE") && !text.contains("eyJ"), "{text}");
                error
            }
            other => panic!("{other:?}"),
        }
    }

    async fn revoke(&self, spec: &GithubAppSpec, handle: &str) -> Result<Revocation, CredentialError> {
        revoke(&name(), &credential(spec), Some(handle), &self.context()).await
    }
}

fn name() -> CredentialName {
    "github".parse().unwrap()
}

fn credential(spec: &GithubAppSpec) -> CredentialSpec {
    CredentialSpec {
        provider: ProviderSpec::GithubApp(Box::new(spec.clone())),
        deliver: Delivery::Git { host: "github.com".parse().unwrap() },
        max_age: None,
        shared_with: None,
        accept_personal: None,
        on_expiry: Default::default(),
        hosts: Vec::new(),
    }
}

fn spec(github: &Github) -> GithubAppSpec {
    GithubAppSpec {
        address: github.address.clone(),
        app: APP.to_owned(),
        installation: INSTALLATION,
        repositories: GithubRepositories::Names(["payments".to_owned()].into()),
        permissions: [("contents".to_owned(), GithubAccess::Write)].into(),
        key: KeySource::File(PathBuf::from("~/key.pem")),
    }
}

fn is(secret: &Secret, text: &str) -> bool {
    secret.equals(&Secret::new(text.as_bytes().to_vec()))
}

#[tokio::test]
async fn a_token_is_for_what_was_asked_for_and_ends_when_it_is_revoked() {
    let github = Github::start();
    let side = Side::new(&github);
    let spec = spec(&github);
    // Both forms of tokens, of which nothing is read.
    for count in 1..=2 {
        let issued = side.issue(&spec).await.unwrap();
        let token = github.good().pop().unwrap();
        assert!(is(&issued.value, &token), "the value is not the token {count}");
        assert_eq!(issued.scope.as_deref(), Some("metadata:read contents:write on payments"));
        let left = issued.expires_at.unwrap().as_second() - Timestamp::now().as_second();
        assert!((3590..=3601).contains(&left), "{left}");
        let handle = issued.handle.unwrap();
        assert!(!handle.contains("ghs_") && !handle.contains("canary"), "{handle}");
        assert_eq!(side.revoke(&spec, &handle).await.unwrap(), Revocation::Revoked);
        assert!(github.good().is_empty());
        let log = github.log();
        assert_eq!(
            log[log.len() - 2..],
            ["DELETE /api/v3/installation/token 204", "GET /api/v3/installation/repositories?per_page=1 401"]
        );
        // Now nobody has it any more, which is no failure, and is not called a revocation.
        assert!(matches!(side.revoke(&spec, &handle).await.unwrap(), Revocation::ExpiresAt(_)));
    }
    let by_id = GithubAppSpec { repositories: GithubRepositories::Ids([102].into()), ..spec };
    assert_eq!(side.issue(&by_id).await.unwrap().scope.unwrap(), "metadata:read contents:write on 102");
}

#[tokio::test]
async fn a_process_without_the_token_says_until_when_it_lives() {
    let github = Github::start();
    let (side, other) = (Side::new(&github), Side::new(&github));
    let issued = side.issue(&spec(&github)).await.unwrap();
    let handle = issued.handle.unwrap();
    let end = other.revoke(&spec(&github), &handle).await.unwrap();
    assert_eq!(end, Revocation::ExpiresAt(issued.expires_at.unwrap()));
    assert_eq!(github.good().len(), 1);
    let taken = Side { held: Held::of(side.held.all()), ..Side::new(&github) };
    assert_eq!(taken.revoke(&spec(&github), &handle).await.unwrap(), Revocation::Revoked);
    assert!(github.good().is_empty());
    // One that somebody ended before is ended.
    assert_eq!(side.revoke(&spec(&github), &handle).await.unwrap(), Revocation::Revoked);
    assert!(matches!(side.revoke(&spec(&github), "nonsense").await, Err(CredentialError::Github(GithubError::Handle))));
}

#[tokio::test]
async fn a_wider_grant_is_revoked_and_refused() {
    let github = Github::start();
    let side = Side::new(&github);
    type Tamper = fn(&mut Value);
    let wider: [(&str, Tamper); 10] = [
        ("another permission", |answer| answer["permissions"]["administration"] = json!("read")),
        ("more of a permission", |answer| answer["permissions"]["contents"] = json!("admin")),
        ("more of what all have", |answer| answer["permissions"]["metadata"] = json!("write")),
        ("permissions that are not told", |answer| answer["permissions"] = json!(null)),
        ("an access that nobody knows", |answer| answer["permissions"]["contents"] = json!("everything")),
        ("all repositories", |answer| answer["repository_selection"] = json!("all")),
        ("repositories that are not told", |answer| answer["repositories"] = json!([])),
        ("another repository", |answer| {
            answer["repositories"].as_array_mut().unwrap().push(json!({ "id": 103, "name": "secret-plans" }));
        }),
        ("a longer life", |answer| answer["expires_at"] = json!("2099-01-01T00:00:00Z")),
        ("a life without end", |answer| answer["expires_at"] = json!(null)),
    ];
    for (what, tamper) in wider {
        github.set(|state| state.tamper = Some(tamper));
        let refused = side.refused(&spec(&github)).await;
        assert!(matches!(refused, GithubError::Wider { .. } | GithubError::Answer(_)), "{what}: {refused:?}");
        assert!(github.good().is_empty(), "{what}: the token was left");
    }
    assert!(side.held.all().is_empty());
    // What cannot be revoked is said to live on.
    github.set(|state| state.keeps_tokens = true);
    github.set(|state| state.tamper = Some(|answer| answer["repository_selection"] = json!("all")));
    let refused = side.refused(&spec(&github)).await;
    assert!(refused.to_string().contains("could not be revoked"), "{refused}");
}

#[tokio::test]
async fn a_token_that_github_still_accepts_is_not_called_revoked() {
    let github = Github::start();
    let side = Side::new(&github);
    let issued = side.issue(&spec(&github)).await.unwrap();
    github.set(|state| state.keeps_tokens = true);
    let handle = issued.handle.unwrap();
    let refused = side.revoke(&spec(&github), &handle).await.unwrap_err();
    assert!(matches!(refused, CredentialError::Github(GithubError::StillGood)), "{refused:?}");
    // It stays in memory, so that it is tried again.
    github.set(|state| state.keeps_tokens = false);
    assert_eq!(side.revoke(&spec(&github), &handle).await.unwrap(), Revocation::Revoked);
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_corrected_once() {
    let github = Github::start();
    let side = Side::new(&github);
    for ahead in [7200, -7200] {
        github.set(|state| (state.ahead, state.assertions) = (ahead, 0));
        let issued = side.issue(&spec(&github)).await.unwrap();
        assert_eq!(github.state.lock().unwrap().assertions, 2, "{ahead}");
        // By this machine's clock, so that it is rotated in time.
        let left = issued.expires_at.unwrap().as_second() - Timestamp::now().as_second();
        assert!((3590..=3601).contains(&left), "{left}");
    }
    let foreign = GithubAppSpec { app: "Iv23liAnother".to_owned(), ..spec(&github) };
    github.set(|state| (state.ahead, state.assertions) = (0, 0));
    assert!(matches!(side.refused(&foreign).await, GithubError::Unauthenticated { .. }));
    assert_eq!(github.state.lock().unwrap().assertions, 1, "the clocks agree, so it is of no use to try again");
    github.set(|state| (state.ahead, state.assertions) = (7200, 0));
    assert!(matches!(side.refused(&foreign).await, GithubError::Unauthenticated { .. }));
    assert_eq!(github.state.lock().unwrap().assertions, 2);
}

#[tokio::test]
async fn refusals_say_what_is_to_be_mended() {
    let github = Github::start();
    let side = Side::new(&github);
    let spec = spec(&github);
    let unknown = GithubRepositories::Names(["payments".to_owned(), "absent".to_owned()].into());
    let refused = side.refused(&GithubAppSpec { repositories: unknown, ..spec.clone() }).await;
    assert!(matches!(&refused, GithubError::Repositories(said) if said.contains("does not exist")), "{refused:?}");
    let more = [("contents".to_owned(), GithubAccess::Admin)].into();
    let refused = side.refused(&GithubAppSpec { permissions: more, ..spec.clone() }).await;
    assert!(matches!(&refused, GithubError::Permissions(said) if said.contains("not granted")), "{refused:?}");
    let refused = side.refused(&GithubAppSpec { installation: 1, ..spec.clone() }).await;
    assert!(matches!(refused, GithubError::NoInstallation { installation: 1, .. }), "{refused:?}");
    let said = |status, text| github.set(|state| state.refuse = Some((status, text)));
    said(403, "This installation has been suspended");
    assert!(matches!(side.refused(&spec).await, GithubError::Suspended(INSTALLATION)));
    said(403, "\u{1b}[2J the organization has an IP allow list, token ghs_canary0123456789abcdef");
    let refused = side.refused(&spec).await;
    assert!(matches!(&refused, GithubError::Forbidden(said) if !said.contains('\u{1b}')), "{refused:?}");
    said(429, "too many");
    assert!(matches!(side.refused(&spec).await, GithubError::Busy { status: 429, .. }));
    said(502, "");
    assert!(matches!(side.refused(&spec).await, GithubError::Busy { status: 502, .. }));
    said(302, "elsewhere");
    assert!(matches!(side.refused(&spec).await, GithubError::Failed { status: 302, .. }));
    assert!(github.good().is_empty());
    drop(side);
    let gone = GithubAppSpec { address: "http://127.0.0.1:1".to_owned(), ..spec };
    assert!(matches!(Side::new(&github).refused(&gone).await, GithubError::Unreachable { .. }));
}

#[tokio::test]
async fn the_key_is_a_private_file_outside_the_project_or_the_answer_of_a_command() {
    let github = Github::start();
    let side = Side::new(&github);
    let with = |key| GithubAppSpec { key, ..spec(&github) };
    let file = |path: PathBuf| with(KeySource::File(path));
    side.issue(&file(side.write("key8.pem", &github.key_in_pkcs8(), 0o400))).await.unwrap();
    let command = ["cat", "../key.pem"].map(str::to_owned).to_vec();
    side.issue(&with(KeySource::Command(command))).await.unwrap();

    let refused = side.refused(&file(side.write("open.pem", &github.key(), 0o640))).await;
    assert!(matches!(refused, GithubError::KeySource(KeyError::Place { .. })), "{refused:?}");
    let inside = side.write("project/key.pem", &github.key(), 0o600);
    assert!(matches!(side.refused(&file(inside.clone())).await, GithubError::KeySource(KeyError::Place { .. })));
    // Also through a link.
    let link = side.folder.path().join("link.pem");
    std::os::unix::fs::symlink(&inside, &link).unwrap();
    assert!(matches!(side.refused(&file(link)).await, GithubError::KeySource(KeyError::Place { .. })));
    assert!(matches!(
        side.refused(&file(side.folder.path().to_owned())).await,
        GithubError::KeySource(KeyError::Place { .. })
    ));
    assert!(matches!(
        side.refused(&file(PathBuf::from("~/absent"))).await,
        GithubError::KeySource(KeyError::File { .. })
    ));
    assert!(matches!(side.refused(&file(side.write("none.pem", "canary", 0o600))).await, GithubError::Key));
    let long = side.write("long.pem", &"canary".repeat(10_000), 0o600);
    assert!(matches!(side.refused(&file(long)).await, GithubError::KeySource(KeyError::File { .. })));
    let another = Github::start();
    let refused = side.refused(&file(side.write("another.pem", &another.key(), 0o600))).await;
    assert!(matches!(refused, GithubError::Unauthenticated { .. }), "{refused:?}");
}
