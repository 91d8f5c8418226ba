//! `network.allow` with presets.

use std::path::Path;

use super::{Manifest, parse};

fn read(list: &str) -> Result<Manifest, super::ManifestError> {
    let text = format!("version: 1\nproject: demo\nnetwork:\n  allow:\n{list}");
    parse(&text, Path::new("/nowhere/sandbox.yaml"))
}

#[test]
fn a_preset_is_written_out_and_an_entry_beside_it_extends_it() {
    let manifest = read(
        "    - { preset: github, with: { repositories: acme/api } }\n    - { host: api.github.com, rules: [\"POST /graphql\", \"GET /repos/acme/api/**\"] }\n    - { preset: github, with: { read: [acme/protocols, acme/tools] } }\n",
    )
    .unwrap();
    let allow = &manifest.network.allow;
    assert_eq!(allow.iter().map(|rule| rule.host.to_string()).filter(|host| host == "api.github.com").count(), 1);
    let api = allow.iter().find(|rule| rule.host.to_string() == "api.github.com").unwrap();
    let rules: Vec<String> = api.rules.iter().map(ToString::to_string).collect();
    assert!(rules.contains(&"POST /graphql".to_owned()) && rules.contains(&"GET /repos/acme/tools/**".to_owned()));
    assert_eq!(rules.iter().filter(|rule| *rule == "GET /repos/acme/api/**").count(), 1, "{rules:?}");
    assert_eq!(api.origin.as_deref(), Some("sandbox.yaml:5"));
    assert!(allow.iter().all(|rule| !rule.rules.is_empty()));
    assert!(manifest.preset_files.is_empty());
}

#[test]
fn a_hosts_credential_is_brokered_through_a_presets_rules() {
    let text = "version: 1\nproject: demo\nnetwork: { allow: [{ preset: anthropic }] }\ncredentials:\n  anthropic: { provider: store, deliver: { broker: api.anthropic.com, header: x-api-key, environment: ANTHROPIC_API_KEY } }\n";
    let manifest = parse(text, Path::new("/nowhere/sandbox.yaml")).unwrap();
    let [entry] = manifest.network.allow.as_slice() else { panic!("{:?}", manifest.network.allow) };
    assert_eq!(entry.broker.as_deref(), Some("anthropic"));
    assert!(entry.rules.iter().any(|rule| rule.to_string() == "POST /v1/messages"));
}

#[test]
fn tells_what_is_wrong_with_a_preset() {
    let lists = [
        "    - { preset: githbu }\n",
        "    - { preset: github }\n",
        "    - { preset: npm }\n",
        "    - { preset: github, with: { repositories: [acme], reads: [a/b] } }\n",
        "    - { preset: github, with: { repositories: [] } }\n",
        "    - { preset: anthropic, with: { model: opus } }\n",
        "    - { preset: npm, with: { hosts: [\"*.example.com\", 10.0.0.1] } }\n",
        "    - { preset: anthropic, host: api.anthropic.com }\n",
        "    - api.anthropic.com\n    - { preset: anthropic }\n",
    ];
    let said = lists.map(|list| {
        let error = read(list).unwrap_err();
        let lines = error
            .problems()
            .iter()
            .map(|problem| format!("{}: {} -> {}", problem.line, problem.message, problem.remedy));
        format!("{list}{}\n", lines.collect::<Vec<_>>().join("\n"))
    });
    insta::assert_snapshot!(said.join("\n"));
}
