//! What stands in the clone and in the home besides the branch that comes back: other tips, and files that act without being
//! committed. It runs as the agent's user and says what the agent lets it see; nothing of it is believed outside.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::frame::{FailureKind, Reply, StandingFile, StandingRequest, Tip};
use super::repository::{RepositoryError, fail, git, head};
use super::session::{Connection, Disconnected};

/// The most tips that are named.
pub const TIPS: usize = 500;
/// The most files that are looked at.
pub const FILES: usize = 500;
/// What of a name goes along, in characters: the answer has to fit into a frame, however it is escaped.
const NAME: usize = 200;
/// The most bytes of a file that are hashed.
const SIZE: u64 = 4 << 20;
/// How deep the folders below are searched.
const DEPTH: usize = 4;

/// Of the clone: what git obeys beside its objects.
const CLONE: [&str; 5] =
    [".git/hooks", ".git/config", ".git/config.worktree", ".git/info/attributes", ".git/objects/info/alternates"];
/// Of the home: what shells, git and the tools of developers run or obey, and the settings of agents.
const HOME: [&str; 44] = [
    ".bashrc",
    ".bash_profile",
    ".bash_login",
    ".bash_logout",
    ".profile",
    ".zshrc",
    ".zshenv",
    ".zprofile",
    ".inputrc",
    ".gitconfig",
    ".config/git",
    ".gitattributes",
    ".ssh",
    ".gnupg/gpg.conf",
    ".npmrc",
    ".yarnrc",
    ".yarnrc.yml",
    ".pypirc",
    ".config/pip/pip.conf",
    ".pip/pip.conf",
    ".cargo/config.toml",
    ".cargo/config",
    ".cargo/bin",
    ".local/bin",
    "bin",
    ".config/systemd/user",
    ".config/autostart",
    ".config/fish/config.fish",
    ".vimrc",
    ".config/nvim/init.lua",
    ".emacs",
    ".tmux.conf",
    ".gdbinit",
    ".pythonrc",
    ".claude.json",
    ".claude/settings.json",
    ".claude/settings.local.json",
    ".claude/CLAUDE.md",
    ".claude/commands",
    ".claude/agents",
    ".codex/config.toml",
    ".codex/AGENTS.md",
    ".gemini/settings.json",
    ".config/opencode",
];

/// At the top of the clone: what editors, agents, shells, continuous integration and git obey. What of it is committed comes
/// back by review; what is not is told here.
const TREE: [&str; 52] = [
    ".vscode",
    ".idea",
    ".run",
    ".zed",
    ".fleet",
    ".helix",
    ".nvim",
    ".nvim.lua",
    ".nvimrc",
    ".exrc",
    ".vimrc",
    ".dir-locals.el",
    ".envrc",
    ".mise.toml",
    "mise.toml",
    ".mcp.json",
    ".claude",
    ".codex",
    ".gemini",
    ".cursor",
    ".cursorrules",
    ".opencode",
    "opencode.json",
    ".windsurf",
    ".windsurfrules",
    ".cline",
    ".clinerules",
    ".roo",
    ".kiro",
    ".continue",
    ".aider.conf.yml",
    "CLAUDE.md",
    "CLAUDE.local.md",
    "AGENTS.md",
    "AGENTS.override.md",
    "GEMINI.md",
    ".github",
    ".gitea",
    ".forgejo",
    ".gitlab-ci.yml",
    ".circleci",
    ".buildkite",
    ".woodpecker",
    "Jenkinsfile",
    "azure-pipelines.yml",
    ".husky",
    ".githooks",
    "lefthook.yml",
    ".pre-commit-config.yaml",
    ".devcontainer",
    "sandbox.yaml",
    ".sandbox",
];
/// How long git may look for what of it is not committed.
const LOOK: Duration = Duration::from_secs(2);

/// Names the tips of branches, of the stash, and of a `HEAD` that is no branch.
pub(super) async fn tips(connection: &Connection, directory: &str) -> Result<(), Disconnected> {
    let directory = Path::new(directory);
    let found = async {
        let format = "--format=%(objectname) %(refname)";
        let count = format!("--count={TIPS}");
        let listing = git(directory, &["for-each-ref", &count, format, "refs/heads", "refs/stash"]).await?;
        let mut tips: Vec<Tip> = listing
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(commit, name)| Tip { name: cut(name), commit: commit.to_owned() })
            .collect();
        let detached = git(directory, &["symbolic-ref", "--quiet", "HEAD"]).await.is_err();
        let commit = if detached { head(directory, "HEAD").await? } else { String::new() };
        if !commit.is_empty() {
            tips.push(Tip { name: "HEAD".to_owned(), commit });
        }
        Ok::<_, RepositoryError>(tips)
    };
    match found.await {
        Ok(tips) => connection.reply(&Reply::Tips(tips)).await,
        Err(error) => fail(connection, error).await,
    }
}

/// Looks at the files that act.
pub(super) async fn look(connection: &Connection, request: StandingRequest) -> Result<(), Disconnected> {
    let tree = uncommitted(Path::new(&request.clone)).await;
    let looked = tokio::task::spawn_blocking(move || {
        let mut found = Vec::new();
        for (top, paths) in [(&request.clone, &CLONE[..]), (&request.home, &HOME[..])] {
            for path in paths {
                gather(&Path::new(top).join(path), DEPTH, &mut found);
            }
        }
        for (path, committed) in tree {
            let before = found.len();
            gather(&Path::new(&request.clone).join(path), DEPTH, &mut found);
            found.iter_mut().skip(before).for_each(|file| file.committed = committed);
        }
        found
    });
    match looked.await {
        Ok(found) => connection.reply(&Reply::Standing(found)).await,
        Err(error) => connection.fail(FailureKind::Other, error.to_string()).await,
    }
}

/// What of the files at the top differs from the last commit, ignored files included, and whether that has them at all. Where
/// git says nothing in time, nothing is told.
async fn uncommitted(clone: &Path) -> Vec<(String, bool)> {
    let words = ["status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all", "--ignored=traditional"];
    let words = [&words[..], &["--ignore-submodules=all", "--"], &TREE].concat();
    let status = tokio::time::timeout(LOOK, git(clone, &words)).await;
    let Ok(Ok(status)) = status else { return Vec::new() };
    // git-status(1), "Porcelain Format Version 1": two letters, a space and the path, which NUL ends.
    let entries = status.split('\0').filter_map(|entry| Some((entry.get(..2)?, entry.get(3..)?)));
    entries.take(FILES).map(|(kind, path)| (path.to_owned(), !matches!(kind, "??" | "!!" | "A " | "AM"))).collect()
}

fn cut(name: &str) -> String {
    name.chars().take(NAME).collect()
}

fn gather(path: &Path, depth: usize, found: &mut Vec<StandingFile>) {
    let Ok(metadata) = path.symlink_metadata() else { return };
    if found.len() >= FILES {
        return;
    }
    if !metadata.is_dir() {
        let digest = digest(path, &metadata).unwrap_or_default();
        return found.push(StandingFile { path: cut(&path.to_string_lossy()), digest, committed: false });
    }
    if depth == 0 {
        return;
    }
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(path).into_iter().flatten().take(FILES).flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for entry in entries {
        gather(&entry, depth - 1, found);
    }
}

/// The digest of a file's content, or of where a link points; nothing is opened that could block.
fn digest(path: &Path, metadata: &std::fs::Metadata) -> Option<String> {
    let mut hash = Sha256::new();
    if metadata.is_symlink() {
        hash.update(std::fs::read_link(path).ok()?.as_os_str().as_encoded_bytes());
    } else if metadata.is_file() && metadata.len() <= SIZE {
        let mut content = Vec::new();
        std::fs::File::open(path).ok()?.take(SIZE + 1).read_to_end(&mut content).ok()?;
        hash.update([u8::from(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0)]);
        hash.update(&content);
    } else {
        return None;
    }
    Some(hex::encode(hash.finalize()))
}
