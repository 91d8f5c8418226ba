//! An entry of `network.allow` as text, and the check of entries that a person adds while a sandbox runs: they are
//! judged by the very reader of `sandbox.yaml` and by the user's configuration, in the lines that the user is shown.

use std::path::Path;

use super::configuration::{self, Configuration};
use super::manifest::{self, ManifestError};
use crate::network::name::HostPattern;
use crate::network::policy::AllowRule;

/// The entry as it stands in a manifest, without the `- ` before it.
pub fn text(rule: &AllowRule) -> String {
    let host = match &rule.host {
        HostPattern::Exact(name) => name.to_string(),
        // An asterisk begins an alias in YAML, and a bracket a list.
        pattern => quoted(&pattern.to_string()),
    };
    if rule.port == 443 && rule.allow_private.is_empty() && rule.rules.is_empty() {
        return host;
    }
    let mut fields = vec![format!("host: {host}")];
    if rule.port != 443 {
        fields.push(format!("port: {}", rule.port));
    }
    if !rule.allow_private.is_empty() {
        let networks: Vec<String> = rule.allow_private.iter().map(|network| quoted(&network.to_string())).collect();
        fields.push(format!("allow_private: [{}]", networks.join(", ")));
    }
    if !rule.rules.is_empty() {
        let rules: Vec<String> = rule.rules.iter().map(|rule| quoted(&rule.to_string())).collect();
        fields.push(format!("rules: [{}]", rules.join(", ")));
    }
    format!("{{ {} }}", fields.join(", "))
}

/// A JSON string, which YAML reads as the same text (YAML 1.2.2, chapter 7.3.1).
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Checks the whole of an allow list as if `sandbox.yaml` had it.
///
/// # Errors
/// When no manifest could have it, or the user's configuration does not permit it.
pub fn check(rules: &[AllowRule], configuration: &Configuration) -> Result<(), ManifestError> {
    let mut whole = "version: 1\nproject: check\nnetwork:\n  allow:\n".to_owned();
    for rule in rules {
        whole.push_str(&format!("    - {}\n", text(rule)));
    }
    if rules.is_empty() {
        return Ok(());
    }
    let read = manifest::parse(&whole, Path::new("the list with the change"))?;
    configuration::restrict(read, configuration).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(host: &str, port: u16, private: &[&str], rules: &[&str]) -> AllowRule {
        AllowRule {
            allow_private: private.iter().map(|network| network.parse().unwrap()).collect(),
            rules: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
            ..AllowRule::new(host.parse().unwrap(), port)
        }
    }

    #[test]
    fn what_is_printed_is_read_back_as_the_same_entry() {
        let entries = [
            entry("a.example", 443, &[], &[]),
            entry("*.b.example", 443, &[], &[]),
            entry("c.example", 8443, &["10.1.0.0/16", "fd12::/32"], &["GET /a/**", "POST /b"]),
            entry("1.1.1.1", 53, &[], &[]),
            entry("[2606:4700::1111]", 443, &[], &[]),
        ];
        check(&entries, &Configuration::default()).unwrap();
        for entry in entries {
            let manifest = format!("version: 1\nproject: check\nnetwork:\n  allow:\n    - {}\n", text(&entry));
            let read = manifest::parse(&manifest, Path::new("sandbox.yaml")).unwrap().network.allow;
            let without_place: Vec<_> = read.into_iter().map(|rule| AllowRule { origin: None, ..rule }).collect();
            assert_eq!(without_place, [entry]);
        }
    }

    #[test]
    fn refuses_what_no_manifest_could_have_and_what_the_user_does_not_permit() {
        let refused = |entries: &[AllowRule], configuration: &Configuration| {
            check(entries, configuration).unwrap_err().problems()[0].message.clone()
        };
        let usual = Configuration::default();
        assert!(refused(&[entry("127.0.0.1", 80, &[], &[])], &usual).contains("special"));
        assert!(refused(&[entry("a.example", 80, &["127.0.0.0/8"], &[])], &usual).contains("loopback"));
        let overlapping = [entry("*.a.example", 443, &[], &["GET /a"]), entry("x.a.example", 443, &[], &[])];
        assert!(refused(&overlapping, &usual).contains("also covered"));
        let narrow = Configuration { allow_private: Vec::new(), ..Configuration::default() };
        assert!(refused(&[entry("a.example", 80, &["10.1.0.0/16"], &[])], &narrow).contains("does not permit"));
    }
}
