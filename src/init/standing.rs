//! What stands in the clone and in the home besides the branch that comes back: other tips, and files that act without being
//! committed. It runs as the agent's user and says what the agent lets it see; nothing of it is believed outside.

use std::io::Read as _;
use std::path::{Path, PathBuf};

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
    let looked = tokio::task::spawn_blocking(move || {
        let mut found = Vec::new();
        for (top, paths) in [(&request.clone, &CLONE[..]), (&request.home, &HOME[..])] {
            for path in paths {
                gather(&Path::new(top).join(path), DEPTH, &mut found);
            }
        }
        found
    });
    match looked.await {
        Ok(found) => connection.reply(&Reply::Standing(found)).await,
        Err(error) => connection.fail(FailureKind::Other, error.to_string()).await,
    }
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
        return found.push(StandingFile { path: cut(&path.to_string_lossy()), digest });
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
