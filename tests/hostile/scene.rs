//! A developer's repository full of traps, and an agent's one that makes bundles no honest git would make.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use sandbox::project::{ProjectName, SandboxName};
use sandbox::workspace::incoming::{Starts, Terms, reference};
use sandbox::workspace::{AcceptedRisks, Received, ReviewRules, WorkspaceError, receive};
use sha1::{Digest as _, Sha1};
use tempfile::TempDir;

/// Settings of the developer's that are commands: each writes to the tripwire when anything runs it.
const TRAPS: [&str; 16] = [
    "core.fsmonitor",
    "core.sshCommand",
    "core.gitProxy",
    "core.askPass",
    "core.editor",
    "core.pager",
    "core.alternateRefsCommand",
    "credential.helper",
    "diff.external",
    "diff.trap.command",
    "diff.trap.textconv",
    "filter.trap.clean",
    "filter.trap.smudge",
    "gpg.program",
    "merge.trap.driver",
    "uploadpack.packObjectsHook",
];
const HOOKS: [&str; 7] = [
    "reference-transaction",
    "post-checkout",
    "post-merge",
    "pre-auto-gc",
    "post-index-change",
    "update",
    "post-rewrite",
];

/// Runs git for building a scene, away from the machine's configuration.
pub(crate) fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = git_with(folder, arguments, b"");
    String::from_utf8(output).unwrap().trim().to_owned()
}

/// The same, with input and with output as bytes; the scene's own traps are switched off.
pub(crate) fn git_with(folder: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("git")
        .args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "filter.trap.clean="])
        .args(["-c", "core.protectHFS=false", "-c", "core.protectNTFS=false", "-c", "protocol.file.allow=always"])
        .args(["-c", "core.alternateRefsCommand=true", "-c", "maintenance.auto=false", "-c", "gc.auto=0"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_NO_LAZY_FETCH", "1")
        .envs([("GIT_AUTHOR_NAME", "a"), ("GIT_AUTHOR_EMAIL", "a@x"), ("GIT_COMMITTER_NAME", "a")])
        .env("GIT_COMMITTER_EMAIL", "a@x")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

pub(crate) fn project() -> ProjectName {
    "payments".parse().unwrap()
}

/// The repository that every scene begins with, made once.
fn template() -> &'static (TempDir, String) {
    static TEMPLATE: OnceLock<(TempDir, String)> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        // A static is never dropped, so it stays where the build's own files are.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let top = folder.path();
        git(top, &["init", "-q", "--template=", "-b", "main"]);
        std::fs::write(top.join("a.txt"), "one\n").unwrap();
        std::fs::write(top.join(".gitattributes"), "*.txt filter=trap diff=trap merge=trap\n").unwrap();
        git(top, &["add", "."]);
        git(top, &["commit", "-qm", "first"]);
        let base = git(top, &["rev-parse", "main"]);
        (folder, base)
    })
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// One developer, one agent.
pub(crate) struct Scene {
    folder: TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let scene = Self { folder: tempfile::tempdir().unwrap() };
        let (first, base) = template();
        let repository = scene.repository();
        copy(first.path(), &repository);
        let trap = scene.path().join("trap");
        std::fs::write(&trap, format!("#!/bin/sh\necho ran >> '{}'\ncat\n", scene.tripwire().display())).unwrap();
        std::fs::set_permissions(&trap, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir_all(repository.join(".git/hooks")).unwrap();
        for hook in HOOKS {
            std::fs::copy(&trap, repository.join(".git/hooks").join(hook)).unwrap();
        }
        let mut settings = std::fs::read_to_string(repository.join(".git/config")).unwrap();
        for key in TRAPS {
            let (section, name) = key.rsplit_once('.').unwrap();
            let section =
                section.split_once('.').map_or_else(|| section.to_owned(), |(top, sub)| format!("{top} \"{sub}\""));
            settings.push_str(&format!("[{section}]\n\t{name} = \"{}\"\n", trap.display()));
        }
        // Objects that are missing would be asked for by a command (git-config(1), `extensions.partialClone`).
        let command = format!("ext::{} %S", trap.display());
        settings.push_str(&format!(
            "[extensions]\n\tpartialClone = trap\n[protocol \"ext\"]\n\tallow = always\n\
             [remote \"trap\"]\n\turl = \"{command}\"\n\tpromisor = true\n\tpartialclonefilter = blob:none\n"
        ));
        std::fs::write(repository.join(".git/config"), settings).unwrap();
        // The agent's repository has its own objects alone: they are what a bundle carries.
        let agent = scene.agent();
        std::fs::create_dir_all(agent.join("objects/info")).unwrap();
        std::fs::create_dir_all(agent.join("refs/heads")).unwrap();
        std::fs::write(agent.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        std::fs::write(agent.join("config"), "[core]\n\trepositoryformatversion = 0\n\tbare = true\n").unwrap();
        std::fs::write(agent.join("refs/heads/main"), format!("{base}\n")).unwrap();
        let borrowed = repository.join(".git/objects");
        std::fs::write(agent.join("objects/info/alternates"), format!("{}\n", borrowed.display())).unwrap();
        scene
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().to_path_buf()
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.path().join("repository")
    }

    pub(crate) fn agent(&self) -> PathBuf {
        self.path().join("agent")
    }

    pub(crate) fn tripwire(&self) -> PathBuf {
        self.path().join("tripwire")
    }

    pub(crate) fn base(&self) -> String {
        template().1.clone()
    }

    pub(crate) fn head(&self) -> String {
        std::fs::read_to_string(self.agent().join("refs/heads/main")).unwrap().trim().to_owned()
    }

    pub(crate) fn refs(&self) -> String {
        git(&self.repository(), &["for-each-ref"])
    }

    /// The id of an object of the agent's repository.
    pub(crate) fn id(&self, revision: &str) -> String {
        git(&self.agent(), &["rev-parse", revision])
    }

    pub(crate) fn blob(&self, content: &[u8]) -> String {
        self.object("blob", content)
    }

    /// An object with these bytes, whether git would make such a one or not.
    pub(crate) fn object(&self, kind: &str, content: &[u8]) -> String {
        // A loose object, as gitformat-loose(5) has it, without a process for each.
        let whole = [format!("{kind} {}\0", content.len()).as_bytes(), content].concat();
        let id: String = Sha1::digest(&whole).iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = self.agent().join("objects").join(&id[..2]);
        std::fs::create_dir_all(&folder).unwrap();
        let mut compressed = ZlibEncoder::new(Vec::new(), Compression::fast());
        compressed.write_all(&whole).unwrap();
        std::fs::write(folder.join(&id[2..]), compressed.finish().unwrap()).unwrap();
        id
    }

    /// A tree with these entries, in this order and with these modes, as bytes.
    pub(crate) fn tree(&self, entries: &[(&str, &[u8], &str)]) -> String {
        let mut bytes = Vec::new();
        for (mode, name, id) in entries {
            bytes.extend_from_slice(mode.as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(name);
            bytes.push(0);
            bytes.extend(
                (0..id.len()).step_by(2).map(|at| u8::from_str_radix(id.get(at..at + 2).unwrap(), 16).unwrap()),
            );
        }
        self.object("tree", &bytes)
    }

    /// The base's entries, for a tree that adds to them.
    pub(crate) fn base_entries(&self) -> Vec<(String, Vec<u8>, String)> {
        let listing = git(&self.agent(), &["ls-tree", &self.base()]);
        let entry = |line: &str| {
            let (fields, name) = line.split_once('\t').unwrap();
            let mut fields = fields.split(' ');
            let mode = fields.next().unwrap().trim_start_matches('0').to_owned();
            (mode, name.as_bytes().to_vec(), fields.nth(1).unwrap().to_owned())
        };
        listing.lines().map(entry).collect()
    }

    /// Commits one entry on top of the agent's branch, by writing trees from the inside out.
    pub(crate) fn plant(&self, path: &str, mode: &str, content: &str) {
        self.plant_bytes(path.as_bytes(), mode, content.as_bytes());
    }

    pub(crate) fn plant_bytes(&self, path: &[u8], mode: &str, content: &[u8]) {
        let mut id = if mode == "160000" { self.base() } else { self.blob(content) };
        let mut mode = mode.to_owned();
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        for (depth, part) in parts.iter().enumerate().rev() {
            let mut entries = if depth == 0 { self.base_entries() } else { Vec::new() };
            entries.retain(|(_, name, _)| name != part);
            entries.push((mode, part.to_vec(), id));
            // git compares the names of folders as if they ended in a slash.
            entries.sort_by_key(|(mode, name, _)| [name.as_slice(), if mode == "40000" { b"/" } else { b"" }].concat());
            let entries: Vec<_> =
                entries.iter().map(|(mode, name, id)| (mode.as_str(), name.as_slice(), id.as_str())).collect();
            id = self.tree(&entries);
            mode = "40000".to_owned();
        }
        self.commit(&id);
    }

    /// An ordinary commit of this tree on the agent's branch.
    pub(crate) fn commit(&self, tree: &str) {
        let parents = [self.head()];
        let commit = self.commit_of(tree, &parents, "work");
        self.point(&commit);
    }

    pub(crate) fn commit_of(&self, tree: &str, parents: &[String], message: &str) -> String {
        let parents: String = parents.iter().map(|parent| format!("parent {parent}\n")).collect();
        self.object(
            "commit",
            format!("tree {tree}\n{parents}author a <a@x> 1 +0000\ncommitter a <a@x> 1 +0000\n\n{message}\n")
                .as_bytes(),
        )
    }

    /// Moves the agent's branch.
    pub(crate) fn point(&self, commit: &str) {
        std::fs::write(self.agent().join("refs/heads/main"), format!("{commit}\n")).unwrap();
    }

    /// A pack of all that the agent's repository has of its own.
    pub(crate) fn pack(&self) -> Vec<u8> {
        let mut ids = String::new();
        let objects = self.agent().join("objects");
        for folder in std::fs::read_dir(&objects).unwrap().map(Result::unwrap) {
            let first = folder.file_name().into_string().unwrap();
            if first.len() != 2 {
                continue;
            }
            for file in std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
                ids.push_str(&format!("{first}{}\n", file.file_name().into_string().unwrap()));
            }
        }
        git_with(&self.agent(), &["pack-objects", "--stdout", "-q", "--window=0"], ids.as_bytes())
    }

    /// A bundle of the agent's branch.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.bundle_of(&[("refs/heads/main", &self.head())])
    }

    /// A bundle that advertises these refs.
    pub(crate) fn bundle_of(&self, references: &[(&str, &str)]) -> PathBuf {
        let mut header = format!("# v2 git bundle\n-{} first\n", self.base());
        for (name, id) in references {
            header.push_str(&format!("{id} {name}\n"));
        }
        self.written(&[header.as_bytes(), b"\n", &self.pack()].concat())
    }

    /// A file for [`Scene::receive`] with these bytes.
    pub(crate) fn written(&self, bytes: &[u8]) -> PathBuf {
        let file = self.path().join("incoming.bundle");
        std::fs::write(&file, bytes).unwrap();
        file
    }

    pub(crate) async fn receive(&self, bundle: &Path, accepted: &[&str]) -> Result<Received, WorkspaceError> {
        let accepted = AcceptedRisks(accepted.iter().map(|path| (*path).to_owned()).collect());
        let starts = Starts { base: self.base(), start: self.base() };
        let place = reference(&project(), &SandboxName::main(), "main");
        let rules = ReviewRules::default();
        let terms = Terms { rules: &rules, accepted: &accepted };
        receive(&self.repository(), bundle, &place, "main", &starts, terms, |_| {}).await
    }

    /// Every file of the scene outside the agent's own, with mode and content; what a commit that came in may add is
    /// left out: objects, and refs below `refs/sandbox/` with their reflogs.
    pub(crate) fn snapshot(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, (u32, Vec<u8>)>) {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let path = entry.path();
                let metadata = entry.metadata().unwrap();
                let own = ["agent", "incoming.bundle"].iter().any(|name| entry.file_name() == OsStr::new(name));
                let landed = [".git/objects", ".git/refs/sandbox", ".git/logs/refs/sandbox"];
                if own || landed.iter().any(|place| path.ends_with(place)) {
                    continue;
                }
                if metadata.is_dir() {
                    found.insert(path.clone(), (metadata.permissions().mode(), Vec::new()));
                    walk(&path, found);
                } else {
                    let content = if metadata.is_symlink() {
                        std::fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
                    } else {
                        std::fs::read(&path).unwrap()
                    };
                    found.insert(path, (metadata.permissions().mode(), content));
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(&self.path(), &mut found);
        found
    }
}
