use super::*;

struct Log {
    reporter: Reporter,
    second: i64,
}

impl Log {
    fn new(scope: Scope) -> Self {
        Self { reporter: Reporter::new(scope), second: 0 }
    }

    fn event(&mut self, session: &str, action: &str, outcome: &str, facts: &[(&str, &str)]) {
        self.second += 1;
        let event = AuditEvent {
            time: Timestamp::from_second(1_800_000_000 + self.second).unwrap(),
            action: action.to_owned(),
            actor: "ada".to_owned(),
            project: "demo".to_owned(),
            sandbox: Some("main".to_owned()),
            session: (!session.is_empty()).then(|| session.to_owned()),
            outcome: outcome.to_owned(),
            facts: facts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        self.reporter.add(&event, |session| format!("{session}.invalid"));
    }

    fn ok(&mut self, session: &str, action: &str, facts: &[(&str, &str)]) {
        self.event(session, action, "ok", facts);
    }
}

#[test]
fn a_session_is_put_together_from_its_events() {
    let mut log = Log::new(Scope::default());
    log.ok("", "manifest.approved", &[("digest", "sha256:aa")]);
    log.ok("s1", "session.launching", &[("image", "sha256:bb"), ("plan", "sha256:cc")]);
    log.ok("s1", "session.probed", &[("checks", "17")]);
    log.ok(
        "s1",
        "credential.issued",
        &[("credential", "github"), ("provider", "github-app"), ("fingerprint", "f1"), ("expires_at", "soon")],
    );
    log.ok("s1", "session.started", &[("base", "b0"), ("branch", "main")]);
    log.event("s1", "network.denied", "denied", &[("host", "s1.invalid"), ("port", "443"), ("reason", "unlisted")]);
    log.ok("s1", "network.allowed", &[("host", "api.example"), ("port", "443"), ("connection", "1")]);
    log.ok("s1", "request.allowed", &[("host", "api.example"), ("port", "443"), ("credential", "github")]);
    log.ok("s1", "network.closed", &[("connection", "1"), ("sent", "5"), ("received", "7")]);
    log.ok("s1", "credential.read", &[("file", "github"), ("count", "2")]);
    log.ok("s1", "credential.read", &[("file", "token.txt"), ("credential", "github"), ("count", "1")]);
    log.event("s1", "credential.rotation_failed", "failed", &[("credential", "github"), ("reason", "no answer")]);
    log.ok("s1", "credential.rotated", &[("credential", "github"), ("fingerprint", "f2"), ("previous", "f1")]);
    log.ok("s1", "credential.revoked", &[("credential", "github"), ("fingerprint", "f1"), ("result", "revoked")]);
    log.event(
        "s1",
        "network.denied",
        "denied",
        &[("host", "evil.example"), ("port", "22"), ("reason", "unlisted"), ("count", "9")],
    );
    log.ok("s1", "commits.pulled", &[("commits", "2"), ("reference", "refs/sandbox/demo/main")]);
    log.ok("s1", "policy.allowed", &[("host", "docs.example")]);
    log.ok("s1", "credential.revoked", &[("credential", "github"), ("fingerprint", "f2"), ("result", "revoked")]);
    log.ok("s1", "session.stopped", &[("reason", "sandbox down")]);
    log.ok("s2", "session.launching", &[("image", "sha256:bb")]);
    let reports = log.reporter.finish();
    let [first, second] = reports.as_slice() else { panic!("{reports:?}") };
    assert_eq!((first.probes, first.reason.as_deref(), first.base.as_str()), (17, Some("sandbox down"), "b0"));
    assert_eq!(first.approval.as_ref().unwrap().digest, "sha256:aa");
    let [used] = first.credentials.as_slice() else { panic!("{:?}", first.credentials) };
    assert_eq!((used.rotations, used.reads, used.injected, used.fingerprint.as_str()), (1, Some(3), 1, "f2"));
    assert!(used.problems[0].contains("no answer"));
    let withdrawn = used.withdrawn.as_ref().unwrap();
    assert_eq!((withdrawn.result.as_str(), Some(withdrawn.time) < first.ended), ("revoked", true));
    assert_eq!(first.hosts.len(), 1);
    let host = &first.hosts[0];
    assert_eq!((host.connections, host.requests, host.sent, host.received), (1, 1, 5, 7));
    assert_eq!(
        first.denied.iter().map(|denied| (denied.host.as_str(), denied.count)).collect::<Vec<_>>(),
        [("evil.example", 9)]
    );
    assert!(first.exchanges[0].landed);
    assert_eq!(first.notices.iter().map(|notice| notice.action.as_str()).collect::<Vec<_>>(), ["policy.allowed"]);
    assert!(second.started.is_none() && second.ended.is_none() && second.credentials.is_empty());
}

#[test]
fn a_credential_that_could_not_be_revoked_is_not_called_withdrawn() {
    let mut log = Log::new(Scope::default());
    log.ok("s1", "session.launching", &[]);
    log.ok("s1", "credential.issued", &[("credential", "db"), ("fingerprint", "f1")]);
    log.event(
        "s1",
        "credential.revoked",
        "failed",
        &[("credential", "db"), ("fingerprint", "f1"), ("reason", "sealed")],
    );
    let used = log.reporter.finish().remove(0).credentials.remove(0);
    assert_eq!(used.state(), "not withdrawn");
    assert!(used.problems[0].contains("sealed"));
}

#[test]
fn the_scope_is_by_project_sandbox_and_launch() {
    let count = |scope: Scope| {
        let mut log = Log::new(scope);
        log.ok("s1", "session.launching", &[]);
        log.ok("s2", "session.launching", &[]);
        log.reporter.finish().len()
    };
    let time = |second: i64| Some(Timestamp::from_second(1_800_000_000 + second).unwrap());
    assert_eq!(count(Scope { project: Some("demo".to_owned()), ..Scope::default() }), 2);
    assert_eq!(count(Scope { project: Some("other".to_owned()), ..Scope::default() }), 0);
    assert_eq!(count(Scope { sandbox: Some("second".to_owned()), ..Scope::default() }), 0);
    assert_eq!(count(Scope { since: time(2), ..Scope::default() }), 1);
    assert_eq!(count(Scope { until: time(2), ..Scope::default() }), 1);
}

#[test]
fn an_agent_that_asks_for_any_number_of_hosts_takes_bounded_memory() {
    let mut log = Log::new(Scope::default());
    log.ok("s1", "session.launching", &[]);
    for number in 0..5_000 {
        let (host, connection) = (format!("n{number}.example"), number.to_string());
        log.event("s1", "network.denied", "denied", &[("host", &host), ("port", "443"), ("reason", "unlisted")]);
        log.ok("s1", "network.allowed", &[("host", &host), ("port", "443"), ("connection", &connection)]);
        log.ok("s1", "disk.note", &[]);
    }
    let report = log.reporter.finish().remove(0);
    assert_eq!(
        (report.hosts.len(), report.denied.len(), report.notices.len()),
        (HOST_LIMIT + 1, HOST_LIMIT + 1, ENTRY_LIMIT)
    );
    assert_eq!(report.hosts.iter().map(|used| used.connections).sum::<u64>(), 5_000);
    assert_eq!(report.denied.iter().map(|denied| denied.count).sum::<u64>(), 5_000);
}
