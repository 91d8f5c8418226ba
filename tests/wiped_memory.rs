//! A value is in this process's memory as long as it is held, and nowhere in it afterwards. Alone in its program, so that the
//! memory is small and nobody else writes to it.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Mutex;

use sandbox::credential::held::Held;
use sandbox::credential::identity::Authority;
use sandbox::credential::spec::{CredentialSpec, Delivery, ProviderSpec};
use sandbox::credential::{IssueContext, aws, deliver, issue, store, vault};
use sandbox::project::SandboxName;
use zeroize::Zeroizing;

/// Length of the value, in bytes.
const LENGTH: usize = 48;
/// What is read at once, in bytes.
const PIECE: usize = 1 << 20;

/// A byte of a value that stands nowhere in this program.
fn unwritten(index: usize) -> u8 {
    b"abcdefghijklmnopqrstuvwxyz0123456789"[(index * index * 31 + index * 17 + 5) % 36]
}

/// Not on the heap: there it would be read into itself, and a copy in it would multiply.
static BUFFER: Mutex<[u8; PIECE]> = Mutex::new([0; PIECE]);

/// How often the value stands in what this process can write to.
fn copies() -> usize {
    let memory = File::open("/proc/self/mem").unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut piece = BUFFER.lock().unwrap();
    let mut found = 0;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [mut at, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        while at < to {
            let wanted = usize::try_from(to - at).unwrap().min(PIECE);
            let Ok(read) = memory.read_at(&mut piece[..wanted], at) else { break };
            let whole = |start: &usize| (0..LENGTH).all(|index| piece[start + index] == unwritten(index));
            let starts = read.saturating_sub(LENGTH - 1);
            // Most of it is empty, which a comparison of pages finds out faster than one of bytes.
            found += (0..starts)
                .step_by(4096)
                .filter(|page| piece[*page..(page + 4096).min(starts)].contains(&unwritten(0)))
                .map(|page| (page..(page + 4096).min(starts)).filter(whole).count())
                .sum::<usize>();
            // What was looked through must not be found in itself.
            piece.fill(0);
            if read < wanted || at + u64::try_from(read).unwrap() >= to {
                break;
            }
            // Pieces overlap, so that no copy is cut.
            at += u64::try_from(read - (LENGTH - 1)).unwrap();
        }
    }
    found
}

fn context<'a>(
    root: &'a Path,
    sandbox: &'a SandboxName,
    project: &'a sandbox::project::ProjectName,
) -> IssueContext<'a> {
    IssueContext {
        project,
        project_root: root,
        sandbox,
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
        identity: Authority::default(),
        held: Held::default(),
        session: None,
        reason: "up",
    }
}

#[test]
fn nothing_of_a_value_stays_in_memory_when_it_is_dropped() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (project, sandbox) = ("payments".parse().unwrap(), SandboxName::main());
    let context = context(folder.path(), &sandbox, &project);
    let spec = CredentialSpec {
        provider: ProviderSpec::Exec { command: ["cat", "answer"].map(str::to_owned).to_vec(), revoke_command: None },
        deliver: Delivery::File { name: "token".to_owned() },
        max_age: None,
        shared_with: None,
        accept_personal: None,
        on_expiry: Default::default(),
        hosts: Vec::new(),
    };
    let write = |before: &str, after: &str| {
        let mut text = Zeroizing::new(Vec::with_capacity(4096));
        text.extend_from_slice(before.as_bytes());
        text.extend((0..LENGTH).map(unwritten));
        text.extend_from_slice(after.as_bytes());
        std::fs::write(folder.path().join("answer"), &*text).unwrap();
    };
    for (before, after) in [
        ("", "\n"),
        (r#"{"value":""#, r#"","handle":"h1"}"#),
        (r#"{"kind":"ExecCredential","status":{"token":""#, r#""}}"#),
        (r#"{"Version":1,"AccessKeyId":"ASIA1","SecretAccessKey":""#, r#""}"#),
        (r#"{"value":""#, r#"","handle":5}"#),
    ] {
        write(before, after);
        assert_eq!(copies(), 0, "before it is issued: {before}");
        let issued = runtime.block_on(issue(&"token".parse().unwrap(), &spec, &context));
        match issued {
            Ok(issued) => {
                // It is really looked for.
                assert_eq!(copies(), 1, "while it is held: {before}");
                let delivered = deliver(vec![(&spec, issued)]).unwrap();
                assert_eq!(copies(), 1, "while it is delivered: {before}");
                drop(delivered);
            }
            Err(error) => assert!(after.contains("5"), "{error}"),
        }
        assert_eq!(copies(), 0, "when it is dropped: {before}");
    }
}
