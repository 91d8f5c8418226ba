use std::path::Path;

use serde_json::json;

use super::*;
use crate::credential::{store, vault};
use crate::project::{ProjectName, SandboxName};
use crate::session::identity::SandboxId;

pub(super) struct Scene {
    folder: tempfile::TempDir,
    project: ProjectName,
    sandbox: SandboxName,
}

impl Scene {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, project: "demo".parse().unwrap(), sandbox: SandboxName::main() }
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn issue(&self) -> IssueContext<'_> {
        let root = self.path();
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
            vault: vault::Environment::default(),
            aws: crate::credential::aws::Environment::default(),
            identity: crate::credential::identity::Authority::default(),
            held: crate::credential::held::Held::default(),
            session: None,
            reason: "rotation",
        }
    }

    /// A journal with credentials that end at these times, each revoked by a command that appends its handle to `ended`
    /// and fails while there is a file `down`.
    pub(super) fn journal(&self, retiring: &[(&str, Timestamp)]) -> Journal {
        let command =
            "test ! -e down || exit 1; sed -n 's/.*\"handle\":\"\\([a-z]*\\)\".*/\\1/p' >> ended; echo >> ended";
        let retiring: Vec<_> = retiring
            .iter()
            .map(|(handle, end_at)| {
                json!({
                    "name": "token",
                    "end_at": end_at,
                    "lease": {
                        "spec": {
                            "provider": {
                                "provider": "exec", "command": ["true"], "revoke_command": ["/bin/sh", "-c", command]
                            },
                            "deliver": { "file": { "name": "token" } }
                        },
                        "handle": handle,
                        "fingerprint": "f",
                        "issued_at": end_at
                    }
                })
            })
            .collect();
        let record: Record = serde_json::from_value(json!({
            "version": 1, "id": { "project": "demo", "name": "main" }, "session": "0123456789abcdef",
            "phase": "running", "plan_hash": "", "owner": "ada@host", "manifest": "", "repository": "", "branch": "main",
            "base": "", "start": "", "engine": "", "image": "", "policy": { "allow": [] }, "objects": [], "leases": {},
            "retiring": retiring, "environment": {}, "secret_environment": {}, "started_at": Timestamp::UNIX_EPOCH
        }))
        .unwrap();
        let id = SandboxId { project: self.project.clone(), name: self.sandbox.clone() };
        let journal = Journal::of(self.path(), &id);
        journal.write(&record).unwrap();
        journal
    }

    fn ended(&self) -> String {
        std::fs::read_to_string(self.path().join("ended")).unwrap_or_default()
    }
}

/// What is over at a time.
fn until(time: Timestamp) -> impl Fn(&RetiringLease) -> bool {
    move |retiring| retiring.end_at <= time
}

#[tokio::test]
async fn what_was_replaced_is_revoked_when_its_grace_is_over_and_not_before() {
    let scene = Scene::new();
    let now = Timestamp::now();
    let journal = scene.journal(&[("early", now - Duration::from_secs(1)), ("late", now + GRACE)]);
    let mut told = Vec::new();
    end_retired(&journal, &scene.issue(), until(now), |retired, failure| {
        told.push((retired.lease.handle.clone(), failure.err()))
    })
    .await;
    assert_eq!(told, [(Some("early".to_owned()), None)]);
    assert_eq!(scene.ended(), "early\n");
    assert_eq!(journal.read().unwrap().unwrap().retiring.len(), 1);
    end_retired(&journal, &scene.issue(), until(now + GRACE), |_, _| {}).await;
    assert_eq!(scene.ended(), "early\nlate\n");
    assert!(!journal.read().unwrap().unwrap().owes());
}

#[tokio::test]
async fn a_revocation_that_fails_is_tried_again_after_a_pause() {
    let scene = Scene::new();
    let now = Timestamp::now();
    let journal = scene.journal(&[("old", now)]);
    std::fs::write(scene.path().join("down"), "").unwrap();
    let mut failures = 0;
    end_retired(&journal, &scene.issue(), until(now), |_, failure| failures += usize::from(failure.is_err())).await;
    end_retired(&journal, &scene.issue(), until(now), |_, failure| failures += usize::from(failure.is_err())).await;
    assert_eq!((failures, scene.ended().as_str()), (1, ""));
    assert!(journal.read().unwrap().unwrap().owes());
    std::fs::remove_file(scene.path().join("down")).unwrap();
    end_retired(&journal, &scene.issue(), until(Timestamp::now() + RETRY_RETIRED), |_, _| {}).await;
    assert_eq!(scene.ended(), "old\n");
}

/// One that was issued at a time and ends at another.
fn lease(issued_at: Timestamp, expires_at: Option<Timestamp>) -> JournalLease {
    serde_json::from_value(json!({
        "spec": { "provider": { "provider": "store" }, "deliver": { "file": { "name": "token" } } },
        "handle": "h", "fingerprint": "f", "issued_at": issued_at, "expires_at": expires_at
    }))
    .unwrap()
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn a_clock_that_is_moved_makes_nothing_due_too_late() {
    let now = Timestamp::now();
    let fresh = Due::of(&lease(now, Some(now + seconds(3600))), "").unwrap();
    assert!(!fresh.is_now());
    // The machine slept: the clock on the wall went on.
    assert!(Due { at: now, ..fresh }.is_now());
    // The clock was put back after it was issued: by it, the half of the life is hours away.
    let put_back = Due { at: now + seconds(7200), by: Instant::now(), ..fresh };
    assert!(put_back.is_now());
}

#[test]
fn what_does_not_run_out_is_never_due_and_what_must_not_grow_old_is_earlier() {
    let now = Timestamp::now();
    assert!(Due::of(&lease(now, None), "").is_none());
    let mut aged = lease(now, Some(now + seconds(12 * 3600)));
    aged.spec.max_age = Some(seconds(3600));
    assert!(Due::of(&aged, "").unwrap().at <= now + seconds(1800));
    assert_eq!(aged.ends_at(), Some(now + seconds(3600)));
    // Renewed, it is due by what it lives now.
    let renewed = JournalLease { renewed_at: Some(now + seconds(3600)), ..lease(now, Some(now + seconds(7200))) };
    assert!(Due::of(&renewed, "").unwrap().at > now + seconds(3600));
}

#[test]
fn pauses_and_grace_are_in_proportion_to_a_life() {
    let (day, short) = (Pause::of(seconds(86_400)), Pause::of(seconds(6)));
    assert_eq!((day.next, day.longer().next), (RETRY_FIRST, RETRY_FIRST * 2));
    assert!((0..20).fold(day, |pause, _| pause.longer()).next == RETRY_MOST);
    assert!(
        short.next == Duration::from_millis(300) && (0..9).fold(short, |pause, _| pause.longer()).next < seconds(1)
    );
    let now = Timestamp::now();
    assert_eq!(grace(&lease(now, Some(now + seconds(3600))), now), now + GRACE);
    assert_eq!(grace(&lease(now, Some(now + seconds(4))), now), now + seconds(3));
    assert_eq!(grace(&lease(now, Some(now)), now + seconds(9)), now + seconds(9));
    assert_eq!(grace(&lease(now, None), now), now + GRACE);
}
