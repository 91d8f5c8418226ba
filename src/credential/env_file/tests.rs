use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use proptest::prelude::*;

use super::EnvFileError as E;
use super::*;

struct Project(tempfile::TempDir);

impl Project {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, file: &str, mode: u32) {
        let path = self.0.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "TOKEN=abcdefgh\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn read(&self, file: &str) -> Result<(), EnvFileError> {
        read(self.0.path(), Path::new(file), "TOKEN").map(|_| ())
    }

    fn git(&self, folder: &str, arguments: &[&str]) {
        let status = Command::new("git").args(arguments).current_dir(self.0.path().join(folder)).status();
        assert!(status.unwrap().success());
    }
}

#[test]
fn is_read_when_it_is_private_untracked_and_inside() {
    let project = Project::new();
    project.write("config/.env.agent", 0o600);
    project.read("config/.env.agent").unwrap();
    project.git(".", &["init", "-q"]);
    project.read("config/.env.agent").unwrap();
    let absent = read(project.0.path(), Path::new("config/.env.agent"), "OTHER").unwrap_err();
    assert!(matches!(absent, E::Absent { variable, .. } if variable == "OTHER"));
}

#[test]
fn is_refused_when_others_can_read_it() {
    let project = Project::new();
    for mode in [0o640, 0o604, 0o660, 0o601] {
        project.write(".env.agent", mode);
        assert!(matches!(project.read(".env.agent"), Err(E::Readable { mode: found, .. }) if found == mode));
    }
}

#[test]
fn is_refused_when_it_is_the_developers_own_or_not_a_file_of_the_project() {
    let project = Project::new();
    for own in [".env", "config/.env", ".env.local"] {
        project.write(own, 0o600);
        assert!(matches!(project.read(own), Err(E::Developers { .. })), "{own}");
    }
    project.write("real/.env.agent", 0o600);
    let root = project.0.path();
    std::os::unix::fs::symlink("real/.env.agent", root.join("link")).unwrap();
    std::os::unix::fs::symlink("real", root.join("folder")).unwrap();
    let pipe = Command::new("mkfifo").args(["-m", "600"]).arg(root.join("pipe")).status();
    assert!(pipe.unwrap().success());
    for outside in ["../x", "/etc/shadow", "real/../real/.env.agent", "link", "folder/.env.agent", "pipe", "real", ""] {
        assert!(matches!(project.read(outside), Err(E::Outside { .. })), "{outside}");
    }
}

#[test]
fn is_refused_when_git_tracks_it_also_in_a_repository_further_in() {
    let project = Project::new();
    project.write(".env.agent", 0o600);
    project.write("inner/.env.agent", 0o600);
    for folder in [".", "inner"] {
        project.git(folder, &["init", "-q"]);
        project.git(folder, &["add", ".env.agent"]);
    }
    assert!(matches!(project.read(".env.agent"), Err(E::Tracked { .. })));
    assert!(matches!(project.read("inner/.env.agent"), Err(E::Tracked { .. })));
}

#[test]
fn is_refused_when_git_cannot_say_whether_it_tracks_it() {
    let project = Project::new();
    project.write(".env.agent", 0o600);
    project.git(".", &["init", "-q"]);
    std::fs::write(project.0.path().join(".git/index"), "damaged").unwrap();
    assert!(matches!(project.read(".env.agent"), Err(E::Unasked { .. })));
}

#[test]
fn is_refused_when_it_is_too_long_to_be_read_whole() {
    let project = Project::new();
    project.write(".env.agent", 0o600);
    let text = format!("TOKEN=abc\nLONG={}\n", "x".repeat(LIMIT));
    std::fs::write(project.0.path().join(".env.agent"), text).unwrap();
    assert!(
        matches!(project.read(".env.agent"), Err(E::Io { source, .. }) if source.kind() == io::ErrorKind::FileTooLarge)
    );
}

#[test]
fn is_read_as_it_is_written() {
    let text = "# comment\nexport A=plain # why\nB='single $x'\nC=\"a\\nb\\\"c\"\nD=\n\nE=x=y\n";
    let found = parse(text.as_bytes()).unwrap();
    let found: Vec<(&str, &str)> =
        found.iter().map(|(name, value)| (name.as_str(), std::str::from_utf8(value.expose()).unwrap())).collect();
    assert_eq!(found, [("A", "plain"), ("B", "single $x"), ("C", "a\nb\"c"), ("D", ""), ("E", "x=y")]);
    for wrong in ["nothing", "A B=c", "1A=b", "A='open", "A=\"open", "A=it's"] {
        assert_eq!(parse(wrong.as_bytes()).unwrap_err(), 1, "{wrong}");
    }
}

proptest! {
    #[test]
    fn a_quoted_value_comes_back_whole(value in "[ -~]{0,80}", name in "[A-Za-z_][A-Za-z0-9_]{0,20}") {
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
        let double = parse(format!("export {name}=\"{escaped}\" # why\n").as_bytes()).unwrap();
        prop_assert_eq!((double[0].0.as_str(), double[0].1.expose()), (name.as_str(), value.as_bytes()));
        if !value.contains('\'') {
            let single = parse(format!("{name}='{value}'").as_bytes()).unwrap();
            prop_assert_eq!(single[0].1.expose(), value.as_bytes());
        }
    }

    #[test]
    fn no_text_makes_it_panic_and_every_error_names_a_line_that_is_there(text in "[A-C='\"\\\\ #\n]{0,60}") {
        if let Err(line) = parse(text.as_bytes()) {
            prop_assert!((1..=text.lines().count()).contains(&line));
        }
    }
}
