//! The store and its verb from outside: another implementation of age opens our files, and a value that was set is in no
//! output, no file and no argument.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use assert_cmd::cargo::CommandCargoExt as _;
use sandbox::credential::secret::Secret;
use sandbox::credential::store::{IdentityPlace, Store};

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
        identity: IdentityPlace::made(root.path().join("identity.txt")),
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
    for identity in [&store.identity.path(), &colleague] {
        let plain = age("age", &["-d", "-i", identity.to_str().unwrap(), file.to_str().unwrap()]);
        let envelope: serde_json::Value = serde_json::from_slice(&plain).unwrap();
        assert_eq!(envelope["project"], "payments");
        assert_eq!(envelope["name"], "token");
        assert_eq!(envelope["owner"], "ada");
        use base64::Engine as _;
        assert_eq!(envelope["value"], base64::engine::general_purpose::STANDARD.encode(CANARY));
    }
    // And the other way round: an identity of theirs opens what we wrote.
    let theirs = Store { identity: IdentityPlace::given(colleague), owner: "bo".to_owned(), ..store };
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
        // The keyring of whoever runs the tests is none of theirs.
        command.env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere").env("XDG_RUNTIME_DIR", self.root.path());
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

/// Where a program is that a script of ours puts beside what cargo builds.
fn tool(name: &str) -> PathBuf {
    let mut folders = Path::new(env!("CARGO_TARGET_TMPDIR")).ancestors();
    let found = folders.find_map(|folder| Some(folder.join("tools").join(name)).filter(|path| path.is_file()));
    found.unwrap_or_else(|| panic!("this test needs `{name}`: run scripts/packages"))
}

#[test]
fn the_rage_command_opens_our_files_and_we_open_those_that_it_makes() {
    let rage = |words: &[&str], input: &[u8]| {
        let mut command = Command::new(tool("rage/bin/rage"));
        let mut child =
            command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "rage {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let root = tempfile::tempdir().unwrap();
    let key = root.path().join("id_ed25519");
    let made =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "ada@laptop", "-f"]).arg(&key).status();
    assert!(made.unwrap().success());
    for identity in [IdentityPlace::made(root.path().join("identity.txt")), IdentityPlace::given(key)] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store {
            folder: folder.path().join("credentials"),
            recipients: folder.path().join("recipients"),
            identity: identity.clone(),
            owner: "ada".to_owned(),
        };
        let (project, name) = ("payments".parse().unwrap(), "token".parse().unwrap());
        store.write(&project, &name, &Secret::new(CANARY.into())).unwrap();
        let (file, path) = (folder.path().join("credentials/payments/token.age"), identity.path());
        let (file, path) = (file.to_str().unwrap(), path.to_str().unwrap());
        let plain = rage(&["-d", "-i", path, file], b"");
        assert!(serde_json::from_slice::<serde_json::Value>(&plain).unwrap()["value"].is_string());
        // The same envelope, encrypted by rage to the recipients file as it stands.
        fs::remove_file(file).unwrap();
        rage(&["-e", "-R", store.recipients.to_str().unwrap(), "-o", file], &plain);
        assert_eq!(store.read(&project, &name).unwrap().value.expose(), CANARY.as_bytes());
    }
}

/// A second person on the same project, with an identity of her own: the public key.
fn colleague(home: &Home, name: &str) -> (PathBuf, String) {
    let identity = home.root.path().join(format!("{name}.txt"));
    age("age-keygen", &["-o", identity.to_str().unwrap()]);
    let public = String::from_utf8(age("age-keygen", &["-y", identity.to_str().unwrap()])).unwrap();
    (identity, public.trim().to_owned())
}

/// Whether this identity opens the value of `api-key`.
fn opens(home: &Home, identity: &Path) -> bool {
    let file = home.project("one").join(".sandbox/credentials/one/api-key.age");
    let output = Command::new("age").args(["-d", "-i"]).arg(identity).arg(file).output().unwrap();
    output.status.success()
}

#[test]
fn a_colleague_comes_and_goes_by_recipients_and_rekey() {
    let home = Home::new();
    assert_eq!(home.run("one", &["set", "api-key"], CANARY).code, 0);
    let (bo, public) = colleague(&home, "bo");
    let age_of = |home: &Home| {
        let list = home.run("one", &["ls", "--format", "json"], "");
        serde_json::from_str::<serde_json::Value>(&list.stdout).unwrap()[0]["issued_at"].clone()
    };
    let since = age_of(&home);
    assert_eq!(home.run("one", &["recipients", "add", "bo", &public], "").code, 0);
    assert!(!opens(&home, &bo), "what is there was encrypted before");
    let rekeyed = home.run("one", &["rekey"], "");
    assert!(rekeyed.code == 0 && rekeyed.stdout.contains("open for ada, bo"), "{}{}", rekeyed.stdout, rekeyed.stderr);
    assert!(opens(&home, &bo));
    assert_eq!(age_of(&home), since, "the value is as old as before");
    let twice = home.run("one", &["recipients", "add", "bo again", &public], "");
    assert!(twice.code == 1 && twice.stderr.contains("there already, for `bo`"), "{}", twice.stderr);
    let list = home.run("one", &["recipients", "ls", "--format", "json"], "");
    let rows: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
    assert_eq!((&rows[0]["owner"], &rows[0]["own"], &rows[1]["owner"]), (&"ada".into(), &true.into(), &"bo".into()));
    assert_eq!(rows[1]["key"], public.as_str());

    let gone = home.run("one", &["recipients", "rm", "bo"], "");
    assert!(gone.code == 0 && gone.stderr.contains("unreads nothing"), "{}", gone.stderr);
    assert!(opens(&home, &bo));
    let rekeyed = home.run("one", &["rekey"], "");
    assert!(rekeyed.code == 0 && rekeyed.stderr.contains("may have read these values"), "{}", rekeyed.stderr);
    assert!(!opens(&home, &bo));
    let own = home.run("one", &["recipients", "rm", "ada"], "");
    assert!(own.code == 1 && own.stderr.contains("your own key"), "{}", own.stderr);
    let text = fs::read_to_string(home.project("one").join(".sandbox/recipients")).unwrap();
    assert!(text.contains("# ada") && !text.contains("bo"), "{text}");
}

#[test]
fn no_private_key_and_no_other_word_becomes_a_recipient_or_is_repeated() {
    let home = Home::new();
    assert_eq!(home.run("one", &["set", "api-key"], CANARY).code, 0);
    let (identity, _) = colleague(&home, "bo");
    let private = fs::read_to_string(&identity).unwrap().lines().last().unwrap().to_owned();
    for key in [private.as_str(), identity.to_str().unwrap(), "age1nonsense", "/absent", "ssh-dss AAAA"] {
        let refused = home.run("one", &["recipients", "add", "bo", key], "");
        assert_eq!(refused.code, 1, "{key}");
        assert!(!refused.stderr.contains(&private[20..]), "{}", refused.stderr);
    }
    // An ssh key comes from its file, however the line ends.
    let made = home.root.path().join("ssh");
    let words = ["-q", "-t", "ed25519", "-N", "", "-C", "bo@laptop", "-f"];
    assert!(Command::new("ssh-keygen").args(words).arg(&made).status().unwrap().success());
    let added = home.run("one", &["recipients", "add", "bo", made.with_extension("pub").to_str().unwrap()], "");
    assert_eq!(added.code, 0, "{}", added.stderr);
    assert_eq!(home.run("one", &["rekey"], "").code, 0);
    assert!(opens(&home, &made));
    assert!(home.run("one", &["recipients", "ls"], "").stdout.contains("ssh-ed25519 …"));
}

#[test]
fn a_lost_identity_says_what_to_do_and_a_colleague_brings_its_owner_back() {
    let home = Home::new();
    assert_eq!(home.run("one", &["set", "api-key"], CANARY).code, 0);
    let (bo, public) = colleague(&home, "bo");
    assert_eq!(home.run("one", &["recipients", "add", "bo", &public], "").code, 0);
    assert_eq!(home.run("one", &["rekey"], "").code, 0);
    fs::remove_file(home.root.path().join("config/sandbox/identity.txt")).unwrap();
    let lost = home.run("one", &["ls"], "");
    assert!(lost.stdout.contains("without the age identity"), "{}", lost.stdout);
    // The next write makes a new one, writes nothing with it, and says how it is let in.
    let refused = home.run("one", &["set", "api-key"], "another-value");
    assert!(refused.code == 1 && refused.stderr.contains("recipients add YOUR-NAME age1"), "{}", refused.stderr);
    let key = refused.stderr.split("YOUR-NAME ").nth(1).unwrap().split(['`', ' ']).next().unwrap().to_owned();
    let by_bo = |words: &[&str]| {
        let mut command = Command::cargo_bin("sandbox").unwrap();
        command.arg("credential").args(words).current_dir(home.project("one")).env("SANDBOX_AGE_IDENTITY", &bo);
        for (variable, folder) in [("XDG_CONFIG_HOME", "bo"), ("XDG_STATE_HOME", "bo"), ("XDG_CACHE_HOME", "bo")] {
            command.env(variable, home.root.path().join(folder));
        }
        let output = command.env("USER", "bo").output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    by_bo(&["recipients", "add", "ada (new laptop)", &key]);
    by_bo(&["rekey"]);
    let list = home.run("one", &["ls", "--format", "json"], "");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&list.stdout).unwrap()[0]["state"], "ok", "{}", list.stdout);
}

#[test]
fn values_that_two_people_set_on_two_branches_merge() {
    let home = Home::new();
    let one = home.project("one");
    let manifest = fs::read_to_string(one.join("sandbox.yaml")).unwrap();
    fs::write(
        one.join("sandbox.yaml"),
        format!("{manifest}  npm: {{ provider: store }}\n  stripe: {{ provider: store }}\n"),
    )
    .unwrap();
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]).args(words).current_dir(&one);
        let output = command.output().unwrap();
        assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stdout));
    };
    let commit = |message: &str| {
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "-m", message]);
    };
    git(&["init", "--quiet", "--initial-branch=main"]);
    assert_eq!(home.run("one", &["set", "api-key"], CANARY).code, 0);
    commit("Begin");
    for (branch, name) in [("with-npm", "npm"), ("with-stripe", "stripe")] {
        git(&["checkout", "--quiet", "-b", branch, "main"]);
        assert_eq!(home.run("one", &["set", name], &format!("value-of-{name}-{CANARY}")).code, 0);
        commit(name);
    }
    git(&["checkout", "--quiet", "main"]);
    git(&["merge", "--quiet", "--no-edit", "with-npm"]);
    git(&["merge", "--quiet", "--no-edit", "with-stripe"]);
    let list = home.run("one", &["ls", "--format", "json"], "");
    let rows: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
    let good = rows.as_array().unwrap().iter().filter(|row| row["provider"] == "store" && row["state"] == "ok").count();
    assert_eq!(good, 3, "{}", list.stdout);
}

#[test]
fn values_that_many_processes_set_at_once_are_all_there() {
    let home = Home::new();
    let names: Vec<String> = (0..8).map(|number| format!("value-{number}")).collect();
    let declared: String = names.iter().map(|name| format!("  {name}: {{ provider: store }}\n")).collect();
    let path = home.project("one").join("sandbox.yaml");
    fs::write(&path, fs::read_to_string(&path).unwrap() + &declared).unwrap();
    std::thread::scope(|scope| {
        for name in &names {
            let home = &home;
            scope.spawn(move || assert_eq!(home.run("one", &["set", name], &format!("{CANARY}-{name}")).code, 0));
        }
        // Somebody changes the recipients and encrypts anew meanwhile.
        let home = &home;
        scope.spawn(move || {
            let (_, public) = colleague(home, "bo");
            assert_eq!(home.run("one", &["recipients", "add", "bo", &public], "").code, 0);
            assert_eq!(home.run("one", &["rekey"], "").code, 0);
        });
    });
    let list = home.run("one", &["ls", "--format", "json"], "");
    let rows: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
    let good = rows.as_array().unwrap().iter().filter(|row| row["state"] == "ok").count();
    assert_eq!(good, names.len(), "{}", list.stdout);
    let recipients = home.run("one", &["recipients", "ls"], "").stdout;
    assert!(recipients.contains("ada") && recipients.contains("bo"), "{recipients}");
}

#[test]
fn the_identity_can_be_in_the_keyring_of_the_desktop() {
    let home = Home::new();
    let configuration = home.root.path().join("config/sandbox/config.yaml");
    fs::create_dir_all(configuration.parent().unwrap()).unwrap();
    fs::write(&configuration, "credentials: { identity: keyring }\n").unwrap();
    let program = Command::cargo_bin("sandbox").unwrap();
    let program = program.get_program().to_str().unwrap();
    // A keyring of its own, in a session of its own, that ends with the script.
    let script = format!(
        "set -eu
printf pw | gnome-keyring-daemon --unlock --components=secrets >/dev/null
printf %s {CANARY} | {program} credential set api-key
{program} credential ls --format json > {0}/listed
secret-tool lookup application sandbox kind age-identity > {0}/identity
secret-tool clear application sandbox kind age-identity
{program} credential ls --format json > {0}/lost || true
tail -n 1 {0}/identity > {0}/config/sandbox/identity.txt
chmod 600 {0}/config/sandbox/identity.txt
{program} credential ls --format json > {0}/elsewhere || true
rm {0}/config/sandbox/identity.txt
",
        home.root.path().display()
    );
    let output = Command::new("dbus-run-session")
        .args(["--", "sh", "-c", &script])
        .current_dir(home.project("one"))
        .env("HOME", home.root.path())
        .env("USER", "ada")
        .env("XDG_CONFIG_HOME", home.root.path().join("config"))
        .env("XDG_STATE_HOME", home.root.path().join("state"))
        .env("XDG_DATA_HOME", home.root.path().join("data"))
        .env("XDG_CACHE_HOME", home.root.path().join("cache"))
        .env("XDG_RUNTIME_DIR", home.root.path())
        .env_remove("SANDBOX_AGE_IDENTITY")
        .output()
        .unwrap_or_else(|error| panic!("this test needs dbus, gnome-keyring and libsecret-tools: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |name: &str| fs::read_to_string(home.root.path().join(name)).unwrap();
    let listed: serde_json::Value = serde_json::from_str(&read("listed")).unwrap();
    assert_eq!(listed[0]["state"], "ok", "{listed}");
    assert!(read("identity").contains("AGE-SECRET-KEY-"));
    assert!(!home.root.path().join("config/sandbox/identity.txt").exists());
    // The identity is in no file of ours.
    let secret = read("identity").lines().last().unwrap().to_owned();
    fs::remove_file(home.root.path().join("identity")).unwrap();
    for folder in ["state", "config"] {
        let found = Command::new("grep").args(["-rl", &secret]).arg(home.root.path().join(folder)).output().unwrap();
        assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
    }
    assert!(read("lost").contains("without the age identity (the keyring)"), "{}", read("lost"));
    // Without a session there is no keyring, which is not the same as none in it.
    let outside = home.run("one", &["ls"], "");
    assert!(outside.stdout.contains("read the age identity (the keyring)"), "{}", outside.stdout);
    // A file that was there before is not hidden behind a new identity.
    assert!(read("elsewhere").contains("find the age identity in the keyring; it is in"), "{}", read("elsewhere"));
}

#[test]
fn rotate_has_a_command_make_the_new_value_and_only_once_it_was_approved() {
    let home = Home::new();
    let path = home.project("one").join("sandbox.yaml");
    let (manifest, ran) = (fs::read_to_string(&path).unwrap(), home.root.path().join("ran"));
    let command = format!("cat > {}; echo {CANARY}-new", ran.display());
    let command = serde_json::to_string(&["/bin/sh", "-c", &command]).unwrap();
    let declared = format!("  npm: {{ provider: store, rotate_command: {command} }}\n");
    fs::write(&path, manifest + &declared).unwrap();
    assert_eq!(home.run("one", &["set", "npm"], "the-first-value").code, 0);
    let fingerprint = |home: &Home| {
        let list = home.run("one", &["ls", "--format", "json"], "");
        let rows: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
        rows.as_array().unwrap().iter().find(|row| row["name"] == "npm").unwrap()["fingerprint"].clone()
    };
    let first = fingerprint(&home);
    let refused = home.run("one", &["rotate", "npm"], "");
    assert!(refused.code != 0 && refused.stderr.contains("manifest-not-trusted"), "{}", refused.stderr);
    assert!(!ran.exists(), "it ran before anybody approved it");
    let mut trust = Command::cargo_bin("sandbox").unwrap();
    trust.args(["trust", "--yes"]).current_dir(home.project("one")).env("HOME", home.root.path()).env("USER", "ada");
    for (variable, folder) in [("XDG_CONFIG_HOME", "config"), ("XDG_STATE_HOME", "state"), ("XDG_CACHE_HOME", "cache")]
    {
        trust.env(variable, home.root.path().join(folder));
    }
    let output = trust.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("RUN ON THIS MACHINE: /bin/sh"), "{output:?}");
    let rotated = home.run("one", &["rotate", "npm"], "");
    assert_eq!(rotated.code, 0, "{}", rotated.stderr);
    assert_ne!(fingerprint(&home), first);
    let told: serde_json::Value = serde_json::from_str(&fs::read_to_string(ran).unwrap()).unwrap();
    assert_eq!((&told["name"], &told["reason"]), (&"npm".into(), &"rotate".into()), "{told}");
}

#[test]
fn check_tells_cron_and_code_hosts_what_is_due() {
    let home = Home::new();
    let path = home.project("one").join("sandbox.yaml");
    // Old enough to be warned of, too old, and not set.
    let declared = "  due: { provider: store, max_age: 15s }\n";
    let manifest =
        fs::read_to_string(&path).unwrap().replace("  asked: { provider: exec, command: [\"false\"] }\n", declared);
    fs::write(&path, manifest).unwrap();
    let mut trust = Command::cargo_bin("sandbox").unwrap();
    trust.args(["trust", "--yes"]).current_dir(home.project("one")).env("HOME", home.root.path()).env("USER", "ada");
    for (variable, folder) in [("XDG_CONFIG_HOME", "config"), ("XDG_STATE_HOME", "state"), ("XDG_CACHE_HOME", "cache")]
    {
        trust.env(variable, home.root.path().join(folder));
    }
    assert!(trust.output().unwrap().status.success());
    let check = |home: &Home| {
        let ran = home.run("one", &["check", "--as", "sarif"], "");
        let log: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(log["version"], "2.1.0");
        let results = log["runs"][0]["results"].as_array().unwrap().clone();
        let told =
            results.iter().map(|one| format!("{} {}", one["ruleId"].as_str().unwrap(), one["level"].as_str().unwrap()));
        (ran.code, told.collect::<Vec<_>>(), results)
    };
    let (code, told, results) = check(&home);
    assert_eq!((code, told), (1, vec!["credential-not-set error".to_owned(); 2]));
    let line = results[0]["locations"][0]["physicalLocation"]["region"]["startLine"].as_u64().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.lines().nth(line as usize - 1).unwrap().contains("api-key"), "{line} {text}");
    assert_eq!(home.run("one", &["set", "api-key"], CANARY).code, 0);
    assert_eq!(home.run("one", &["set", "due"], &format!("{CANARY}-due")).code, 0);
    std::thread::sleep(std::time::Duration::from_millis(12_200));
    let (code, told, _) = check(&home);
    assert_eq!((code, told), (1, vec!["credential-due warning".to_owned()]));
    std::thread::sleep(std::time::Duration::from_secs(4));
    let (code, told, _) = check(&home);
    assert_eq!((code, told), (1, vec!["credential-refused error".to_owned()]));
    assert_eq!(home.run("one", &["rotate", "due"], &format!("{CANARY}-newer")).code, 0);
    assert_eq!(check(&home).0, 0);
}

#[test]
fn what_a_person_has_is_listed_over_all_projects() {
    let home = Home::new();
    assert_eq!(home.run("one", &["set", "api-key"], CANARY).code, 0);
    let (_, public) = colleague(&home, "bo");
    assert_eq!(home.run("one", &["recipients", "add", "bo", &public], "").code, 0);
    let mut trust = Command::cargo_bin("sandbox").unwrap();
    trust.args(["trust", "--yes"]).current_dir(home.project("one")).env("HOME", home.root.path()).env("USER", "ada");
    for (variable, folder) in [("XDG_CONFIG_HOME", "config"), ("XDG_STATE_HOME", "state"), ("XDG_CACHE_HOME", "cache")]
    {
        trust.env(variable, home.root.path().join(folder));
    }
    assert!(trust.output().unwrap().status.success(), "the project becomes known by its approval");
    let has = |person: &str| {
        let listed = home.run("two", &["ls", "--owner", person, "--format", "json"], "");
        assert_eq!(listed.code, 0, "{}", listed.stderr);
        let rows: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap();
        let told =
            |row: &serde_json::Value| format!("{} {}", row["project"].as_str().unwrap(), row["has"].as_str().unwrap());
        rows.as_array().unwrap().iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!(has("ada"), ["one a key that opens the store", "one set the value, and knows it"]);
    assert_eq!(has("bo"), ["one a key that opens the store"]);
    assert!(has("nobody").is_empty());
    let text = home.run("two", &["ls", "--owner", "bo"], "").stdout;
    assert!(text.contains("credential recipients rm bo one"), "{text}");
}
