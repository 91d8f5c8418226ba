//! Globs of paths from the user's configuration. They are matched as the most permissive file system would: without
//! regard to case, and `*` reaches over `/` as well, so that a pattern covers rather more than less.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// The longest pattern, in bytes.
const LENGTH_LIMIT: usize = 1000;

/// One pattern that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern(globset::Glob);

impl PathPattern {
    /// Parses a pattern; none when it is empty, too long or malformed.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > LENGTH_LIMIT {
            return None;
        }
        GlobBuilder::new(text).case_insensitive(true).literal_separator(false).build().ok().map(Self)
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        self.0.glob()
    }
}

/// Several patterns, compiled together.
#[derive(Debug, Clone, Default)]
pub struct PathPatterns(GlobSet);

impl PathPatterns {
    /// Compiles patterns.
    ///
    /// # Errors
    /// When all together are too large to be compiled.
    pub fn new(patterns: &[PathPattern]) -> Result<Self, globset::Error> {
        let mut builder = GlobSetBuilder::new();
        for pattern in patterns {
            builder.add(pattern.0.clone());
        }
        builder.build().map(Self)
    }

    /// Whether one of them matches this path.
    pub fn match_path(&self, path: &str) -> bool {
        self.0.is_match(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> PathPatterns {
        let parsed: Vec<PathPattern> = texts.iter().map(|text| PathPattern::parse(text).unwrap()).collect();
        PathPatterns::new(&parsed).unwrap()
    }

    #[test]
    fn matches_below_a_folder_and_by_ending_without_regard_to_case() {
        let patterns = patterns(&["deploy/**", "*.tf", "**/secrets.{yml,yaml}"]);
        for path in ["deploy/a", "Deploy/a/b", "main.tf", "infra/Main.TF", "a/b/secrets.yml", "secrets.yaml"] {
            assert!(patterns.match_path(path), "{path}");
        }
        for path in ["deployed/a", "main.tfvars", "src/lib.rs"] {
            assert!(!patterns.match_path(path), "{path}");
        }
    }

    #[test]
    fn no_pattern_matches_nothing() {
        assert!(!PathPatterns::default().match_path("a"));
    }

    #[test]
    fn refuses_what_is_no_pattern() {
        for text in ["", "a[", &"x".repeat(LENGTH_LIMIT + 1)] {
            assert_eq!(PathPattern::parse(text), None);
        }
    }
}
