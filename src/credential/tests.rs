use std::collections::BTreeSet;

use super::secret::Secret;
use super::*;

struct Home {
    folder: tempfile::TempDir,
    sandbox: SandboxName,
}

impl Home {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), sandbox: SandboxName::main() }
    }

    fn context<'a>(&'a self, project: &'a ProjectName) -> IssueContext<'a> {
        let root = self.folder.path();
        IssueContext {
            project,
            project_root: root,
            sandbox: &self.sandbox,
            actor: "ada",
            store: store::Store {
                folder: root.join(".sandbox/credentials"),
                recipients: root.join(".sandbox/recipients"),
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
            reason: "up",
        }
    }
}

fn spec(provider: ProviderSpec) -> CredentialSpec {
    CredentialSpec {
        provider,
        deliver: Delivery::File { name: "token".to_owned() },
        max_age: None,
        shared_with: None,
        accept_personal: None,
        on_expiry: Default::default(),
        hosts: Vec::new(),
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

fn name(text: &str) -> CredentialName {
    text.parse().unwrap()
}

#[tokio::test]
async fn issues_what_was_stored_and_nothing_that_was_copied_from_another_project() {
    let home = Home::new();
    let (one, two): (ProjectName, ProjectName) = ("one".parse().unwrap(), "two".parse().unwrap());
    let context = home.context(&one);
    context.store.write(&one, &name("token"), &secret("value of one")).unwrap();
    let issued = issue(&name("token"), &spec(ProviderSpec::Store { rotate_command: None }), &context).await.unwrap();
    assert!(issued.value.equals(&secret("value of one")));
    let folder = home.folder.path().join(".sandbox/credentials");
    std::fs::create_dir_all(folder.join("two")).unwrap();
    std::fs::copy(folder.join("one/token.age"), folder.join("two/token.age")).unwrap();
    let copied = issue(&name("token"), &spec(ProviderSpec::Store { rotate_command: None }), &home.context(&two))
        .await
        .unwrap_err();
    assert!(matches!(copied, CredentialError::Store(store::StoreError::Misplaced { .. })), "{copied:?}");
    std::fs::copy(folder.join("one/token.age"), folder.join("one/other.age")).unwrap();
    let renamed =
        issue(&name("other"), &spec(ProviderSpec::Store { rotate_command: None }), &context).await.unwrap_err();
    assert!(matches!(renamed, CredentialError::Store(store::StoreError::Misplaced { .. })), "{renamed:?}");
}

#[tokio::test]
async fn refuses_the_same_value_in_two_projects_unless_it_is_shared_on_purpose() {
    let home = Home::new();
    let (one, two): (ProjectName, ProjectName) = ("one".parse().unwrap(), "two".parse().unwrap());
    for project in [&one, &two] {
        home.context(project).store.write(project, &name("token"), &secret("one value for both")).unwrap();
    }
    let mut declared = spec(ProviderSpec::Store { rotate_command: None });
    issue(&name("token"), &declared, &home.context(&one)).await.unwrap();
    let refused = issue(&name("token"), &declared, &home.context(&two)).await.unwrap_err();
    assert!(matches!(refused, CredentialError::Shared { other } if other == "one"));
    declared.shared_with =
        Some(spec::SharedWith { projects: vec!["one".to_owned()], reason: "one database".to_owned() });
    issue(&name("token"), &declared, &home.context(&two)).await.unwrap();
    // The first project goes on having it.
    issue(&name("token"), &spec(ProviderSpec::Store { rotate_command: None }), &home.context(&one)).await.unwrap();
}

#[tokio::test]
async fn refuses_personal_and_organisation_wide_keys() {
    let home = Home::new();
    let project: ProjectName = "one".parse().unwrap();
    let context = home.context(&project);
    for value in ["ghp_0123456789abcdef", "sk-ant-admin01-0123456789", "AWS_ACCESS_KEY_ID=AKIA0123456789ABCDEF"] {
        context.store.write(&project, &name("token"), &secret(value)).unwrap();
        let mut declared = spec(ProviderSpec::Store { rotate_command: None });
        let refused = issue(&name("token"), &declared, &context).await.unwrap_err();
        assert!(matches!(refused, CredentialError::Personal { .. }), "{value}");
        assert!(!format!("{refused} {refused:?}").contains("0123456789"));
        declared.accept_personal = Some("a trial".to_owned());
        issue(&name("token"), &declared, &context).await.unwrap();
    }
}

#[tokio::test]
async fn refuses_a_value_older_than_allowed() {
    let home = Home::new();
    let project: ProjectName = "one".parse().unwrap();
    let context = home.context(&project);
    let path = home.folder.path().join(".env.agent");
    std::fs::write(&path, "TOKEN=abcdefgh\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let old = std::time::SystemTime::now() - Duration::from_secs(86_400 * 9);
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
    let mut declared = spec(ProviderSpec::EnvFile { path: ".env.agent".into(), variable: "TOKEN".to_owned() });
    declared.max_age = Some(Duration::from_secs(86_400 * 10));
    let issued = issue(&name("token"), &declared, &context).await.unwrap();
    assert_eq!(issued.warnings.len(), 1);
    declared.max_age = Some(Duration::from_secs(86_400 * 8));
    let refused = issue(&name("token"), &declared, &context).await.unwrap_err();
    assert!(matches!(refused, CredentialError::TooOld { .. }));
}

#[test]
fn concurrent_claims_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let project: ProjectName = "one".parse().unwrap();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (folder, project) = (folder.path(), &project);
            scope.spawn(move || {
                let value = secret(&format!("value {number}"));
                fingerprint::claim(folder, project, &name(&format!("n{number}")), &value).unwrap();
            });
        }
    });
    let other: ProjectName = "two".parse().unwrap();
    for number in 0..8 {
        let value = secret(&format!("value {number}"));
        let claimed = fingerprint::claim(folder.path(), &other, &name("x"), &value).unwrap();
        assert_eq!(claimed.others, BTreeSet::from(["one".to_owned()]));
    }
}

#[test]
fn rotates_at_half_of_the_life_and_never_later_than_its_end() {
    let start: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    let at = |minutes: u64| start + Duration::from_secs(minutes * 60);
    let next = |minutes: u64, seed: &str| next_rotation(start, Some(at(minutes)), seed).unwrap();
    assert_eq!(next_rotation(start, None, ""), None);
    assert_eq!(next(60, ""), at(30));
    assert_eq!(next(20, ""), at(5));
    assert_eq!(next(16, ""), at(4));
    assert_eq!(next(10, ""), at(5));
    for seed in ["a", "0123", "ffff"] {
        assert!(next(60, seed) <= at(30) && next(60, seed) >= at(27));
    }
}

#[test]
fn delivers_files_helpers_and_variables() {
    let issued = |name: &str| Issued {
        name: name.parse().unwrap(),
        value: secret("v"),
        issued_at: Timestamp::now(),
        expires_at: None,
        handle: None,
        fingerprint: fingerprint::claim(
            tempfile::tempdir().unwrap().path(),
            &"p".parse().unwrap(),
            &name.parse().unwrap(),
            &secret("v"),
        )
        .unwrap()
        .fingerprint,
        warnings: Vec::new(),
        scope: None,
        provider: "store",
        agent_file: None,
    };
    let file = spec(ProviderSpec::Store { rotate_command: None });
    let git = CredentialSpec { deliver: Delivery::Git { host: "github.com".parse().unwrap() }, ..file.clone() };
    let variable = CredentialSpec { deliver: Delivery::Environment { variable: "KEY".to_owned() }, ..file.clone() };
    let delivered = deliver(vec![(&file, issued("a")), (&git, issued("b")), (&variable, issued("c"))]).unwrap();
    let names: Vec<&str> = delivered.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["token", "b", "c"]);
    assert_eq!(delivered.git_configuration[1].1, "/.sandbox/sandbox git-credential --file b");
    assert_eq!(delivered.secret_environment["KEY"], "c");
    assert!(matches!(
        deliver(vec![(&file, issued("a")), (&file, issued("b"))]),
        Err(CredentialError::FileTwice(file)) if file == "token"
    ));
}

fn exec(command: &str, revoke: Option<&str>) -> CredentialSpec {
    let words = |line: &str| vec!["/bin/sh".to_owned(), "-c".to_owned(), line.to_owned()];
    spec(ProviderSpec::Exec { command: words(command), revoke_command: revoke.map(words) })
}

#[tokio::test]
async fn revokes_what_a_command_issued_and_a_rule_refused() {
    let home = Home::new();
    let project: ProjectName = "one".parse().unwrap();
    let context = home.context(&project);
    let command = r#"echo '{"value":"ghp_0123456789abcdef","handle":"h-17"}'"#;
    let refused = issue(&name("token"), &exec(command, Some("cat > revoked")), &context).await.unwrap_err();
    assert!(matches!(refused, CredentialError::Personal { .. }));
    let told = std::fs::read_to_string(home.folder.path().join("revoked")).unwrap();
    assert!(told.contains(r#""handle":"h-17""#) && !told.contains("ghp_"), "{told}");
    let command = r#"echo '{"value":"late","expires_at":"2001-01-01T00:00:00Z"}'"#;
    let refused = issue(&name("token"), &exec(command, None), &context).await.unwrap_err();
    assert!(matches!(refused, CredentialError::Expired(_)));
}

#[tokio::test]
async fn revokes_by_the_handle_where_the_issuer_can() {
    let home = Home::new();
    let project: ProjectName = "one".parse().unwrap();
    let context = home.context(&project);
    let can = exec("true", Some("cat > revoked"));
    assert_eq!(revoke(&name("token"), &can, Some("h-1"), &context).await.unwrap(), Revocation::Revoked);
    assert!(std::fs::read_to_string(home.folder.path().join("revoked")).unwrap().contains("h-1"));
    let fails = revoke(&name("token"), &exec("true", Some("exit 4")), Some("h-1"), &context).await.unwrap_err();
    assert!(matches!(fails, CredentialError::Exec(exec::ExecError::Failed { code: 4, .. })));
    for cannot in [exec("true", None), spec(ProviderSpec::Store { rotate_command: None })] {
        assert_eq!(revoke(&name("token"), &cannot, None, &context).await.unwrap(), Revocation::StaticRemains);
    }
}

#[test]
fn warns_from_four_fifths_of_the_age_and_refuses_after_it() {
    let day = Duration::from_secs(86_400);
    let at = |age: Duration| too_old(&name("token"), Some(day * 10), age);
    assert_eq!(at(day * 8 - Duration::from_secs(1)).unwrap(), None);
    assert_eq!(at(day * 8).unwrap().unwrap(), "credential `token` has to be rotated within 48 hours");
    assert!(at(day * 10).unwrap().is_some());
    assert!(matches!(at(day * 10 + Duration::from_secs(1)), Err(CredentialError::TooOld { .. })));
    assert_eq!(too_old(&name("token"), None, day * 9999).unwrap(), None);
}
