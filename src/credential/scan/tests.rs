use std::fs;
use std::os::unix::fs::symlink;

use super::*;

/// Joined here, so that no scanner takes this file for a place of keys.
const GITHUB: [&str; 2] = ["ghp_", "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ0mLq17"];
const VALUE: &str = "Vq7zR2mK9xTw4bNc";

struct Stage {
    state: tempfile::TempDir,
    home: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        Self { state: tempfile::tempdir().unwrap(), home: tempfile::tempdir().unwrap() }
    }

    fn write(&self, path: &str, content: &str) -> PathBuf {
        let path = self.home.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn scan(&self, limits: ScanLimits, look: impl FnOnce(&mut Scanner<'_>)) -> Report {
        let fingerprinter = Fingerprinter::open(self.state.path()).unwrap();
        let mut scanner = Scanner::new(&fingerprinter, limits);
        look(&mut scanner);
        let report = scanner.report();
        let json = serde_json::to_string(&report).unwrap();
        assert!(!json.contains(VALUE) && !json.contains(GITHUB[1]), "{json}");
        report
    }

    fn home(&self) -> Report {
        self.scan(ScanLimits::default(), |scanner| scanner.home(self.home.path()).unwrap())
    }
}

fn rows(report: &Report, stage: &Stage) -> Vec<(String, usize, String)> {
    let base = format!("{}/", stage.home.path().display());
    let row = |found: &Finding| (found.path.replace(&base, ""), found.line.unwrap_or(0), found.kind.clone());
    let mut rows: Vec<_> = report.findings.iter().map(row).collect();
    rows.sort();
    rows
}

#[test]
fn finds_what_each_program_writes_and_says_the_line() {
    let github = GITHUB.concat();
    let auth = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(format!("ada:{VALUE}"))
    };
    let cases: [(&str, String, usize, &str); 22] = [
        (".bashrc", format!("alias l=ls\nexport STRIPE_API_KEY=\"{VALUE}\"\n"), 2, "the value of STRIPE_API_KEY"),
        (".config/fish/config.fish", format!("set -gx NPM_TOKEN {VALUE}\n"), 1, "the value of NPM_TOKEN"),
        (".bash_history", format!("ls\ncurl --api-key {VALUE} x\n"), 2, "the value of api-key"),
        (
            ".aws/credentials",
            format!("[default]\naws_secret_access_key = {VALUE}\n"),
            2,
            "the value of aws_secret_access_key",
        ),
        (".config/gh/hosts.yml", format!("github.com:\n    oauth_token: {VALUE}\n"), 2, "the value of oauth_token"),
        (".netrc", format!("machine a.example\nlogin ada\npassword {VALUE}\n"), 3, "a password for a host"),
        (".git-credentials", format!("https://ada:{VALUE}@a.example\n"), 1, "a password in a URL"),
        (".npmrc", format!("//registry.npmjs.org/:_authToken={VALUE}\n"), 1, "the value of _authToken"),
        (".pypirc", format!("[pypi]\nusername: __token__\npassword: {VALUE}\n"), 3, "the value of password"),
        (
            ".docker/config.json",
            format!("{{\"auths\":{{\"r.example\":{{\n\"auth\": \"{auth}\"}}}}}}"),
            2,
            "the value of auth",
        ),
        (".vault-token", format!("{VALUE}\n"), 1, "a token, which is the whole file"),
        (".pgpass", format!("# a:b\ndb:5432:*:ada:{VALUE}\n"), 2, "a password of a database"),
        (".m2/settings.xml", format!("<server>\n<password>{VALUE}</password>"), 2, "the value of password"),
        (".cargo/credentials.toml", format!("[registry]\ntoken = \"{VALUE}\"\n"), 2, "the value of token"),
        (
            ".claude.json",
            format!("{{\"mcpServers\":{{\"x\":{{\"env\":{{\"X_TOKEN\":\"{VALUE}\"}}}}}}}}"),
            1,
            "the value of X_TOKEN",
        ),
        (".cursor/mcp.json", format!("{{\"args\":[\"--api-key\", \"{VALUE}\"]}}"), 1, "the value of api-key"),
        (".codex/auth.json", format!("{{\n\"OPENAI_API_KEY\": \"{VALUE}\"}}"), 2, "the value of OPENAI_API_KEY"),
        (
            ".local/share/opencode/auth.json",
            format!("{{\"x\":{{\n\"refresh\":\"{VALUE}\"}}}}"),
            2,
            "the value of refresh",
        ),
        (
            ".config/zed/settings.json",
            format!("{{\"h\":{{\"Authorization\":\"Bearer {VALUE}\"}}}}"),
            1,
            "the value of Authorization",
        ),
        (".gitconfig", format!("[url \"https://ada:{VALUE}@a.example/\"]\n"), 1, "a password in a URL"),
        (
            ".config/Code/User/settings.json",
            format!("{{\n\n\"x.apiKey\": \"{github}\"}}"),
            3,
            "a person's own GitHub token (`ghp_`)",
        ),
        (".gradle/gradle.properties", format!("user=ada\nnexusPassword={VALUE}\n"), 2, "the value of nexusPassword"),
    ];
    let stage = Stage::new();
    let mut expected = Vec::new();
    for (path, content, line, kind) in cases {
        stage.write(path, &content);
        expected.push((path.to_owned(), line, kind.to_owned()));
    }
    expected.sort();
    let report = stage.home();
    assert_eq!(rows(&report, &stage), expected);
    assert!(report.findings.iter().all(|finding| !finding.next.is_empty() && finding.fingerprint.len() == 16));
    let values: BTreeSet<_> = report.findings.iter().map(|finding| &finding.fingerprint).collect();
    assert_eq!(values.len(), 3, "one value, its base64, and the token");
    assert_eq!((report.files, report.cut), (22, false));
}

#[test]
fn leaves_references_templates_and_settings_alone() {
    let stage = Stage::new();
    stage.write(
        ".bashrc",
        "export A_TOKEN=$(pass show x)\nexport B_TOKEN=\"$OTHER\"\nTOKEN_FILE=/run/secrets/token\nPASSWORD=changeme\n\
         SSH_AUTH_SOCK=/run/user/1000/ssh\nexport C_TOKEN=op://vault/item/field1\nMAX_TOKENS=100000000\n\
         X_SECRET=/home/ada/.config/secret\nSECRET=aaaaaaaaaaaaaaaa\nexport D_KEY='<your key here>'\n",
    );
    stage.write(".docker/config.json", "{\"auths\": {\"r.example\": {}}, \"credsStore\": \"secretservice\"}");
    stage.write(
        ".gitconfig",
        "[credential]\n\thelper = store\n[url \"https://github.com/\"]\n\tinsteadOf = git@github.com:\n",
    );
    stage.write(".npmrc", "//registry.npmjs.org/:_authToken=${NPM_TOKEN}\n");
    stage.write(".netrc", "machine a.example login ada password $SECRET\n");
    assert_eq!(rows(&stage.home(), &stage), []);
}

#[test]
fn keys_are_found_unless_a_passphrase_protects_them() {
    let stage = Stage::new();
    let folder = stage.home.path().join(".ssh");
    fs::create_dir(&folder).unwrap();
    for (name, format, passphrase) in [
        ("open", "RFC4716", ""),
        ("closed", "RFC4716", "longer than five"),
        ("pem", "PEM", ""),
        ("closed_pem", "PEM", "another one"),
    ] {
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "rsa", "-b", "2048", "-m", format, "-N", passphrase, "-f"])
            .arg(folder.join(name))
            .status()
            .unwrap();
        assert!(made.success());
    }
    let found = rows(&stage.home(), &stage);
    let kind = "a private key without a passphrase".to_owned();
    assert_eq!(found, [(".ssh/open".to_owned(), 1, kind.clone()), (".ssh/pem".to_owned(), 1, kind)]);
}

#[test]
fn classes_tell_whose_a_credential_is() {
    let stage = Stage::new();
    let project = "pay".parse().unwrap();
    let value = Secret::new(VALUE.as_bytes().to_vec());
    super::super::fingerprint::claim(stage.state.path(), &project, &"stripe".parse().unwrap(), &value).unwrap();
    let admin = format!("sk-admin-{}", "Ab3dEf6hIj9kLm2nOp5q".repeat(3));
    let short = ["ASIA", "QYLPMN5HHHFPZAM2"].concat();
    stage.write(".bashrc", &format!("A_TOKEN={VALUE}\nB_TOKEN={admin}\nC={short}\nD_TOKEN=Zz9Yy8Xx7Ww6Vv5U\n"));
    stage.write(".vault-token", "hJ4kL5mN6pQ7rS8t\n");
    let report = stage.home();
    let class = |line, file: &str| {
        let found = report.findings.iter().find(|found| found.line == Some(line) && found.path.ends_with(file));
        found.unwrap_or_else(|| panic!("line {line} of {file}: {report:?}")).class
    };
    assert_eq!(class(1, ".bashrc"), Class::Project);
    assert_eq!(class(2, ".bashrc"), Class::OrganisationWide);
    assert_eq!(class(3, ".bashrc"), Class::Temporary);
    assert_eq!(class(4, ".bashrc"), Class::Unknown);
    assert_eq!(class(1, ".vault-token"), Class::Personal);
    let lent = report.findings.iter().find(|finding| finding.class == Class::Project).unwrap();
    assert_eq!(lent.lent_to.iter().collect::<Vec<_>>(), ["pay/stripe"]);
    assert_eq!(report.findings[0].class, Class::OrganisationWide, "the worst is first");
}

#[test]
fn nothing_is_followed_out_waited_for_or_read_without_bounds() {
    let stage = Stage::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("profile"), format!("A_TOKEN={VALUE}\n")).unwrap();
    symlink(outside.path().join("profile"), stage.home.path().join(".profile")).unwrap();
    symlink("/dev/zero", stage.home.path().join(".netrc")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(stage.home.path().join(".npmrc")).status().unwrap().success());
    stage.write("dotfiles/zshrc", &format!("A_TOKEN={VALUE}\n"));
    symlink("dotfiles/zshrc", stage.home.path().join(".zshrc")).unwrap();
    stage.write(".bashrc", &format!("A_TOKEN={VALUE}\n{}", "x".repeat(5 << 20)));
    let report = stage.home();
    assert_eq!(rows(&report, &stage), [(".zshrc".to_owned(), 1, "the value of A_TOKEN".to_owned())]);
    let reasons: Vec<_> = report.passed_over.iter().map(|passed| passed.reason).collect();
    for reason in ["it is too large", "it is neither a file nor a folder", "it is a link that leads out of the folder"]
    {
        assert!(reasons.contains(&reason), "{reasons:?}");
    }
}

#[test]
fn a_folder_is_looked_through_without_what_is_built_or_others_wrote() {
    let stage = Stage::new();
    let github = GITHUB.concat();
    stage.write("app/.env", &format!("DB_PASSWORD={VALUE}\n"));
    stage.write("app/.env.example", &format!("DB_PASSWORD={VALUE}\n"));
    stage.write("app/src/main.py", &format!("password = '{VALUE}'\ntoken = '{github}'\n"));
    stage.write("app/node_modules/x/.env", &format!("DB_PASSWORD={VALUE}\n"));
    stage.write("app/.git/config", &format!("[remote \"origin\"]\n\turl = https://ada:{VALUE}@a.example/x.git\n"));
    let app = stage.home.path().join("app");
    let env = ("app/.env".to_owned(), 1, "the value of DB_PASSWORD".to_owned());
    let git = ("app/.git/config".to_owned(), 2, "a password in a URL".to_owned());
    let code = ("app/src/main.py".to_owned(), 2, "a person's own GitHub token (`ghp_`)".to_owned());
    let every = stage.scan(ScanLimits::default(), |scanner| scanner.path(&app, true).unwrap());
    assert_eq!(rows(&every, &stage), [env.clone(), git.clone(), code]);
    let named = stage.scan(ScanLimits::default(), |scanner| scanner.path(&app, false).unwrap());
    assert_eq!(rows(&named, &stage), [env.clone(), git]);
    assert_eq!(named.findings.iter().find_map(|finding| finding.account.clone()).as_deref(), Some("ada"));
    let file = stage.scan(ScanLimits::default(), |scanner| scanner.path(&app.join(".env"), true).unwrap());
    assert_eq!(rows(&file, &stage), [env]);
}

#[test]
fn limits_end_the_search_and_say_so() {
    let stage = Stage::new();
    for number in 0..50 {
        stage.write(&format!("{number}/.env"), &format!("A_TOKEN={VALUE}{number}\n"));
    }
    for limits in [
        ScanLimits { entries: 10, ..ScanLimits::default() },
        ScanLimits { findings: 5, ..ScanLimits::default() },
        ScanLimits { bytes: 100, ..ScanLimits::default() },
        ScanLimits { time: Duration::ZERO, ..ScanLimits::default() },
    ] {
        let report = stage.scan(limits, |scanner| scanner.path(stage.home.path(), true).unwrap());
        assert!(report.cut && report.findings.len() < 50, "{limits:?}: {}", report.findings.len());
    }
    let deep = stage.write("a/b/c/.env", &format!("A_TOKEN={VALUE}\n"));
    let limits = ScanLimits { depth: 2, ..ScanLimits::default() };
    let report = stage.scan(limits, |scanner| scanner.path(stage.home.path(), true).unwrap());
    assert!(report.passed_over.iter().any(|passed| passed.reason == "it is too deep"), "{:?}", report.passed_over);
    assert!(!report.findings.iter().any(|finding| Path::new(&finding.path) == deep));
}

#[test]
fn the_environment_is_told_by_names_and_never_by_values() {
    let stage = Stage::new();
    let github = GITHUB.concat();
    let variables = [("A_TOKEN", VALUE), ("EDITOR", "vi"), ("GH", &github), ("SSH_AUTH_SOCK", "/run/ssh/agent.1")];
    let report = stage.scan(ScanLimits::default(), |scanner| {
        scanner.environment(
            variables.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(value.as_bytes().to_vec()))),
        );
    });
    let kinds = [
        ("environment:A_TOKEN".to_owned(), 0, "the value of A_TOKEN".to_owned()),
        ("environment:GH".to_owned(), 0, "a person's own GitHub token (`ghp_`)".to_owned()),
    ];
    assert_eq!(rows(&report, &stage), kinds);
}

#[test]
fn hostile_names_are_harmless_and_hostile_text_is_bounded() {
    let stage = Stage::new();
    stage.write("a\u{1b}[31m\n\u{202e}/.env", &format!("A_TOKEN={VALUE}\n"));
    stage.write("b/.env", &"TOKEN=".repeat(100_000));
    stage.write("c/.env", &"a=b:c=\"d:e={".repeat(50_000));
    let report = stage.scan(ScanLimits::default(), |scanner| scanner.path(stage.home.path(), true).unwrap());
    assert!(!report.cut);
    let shown = &report.findings.iter().find(|found| found.path.contains("31m")).unwrap().path;
    assert!(!shown.contains(['\u{1b}', '\n', '\u{202e}']), "{shown:?}");
}
