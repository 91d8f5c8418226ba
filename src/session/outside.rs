//! What changed in a session outside of its commits: hooks and settings of git, shells and agents, in the clone and in the home,
//! and what editors, agents and continuous integration obey in the working tree without being committed.
//!
//! The agent's container says so, and could say otherwise: it is told to people as that, and nothing depends on it.

use std::collections::{BTreeMap, BTreeSet};

use crate::init::frame::StandingRequest;
use crate::session::launch::ExecSession;
use crate::session::plan::{HOME, WORKSPACE};
use crate::session::stream_client::SessionError;

/// The most paths of one kind that are named.
const NAMED: usize = 50;

/// The files there are at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// What each holds, as a digest.
    pub digests: BTreeMap<String, String>,
    /// Those that the last commit has too, with another content.
    pub committed: BTreeSet<String>,
}

/// The files there are now, with what they hold.
///
/// # Errors
/// When the session fails.
pub async fn look(client: &mut ExecSession) -> Result<Standing, SessionError> {
    let request = StandingRequest { clone: WORKSPACE.to_owned(), home: HOME.to_owned() };
    let mut standing = Standing::default();
    for file in client.standing(request).await? {
        if file.committed {
            standing.committed.insert(file.path.clone());
        }
        standing.digests.insert(file.path, file.digest);
    }
    Ok(standing)
}

/// What differs, as facts of an event: paths that were `added`, `changed` and `removed`, each a list in JSON.
pub fn differences(before: &BTreeMap<String, String>, standing: &Standing) -> Vec<(&'static str, String)> {
    let now = &standing.digests;
    let lines = |paths: Vec<&String>| {
        let mut lines: Vec<&str> = paths.iter().take(NAMED).map(|path| path.as_str()).collect();
        let more = format!("and {} more", paths.len().saturating_sub(NAMED));
        if paths.len() > NAMED {
            lines.push(&more);
        }
        serde_json::json!(lines).to_string()
    };
    let is_new = |path: &&String| !before.contains_key(*path) && !standing.committed.contains(*path);
    let added = now.keys().filter(is_new).collect();
    let changed = now.iter().filter(|(path, digest)| before.get(*path).map_or(!is_new(path), |old| old != *digest));
    // A file of the working tree that is no longer told may be committed by now.
    let in_tree = |path: &str| {
        let below = path.strip_prefix(WORKSPACE).and_then(|rest| rest.strip_prefix('/'));
        below.is_some_and(|rest| !rest.starts_with(".git/"))
    };
    let removed = before.keys().filter(|path| !now.contains_key(*path) && !in_tree(path)).collect();
    [("added", lines(added)), ("changed", lines(changed.map(|(path, _)| path).collect())), ("removed", lines(removed))]
        .into_iter()
        .filter(|(_, paths)| paths != "[]")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(files: &[(&str, &str)]) -> BTreeMap<String, String> {
        files.iter().map(|(path, digest)| ((*path).to_owned(), (*digest).to_owned())).collect()
    }

    #[test]
    fn tells_what_was_added_changed_and_removed() {
        let tree = ("/workspace/.envrc", "1");
        let before = files(&[("/a", "1"), ("/b", "1"), ("/c", "1"), tree]);
        let digests = files(&[("/a", "1"), ("/b", "2"), ("/d", ""), ("/e", ""), ("/f", "1")]);
        let now = Standing { digests, committed: BTreeSet::from(["/f".to_owned()]) };
        let expected = [("added", r#"["/d","/e"]"#), ("changed", r#"["/b","/f"]"#), ("removed", r#"["/c"]"#)];
        assert_eq!(differences(&before, &now), expected.map(|(change, paths)| (change, paths.to_owned())));
        assert_eq!(differences(&before, &Standing { digests: before.clone(), ..Standing::default() }), []);
    }
}
