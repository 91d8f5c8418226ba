//! Finds credentials in file contents, by the formats that their issuers document.
//!
//! Only formats that hardly anything else has are in the table, and where an issuer builds in a checksum it is checked:
//! a finding stops a pull, so a false one costs trust. A finding says what it is and where, never the value.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::bytes::{Regex, RegexSet};

/// The most findings that are taken from one file.
const FINDINGS: usize = 100;

/// What a credential's format looks like.
struct Format {
    /// What is said of a file that holds one.
    reason: &'static str,
    pattern: &'static str,
    /// Whether a match is one indeed.
    holds: fn(&[u8]) -> bool,
}

/// Sources: GitHub "Behind GitHub's new authentication token formats"; AWS IAM "Unique identifiers"; GitLab "Token
/// overview"; Slack "Token types"; Anthropic, OpenAI, Google, Stripe, npm, PyPI, SendGrid, Docker Hub, DigitalOcean and
/// Hugging Face "API keys"; Vault "Tokens"; RFC 7468; the age specification.
const FORMATS: [Format; 18] = [
    Format {
        reason: "holds a private key",
        pattern: r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----[\r\n\\nrt A-Za-z0-9+/=:,.\-]{64}",
        holds: always,
    },
    Format { reason: "holds an age identity", pattern: r"AGE-SECRET-KEY-1[0-9A-Z]{58}\b", holds: always },
    Format { reason: "holds an AWS access key", pattern: r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b", holds: no_example },
    Format { reason: "holds a GitHub token", pattern: r"\bgh[pousr]_[0-9A-Za-z]{36}\b", holds: checksum },
    Format {
        reason: "holds a GitHub token",
        pattern: r"\bgithub_pat_[0-9A-Za-z]{22}_[0-9A-Za-z]{59}\b",
        holds: always,
    },
    Format { reason: "holds an npm token", pattern: r"\bnpm_[0-9A-Za-z]{36}\b", holds: checksum },
    Format {
        reason: "holds a GitLab token",
        pattern: r"\bgl(?:pat|ptt|rt|dt|oas|cbt)-[0-9A-Za-z_\-]{20}",
        holds: varied,
    },
    Format { reason: "holds a Slack token", pattern: r"\bxox[abeoprs]-[0-9]{8,}-[0-9A-Za-z\-]{20}", holds: varied },
    Format {
        reason: "holds an Anthropic key",
        pattern: r"\bsk-ant-(?:api|admin|oat|sid)[0-9]{2}-[0-9A-Za-z_\-]{80}",
        holds: varied,
    },
    Format {
        reason: "holds an OpenAI key",
        pattern: r"\bsk-(?:(?:proj|svcacct|admin)-[0-9A-Za-z_\-]{40}|[0-9A-Za-z]{20}T3BlbkFJ[0-9A-Za-z]{20}\b)",
        holds: varied,
    },
    Format { reason: "holds a Google key", pattern: r"\bAIza[0-9A-Za-z_\-]{35}\b", holds: varied },
    Format { reason: "holds a Stripe key", pattern: r"\b[rs]k_live_[0-9A-Za-z]{24}", holds: varied },
    Format { reason: "holds a PyPI token", pattern: r"\bpypi-AgEIcHlwaS5vcmc[0-9A-Za-z_\-]{50}", holds: varied },
    Format { reason: "holds a Vault token", pattern: r"\bhv[sbr]\.[0-9A-Za-z_\-]{24}", holds: varied },
    Format {
        reason: "holds a SendGrid key",
        pattern: r"\bSG\.[0-9A-Za-z_\-]{22}\.[0-9A-Za-z_\-]{43}\b",
        holds: varied,
    },
    Format { reason: "holds a Docker Hub token", pattern: r"\bdckr_(?:pat|oat)_[0-9A-Za-z_\-]{27}", holds: varied },
    Format { reason: "holds a DigitalOcean token", pattern: r"\bdo[opr]_v1_[0-9a-f]{64}\b", holds: varied },
    Format { reason: "holds a Hugging Face token", pattern: r"\bhf_[A-Za-z]{34}\b", holds: varied },
];

/// What every match of the table holds, as a POSIX extended regular expression for `git grep`: wide, and quick.
pub(super) const HINT: &str = "PRIVATE KEY|AGE-SECRET-KEY-1|(AKIA|ASIA)[A-Z2-7]{16}|gh[pousr]_[0-9A-Za-z]{36}|github_pat_|\
    npm_[0-9A-Za-z]{36}|gl(pat|ptt|rt|dt|oas|cbt)-|xox[abeoprs]-|sk-[0-9A-Za-z_-]{40}|sk-ant-|AIza|k_live_|pypi-AgEI|\
    hv[sbr]\\.|SG\\.|dckr_|do[opr]_v1_|hf_[A-Za-z]{34}";

static SET: LazyLock<RegexSet> =
    LazyLock::new(|| RegexSet::new(FORMATS.iter().map(|format| format.pattern)).unwrap_or_else(|_| RegexSet::empty()));
static EACH: LazyLock<Vec<Regex>> =
    LazyLock::new(|| FORMATS.iter().filter_map(|format| Regex::new(format.pattern).ok()).collect());

/// A credential in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The line, from 1.
    pub line: usize,
    /// What to say of the file, such as `holds a private key`.
    pub reason: &'static str,
}

/// The credentials in `content`, in the order of their lines; with `known`, those that it does not hold already.
pub fn scan(content: &[u8], known: &[u8]) -> Vec<Finding> {
    let mut found = BTreeSet::new();
    for index in SET.matches(content) {
        let (Some(format), Some(pattern)) = (FORMATS.get(index), EACH.get(index)) else { continue };
        let holds = |bytes: &[u8]| (format.holds)(bytes);
        let before: BTreeSet<&[u8]> = pattern.find_iter(known).map(|found| found.as_bytes()).collect();
        for credential in pattern.find_iter(content).filter(|found| holds(found.as_bytes())) {
            if found.len() < FINDINGS && !before.contains(credential.as_bytes()) {
                let line = content[..credential.start()].iter().filter(|byte| **byte == b'\n').count() + 1;
                found.insert(Finding { line, reason: format.reason });
            }
        }
    }
    found.into_iter().collect()
}

/// Where the credentials in `content` stand, with what is said of a file that holds one.
pub fn locate(content: &[u8]) -> Vec<(std::ops::Range<usize>, &'static str)> {
    let mut found = Vec::new();
    for index in SET.matches(content) {
        let (Some(format), Some(pattern)) = (FORMATS.get(index), EACH.get(index)) else { continue };
        let matches = pattern.find_iter(content).filter(|found| (format.holds)(found.as_bytes()));
        found.extend(matches.take(FINDINGS).map(|found| (found.range(), format.reason)));
    }
    found
}

fn always(_: &[u8]) -> bool {
    true
}

/// AWS's own documentation writes keys that end so.
fn no_example(key: &[u8]) -> bool {
    !key.ends_with(b"EXAMPLE") && varied(key)
}

/// Whether text has as many different letters as a random one: `xxxxxxxx` stands for a key in many a document.
fn varied(key: &[u8]) -> bool {
    let tail = &key[key.len().saturating_sub(16)..];
    tail.iter().collect::<BTreeSet<_>>().len() >= 7
}

/// Whether a token ends in the checksum of the 30 characters before it: CRC-32 in base 62, filled up to six digits.
fn checksum(token: &[u8]) -> bool {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let Some(body) = token.split(|byte| *byte == b'_').nth(1) else { return false };
    let Some((random, sum)) = body.split_at_checked(30) else { return false };
    let mut crc = flate2::Crc::new();
    crc.update(random);
    let mut rest = crc.sum();
    sum.len() == 6
        && sum.iter().rev().all(|digit| {
            let expected = DIGITS[(rest % 62) as usize];
            rest /= 62;
            *digit == expected
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pieces that only together are a credential, so that no scanner takes this file for a place of one.
    const SAMPLES: [[&str; 3]; 18] = [
        [
            "holds a private key",
            "-----BEGIN RSA PRIV",
            "ATE KEY-----\nMIIEpAIBAAKCAQEAx0v1Tm0nZ9hYcQ2aWm3pR8sLkD7fGh5jKq4wXzVbNcTyUiOp\n",
        ],
        ["holds an age identity", "AGE-SECRET-", "KEY-1QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7LQPZRY9X8GF2TVDW0S3JN54KHCE"],
        ["holds an AWS access key", "AKIA", "QYLPMN5HHHFPZAM2"],
        ["holds a GitHub token", "ghp_", "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ0mLq17"],
        [
            "holds a GitHub token",
            "github_pat_",
            "11ABCDEFG0aBcDeFgHiJkL_0123456789abcdefghijABCDEFGHIJ0123456789abcdefghijABCDEFGHI",
        ],
        ["holds an npm token", "npm_", "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ0mLq17"],
        ["holds a GitLab token", "glpat-", "Ab3dEf6hIj9kLm2nOp5q"],
        ["holds a Slack token", "xoxb-", "123456789012-Ab3dEf6hIj9kLm2nOp5qRs8t"],
        [
            "holds an Anthropic key",
            "sk-ant-api03-",
            "Ab3dEf6hIj9kLm2nOp5qAb3dEf6hIj9kLm2nOp5qAb3dEf6hIj9kLm2nOp5qAb3dEf6hIj9kLm2nOp5q",
        ],
        ["holds an OpenAI key", "sk-proj-", "Ab3dEf6hIj9kLm2nOp5qAb3dEf6hIj9kLm2nOp5q"],
        ["holds a Google key", "AIza", "Ab3dEf6hIj9kLm2nOp5qAb3dEf6hIj9kLm2"],
        ["holds a Stripe key", "sk_live_", "Ab3dEf6hIj9kLm2nOp5qAb3d"],
        ["holds a PyPI token", "pypi-AgEIcHl", "waS5vcmcAb3dEf6hIj9kLm2nOp5qAb3dEf6hIj9kLm2nOp5qAb3dEf6hIj9k"],
        ["holds a Vault token", "hvs.", "Ab3dEf6hIj9kLm2nOp5qAb3d"],
        ["holds a SendGrid key", "SG.", "Ab3dEf6hIj9kLm2nOp5qAb.Ab3dEf6hIj9kLm2nOp5qAb3dEf6hIj9kLm2nOp5qAb3"],
        ["holds a Docker Hub token", "dckr_pat_", "Ab3dEf6hIj9kLm2nOp5qAb3dEf6"],
        ["holds a DigitalOcean token", "dop_v1_", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"],
        ["holds a Hugging Face token", "hf_", "AbcdEfghIjklMnopQrstUvwxYzabcdEfgh"],
    ];

    #[test]
    fn knows_every_format_wherever_it_stands_and_says_the_line() {
        assert_eq!((SET.len(), EACH.len()), (FORMATS.len(), FORMATS.len()));
        for [reason, first, rest] in SAMPLES {
            for (before, after, line) in [("", "", 1), ("a\nb\nKEY=\"", "\"\n", 3), ("{\"key\":\"", "\"}", 1)] {
                let text = format!("{before}{first}{rest}{after}");
                assert_eq!(scan(text.as_bytes(), b""), [Finding { line, reason }], "{text}");
            }
        }
    }

    #[test]
    fn every_format_is_within_the_hint() {
        let hint = Regex::new(HINT).unwrap();
        for [_, first, rest] in SAMPLES {
            assert!(hint.is_match(format!("{first}{rest}").as_bytes()), "{first}");
        }
    }

    #[test]
    fn says_nothing_of_what_the_file_held_before() {
        for [reason, first, rest] in SAMPLES {
            let old = format!("{first}{rest}\n");
            assert_eq!(scan(format!("more\n{old}").as_bytes(), old.as_bytes()), []);
            assert_eq!(scan(old.as_bytes(), b"another"), [Finding { line: 1, reason }]);
        }
    }

    #[test]
    fn leaves_examples_and_talk_about_keys_alone() {
        for text in [
            "AKIAIOSFODNN7EXAMPLE".to_owned(),
            "a token begins with ghp_ and has 36 characters".to_owned(),
            format!("ghp_{}", "x".repeat(36)),
            format!("npm_{}", "0".repeat(36)),
            format!("glpat-{}", "x".repeat(20)),
            format!("sk-ant-api03-{}", "x".repeat(90)),
            "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAx0v1Tm0nZ9hYcQ2aWm3pR8sL"
                .to_owned(),
            "-----BEGIN PRIVATE KEY-----".to_owned(),
            "describe('task-proj-manager-with-a-long-name-and-more-of-it')".to_owned(),
        ] {
            assert_eq!(scan(text.as_bytes(), b""), [], "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_scanned_within_bounds(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(scan(&bytes, b"").len() <= FINDINGS);
        }

        #[test]
        fn a_token_with_another_checksum_is_none(random in "[0-9A-Za-z]{30}", sum in "[0-9A-Za-z]{6}") {
            let token = format!("ghp_{random}{sum}");
            prop_assert_eq!(scan(token.as_bytes(), b"").is_empty(), !checksum(token.as_bytes()));
        }
    }
}
