use jiff::Timestamp;

use super::*;
use crate::audit::report::{CommandRun, Denied, HostUse, Notice, Outside, Withdrawn};

fn moment(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A session in which everything happened once, with text of an agent's that means harm.
pub(in crate::commands) fn eventful() -> SessionReport {
    let hostile = "evil\u{1b}[2J<script>\u{202e}.example";
    SessionReport {
        processor_ms: Some(61_250),
        memory_peak: Some(3 << 29),
        project: "demo".to_owned(),
        sandbox: "main".to_owned(),
        session: "0123456789abcdef".to_owned(),
        actor: "ada".to_owned(),
        launched: Some(moment(0)),
        started: Some(moment(2)),
        ended: Some(moment(100)),
        reason: Some("sandbox down".to_owned()),
        image: "sha256:bb".to_owned(),
        plan: "sha256:cc".to_owned(),
        base: "b0".to_owned(),
        branch: "main".to_owned(),
        probes: 17,
        approval: None,
        credentials: vec![CredentialUse {
            name: "github".to_owned(),
            provider: "github-app".to_owned(),
            issued: moment(1),
            expires: "2027-01-15T09:00:00Z".to_owned(),
            fingerprint: "=f2".to_owned(),
            renewals: 0,
            rotations: 2,
            rotated: Some(moment(50)),
            used: Some(moment(60)),
            reads: Some(1),
            injected: 4,
            withdrawn: Some(Withdrawn { time: moment(99), result: "revoked".to_owned() }),
            problems: vec!["2027: could not be replaced: no answer".to_owned()],
        }],
        commands: vec![CommandRun::new(moment(3), "ada", &format!("bash -lc '{hostile}'"), Some((moment(90), 1)))],
        outside: vec![Outside { path: "/workspace/.git/hooks/<b>post-merge".to_owned(), change: "added".to_owned() }],
        hosts: vec![HostUse {
            host: "api.example".to_owned(),
            port: "443".to_owned(),
            connections: 1,
            requests: 2,
            sent: 2048,
            received: 10,
        }],
        denied: vec![Denied {
            host: hostile.to_owned(),
            port: "443".to_owned(),
            reason: "unlisted".to_owned(),
            count: 9,
            last: moment(70),
        }],
        exchanges: vec![Exchange {
            time: moment(98),
            actor: "ada".to_owned(),
            landed: true,
            facts: [
                ("commits", "1"),
                ("files", "3"),
                ("reference", "refs/sandbox/demo/main"),
                ("look_first", "Makefile | <b>x"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        }],
        notices: vec![Notice {
            time: moment(30),
            actor: "ada".to_owned(),
            action: "policy.allowed".to_owned(),
            facts: [("host".to_owned(), "docs.example".to_owned())].into(),
        }],
    }
}

#[test]
fn a_session_is_told_in_words() {
    let text = describe(&eventful());
    assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
    insta::assert_snapshot!(text);
}
