//! The requests of a session that observed, as the narrowest rules that a person would want to read.

use std::collections::{BTreeMap, BTreeSet};

use crate::audit::AuditLog;
use crate::audit::event::AuditEvent;
use crate::commands::{Context, Failure};
use crate::network::policy::OBSERVED;
use crate::network::request::RequestRule;

/// Hosts of which requests are kept, and requests of one host. More make its rules wider.
const HOSTS: usize = 512;
const REQUESTS: usize = 512;
/// Paths of one method that are written out; more are drawn together.
const PATHS: usize = 6;

/// Methods and paths by host and port.
#[derive(Debug, Default)]
pub(super) struct Observed(BTreeMap<(String, u16), BTreeSet<(String, String)>>);

/// The requests of a session, from the audit log.
pub(super) fn of(context: &Context, session: &str) -> Result<Observed, Failure> {
    let mut observed = Observed::default();
    AuditLog::open(&context.folders.state)?.records(|record| observed.add(&record.event, session))?;
    Ok(observed)
}

impl Observed {
    fn add(&mut self, event: &AuditEvent, session: &str) {
        let fact = |name: &str| event.facts.get(name).map(String::as_str).unwrap_or_default();
        let rule = fact("rule");
        if event.session.as_deref() != Some(session) || !rule.starts_with(OBSERVED) {
            return;
        }
        let Ok(port) = fact("port").parse() else { return };
        let key = (fact("host").to_owned(), port);
        if self.0.len() >= HOSTS && !self.0.contains_key(&key) {
            return;
        }
        // A connection shows a host also when no request could be read, of a program that does not trust the authority.
        let requests = self.0.entry(key).or_default();
        if event.action == "request.allowed" && requests.len() < REQUESTS {
            let method = match fact("method") {
                _ if rule.contains("WEBSOCKET") => "WEBSOCKET",
                // Whoever may GET may HEAD.
                "HEAD" => "GET",
                method => method,
            };
            requests.insert((method.to_owned(), fact("path").to_owned()));
        }
    }

    /// The rules for a host, none when it was not observed, and no rule when none of its requests could be read.
    pub(super) fn rules(&self, host: &str, port: u16) -> Option<Vec<RequestRule>> {
        let requests = self.0.get(&(host.to_owned(), port))?;
        let mut methods: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for (method, path) in requests {
            methods.entry(method).or_default().insert(plain(path));
        }
        let rules = methods.into_iter().flat_map(|(method, paths)| {
            drawn_together(paths).into_iter().filter_map(move |path| format!("{method} {path}").parse().ok())
        });
        Some(rules.collect())
    }
}

/// A path without a sign that would be a pattern in a rule: the folder then stands for it.
fn plain(path: &str) -> String {
    if path.contains('*') || !path.starts_with('/') {
        format!("{}/**", folder(path.split('*').next().unwrap_or("/"), 1))
    } else {
        path.to_owned()
    }
}

/// The path without its last segments, without a slash at its end.
fn folder(path: &str, segments: usize) -> &str {
    let mut path = path;
    for _ in 0..segments {
        path = path.rfind('/').map_or("", |slash| &path[..slash]);
    }
    path
}

/// Few paths as they are; many as their folders, and these as theirs, until they are few.
fn drawn_together(paths: BTreeSet<String>) -> BTreeSet<String> {
    let mut paths = paths;
    while paths.len() > PATHS {
        let deepest = paths.iter().map(|path| depth(path)).max().unwrap_or_default();
        if deepest == 0 {
            break;
        }
        let up = |path: String| match depth(&path) {
            depth if depth < deepest => path,
            _ => format!("{}/**", folder(path.strip_suffix("/**").unwrap_or(&path), 1)),
        };
        let wider: BTreeSet<String> = paths.into_iter().map(up).collect();
        // What a wider one covers by now.
        let covered = |path: &String| {
            let above =
                |wide: &String| wide != path && wide.strip_suffix("**").is_some_and(|start| path.starts_with(start));
            wider.iter().any(above)
        };
        paths = wider.iter().filter(|path| !covered(path)).cloned().collect();
    }
    paths
}

/// Segments of a path, those that are written out.
fn depth(path: &str) -> usize {
    path.strip_suffix("/**").unwrap_or(path).matches('/').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(requests: &[(&str, &str)]) -> Vec<String> {
        let requests = requests.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
        let observed = Observed(BTreeMap::from([(("a.example".to_owned(), 443), requests)]));
        observed.rules("a.example", 443).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn few_paths_are_written_out_and_many_become_their_folder() {
        assert_eq!(rules(&[("GET", "/a"), ("POST", "/a"), ("WEBSOCKET", "/l")]), ["GET /a", "POST /a", "WEBSOCKET /l"]);
        let many: Vec<String> = (0..20).map(|number| format!("/v1/items/{number}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|path| ("GET", path.as_str())).chain([("GET", "/top")]).collect();
        assert_eq!(rules(&many), ["GET /top", "GET /v1/items/**"]);
        let packages: Vec<String> = (0..20).map(|number| format!("/p{number}/-/p{number}.tgz")).collect();
        let packages: Vec<(&str, &str)> = packages.iter().map(|path| ("GET", path.as_str())).collect();
        assert_eq!(rules(&packages), ["GET /**"]);
        assert_eq!(rules(&[("GET", "/a/x*y/z")]), ["GET /a/**"]);
        assert!(rules(&[]).is_empty());
    }

    #[test]
    fn only_what_was_observed_in_its_session_counts() {
        let event = |action: &str, session: &str, facts: &[(&str, &str)]| AuditEvent {
            time: "2026-01-02T03:04:05Z".parse().unwrap(),
            action: action.to_owned(),
            actor: "ada".to_owned(),
            project: "demo".to_owned(),
            sandbox: None,
            session: Some(session.to_owned()),
            outcome: "ok".to_owned(),
            facts: facts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        let mut observed = Observed::default();
        let request = |rule: &'static str, path: &'static str| {
            [("host", "a.example"), ("port", "443"), ("method", "HEAD"), ("path", path), ("rule", rule)]
        };
        observed.add(&event("request.allowed", "one", &request("observed * /**", "/x")), "one");
        observed.add(&event("request.allowed", "two", &request("observed * /**", "/other")), "one");
        observed.add(&event("request.allowed", "one", &request("sandbox.yaml:7 GET /**", "/listed")), "one");
        observed.add(
            &event("network.allowed", "one", &[("host", "b.example"), ("port", "443"), ("rule", OBSERVED)]),
            "one",
        );
        let shown = observed.rules("a.example", 443).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown, ["GET /x"]);
        assert_eq!(observed.rules("b.example", 443).map(|rules| rules.len()), Some(0));
        assert!(observed.rules("c.example", 443).is_none());
    }
}
