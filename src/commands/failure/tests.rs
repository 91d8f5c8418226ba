//! The failures that need an engine, a registry or a gateway to come about, word for word.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::Failure;
use crate::audit::log::AuditError;
use crate::commands::sandbox;
use crate::credential::CredentialError;
use crate::engine::endpoint::Endpoint;

use crate::engine::{EngineError, Kind};
use crate::image::error::{ImageError, NpmLockProblem, PackageProblem, RefusedScript};
use crate::image::registry::RegistryError;
use crate::init::frame::{FailureKind, Finding, Outcome};
use crate::project::LocateError;
use crate::project::trust::TrustError;
use crate::session::gateway_control::GatewayControlError;
use crate::session::journal::JournalError;
use crate::session::launch::LaunchError;
use crate::session::launcher_image::LauncherImageError;
use crate::session::stream_client::SessionError;
use crate::session::supervise::SuperviseError;
use crate::workspace::{GitError, WorkspaceError};

fn shown(failures: impl IntoIterator<Item = Failure>) -> String {
    let mut text = String::new();
    for failure in failures {
        text.push_str(&format!("error[{}]: {}\n", failure.code, failure.what));
        for cause in &failure.why {
            text.push_str(&format!("  because: {cause}\n"));
        }
        text.push_str(&format!("next: {}\n\n", failure.next));
    }
    text
}

fn denied() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "Permission denied (os error 13)")
}

fn json() -> serde_json::Error {
    serde_json::from_str::<u8>("{").unwrap_err()
}

fn file() -> PathBuf {
    "/home/ada/file".into()
}

#[test]
fn of_an_engine() {
    let endpoint = || Endpoint::Unix("/run/docker.sock".into());
    let name = || "sandbox-demo.main-agent".to_owned();
    let errors = [
        EngineError::NotPermitted { endpoint: endpoint() },
        EngineError::NotAnswering { endpoint: endpoint(), source: io::ErrorKind::ConnectionRefused.into() },
        EngineError::NameInvalid { kind: Kind::Volume, name: "a\nb".to_owned() },
        EngineError::NameTaken { kind: Kind::Container, name: name() },
        EngineError::NotFound { kind: Kind::Image, name: "sha256:00".to_owned() },
        EngineError::NotRunning { name: name() },
        EngineError::InUse { kind: Kind::Volume, name: name() },
        EngineError::Warnings { name: name(), warnings: vec!["Your kernel does not support swap limits".to_owned()] },
        EngineError::LimitMissing {
            name: name(),
            limit: "PidsLimit".to_owned(),
            wanted: "512".to_owned(),
            found: "0".to_owned(),
        },
        EngineError::Different { name: name(), differences: vec!["CapDrop is []".to_owned()] },
        EngineError::VolumeUncovered { image: "sha256:00".to_owned(), volume: "/data".to_owned() },
        EngineError::BuilderAbsent { version: "26.1.5".to_owned() },
        EngineError::Inexpressible { name: name(), field: "memory" },
        EngineError::Timeout { call: "start a container", limit: Duration::from_secs(60) },
        EngineError::AnswerIncomplete { call: "inspect a container", field: "Id" },
    ];
    insta::assert_snapshot!(shown(errors.map(Failure::from)));
}

#[test]
fn of_a_launch() {
    let finding = |check: &str, outcome| Finding { check: check.to_owned(), outcome, detail: "eth0 is up".to_owned() };
    let errors = [
        LaunchError::ImageAbsent { reference: "registry.example/agent@sha256:00".to_owned() },
        LaunchError::ImageLost { expected: "sha256:00".to_owned() },
        LaunchError::Relay { said: "relay: failed to listen on 127.0.0.1:3128".to_owned() },
        LaunchError::Gateway(GatewayControlError::Silent(Duration::from_secs(10))),
        LaunchError::Gateway(GatewayControlError::Ended),
        LaunchError::Session(SessionError::Ended),
        LaunchError::Session(SessionError::Timeout(Duration::from_secs(120))),
        LaunchError::Session(SessionError::Failed {
            kind: FailureKind::Git,
            message: "git clone: no space left".to_owned(),
        }),
        LaunchError::Probe { findings: vec![finding("routes", Outcome::Held), finding("interfaces", Outcome::Broken)] },
        LaunchError::Credential {
            name: "api-key".parse().unwrap(),
            source: CredentialError::Personal { what: "a personal access token of GitHub" },
        },
        LaunchError::Deliver(CredentialError::FileTwice("token".to_owned())),
        LaunchError::Folder { path: file(), source: denied() },
        LaunchError::Journal(JournalError::Io { path: file(), source: denied() }),
        LaunchError::Journal(JournalError::Format { path: file(), source: json() }),
        LaunchError::LauncherImage(LauncherImageError::Dynamic { path: file() }),
        LaunchError::LauncherImage(LauncherImageError::Archive(denied())),
        LaunchError::Audit(AuditError::Access { path: file(), source: denied() }),
        LaunchError::Audit(AuditError::Json(json())),
    ];
    insta::assert_snapshot!(shown(errors.map(Failure::from)));
}

#[test]
fn of_a_session() {
    let supervisor = [SuperviseError::Taken, SuperviseError::NotRunning, SuperviseError::Lock(denied())];
    let mut failures: Vec<Failure> = supervisor.map(Failure::from).into();
    failures.push(sandbox::interrupted());
    insta::assert_snapshot!(shown(failures));
}

#[test]
fn of_an_exchange_of_commits() {
    let git =
        |message: &str| GitError::Failed { subcommand: "bundle".to_owned(), code: Some(128), message: message.into() };
    let errors = [
        WorkspaceError::Git(GitError::Ownership),
        WorkspaceError::Git(git("fatal: bad object")),
        WorkspaceError::Git(GitError::TimedOut("bundle".to_owned())),
        WorkspaceError::Git(GitError::TooMuch("bundle".to_owned(), 1 << 20)),
        WorkspaceError::BranchName("-x".to_owned()),
        WorkspaceError::BranchExists("review".to_owned()),
        WorkspaceError::ObjectId("HEAD".to_owned()),
        WorkspaceError::PartialClone(git("fatal: missing blob")),
        WorkspaceError::ObjectFolder("/home/ada/odd\nname".into()),
        WorkspaceError::NotACommit("main".to_owned()),
        WorkspaceError::Output("rev-parse"),
        WorkspaceError::BranchAbsent("main".to_owned()),
        WorkspaceError::BaseAbsent("1".repeat(40)),
        WorkspaceError::NoSubmodule("vendor/library".to_owned()),
        WorkspaceError::SubmoduleAbsent { path: "vendor/library".to_owned(), commit: "1".repeat(40) },
        WorkspaceError::LargeFileAbsent("assets/film.mp4".to_owned()),
        WorkspaceError::Io(denied()),
    ];
    insta::assert_snapshot!(shown(errors.map(Failure::from)));
}

#[test]
fn of_a_project() {
    let mut failures: Vec<Failure> =
        [LocateError::Owner { path: file(), owner: 1001 }, LocateError::Access { path: file(), source: denied() }]
            .map(Failure::from)
            .into();
    failures.extend(
        [
            TrustError::Access { path: file(), source: denied() },
            TrustError::Special(file()),
            TrustError::TooLarge(file()),
            TrustError::Edited(file()),
            TrustError::Json(json()),
        ]
        .map(Failure::from),
    );
    insta::assert_snapshot!(shown(failures));
}

#[test]
fn of_an_image() {
    let agent = || "agent".to_owned();
    let errors = [
        ImageError::Unlocked(agent()),
        ImageError::Stale { name: agent(), what: "definition" },
        ImageError::BaseCycle(agent()),
        ImageError::Lock { name: agent(), source: json() },
        ImageError::File { path: file(), source: denied() },
        ImageError::Offline("jq_1.6-2.1_amd64.deb".to_owned()),
        ImageError::Signature { suite: "bookworm".to_owned(), source: None },
        ImageError::Expired {
            suite: "bookworm".to_owned(),
            from: "2026-01-01".to_owned(),
            until: "2026-01-08".to_owned(),
        },
        ImageError::Unsatisfiable { dependency: "libc6 (>= 9)".to_owned(), dependent: "jq".to_owned() },
        ImageError::Conflict("a".to_owned(), "b".to_owned()),
        ImageError::Scripts {
            name: agent(),
            refused: vec![
                RefusedScript { package: "odd".to_owned(), script: "postinst".to_owned() },
                RefusedScript { package: "stranger".to_owned(), script: "preinst".to_owned() },
            ],
        },
        ImageError::Package { package: "odd".to_owned(), problem: PackageProblem::Path("../etc/passwd\n".to_owned()) },
        ImageError::UnknownPackage {
            package: "fmpeg".to_owned(),
            providers: Vec::new(),
            similar: Some("ffmpeg".to_owned()),
        },
        ImageError::Pin { request: "jq=9".to_owned(), versions: vec!["1.6-2.1".to_owned()] },
        ImageError::Key { suite: "stable".to_owned(), path: file() },
        ImageError::NpmLock { name: agent(), problem: NpmLockProblem::NoNpm(io::ErrorKind::NotFound.into()) },
        ImageError::NpmLock { name: agent(), problem: NpmLockProblem::Script("odd@1.0.0".to_owned()) },
        ImageError::NpmLock { name: agent(), problem: NpmLockProblem::Version(1) },
    ];
    insta::assert_snapshot!(shown(errors.map(Failure::from)));
}

#[test]
fn of_a_registry() {
    let host = || "registry.example".to_owned();
    let digest = |digit: &str| format!("sha256:{}", digit.repeat(64)).parse().unwrap();
    let errors = [
        RegistryError::Denied { host: host(), status: 401, said: String::new() },
        RegistryError::Challenge { host: host(), problem: "its token service is another host without TLS" },
        RegistryError::Absent { what: "the manifest".to_owned(), repository: "registry.example/agent".to_owned() },
        RegistryError::Busy { host: host(), status: 429 },
        RegistryError::Redirection {
            host: host(),
            target: "http://10.0.0.1".to_owned(),
            problem: "it is a private address",
        },
        RegistryError::Digest { what: "a layer".to_owned(), found: digest("1"), wanted: digest("2") },
        RegistryError::Size { what: "a layer".to_owned(), wanted: 10 },
        RegistryError::Json { document: "manifest", source: json() },
        RegistryError::Platform { architecture: "amd64", platforms: vec!["linux/arm64".to_owned()] },
        RegistryError::Offline { what: "the manifest".to_owned() },
    ];
    insta::assert_snapshot!(shown(errors.iter().map(Failure::from)));
}
