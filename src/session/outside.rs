//! What changed in a session outside of its commits: hooks and settings of git, shells and agents, in the clone and in the home.
//!
//! The agent's container says so, and could say otherwise: it is told to people as that, and nothing depends on it.

use std::collections::BTreeMap;

use crate::init::frame::StandingRequest;
use crate::session::launch::ExecSession;
use crate::session::plan::{HOME, WORKSPACE};
use crate::session::stream_client::SessionError;

/// The most paths of one kind that are named.
const NAMED: usize = 50;

/// The files there are now, with what they hold.
///
/// # Errors
/// When the session fails.
pub async fn look(client: &mut ExecSession) -> Result<BTreeMap<String, String>, SessionError> {
    let request = StandingRequest { clone: WORKSPACE.to_owned(), home: HOME.to_owned() };
    Ok(client.standing(request).await?.into_iter().map(|file| (file.path, file.digest)).collect())
}

/// What differs, as facts of an event: paths that were `added`, `changed` and `removed`, each a list in JSON.
pub fn differences(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<(&'static str, String)> {
    let lines = |paths: Vec<&String>| {
        let mut lines: Vec<&str> = paths.iter().take(NAMED).map(|path| path.as_str()).collect();
        let more = format!("and {} more", paths.len().saturating_sub(NAMED));
        if paths.len() > NAMED {
            lines.push(&more);
        }
        serde_json::json!(lines).to_string()
    };
    let added = now.keys().filter(|path| !before.contains_key(*path)).collect();
    let changed = now.iter().filter(|(path, digest)| before.get(*path).is_some_and(|old| old != *digest));
    let removed = before.keys().filter(|path| !now.contains_key(*path)).collect();
    [("added", lines(added)), ("changed", lines(changed.map(|(path, _)| path).collect())), ("removed", lines(removed))]
        .into_iter()
        .filter(|(_, paths)| paths != "[]")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_was_added_changed_and_removed() {
        let files =
            |files: &[(&str, &str)]| files.iter().map(|(path, digest)| ((*path).into(), (*digest).into())).collect();
        let before = files(&[("/a", "1"), ("/b", "1"), ("/c", "1")]);
        let now = files(&[("/a", "1"), ("/b", "2"), ("/d", ""), ("/e", "")]);
        let expected = [("added", r#"["/d","/e"]"#), ("changed", r#"["/b"]"#), ("removed", r#"["/c"]"#)];
        assert_eq!(differences(&before, &now), expected.map(|(change, paths)| (change, paths.to_owned())));
        assert_eq!(differences(&before, &before), []);
    }
}
