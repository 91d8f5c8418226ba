use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use proptest::prelude::*;

use super::*;

fn store(root: &Path) -> Store {
    Store {
        folder: root.join(".sandbox/credentials"),
        recipients: root.join(".sandbox/recipients"),
        identity: IdentityPlace::made(root.join("config/identity.txt")),
        owner: "ada".to_owned(),
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

fn project(text: &str) -> ProjectName {
    text.parse().unwrap()
}

fn name(text: &str) -> CredentialName {
    text.parse().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn ssh_key(path: &Path, passphrase: &str) {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", passphrase, "-f"]).arg(path).status();
    assert!(made.unwrap().success(), "these tests need ssh-keygen");
}

proptest! {
    // Each case is some ten operations on elliptic curves.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_value_comes_back_and_opens_nowhere_else(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        one in "[a-z][a-z0-9]{0,12}",
        two in "[a-z][a-z0-9]{0,12}",
        first in "[a-z][a-z0-9_]{0,12}[a-z]",
        second in "[a-z][a-z0-9_]{0,12}[a-z]",
    ) {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        let (one, two, first, second) = (project(&one), project(&two), name(&first), name(&second));
        store.write(&one, &first, &Secret::new(bytes.clone())).unwrap();
        let read = store.read(&one, &first).unwrap();
        prop_assert_eq!(read.value.expose(), bytes.as_slice());
        prop_assert_eq!(read.owner.as_str(), "ada");
        if (&one, &first) != (&two, &second) {
            fs::create_dir_all(store.folder.join(two.as_str())).unwrap();
            fs::copy(store.path(&one, &first), store.path(&two, &second)).unwrap();
            let misplaced = matches!(store.read(&two, &second), Err(StoreError::Misplaced { .. }));
            prop_assert!(misplaced);
        }
    }
}

#[test]
fn no_file_holds_the_value_and_the_key_is_the_users_alone() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let first = store.write(&project("one"), &name("token"), &secret("canary-5f1e-canary")).unwrap();
    assert!(first.began);
    let file = store.path(&project("one"), &name("token"));
    for path in [&file, &store.recipients, &store.identity.path()] {
        let text = fs::read(path).unwrap();
        assert!(!text.windows(18).any(|window| window == b"canary-5f1e-canary"), "{path:?}");
    }
    assert_eq!((mode(&store.identity.path()), mode(&file)), (0o600, 0o600));
    let again = store.write(&project("one"), &name("token"), &secret("canary-5f1e-canary")).unwrap();
    assert_eq!(again, Written { readers: vec!["ada".to_owned()], began: false });
    let beside: Vec<_> =
        fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(beside, ["token.age"]);
}

#[test]
fn keeps_the_first_time_and_tells_the_last() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    store.write(&project("one"), &name("token"), &secret("first")).unwrap();
    let before = store.read(&project("one"), &name("token")).unwrap();
    store.write(&project("one"), &name("token"), &secret("second")).unwrap();
    let after = store.read(&project("one"), &name("token")).unwrap();
    assert!(after.value.equals(&secret("second")));
    assert_eq!(after.created_at, before.created_at);
    assert!(after.rotated_at > before.rotated_at);
}

#[test]
fn says_that_the_identity_is_lost_and_that_another_does_not_fit() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let one = project("one");
    store.write(&one, &name("token"), &secret("value")).unwrap();
    fs::remove_file(store.identity.path()).unwrap();
    assert!(matches!(store.read(&one, &name("token")), Err(StoreError::IdentityLost { .. })));
    // A new key is made, but nothing is written that its owner could not read.
    let refused = store.write(&one, &name("token"), &secret("other")).unwrap_err();
    let StoreError::NotListed { public, .. } = refused else { panic!("{refused:?}") };
    assert!(matches!(store.read(&one, &name("token")), Err(StoreError::NotARecipient { .. })));
    let mut text = fs::read_to_string(&store.recipients).unwrap();
    text.push_str(&format!("# ada, new key\n{public}\n"));
    fs::write(&store.recipients, text).unwrap();
    assert_eq!(store.write(&one, &name("token"), &secret("other")).unwrap().readers, ["ada", "ada, new key"]);
    assert!(store.read(&one, &name("token")).unwrap().value.equals(&secret("other")));
}

#[test]
fn makes_no_key_at_a_path_that_the_user_gave() {
    let root = tempfile::tempdir().unwrap();
    let identity = IdentityPlace::given(root.path().join("absent"));
    let store = Store { identity, ..store(root.path()) };
    let refused = store.write(&project("one"), &name("token"), &secret("value")).unwrap_err();
    assert!(matches!(refused, StoreError::IdentityLost { .. }), "{refused:?}");
    assert!(!store.identity.path().exists() && !store.recipients.exists());
}

#[test]
fn refuses_a_key_that_others_can_read_and_one_with_a_passphrase() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    store.write(&project("one"), &name("token"), &secret("value")).unwrap();
    fs::set_permissions(store.identity.path(), fs::Permissions::from_mode(0o640)).unwrap();
    let refused = store.read(&project("one"), &name("token")).unwrap_err();
    assert!(matches!(refused, StoreError::IdentityReadable { mode: 0o640, .. }), "{refused:?}");
    let locked = root.path().join("locked");
    ssh_key(&locked, "a passphrase");
    let store = Store { identity: IdentityPlace::given(locked), ..store };
    let refused = store.read(&project("one"), &name("token")).unwrap_err();
    assert!(matches!(refused, StoreError::IdentityLocked { .. }), "{refused:?}");
}

#[test]
fn an_ssh_key_opens_what_is_written_to_it() {
    let root = tempfile::tempdir().unwrap();
    let key = root.path().join("id_ed25519");
    ssh_key(&key, "");
    fs::remove_file(key.with_extension("pub")).unwrap();
    let store = Store { identity: IdentityPlace::given(key), ..store(root.path()) };
    store.write(&project("one"), &name("token"), &secret("value")).unwrap();
    assert!(store.read(&project("one"), &name("token")).unwrap().value.equals(&secret("value")));
}

#[test]
fn a_changed_file_is_damaged() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let (one, token) = (project("one"), name("token"));
    store.write(&one, &token, &secret("value")).unwrap();
    let path = store.path(&one, &token);
    let good = fs::read(&path).unwrap();
    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 1;
    for bytes in [changed.as_slice(), &good[..good.len() - 20], b"", b"not an age file"] {
        fs::write(&path, bytes).unwrap();
        let refused = store.read(&one, &token).unwrap_err();
        assert!(matches!(refused, StoreError::Damaged { .. }), "{refused:?}");
    }
}

#[test]
fn the_first_sets_of_many_processes_make_one_key_and_lose_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    std::thread::scope(|scope| {
        for number in 0..8 {
            let store = &store;
            scope.spawn(move || {
                let value = secret(&format!("value {number}"));
                store.write(&project("one"), &name(&format!("n{number}")), &value).unwrap();
            });
        }
    });
    for number in 0..8 {
        let stored = store.read(&project("one"), &name(&format!("n{number}"))).unwrap();
        assert!(stored.value.equals(&secret(&format!("value {number}"))));
    }
}

#[test]
fn removes_a_value_once() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let (one, token) = (project("one"), name("token"));
    store.write(&one, &token, &secret("value")).unwrap();
    assert!(store.has(&one, &token));
    assert!(store.remove(&one, &token).unwrap());
    assert!(!store.remove(&one, &token).unwrap());
    assert!(matches!(store.read(&one, &token), Err(StoreError::Absent(_))));
}

#[test]
fn refuses_a_value_that_could_not_be_delivered() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let (one, token) = (project("one"), name("token"));
    store.write(&one, &token, &Secret::new(vec![0xff; VALUE_LIMIT])).unwrap();
    assert_eq!(store.read(&one, &token).unwrap().value.len(), VALUE_LIMIT);
    let refused = store.write(&one, &token, &Secret::new(vec![0; VALUE_LIMIT + 1]));
    assert!(matches!(refused, Err(StoreError::TooLarge(_))));
}
