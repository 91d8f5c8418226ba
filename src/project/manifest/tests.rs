use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

fn read(body: &str) -> Result<Manifest, ManifestError> {
    parse(&format!("version: 1\nproject: demo\n{body}"), Path::new("/nowhere/sandbox.yaml"))
}

/// Every problem as `line:column message -> remedy`.
fn refusal(body: &str) -> String {
    let mut text = String::new();
    for problem in read(body).unwrap_err().problems() {
        writeln!(text, "{}:{} {} -> {}", problem.line, problem.column, problem.message, problem.remedy).unwrap();
    }
    text
}

#[test]
fn reads_a_manifest_that_uses_every_key() {
    let manifest = read(
        r#"agent: claude-code
image: ghcr.io/acme/agent@sha256:0000000000000000000000000000000000000000000000000000000000000000
profile: strict
workspace: { source: ".", branch: main, depth: 5, include_uncommitted: true }
network:
  allow:
    - api.anthropic.com
    - { host: db.internal, port: 5432, allow_private: 10.20.0.0/16 }
environment: { RUST_LOG: debug }
credentials:
  anthropic: { provider: store, max_age: 30d, deliver: { environment: ANTHROPIC_API_KEY } }
  github: { provider: exec, command: [op, read, "op://a/b"], deliver: { git: github.com } }
  plain: { provider: env-file, path: .env.agent, variable: API_KEY }
resources: { cpus: 1.5, memory: 4GiB, pids: 512, disk: 20GiB, session: 12h }
"#,
    )
    .unwrap();
    assert_eq!(manifest.command, ["claude"]);
    assert_eq!(manifest.network.allow[0].port, 443);
    assert_eq!(manifest.network.allow[1].origin.as_deref(), Some("sandbox.yaml:10"));
    assert_eq!(manifest.resources.memory, Some(4 << 30));
    assert_eq!(manifest.workspace.depth, Some(5));
    assert_eq!(manifest.credentials.len(), 3);
}

#[test]
fn a_manifest_of_two_lines_gets_a_shell_and_no_network() {
    let manifest = read("").unwrap();
    assert_eq!(manifest.command, ["/bin/bash", "-l"]);
    assert!(manifest.network.allow.is_empty());
}

#[test]
fn refuses_a_manifest_that_names_a_host_path() {
    for key in ["mounts", "volumes", "privileged", "cap_add", "devices", "network_mode", "pid"] {
        assert!(refusal(&format!("{key}: x\n")).contains("not something that a manifest can ask for"), "{key}");
    }
    for path in ["..", "/etc", "a/../../b", "~/x"] {
        assert!(read(&format!("workspace: {{ source: \"{path}\" }}\n")).is_err(), "{path}");
    }
}

#[test]
fn refuses_anchors_aliases_and_merge_keys() {
    assert!(
        refusal("environment: &a { X: b }\n").contains("anchors and aliases"),
        "{}",
        refusal("environment: &a { X: b }\n")
    );
    assert!(read("environment: &a { X: b }\nresources: *a\n").is_err());
    assert!(read("environment: { <<: { X: y } }\n").is_err());
}

#[test]
fn refuses_a_duplicate_key() {
    assert!(refusal("profile: strict\nprofile: debug\n").contains("keep one of the two"));
}

#[test]
fn stops_at_nesting_and_size_that_no_honest_file_has() {
    assert!(read(&format!("environment: {}", "[".repeat(100_000))).is_err());
    assert!(read(&"#".repeat(300_000)).is_err());
}

#[test]
fn tells_what_is_wrong_with_rules_for_requests() {
    insta::assert_snapshot!(refusal(
        r#"network:
  allow:
    - { host: a.example.com, rules: [] }
    - { host: b.example.com, rules: "GET /" }
    - { host: c.example.com, rules: ["/x", "get /x", "GET x", "GET /a/../b", "GET /a**", "GET /x?y", "TRACE /"] }
    - { host: 10.0.0.1, allow_private: 10.0.0.0/24, rules: ["GET /"] }
    - { host: d.example.com, rules: ["GET /x"] }
    - d.example.com
    - "*.example.com"
"#
    ));
}

#[test]
fn tells_every_fault_at_once() {
    insta::assert_snapshot!(refusal("netwrk: {}\nimage: ubuntu:24.04\nresources: { memory: 4GB, cpus: two }\n"));
}

#[test]
fn tells_what_is_wrong_with_the_network() {
    insta::assert_snapshot!(refusal(
        r#"network:
  allow:
    - "*"
    - "*.com"
    - 10.0.0.1
    - "127.1"
    - https://example.com/x
    - example.com:8443
    - { host: example.com, port: 70000 }
    - { host: example.com, allow_private: 10.0.0.1/8 }
    - { port: 22 }
"#
    ));
}

#[test]
fn refuses_to_open_loopback_metadata_or_everything() {
    for range in ["127.0.0.0/8", "169.254.169.254", "0.0.0.0/0", "::/0", "::1", "fe80::/10", "fd00:ec2::254", "8.8.8.8"]
    {
        let text = format!("network: {{ allow: [{{ host: example.com, allow_private: \"{range}\" }}] }}\n");
        assert!(refusal(&text).contains("loopback, link-local"), "{range}");
    }
    for range in ["172.17.0.1", "10.0.0.0/8", "fd12:3456::/32"] {
        assert!(
            read(&format!("network: {{ allow: [{{ host: example.com, allow_private: \"{range}\" }}] }}\n")).is_ok()
        );
    }
}

#[test]
fn a_private_address_stands_for_a_host_only_beside_an_allow_private_that_holds_it() {
    let entry = |host: &str, private: &str| {
        read(&format!("network: {{ allow: [{{ host: \"{host}\", port: 80, allow_private: \"{private}\" }}] }}\n"))
    };
    let manifest = entry("172.17.0.1", "172.17.0.1").unwrap();
    assert_eq!(manifest.network.allow[0].host.to_string(), "172.17.0.1");
    assert!(entry("[fd12:3456::1]", "fd12:3456::/32").is_ok());
    for (host, private) in [
        ("172.17.0.1", "10.0.0.0/8"),
        ("169.254.169.254", "10.0.0.0/8"),
        ("127.0.0.1", "10.0.0.0/8"),
        ("010.0.0.1", "10.0.0.0/8"),
        ("10.1", "10.0.0.0/8"),
        ("0x0a000001", "10.0.0.0/8"),
        ("167772161", "10.0.0.0/8"),
        ("fd12:3456::1", "fd12:3456::/32"),
        ("[fd12:3456:0::1]", "fd12:3456::/32"),
        ("[::ffff:10.0.0.1]", "10.0.0.0/8"),
    ] {
        let error = entry(host, private).unwrap_err();
        let message = &error.problems()[0].message;
        assert!(message.contains("address"), "{host}: {message}");
    }
    for host in ["10.0.0.1", "[fd12:3456::1]", "[::1]", "169.254.169.254", "0.0.0.0"] {
        assert!(refusal(&format!("network: {{ allow: [\"{host}\"] }}\n")).contains("special address"), "{host}");
    }
    assert!(read("network: { allow: [8.8.8.8] }\n").is_ok());
}

#[test]
fn tells_what_is_wrong_with_a_credential() {
    insta::assert_snapshot!(refusal(
        r#"credentials:
  Bad/Name: { provider: store }
  a: { provider: vault, mount: kv }
  b: { provider: openai-project, project_id: 1 }
  c: { provider: store, deliver: { broker: api.example.com } }
  c1: { provider: store, deliver: { header: x-api-key } }
  c2: { provider: store, deliver: { broker: listed.example.com, header: Host } }
  c3: { provider: store, deliver: { broker: listed.example.com, header: x-api-key, query: key } }
  c4: { provider: store, deliver: { broker: "*.example.com" } }
  c5: { provider: store, deliver: { broker: listed.example.com, file: key } }
  c6: { provider: store, deliver: { broker: listed.example.com } }
  c7: { provider: store, deliver: { broker: listed.example.com, basic: me } }
  c8: { provider: store, deliver: { broker: below.example.com, bearer: false } }
  c9: { provider: store, deliver: { broker: below.example.com } }
  d: { provider: store, deliver: { file: ../x } }
  e: { provider: store, deliver: { environment: LD_PRELOAD } }
  f: { provider: exec, command: "op read" }
  g: { provider: env-file, path: ../.env }
  h: { provider: store, max_age: 30 }
  i: { provider: nothing }
  j: { provider: store, command: [x] }
network: { allow: [listed.example.com, "*.example.com", below.example.com] }
"#
    ));
}

#[test]
fn tells_what_is_wrong_with_a_credential_of_vault() {
    insta::assert_snapshot!(refusal(
        r#"credentials:
  a: { provider: vault, path: secret/x }
  b: { provider: vault, field: key }
  c: { provider: vault, path: ../sys/seal, field: key }
  d: { provider: vault, path: secret/x, field: key, fields: [a] }
  e: { provider: vault, path: secret/x, field: key, address: "http://vault.example.com" }
  f: { provider: vault, path: secret/x, field: key, ttl: 32d }
  g: { provider: vault, path: secret/x, field: key, auth: { method: ldap } }
  h: { provider: vault, path: secret/x, field: key, auth: { method: token, role: x } }
  i: { provider: vault, path: secret/x, field: key, auth: { method: approle, role_id: x, secret_file: /etc/id } }
  j: { provider: vault, path: secret/x, field: key, auth: { method: approle, role_id: x, secret_file: id, wrapped: true } }
  k: { provider: vault, path: secret/x, field: key, auth: { method: jwt, role: x } }
  l: { provider: vault, path: secret/x, field: key, policies: [] }
  m: { provider: store, namespace: x }
  n: { provider: vault, path: secret/x, field: key, auth: { method: cert, role: x } }
  o: { provider: vault, path: secret/x, field: key, max_ttl: 1m, on_expiry: never }
  p: { provider: store, max_ttl: 1h }
"#
    ));
}

#[test]
fn tells_what_is_wrong_with_a_credential_of_a_github_app() {
    let rest = "permissions: { contents: write }, key_file: ~/key.pem";
    let whole = format!("app: Iv1, installation: 7, {rest}");
    insta::assert_snapshot!(refusal(&format!(
        r#"credentials:
  a: {{ provider: github-app, {whole} }}
  b: {{ provider: github-app, {whole}, repositories: [] }}
  c: {{ provider: github-app, {whole}, repositories: [acme/payments] }}
  d: {{ provider: github-app, {whole}, repositories: [a], repository_ids: [1] }}
  e: {{ provider: github-app, {whole}, repositories: [a, A] }}
  f: {{ provider: github-app, app: Iv1, installation: 7, repositories: [a], permissions: {{}}, key_file: ~/key.pem }}
  g: {{ provider: github-app, app: Iv1, installation: 7, repositories: [a], permissions: {{ contents: all }}, key_file: ~/k }}
  h: {{ provider: github-app, app: Iv1, installation: 7, repositories: [a], permissions: {{ contents: read }}, key_file: app.pem }}
  i: {{ provider: github-app, app: Iv1, installation: 7, repositories: [a], permissions: {{ contents: read }} }}
  j: {{ provider: github-app, installation: "7", repositories: [a], {rest} }}
  k: {{ provider: github-app, {whole}, repositories: [a], address: "http://github.example.com/api/v3" }}
  l: {{ provider: github-app, {whole}, repositories: [a], ttl: 1h }}
  m: {{ provider: store, installation: 7 }}
"#
    )));
}

#[test]
fn tells_what_is_wrong_with_a_credential_of_aws() {
    let whole = "role: arn:aws:iam::123456789012:role/agents, region: eu-central-1";
    insta::assert_snapshot!(refusal(&format!(
        r#"credentials:
  a: {{ provider: aws-sts }}
  b: {{ provider: aws-sts, role: arn:aws:iam::123456789012:user/ada, region: eu-central-1 }}
  c: {{ provider: aws-sts, role: arn:aws:iam::123456789012:role/agents, region: example.com/ }}
  d: {{ provider: aws-sts, {whole}, ttl: 5m }}
  e: {{ provider: aws-sts, {whole}, ttl: 13h }}
  f: {{ provider: aws-sts, {whole}, policy: "not json" }}
  g: {{ provider: aws-sts, {whole}, policy_arns: [ReadOnlyAccess] }}
  h: {{ provider: aws-sts, {whole}, tags: {{ "a;b": c }} }}
  i: {{ provider: aws-sts, {whole}, profile: work, key_command: [keys] }}
  j: {{ provider: aws-sts, {whole}, deliver: {{ environment: AWS }} }}
  k: {{ provider: aws-sts, {whole}, address: "http://sts.example.com" }}
  l: {{ provider: aws-sts, {whole}, repositories: [a] }}
"#
    )));
}

#[test]
fn reads_a_credential_of_aws() {
    let read = read(
        r#"credentials:
  one: { provider: aws-sts, role: arn:aws:iam::123456789012:role/agents, region: eu-central-1 }
  two:
    provider: aws-sts
    role: arn:aws-cn:iam::123456789012:role/teams/agents
    region: cn-north-1
    profile: work
    ttl: 1h
    policy: '{"Version": "2012-10-17", "Statement": []}'
    policy_arns: [arn:aws:iam::aws:policy/ReadOnlyAccess]
    tags: { project: payments }
    external_id: x-1
    source_identity: true
    deliver: { file: aws }
"#,
    )
    .unwrap();
    let specs: Vec<_> = read.credentials.values().map(|spec| serde_json::to_value(&spec.provider).unwrap()).collect();
    assert_eq!((&specs[0]["source"], &specs[0]["ttl"]["secs"]), (&"environment".into(), &900.into()));
    assert_eq!((&specs[1]["source"]["profile"], &specs[1]["ttl"]["secs"]), (&"work".into(), &3600.into()));
    assert_eq!((&specs[1]["tags"]["project"], &specs[1]["source_identity"]), (&"payments".into(), &true.into()));
    for (spec, json) in read.credentials.values().zip(specs) {
        let again: crate::credential::spec::ProviderSpec = serde_json::from_value(json).unwrap();
        assert_eq!(again, spec.provider);
    }
}

#[test]
fn a_word_for_permissions_is_one_of_those_that_are_known() {
    let of = |word: &str| {
        refusal(&format!(
            "credentials:\n  a: {{ provider: github-app, app: Iv1, installation: 7, repositories: [a], permissions: {word}, key_file: ~/k }}\n"
        ))
    };
    for word in ["everything", "Push", "5", "[read]"] {
        let said = of(word);
        assert!(said.contains("permissions"), "{word}: {said}");
    }
}

#[test]
fn reads_a_credential_of_a_github_app() {
    let read = read(
        r#"credentials:
  one: { provider: github-app, app: 12345, installation: 7, repository_ids: [2, 1], permissions: { issues: read }, key_command: [key] }
  two:
    provider: github-app
    address: https://github.example.com/api/v3
    app: Iv23liAbCdEf
    installation: 8
    repositories: [Payments, web]
    permissions: { contents: write, pull_requests: write }
    key_file: ~/.config/agents/app.pem
    deliver: { git: github.example.com }
  word: { provider: github-app, app: 12345, installation: 7, repositories: [web], permissions: pull-requests, key_command: [key] }
"#,
    )
    .unwrap();
    let specs: Vec<_> = read.credentials.values().map(|spec| serde_json::to_value(&spec.provider).unwrap()).collect();
    assert_eq!((&specs[0]["app"], &specs[0]["address"]), (&"12345".into(), &"https://api.github.com".into()));
    assert_eq!(specs[0]["repositories"]["ids"], serde_json::json!([1, 2]));
    assert_eq!(specs[1]["repositories"]["names"], serde_json::json!(["payments", "web"]));
    assert_eq!(specs[1]["permissions"]["contents"], "write");
    assert_eq!(specs[1]["key"]["file"], "~/.config/agents/app.pem");
    assert_eq!(specs[2]["permissions"], serde_json::json!({ "contents": "write", "pull_requests": "write" }));
    // The journal keeps the declaration, and revokes by it.
    for (spec, json) in read.credentials.values().zip(specs) {
        let again: crate::credential::spec::ProviderSpec = serde_json::from_value(json).unwrap();
        assert_eq!(again, spec.provider);
    }
}

#[test]
fn reads_a_credential_of_vault() {
    let read = read(
        r#"credentials:
  plain: { provider: vault, path: secret/payments/api, field: key }
  full:
    provider: vault
    address: https://vault.example.com:8200
    namespace: team-a/payments
    auth: { method: approle, mount: ci/approle, role_id: r-1, secret_command: [secret-id], wrapped: true }
    path: database/creds/payments
    fields: [username, password]
    ttl: 30m
    max_ttl: 12h
    policies: [payments-read]
    on_expiry: stop
  cert: { provider: vault, path: secret/x, field: key, auth: { method: cert, secret_file: agent.pem } }
"#,
    )
    .unwrap();
    let specs: Vec<_> = read.credentials.values().map(|spec| serde_json::to_value(&spec.provider).unwrap()).collect();
    let (cert, full, plain) = (&specs[0], &specs[1], &specs[2]);
    assert_eq!(cert["auth"]["cert"]["identity"]["file"], "agent.pem");
    assert_eq!((&full["max_ttl"]["secs"], &plain["max_ttl"]["secs"]), (&43_200.into(), &86_400.into()));
    let stops =
        |name: &str| read.credentials[&name.parse().unwrap()].on_expiry == crate::credential::spec::OnExpiry::Stop;
    assert!(stops("full") && !stops("plain"));
    assert_eq!(full["auth"]["approle"]["secret_id"]["command"][0], "secret-id");
    assert_eq!(full["auth"]["approle"]["wrapped"], true);
    assert_eq!(full["fields"]["several"], serde_json::json!(["username", "password"]));
    assert_eq!((&full["ttl"]["secs"], &full["policies"][0]), (&1800.into(), &"payments-read".into()));
    assert_eq!((&plain["auth"], &plain["ttl"]["secs"]), (&"token".into(), &3600.into()));
    // The journal keeps the declaration, and revokes by it.
    for (spec, json) in read.credentials.values().zip(&specs) {
        assert_eq!(
            serde_json::from_value::<crate::credential::spec::ProviderSpec>(json.clone()).unwrap(),
            spec.provider
        );
    }
}

#[test]
fn tells_what_is_wrong_with_the_environment() {
    insta::assert_snapshot!(refusal(
        "environment: { LD_PRELOAD: x, git_dir: x, https_proxy: x, \"1X\": x, PATH: /bin, PORT: 80 }\n"
    ));
}

#[test]
fn refuses_a_path_that_leaves_through_a_symbolic_link() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/", folder.path().join("out")).unwrap();
    let text = "version: 1\nproject: demo\nworkspace: { source: out/etc }\n";
    let error = parse(text, &folder.path().join("sandbox.yaml")).unwrap_err();
    assert!(error.problems()[0].message.contains("symbolic link"));
}

#[test]
fn tells_what_is_wrong_with_the_first_lines() {
    let refused = |text: &str| {
        let error = parse(text, Path::new("/nowhere/sandbox.yaml")).unwrap_err();
        let lines: Vec<String> = error
            .problems()
            .iter()
            .map(|problem| format!("{}:{} {} -> {}", problem.line, problem.column, problem.message, problem.remedy))
            .collect();
        format!("{text:?}\n{}\n", lines.join("\n"))
    };
    let texts = [
        "",
        "- a\n",
        "project: demo\n",
        "version: 1\n",
        "version: 2\nproject: demo\n",
        "version: \"1\"\nproject: demo\n",
        "version: 1\nproject: Demo_1\n",
        "version: 1\nproject: -demo\n",
        "version: 1\nproject: 12\n",
        "version: 1\nproject: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n",
        "version: 1\nproject: demo\n---\nversion: 1\n",
        "version: 1\nproject: demo\n\tprofile: strict\n",
        "version: 1\nproject: [demo\n",
    ];
    insta::assert_snapshot!(texts.map(refused).join("\n"));
}

#[test]
fn tells_what_is_wrong_with_agent_image_and_profile() {
    insta::assert_snapshot!(refusal(
        r#"agent: cursor
command: claude --dangerously-skip-permissions
image: ghcr.io/acme/agent@sha256:abc
profile: unconfined
"#
    ));
    insta::assert_snapshot!(refusal("command: []\nimage: Agent Image\nprofile: [strict]\n"));
    insta::assert_snapshot!(refusal("command: [1, \"a\\u0007\"]\nimage: ghcr.io/acme/agent:1.2\n"));
}

#[test]
fn tells_what_is_wrong_with_the_workspace() {
    insta::assert_snapshot!(refusal(
        "workspace: { source: /etc, branch: --upload-pack=x, depth: 0, include_uncommitted: yes }\n"
    ));
    insta::assert_snapshot!(refusal("workspace: { source: ../other, branch: a..b, depth: 1.5, mount: /var/run }\n"));
    insta::assert_snapshot!(refusal("workspace: \".\"\n"));
}

#[test]
fn tells_what_is_wrong_with_the_limits() {
    insta::assert_snapshot!(refusal(
        "resources: { cpus: 0, memory: 1KiB, pids: 1, disk: lots, session: 99999d, gpus: all }\n"
    ));
    insta::assert_snapshot!(refusal("resources: { cpus: \"2\", memory: 4096, pids: many, disk: 20GB, session: 12 }\n"));
}

#[test]
fn tells_what_is_wrong_with_a_credentials_delivery_and_sharing() {
    insta::assert_snapshot!(refusal(
        r#"credentials:
  a: { deliver: { file: x } }
  b: { provider: store, deliver: { file: x, git: github.com } }
  c: { provider: store, deliver: { git: "https://github.com" } }
  d: { provider: store, shared_with: { projects: [other] } }
  e: { provider: store, shared_with: { projects: other, reason: they are one service } }
  f: { provider: store, shared_with: { projects: [Other], reason: they are one service } }
  g: { provider: store, accept_personal: yes }
  h: { provider: store, accept_personal: "no" }
  i: { provider: exec }
  j: { provider: exec, command: [] }
  k: { provider: env-file, path: /etc/passwd, variable: "A B" }
  l: store
"#
    ));
    insta::assert_snapshot!(refusal("credentials: [github]\n"));
}

#[test]
fn tells_which_keys_of_other_tools_a_manifest_never_has() {
    insta::assert_snapshot!(refusal(
        "mounts: [/:/host]\nprivileged: true\ncap_add: [SYS_ADMIN]\nnetwork_mode: host\nruntime: runc\nworkspace: { volumes: [/] }\nnetwork: { dns: 1.1.1.1 }\n"
    ));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in "\\PC{0,200}") {
        let _ = parse(&text, Path::new("sandbox.yaml"));
    }

    #[test]
    fn any_yaml_like_text_is_read_or_refused_with_a_place(text in "(version|project|network|[-a-z:{}\\[\\]&*!|>\"'#\n\t ]){0,60}") {
        if let Err(error) = read(&text) {
            prop_assert!(error.problems().iter().all(|problem| problem.line > 0 && problem.column > 0));
        }
    }
}

#[test]
fn limits_of_the_network_are_read_and_bounded() {
    let network = |limits: &str| {
        let text = format!("version: 1\nproject: demo\nnetwork: {{ limits: {{ {limits} }} }}\n");
        parse(&text, Path::new("/nowhere/sandbox.yaml"))
    };
    let read = network("upload: 10MiB, connections: 4, idle: 90s").unwrap().network.limits;
    assert_eq!((read.upload, read.connections, read.idle, read.names), (10 << 20, 4, 90, 1000));
    assert!(read.wider().is_empty());
    assert_eq!(network("total: 7d").unwrap().network.limits.wider(), ["total"]);
    for odd in ["upload: 10MB", "connections: 0", "names: 5000", "idle: forever", "uploads: 1GiB"] {
        assert!(network(odd).is_err(), "{odd}");
    }
}

#[test]
fn ports_are_numbers_of_loopback_and_stand_once_on_this_machine() {
    let ports = |list: &str| {
        let text = format!("version: 1\nproject: demo\nports: {list}\n");
        parse(&text, Path::new("/nowhere/sandbox.yaml")).map(|manifest| manifest.ports)
    };
    let read = ports("[3000, \"80:8080\"]").unwrap();
    assert_eq!(read.iter().map(ToString::to_string).collect::<Vec<_>>(), ["3000", "80:8080"]);
    for (list, part) in [
        ("3000", "not a list"),
        ("[0]", "not a port"),
        ("[65536]", "not a port"),
        ("[\"0.0.0.0:80\"]", "not a port"),
        ("[{ port: 80 }]", "not a port"),
        ("[3000, \"80:3000\"]", "twice"),
        ("[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]", "at most 16"),
    ] {
        let error = ports(list).unwrap_err();
        assert!(error.problems()[0].message.contains(part), "{list}: {:?}", error.problems());
    }
}
