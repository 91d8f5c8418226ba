use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::project::manifest;

const MANIFEST: &str = r"version: 1
project: payments
command: [make, test]
image: agent
network:
  allow:
    - api.example.com
    - { host: '*.example.org', port: 8443 }
credentials:
  token:
    provider: store
  variable:
    provider: exec
    command: [op, read, 'op://agents/payments']
    deliver: { environment: API_KEY }
resources: { cpus: 1, memory: 1GiB, pids: 100 }
";

fn planned(text: &str, profile: &str) -> Plan {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sandbox.yaml");
    std::fs::write(&path, text).unwrap();
    let manifest = manifest::parse(text, &path).unwrap();
    let profile = crate::profile::load(profile).unwrap();
    plan(PlanInput {
        manifest: &manifest,
        name: &SandboxName::main(),
        profile: &profile,
        image: PlannedImage {
            name: "agent".to_owned(),
            digest: Digest::of(b"manifest"),
            config: Some(Digest::of(b"config")),
            built: true,
        },
        image_environment: BTreeMap::from([("LANG".to_owned(), "C.UTF-8".to_owned())]),
        launcher: Digest::of(b"launcher"),
    })
}

#[test]
fn the_plan_reads_as_documented() {
    let json = serde_json::to_value(planned(MANIFEST, "default")).unwrap();
    assert_eq!(json["project"], "payments");
    assert_eq!(json["image"]["digest"], Digest::of(b"manifest").to_string());
    assert_eq!(json["network"]["allow"][0]["host"], "api.example.com");
    assert_eq!(json["network"]["allow"][1]["host"], "*.example.org");
    assert_eq!(json["credentials"][0]["name"], "token");
    assert_eq!(json["credentials"][0]["provider"], "store");
    assert_eq!(json["credentials"][0]["expires_at"], serde_json::Value::Null);
    assert_eq!(json["weakened"].as_array().unwrap().len(), 1, "a variable is weaker than a file");
    assert!(json["plan_hash"].as_str().unwrap().starts_with("sha256:"));
}

#[test]
fn the_hash_follows_what_is_allowed_and_not_how_it_is_written() {
    let hash = planned(MANIFEST, "default").plan_hash;
    assert_eq!(hash, planned(&format!("# a comment moves every line\n{MANIFEST}"), "default").plan_hash);
    assert_eq!(hash, planned(&MANIFEST.replace("[make, test]", "[make]"), "default").plan_hash);
    for (from, to) in
        [("api.example.com", "api.example.net"), ("pids: 100", "pids: 101"), ("store", "exec\n    command: [x]")]
    {
        assert_ne!(hash, planned(&MANIFEST.replacen(from, to, 1), "default").plan_hash, "{to}");
    }
    assert_ne!(hash, planned(MANIFEST, "debug").plan_hash);
}

#[test]
fn the_agent_has_no_network_of_its_own_and_cannot_write_its_secrets() {
    let plan = planned(MANIFEST, "default");
    let agent = &plan.containers.agent;
    assert_eq!(agent.network, Network::Container("sandbox-payments.main-relay".to_owned()));
    assert_eq!(plan.containers.relay.network, Network::None);
    assert!(agent.mounts.iter().all(|mount| mount.read_only == (mount.target == SECRETS)));
    assert!(plan.containers.relay.mounts.iter().all(|mount| mount.target == CHANNEL));
    assert_ne!(plan.containers.relay.user.uid, agent.user.uid);
    assert!(agent.seccomp.is_some());
    assert!(!agent.mounts.iter().any(|mount| mount.target == CHANNEL));
    let reader = reader_container(agent, &plan.id);
    assert_eq!(reader.network, Network::None);
    assert!(reader.mounts.iter().all(|mount| mount.read_only && mount.target != SECRETS));
}

#[test]
fn temporary_files_never_take_more_than_half_of_the_memory() {
    let plan = planned(&MANIFEST.replace("memory: 1GiB", "memory: 256MiB"), "default");
    assert_eq!(plan.containers.agent.tmpfs[0].size, 128 << 20);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_manifest_gives_a_contained_agent(
        project in "[a-z][a-z0-9-]{0,20}[a-z0-9]",
        hosts in proptest::collection::vec("[a-z]{1,8}\\.example\\.(com|org)", 0..4),
        ports in proptest::collection::vec(1_u16.., 4),
        profile in proptest::sample::select(vec!["strict", "default", "debug", "browser"]),
        cpus in 1_u32..4,
        secret in "[A-Z]{30}",
    ) {
        let mut text = format!("version: 1\nproject: {project}\nimage: agent\nresources: {{ cpus: {cpus} }}\n");
        if !hosts.is_empty() {
            text.push_str("network:\n  allow:\n");
            for (host, port) in hosts.iter().zip(&ports) {
                text.push_str(&format!("    - {{ host: {host}, port: {port} }}\n"));
            }
        }
        text.push_str("credentials:\n  token: { provider: store }\n");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), &secret).unwrap();
        let Ok(manifest) = manifest::parse(&text, &Path::new("/project").join("sandbox.yaml")) else {
            return Ok(());
        };
        let profile = crate::profile::load(profile).unwrap();
        let plan = plan(PlanInput {
            manifest: &manifest,
            name: &SandboxName::main(),
            profile: &profile,
            image: PlannedImage { name: "agent".to_owned(), digest: Digest::of(b"m"), config: None, built: true },
            image_environment: BTreeMap::new(),
            launcher: Digest::of(b"l"),
        });
        for container in [&plan.containers.relay, &plan.containers.gateway, &plan.containers.agent] {
            prop_assert!(container.user.uid != 0 && container.user.gid != 0);
            prop_assert!(container.mounts.iter().all(|mount| !mount.volume.contains('/')), "no host path");
            prop_assert!(!matches!(&container.network, Network::Named(name) if name != EGRESS_NETWORK));
        }
        prop_assert!(!serde_json::to_string(&plan).unwrap().contains(&secret));
    }
}

#[test]
fn only_the_allow_list_changes_without_a_restart() {
    use crate::session::plan_parts::{differences, parts};
    let running = parts(&planned(MANIFEST, "default"));
    let differing = |from: &str, to: &str| {
        let text = MANIFEST.replace(from, to);
        assert_ne!(text, MANIFEST);
        differences(&running, &parts(&planned(&text, "default")))
    };
    assert!(differing("    - api.example.com\n", "    - api.example.com\n    - docs.example.com\n").is_empty());
    assert!(differing("command: [make, test]", "command: [make]").is_empty());
    assert_eq!(differing("cpus: 1", "cpus: 2"), ["resources"]);
    assert_eq!(differing("deliver: { environment: API_KEY }", "deliver: { file: key }"), ["credentials"]);
    // The first host with rules changes the variables of programs.
    let rules = "    - { host: api.example.com, rules: [\"GET /**\"] }\n";
    assert_eq!(differing("    - api.example.com\n", rules).len(), 1);
}
