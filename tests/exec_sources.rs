//! The provider `exec` with what people keep keys in: `pass`, `sops` and `age` themselves, and scripts that print what `op`,
//! `bws`, `gcloud`, `aws` and `kubectl` document. And the approval without which no command of a manifest runs.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sandbox::credential::spec::{CredentialSpec, ProviderSpec};
use sandbox::credential::{CredentialError, IssueContext, Issued, aws, held, identity, issue, store, vault};
use sandbox::project::{ProjectName, SandboxName};

mod support;

use support::{Home, text};

const VALUE: &str = "pk-canary-of-the-payments-project";

struct Side {
    folder: tempfile::TempDir,
    project: ProjectName,
    sandbox: SandboxName,
}

impl Side {
    fn new() -> Self {
        let (project, sandbox) = ("payments".parse().unwrap(), SandboxName::main());
        Self { folder: tempfile::tempdir().unwrap(), project, sandbox }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    /// A program that prints this and nothing else, when it is called with exactly these words.
    fn stand_in(&self, name: &str, words: &str, output: &str) {
        self.write(&format!("{name}.out"), output);
        let script = format!(
            "#!/bin/sh\n[ \"$*\" = '{words}' ] || {{ echo \"unexpected: $*\" >&2; exit 2; }}\ncat {}\n",
            self.path(&format!("{name}.out")).display()
        );
        fs::set_permissions(self.write(name, &script), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn context(&self) -> IssueContext<'_> {
        let root = self.folder.path();
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
            aws: aws::Environment::default(),
            identity: identity::Authority::default(),
            held: held::Held::default(),
            session: None,
            reason: "up",
        }
    }

    async fn issue(&self, command: &[&str]) -> Result<Issued, CredentialError> {
        let quoted = serde_json::to_string(command).unwrap();
        let manifest = format!(
            "version: 1\nproject: payments\nimage: agent\ncredentials:\n  key: {{ provider: exec, command: {quoted} }}\n"
        );
        let parsed = sandbox::project::manifest::parse(&manifest, Path::new("/nowhere/sandbox.yaml")).unwrap();
        let spec: CredentialSpec = parsed.credentials.into_values().next().unwrap();
        assert!(matches!(spec.provider, ProviderSpec::Exec { .. }));
        issue(&"key".parse().unwrap(), &spec, &self.context()).await
    }

    async fn value(&self, command: &[&str]) -> String {
        let issued = self.issue(command).await.unwrap_or_else(|error| panic!("{command:?}: {error:?}"));
        String::from_utf8(issued.value.expose().to_vec()).unwrap()
    }
}

/// Runs a program of the developer's, with this on its standard input.
fn run(program: &str, package: &str, variables: &[(&str, &Path)], words: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(words)
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("this test needs `{program}` ({package}): {error}"));
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[tokio::test]
async fn pass_gives_the_entry_and_its_line_end_is_no_part_of_it() {
    let side = Side::new();
    let (keys, entries) = (side.path("gnupg"), side.path("entries"));
    fs::create_dir(&keys).unwrap();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o700)).unwrap();
    let variables = [("GNUPGHOME", keys.as_path()), ("PASSWORD_STORE_DIR", entries.as_path())];
    let words = ["--batch", "--pinentry-mode", "loopback", "--passphrase", "", "--quick-gen-key", "ada@example.com"];
    run("gpg", "Debian package `gnupg`", &variables, &words, "");
    run("pass", "Debian package `pass`", &variables, &["init", "ada@example.com"], "");
    let insert = ["insert", "--multiline", "agents/payments"];
    run("pass", "Debian package `pass`", &variables, &insert, &format!("{VALUE}\n"));
    let (keys, entries) =
        (format!("GNUPGHOME={}", keys.display()), format!("PASSWORD_STORE_DIR={}", entries.display()));
    assert_eq!(side.value(&["env", &keys, &entries, "pass", "show", "agents/payments"]).await, VALUE);
    let error = side.issue(&["env", &keys, &entries, "pass", "show", "agents/absent"]).await.unwrap_err();
    let CredentialError::Exec(error) = error else { panic!("{error:?}") };
    assert!(error.to_string().contains("agents/absent is not in the password store"), "{error}");
    let variables = [("GNUPGHOME", side.path("gnupg"))];
    let _ = Command::new("gpgconf").args(["--kill", "all"]).envs(variables).status();
}

#[tokio::test]
async fn sops_and_age_give_what_is_encrypted_in_the_repository() {
    let side = Side::new();
    let key = side.path("key.txt");
    run("age-keygen", "Debian package `age`", &[], &["-o", key.to_str().unwrap()], "");
    let public = run("age-keygen", "Debian package `age`", &[], &["-y", key.to_str().unwrap()], "");
    let public = public.trim();

    let encrypted = side.path("key.age");
    run("age", "Debian package `age`", &[], &["-r", public, "-o", encrypted.to_str().unwrap()], VALUE);
    assert_eq!(side.value(&["age", "-d", "-i", "key.txt", "key.age"]).await, VALUE);

    let sops = Path::new(env!("CARGO_TARGET_TMPDIR")).ancestors().map(|folder| folder.join("tools/sops"));
    let sops = sops.clone().find(|path| path.is_file()).expect("this test needs `sops`: run scripts/sops");
    let sops = sops.to_str().unwrap();
    let plain = side.write("secrets.yaml", &format!("stripe:\n  api_key: {VALUE}\nregion: eu\n"));
    let words = ["encrypt", "--in-place", "--age", public, plain.to_str().unwrap()];
    run(sops, "scripts/sops", &[], &words, "");
    assert!(!fs::read_to_string(&plain).unwrap().contains(VALUE));
    let file = format!("SOPS_AGE_KEY_FILE={}", key.display());
    let extract = "[\"stripe\"][\"api_key\"]";
    assert_eq!(side.value(&["env", &file, sops, "decrypt", "--extract", extract, "secrets.yaml"]).await, VALUE);
}

#[tokio::test]
async fn what_other_programs_document_is_understood() {
    let side = Side::new();
    // 1Password CLI, "op read": the value and a line end.
    side.stand_in("op", "read op://agents/payments/credential", &format!("{VALUE}\n"));
    assert_eq!(side.value(&["./op", "read", "op://agents/payments/credential"]).await, VALUE);
    // Bitwarden Secrets Manager CLI, "secret get": an object with `value`.
    let bitwarden = format!(
        r#"{{
  "object": "secret",
  "id": "be8e0ad8-d545-4017-a55a-b02f014d4158",
  "organizationId": "10e8cbfa-7bd2-4361-bd6f-b02e013f9c41",
  "projectId": "e325ea69-a3ab-4dff-836f-b02e013fe530",
  "key": "PAYMENTS",
  "value": "{VALUE}",
  "note": "",
  "creationDate": "2023-06-28T20:13:20.643567Z",
  "revisionDate": "2023-06-28T20:13:20.643567Z"
}}
"#
    );
    side.stand_in("bws", "secret get be8e0ad8", &bitwarden);
    assert_eq!(side.value(&["./bws", "secret", "get", "be8e0ad8"]).await, VALUE);
    // gcloud, "auth print-access-token".
    side.stand_in("gcloud", "auth print-access-token", "ya29.canary-of-gcloud\n");
    assert_eq!(side.value(&["./gcloud", "auth", "print-access-token"]).await, "ya29.canary-of-gcloud");
    // AWS CLI, "configure export-credentials --format process".
    let keys = r#"{
  "Version": 1,
  "AccessKeyId": "ASIAIOSFODNN7EXAMPLE",
  "SecretAccessKey": "canary-of-aws",
  "SessionToken": "canary-of-a-session",
  "Expiration": "2099-01-01T00:00:00+00:00"
}"#;
    side.stand_in("aws", "configure export-credentials --format process", &format!("{keys}\n"));
    let issued = side.issue(&["./aws", "configure", "export-credentials", "--format", "process"]).await.unwrap();
    assert_eq!(issued.value.expose(), keys.as_bytes());
    assert_eq!(issued.expires_at, Some("2099-01-01T00:00:00Z".parse().unwrap()));
    // Kubernetes, "client-go credential plugins": what `aws eks get-token` and others print.
    let token = r#"{"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1beta1", "spec": {},
        "status": {"expirationTimestamp": "2099-01-01T00:00:00Z", "token": "k8s-aws-v1.canary"}}"#;
    side.stand_in("eks", "get-token --cluster-name payments", token);
    let issued = side.issue(&["./eks", "get-token", "--cluster-name", "payments"]).await.unwrap();
    assert_eq!(issued.value.expose(), b"k8s-aws-v1.canary");
    assert!(issued.expires_at.is_some());
    // One that is called otherwise says so, and its failure is told without what it holds.
    let error = side.issue(&["./op", "read", "op://agents/other"]).await.unwrap_err();
    let shown = format!("{:?}", sandbox::commands::Failure::from(error));
    assert!(shown.contains("unexpected: read") && !shown.contains("canary"), "{shown}");
}

#[test]
fn a_command_of_a_manifest_runs_only_once_it_was_approved_and_again_after_each_change() {
    let home = Home::without_engine();
    let folder = home.path().join("project");
    fs::create_dir(&folder).unwrap();
    let ran = home.path().join("ran");
    let manifest = |word: &str| {
        let command = format!("echo {word} >> {}; echo a-value-of-this-project", ran.display());
        let command = serde_json::to_string(&["/bin/sh", "-c", &command]).unwrap();
        let text = format!(
            "version: 1\nproject: approval\nimage: agent\ncommand: [\"true\"]\ncredentials:\n  \
             key: {{ provider: exec, command: {command} }}\n"
        );
        fs::write(folder.join("sandbox.yaml"), text).unwrap();
    };
    let sandbox = |words: &[&str]| {
        let output = home.sandbox().args(words).current_dir(&folder).output().unwrap();
        (output.status.code().unwrap(), text(&output.stderr), text(&output.stdout))
    };
    let runs = || fs::read_to_string(&ran).unwrap_or_default();
    manifest("first");
    let (code, said, _) = sandbox(&["credential", "check"]);
    assert!(code != 0 && said.contains("manifest-not-trusted"), "{code} {said}");
    assert_eq!(runs(), "");
    // A look at what is declared runs nothing either.
    let (code, said, _) = sandbox(&["credential", "ls"]);
    assert_eq!((code, runs().as_str()), (0, ""), "{said}");
    let (code, said, _) = sandbox(&["trust", "--yes"]);
    assert!(code == 0 && said.contains("RUN ON THIS MACHINE: /bin/sh -c echo first"), "{said}");
    assert_eq!(sandbox(&["credential", "check"]).0, 0);
    assert_eq!(runs(), "first\n");
    manifest("second");
    let (code, said, _) = sandbox(&["credential", "check"]);
    assert!(code != 0 && said.contains("manifest-not-trusted"), "{code} {said}");
    assert_eq!(runs(), "first\n", "a changed command ran");
    assert_eq!(sandbox(&["trust", "--yes"]).0, 0);
    assert_eq!(sandbox(&["credential", "check"]).0, 0);
    assert_eq!(runs(), "first\nsecond\n");
}
