//! Which values must not be lent to an agent: a person's own keys and keys over a whole organisation.
//!
//! Prefixes are those that the issuers document (GitHub "About authentication", "token formats"; OpenAI and Anthropic
//! "API keys"; Slack "Token types"; AWS IAM "Unique identifiers").

use super::secret::Secret;

/// Prefix and what it is.
const PERSONAL: [(&str, &str); 12] = [
    ("ghp_", "a person's own GitHub token (`ghp_`)"),
    ("gho_", "a person's GitHub log-in (`gho_`)"),
    ("ghu_", "a person's GitHub App log-in (`ghu_`)"),
    ("ghr_", "a person's GitHub refresh token (`ghr_`)"),
    ("github_pat_", "a person's own GitHub token (`github_pat_`)"),
    ("sk-ant-oat", "a person's Claude log-in (`sk-ant-oat`)"),
    ("sk-ant-admin", "an organisation-wide Anthropic key (`sk-ant-admin`)"),
    ("sk-admin-", "an organisation-wide OpenAI key (`sk-admin-`)"),
    ("xoxp-", "a person's Slack token (`xoxp-`)"),
    ("AKIA", "a long-term AWS key (`AKIA`)"),
    ("glpat-", "a person's own GitLab token (`glpat-`)"),
    ("npm_", "a person's npm token (`npm_`)"),
];

/// What kind of personal or organisation-wide key a value is, or holds on a line of its own; none for others.
pub fn personal(value: &Secret) -> Option<&'static str> {
    let words = value.expose().split(|byte| byte.is_ascii_whitespace() || b"=:\"',".contains(byte));
    for word in words {
        let found =
            PERSONAL.iter().find(|(prefix, _)| word.len() >= prefix.len() + 8 && word.starts_with(prefix.as_bytes()));
        if let Some((_, what)) = found {
            return Some(what);
        }
    }
    None
}
