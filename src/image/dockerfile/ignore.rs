//! What of a project never goes into a build: `.dockerignore`, and files that hold credentials by their names.
//!
//! The rules of `.dockerignore` are Docker's (reference of `docker build`, ".dockerignore file"): a pattern is matched
//! against the whole path and against each folder above it, `**` stands for any number of folders, `!` takes back, and the
//! last line that matches decides.

use globset::{GlobBuilder, GlobMatcher};

/// Bytes of a `.dockerignore` that anybody reads.
pub const LIMIT: u64 = 1 << 20;
/// Lines of one.
const LINES: usize = 10_000;

/// Names that hold credentials, or the launcher's own files; no line of a `.dockerignore` brings them back.
const NEVER: &[&str] = &[
    ".git",
    ".sandbox",
    "sandbox.yaml",
    ".dockerignore",
    ".env",
    ".env.*",
    ".envrc",
    ".netrc",
    ".npmrc",
    ".yarnrc.yml",
    ".pypirc",
    ".git-credentials",
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".docker",
    ".kube",
    ".vault-token",
    "id_rsa*",
    "id_ecdsa*",
    "id_ed25519*",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.kdbx",
    "*.age",
];

/// A line that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not a pattern")]
pub struct PatternError {
    /// From 1.
    pub line: usize,
}

/// A path or pattern as Docker reads it: from the context's root.
#[derive(Debug, Clone)]
pub struct Pattern {
    matcher: Option<GlobMatcher>,
    /// The folders before the first one that is not written out.
    literal: Vec<String>,
}

impl Pattern {
    /// Parses a pattern. `None` when it leads out of the context or is malformed.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        if parts.contains(&"..") {
            return None;
        }
        let plain = |part: &&str| !part.contains(['*', '?', '[', '\\']);
        let literal: Vec<String> = parts.iter().take_while(|part| plain(part)).map(|part| (*part).to_owned()).collect();
        if parts.is_empty() {
            return Some(Self { matcher: None, literal });
        }
        // Braces are plain characters to Docker and alternatives to the crate.
        let glob = parts.join("/").replace('{', "\\{").replace('}', "\\}");
        let glob = GlobBuilder::new(&glob).literal_separator(true).backslash_escape(true).build().ok()?;
        Some(Self { matcher: Some(glob.compile_matcher()), literal })
    }

    /// Whether the path, or a folder above it, is meant.
    pub fn covers(&self, path: &str) -> bool {
        let Some(matcher) = &self.matcher else { return true };
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        ends.into_iter().any(|end| matcher.is_match(&path[..end]))
    }

    /// Whether something in this folder may be meant.
    pub fn reaches(&self, folder: &str) -> bool {
        let parts = folder.split('/').filter(|part| !part.is_empty());
        parts.zip(&self.literal).all(|(part, literal)| part == literal)
    }
}

/// All that is left out.
#[derive(Debug, Clone)]
pub struct Ignore {
    lines: Vec<(bool, Pattern)>,
    never: Vec<GlobMatcher>,
}

impl Ignore {
    /// Parses the text of a `.dockerignore`.
    ///
    /// # Errors
    /// When a line is not a pattern, or there are too many.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let mut lines = Vec::new();
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let wrong = PatternError { line: index + 1 };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (back, pattern) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
            let pattern = Pattern::parse(pattern).filter(|_| lines.len() < LINES).ok_or(wrong)?;
            lines.push((back, pattern));
        }
        let glob = |name: &&str| GlobBuilder::new(name).case_insensitive(true).build().ok();
        let never = NEVER.iter().filter_map(glob).map(|glob| glob.compile_matcher()).collect();
        Ok(Self { lines, never })
    }

    /// Whether this path stays out of the build.
    pub fn excludes(&self, path: &str) -> bool {
        let last = self.lines.iter().rev().find(|(_, pattern)| pattern.covers(path));
        self.holds_credentials(path) || last.is_some_and(|(back, _)| !back)
    }

    /// Whether nothing below this folder can come in.
    pub fn excludes_all(&self, folder: &str) -> bool {
        self.holds_credentials(folder) || (self.excludes(folder) && !self.lines.iter().any(|(back, _)| *back))
    }

    fn holds_credentials(&self, path: &str) -> bool {
        path.split('/').any(|name| self.never.iter().any(|never| never.is_match(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_patterns_as_docker_does() {
        let ignore =
            Ignore::parse("# a comment\n\n*.md\n!README.md\n/build/\n**/temp?\nnode_modules\na/*/c\n[x-z]1\n{b}\n");
        let ignore = ignore.unwrap();
        for path in
            ["notes.md", "build/out/a.o", "deep/down/temp1", "temp2/a", "node_modules/a/b.js", "a/b/c/d", "y1", "{b}"]
        {
            assert!(ignore.excludes(path), "{path}");
        }
        for path in ["README.md", "docs/notes.md", "rebuild/a", "temp", "src/node_modules/a", "a/b/d/c", "w1", "b"] {
            assert!(!ignore.excludes(path), "{path}");
        }
        assert_eq!(Ignore::parse("a\n../b\n").unwrap_err(), PatternError { line: 2 });
        assert_eq!(Ignore::parse("[a\n").unwrap_err(), PatternError { line: 1 });
    }

    #[test]
    fn credentials_and_the_launchers_files_stay_out_whatever_is_written() {
        let ignore = Ignore::parse("!**\n!.env\n").unwrap();
        for path in [".env", "app/.env.local", ".git/config", "keys/id_rsa", "certificates/server.PEM", ".ssh/config"] {
            assert!(ignore.excludes(path) && ignore.excludes_all(path), "{path}");
        }
        assert!(!ignore.excludes("src/environment.rs"));
    }

    #[test]
    fn knows_into_which_folders_a_source_leads() {
        let source = Pattern::parse("./a/b/*.txt").unwrap();
        assert!(source.reaches("") && source.reaches("a") && source.reaches("a/b") && !source.reaches("b"));
        assert!(source.covers("a/b/x.txt") && !source.covers("a/b/x") && !source.covers("a/x.txt"));
        assert!(Pattern::parse(".").unwrap().covers("anything/at/all"));
        assert!(Pattern::parse("a/../../b").is_none());
    }
}
