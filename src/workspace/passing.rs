//! What commits brought and took away again before the last one: it lands in the history all the same, and acts when
//! somebody checks an older commit out.

use std::path::Path;

use super::WorkspaceError;
use super::git::{Git, GitError};
use super::review::{LISTING, RawChange, parse_raw};

/// The most commits that are looked into one by one.
const COMMITS: usize = 20_000;

/// A change of one commit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PassingChange {
    /// The commit.
    pub commit: String,
    /// What it changed.
    pub change: RawChange,
}

/// The changes of each commit between base and head; none when there are too many commits or changes. For a merge these are its
/// differences to each parent, so that what only the merge itself brings is seen too.
pub(super) fn changes(repository: &Path, base: &str, head: &str) -> Result<Option<Vec<PassingChange>>, WorkspaceError> {
    let commits = Git::at(repository, "rev-list")
        .args(["--reverse", "--topo-order"])
        .arg(format!("--max-count={}", COMMITS + 1))
        .arg(format!("{base}..{head}"))
        .output()?;
    let count = commits.iter().filter(|byte| **byte == b'\n').count();
    if count > COMMITS {
        return Ok(None);
    }
    // The change of a single commit is the whole difference, which is reviewed as such.
    if count < 2 {
        return Ok(Some(Vec::new()));
    }
    let output = Git::at(repository, "diff-tree")
        .args(["--stdin", "-r", "-m", "-z", "--raw", "--root", "--no-renames", "--no-abbrev"])
        .arg("--ignore-submodules=none")
        .input(commits)
        .limit(LISTING)
        .output();
    match output {
        Ok(output) => parse(&output).map(Some),
        Err(GitError::TooMuch(..)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Parses the output of `diff-tree --stdin -z --raw`: the changes of a commit follow its id, each ended by NUL.
fn parse(output: &[u8]) -> Result<Vec<PassingChange>, WorkspaceError> {
    let wrong = || WorkspaceError::Output("diff-tree --stdin");
    let mut found = Vec::new();
    let mut commit = None;
    let mut rest = output;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == 0).ok_or_else(wrong)?;
        if rest[0] != b':' {
            let id = std::str::from_utf8(&rest[..end]).map_err(|_| wrong())?;
            if !matches!(id.len(), 40 | 64) || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            commit = Some(id.to_owned());
            rest = &rest[end + 1..];
            continue;
        }
        let path = end + 1;
        let stop = rest[path..].iter().position(|byte| *byte == 0).ok_or_else(wrong)? + path + 1;
        let commit = commit.clone().ok_or_else(wrong)?;
        found.extend(
            parse_raw(&rest[..stop])?.into_iter().map(|change| PassingChange { commit: commit.clone(), change }),
        );
        rest = &rest[stop..];
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789012345678901234567890123456789";

    #[test]
    fn reads_the_changes_of_each_commit() {
        let other = ID.replace('0', "f");
        let output = format!(
            "{ID}\0:000000 100644 {ID} {ID} A\0one\0:000000 120000 {ID} {ID} A\0:two\0{other}\0:100644 000000 {ID} {ID} D\0one\0"
        );
        let found = parse(output.as_bytes()).unwrap();
        let seen: Vec<_> =
            found.iter().map(|passing| (passing.commit.as_str(), passing.change.path.as_slice())).collect();
        assert_eq!(seen, [(ID, &b"one"[..]), (ID, b":two"), (&other, b"one")]);
    }

    #[test]
    fn refuses_what_is_no_such_output() {
        let change = format!(":000000 100644 {ID} {ID} A\0one\0");
        for output in ["x\0", "\0", ID, &change, &format!("{ID}\0:000000 100644 {ID} {ID} A\0one")] {
            assert!(parse(output.as_bytes()).is_err(), "{output:?}");
        }
    }
}
