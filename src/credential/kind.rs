//! Which values must not be lent to an agent: a person's own keys and keys over a whole organisation.
//!
//! Prefixes are those that the issuers document (GitHub "About authentication to GitHub"; OpenAI and Anthropic admin API
//! keys; Slack "Token types"; AWS IAM "Unique identifiers"). A prefix that a person's and a project's tokens share, such
//! as GitLab's `glpat-` and npm's `npm_`, tells nothing and is not in the table.

use super::secret::Secret;

/// Prefix and what it is.
const PERSONAL: [(&str, &str); 10] = [
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
];

/// Characters after the prefix from which on a word is taken for a key; a shorter one only talks about such keys.
const LEAST: usize = 8;

/// What kind of personal or organisation-wide key a value is, or holds somewhere (in a URL, an env file, JSON); none for
/// others.
pub fn personal(value: &Secret) -> Option<&'static str> {
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'-';
    value.expose().split(|byte| !inside(byte)).find_map(|word| {
        let found = PERSONAL
            .iter()
            .find(|(prefix, _)| word.len() >= prefix.len() + LEAST && word.starts_with(prefix.as_bytes()));
        found.map(|(_, what)| *what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<&'static str> {
        personal(&Secret::new(text.as_bytes().to_vec()))
    }

    #[test]
    fn knows_every_kind_of_the_table_wherever_it_stands() {
        for (prefix, what) in PERSONAL {
            let key = format!("{prefix}0123456789");
            for text in [
                key.clone(),
                format!("{key}\n"),
                format!("TOKEN={key}"),
                format!("export TOKEN='{key}'"),
                format!("https://{key}@example.com/x.git"),
                format!("https://user:{key}@example.com/x.git"),
                format!("Authorization: Bearer {key}"),
                format!("{{\"token\":\"{key}\"}}"),
                format!("//registry.example.com/:_authToken={key}"),
            ] {
                assert_eq!(found(&text), Some(what), "{text}");
            }
        }
    }

    #[test]
    fn leaves_project_keys_and_talk_about_keys_alone() {
        for text in [
            "",
            "ghp_",
            "a word about ghp_ and AKIA",
            "ghs_0123456789abcdef",
            "sk-proj-0123456789",
            "sk-ant-api03-0123456789",
            "xoxb-0123456789",
            "ASIA0123456789ABCDEF",
            "glpat-0123456789abcdef",
            "npm_0123456789abcdef",
            "xghp_0123456789",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
