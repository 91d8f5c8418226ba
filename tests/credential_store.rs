//! The store and its verb from outside: another implementation of age opens our files, and a value that was set is in no
//! output, no file and no argument.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use assert_cmd::cargo::CommandCargoExt as _;
use sandbox::credential::secret::Secret;
use sandbox::credential::store::Store;

/// Nothing else in a test's folders or outputs has these letters.
const CANARY: &str = "canary-7d1f0c-canary";

/// Runs `age` or `age-keygen`, of the Go implementation.
fn age(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("this test needs `{program}` (Debian package `age`): {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn the_age_command_opens_our_files_with_our_identity_and_with_one_of_its_own() {
    let root = tempfile::tempdir().unwrap();
    let store = Store {
        folder: root.path().join("credentials"),
        recipients: root.path().join("recipients"),
        identity: root.path().join("identity.txt"),
        make_identity: true,
        owner: "ada".to_owned(),
    };
    let (project, name) = ("payments".parse().unwrap(), "token".parse().unwrap());
    store.write(&project, &name, &Secret::new(b"first".to_vec())).unwrap();
    let colleague = root.path().join("colleague.txt");
    age("age-keygen", &["-o", colleague.to_str().unwrap()]);
    let public = String::from_utf8(age("age-keygen", &["-y", colleague.to_str().unwrap()])).unwrap();
    let recipients = fs::read_to_string(&store.recipients).unwrap();
    fs::write(&store.recipients, format!("{recipients}\n# bo\n{public}")).unwrap();
    assert_eq!(store.write(&project, &name, &Secret::new(CANARY.into())).unwrap().readers, ["ada", "bo"]);
    let file = root.path().join("credentials/payments/token.age");
    for identity in [&store.identity, &colleague] {
        let plain = age("age", &["-d", "-i", identity.to_str().unwrap(), file.to_str().unwrap()]);
        let envelope: serde_json::Value = serde_json::from_slice(&plain).unwrap();
        assert_eq!(envelope["project"], "payments");
        assert_eq!(envelope["name"], "token");
        assert_eq!(envelope["owner"], "ada");
        use base64::Engine as _;
        assert_eq!(envelope["value"], base64::engine::general_purpose::STANDARD.encode(CANARY));
    }
    // And the other way round: an identity of theirs opens what we wrote.
    let theirs = Store { identity: colleague, make_identity: false, owner: "bo".to_owned(), ..store };
    assert_eq!(theirs.read(&project, &name).unwrap().value.expose(), CANARY.as_bytes());
}

struct Home {
    root: tempfile::TempDir,
}

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Home {
    fn new() -> Self {
        let home = Self { root: tempfile::tempdir().unwrap() };
        for project in ["one", "two"] {
            fs::create_dir_all(home.project(project)).unwrap();
            let manifest = format!(
                "version: 1\nproject: {project}\nimage: agent\ncommand: [\"true\"]\ncredentials:\n  \
                 api-key: {{ provider: store, max_age: 30d }}\n  \
                 asked: {{ provider: exec, command: [\"false\"] }}\n"
            );
            fs::write(home.project(project).join("sandbox.yaml"), manifest).unwrap();
        }
        home
    }

    fn project(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn run(&self, project: &str, arguments: &[&str], input: &str) -> Ran {
        let mut command = Command::cargo_bin("sandbox").unwrap();
        command.arg("credential").args(arguments).current_dir(self.project(project));
        for (variable, folder) in
            [("XDG_CONFIG_HOME", "config"), ("XDG_STATE_HOME", "state"), ("XDG_CACHE_HOME", "cache")]
        {
            command.env(variable, self.root.path().join(folder));
        }
        command.env("HOME", self.root.path()).env("USER", "ada").env_remove("SANDBOX_AGE_IDENTITY");
        command.env("SANDBOX_LOG", "trace");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        use std::io::Write as _;
        // A refusal comes before anything is read.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let ran = Ran {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        assert!(!ran.stdout.contains(CANARY) && !ran.stderr.contains(CANARY), "{arguments:?}: {}", ran.stderr);
        ran
    }
}

/// Every file below a folder that holds the canary, plain or in base64.
fn leaks(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(leaks(&path));
        } else {
            let text = fs::read(&path).unwrap();
            // The letters in the middle, however the base64 falls, are in one of these.
            for needle in ["7d1f0c", "N2QxZjBj", "ZDFmMG", "dkMWYwY"] {
                if text.windows(needle.len()).any(|window| window == needle.as_bytes()) {
                    found.push(path.clone());
                }
            }
        }
    }
    found
}

#[test]
fn values_are_kept_on_this_machine_alone_when_the_configuration_says_so() {
    let home = Home::new();
    let configuration = home.root.path().join("config/sandbox/config.yaml");
    fs::create_dir_all(configuration.parent().unwrap()).unwrap();
    fs::write(&configuration, "credentials: { store: state }\n").unwrap();
    let set = home.run("one", &["set", "api-key"], CANARY);
    assert_eq!(set.code, 0, "{}", set.stderr);
    assert!(!home.project("one").join(".sandbox").exists());
    assert!(home.root.path().join("state/sandbox/store/credentials").is_dir());
    let state = || {
        let list = home.run("one", &["ls", "--format", "json"], "");
        serde_json::from_str::<serde_json::Value>(&list.stdout).unwrap()[0]["state"].clone()
    };
    assert_eq!(state(), "ok");
    // The repository's own store is another one.
    fs::remove_file(configuration).unwrap();
    assert_ne!(state(), "ok");
}

#[test]
fn a_value_is_set_listed_and_removed_and_is_nowhere_to_be_seen() {
    let home = Home::new();
    let set = home.run("one", &["set", "api-key"], &format!("{CANARY}\n"));
    assert_eq!(set.code, 0, "{}", set.stderr);
    assert!(set.stderr.contains("it opens for ada"), "{}", set.stderr);
    let list = home.run("one", &["ls", "--format", "json"], "");
    let rows: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
    assert_eq!(
        (&rows[0]["name"], &rows[0]["state"], &rows[0]["owner"]),
        (&"api-key".into(), &"ok".into(), &"ada".into())
    );
    assert_eq!((&rows[1]["name"], &rows[1]["state"]), (&"asked".into(), &"on_demand".into()));
    let fingerprint = rows[0]["fingerprint"].as_str().unwrap().to_owned();
    let rotated = home.run("one", &["rotate", "api-key"], &format!("{CANARY}-2"));
    assert_eq!(rotated.code, 0, "{}", rotated.stderr);
    let list = home.run("one", &["ls"], "");
    assert!(list.stdout.contains("0m of 30d") && !list.stdout.contains(&fingerprint), "{}", list.stdout);
    assert_eq!(leaks(home.root.path()), Vec::<PathBuf>::new());
    // The search finds what there is to find.
    fs::write(home.root.path().join("control"), CANARY).unwrap();
    assert_eq!(leaks(home.root.path()).len(), 1);
    assert_eq!(home.run("one", &["rm", "api-key"], "").code, 0);
    assert_eq!(home.run("one", &["rm", "api-key"], "").code, 1);
}

#[test]
fn a_value_among_the_arguments_is_refused_and_not_repeated() {
    let home = Home::new();
    for arguments in [
        vec!["set", "api-key", CANARY],
        vec!["set", "api-key", "one", CANARY],
        vec!["set", "api-key=canary-7d1f0c-canary"],
        vec!["rotate", "api-key", CANARY],
        vec!["set", "api-key", "--value=canary-7d1f0c-canary"],
        vec!["set", "api-key", "/canary-7d1f0c-canary"],
    ] {
        let refused = home.run("one", &arguments, "");
        assert!(refused.code == 2, "{arguments:?}: {} {}", refused.code, refused.stderr);
    }
    let undeclared = home.run("one", &["set", CANARY], "");
    assert!(undeclared.code == 1 && undeclared.stderr.contains("declared: api-key, asked"), "{}", undeclared.stderr);
    let refused = home.run("one", &["set", "api-key", CANARY], "");
    assert!(refused.stderr.contains("standard input") && refused.stderr.contains("history"), "{}", refused.stderr);
}

#[test]
fn one_project_has_one_credential_until_it_gives_it_up() {
    let home = Home::new();
    assert_eq!(home.run("one", &["set", "api-key"], CANARY).code, 0);
    let refused = home.run("two", &["set", "api-key"], CANARY);
    assert!(refused.code == 1 && refused.stderr.contains("the project `one` has too"), "{}", refused.stderr);
    assert!(!home.project("two").join(".sandbox/credentials/two/api-key.age").exists());
    assert_eq!(home.run("one", &["rm", "api-key"], "").code, 0);
    assert_eq!(home.run("two", &["set", "api-key"], CANARY).code, 0);
}

#[test]
fn personal_empty_and_oversized_values_are_refused_when_they_are_set() {
    let home = Home::new();
    for (value, told) in [
        ("ghp_canary0123456789".to_owned(), "a person's own GitHub token"),
        (String::new(), "0 bytes"),
        ("x".repeat(70_000), "read the value"),
    ] {
        let refused = home.run("one", &["set", "api-key"], &value);
        assert!(refused.code == 1 && refused.stderr.contains(told), "{told}: {}", refused.stderr);
        assert!(!refused.stderr.contains("canary"));
    }
    let refused = home.run("one", &["set", "asked"], "value");
    assert!(refused.stderr.contains("which the provider exec issues"), "{}", refused.stderr);
}

#[test]
fn an_env_file_is_imported_whole_or_not_at_all() {
    let home = Home::new();
    let file = home.project("one").join(".env.agent");
    let write = |text: &str, mode: u32| {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    };
    write(&format!("OTHER=x\nONE_API_KEY={CANARY}\n"), 0o644);
    assert_eq!(home.run("one", &["import", ".env.agent", "--prefix", "ONE_"], "").code, 1);
    write(&format!("OTHER=x\nONE_API_KEY={CANARY}\n"), 0o600);
    let without = home.run("one", &["import", ".env.agent"], "");
    assert!(without.code == 1 && without.stderr.contains("--prefix"), "{}", without.stderr);
    let imported = home.run("one", &["import", ".env.agent", "--prefix", "ONE_"], "");
    assert!(imported.code == 0 && imported.stdout.contains("imported api-key"), "{}", imported.stderr);
    write("API_KEY=ghp_0123456789abcdef\n", 0o600);
    assert_eq!(home.run("one", &["import", ".env.agent"], "").code, 1);
    let list = home.run("one", &["ls", "--format", "json"], "");
    let rows: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
    assert_eq!(rows[0]["state"], "ok");
}
