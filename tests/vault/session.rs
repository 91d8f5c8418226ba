//! A whole session with a credential of Vault's: what the agent reads, what the journal and the audit log keep, and that
//! `down` ends it at the issuer.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::server::{Bao, Postgres};
use crate::support::{Home, Project, assert_no_canary, docker};
use crate::{READ, with_database};

const MANIFEST: &str = "image: agent
command: [bash, -l]
credentials:
  database:
    provider: vault
    path: database/creds/payments
    fields: [username, password]
    ttl: 10m
";

#[test]
fn the_agent_has_a_database_role_until_its_session_ends() {
    let (bao, postgres) = (Bao::start(), Postgres::start());
    with_database(&bao, &postgres);
    bao.policy("payments", READ);
    let token = bao.token(&["payments"]);
    let home = Home::new();
    let project = Project::new(&home, "vault", MANIFEST);
    let run = |words: &[&str]| {
        let mut command = home.sandbox();
        command.args(words).env("VAULT_ADDR", &bao.address).env("VAULT_TOKEN", &token).env_remove("BAO_ADDR");
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let roles = || postgres.query("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'");

    let (code, plan, errors) = run(&["plan", project.name()]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(plan.contains("database from vault") && plan.contains("10m"), "{plan}");
    let (_, listed, _) = run(&["credential", "ls", project.name(), "--format", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&listed).unwrap()[0]["state"], "on_demand", "{listed}");
    let (code, checked, errors) = run(&["credential", "check", project.name(), "--format", "json"]);
    assert_eq!(code, Some(0), "{errors}{checked}");
    assert!(serde_json::from_str::<Value>(&checked).unwrap()[0]["expires_at"].is_string(), "{checked}");

    let (code, _, errors) = run(&["up", project.name(), "--detach", "--", "sleep", "300"]);
    assert_eq!(code, Some(0), "{errors}");
    let (_, read, errors) = run(&["exec", project.name(), "--", "cat", "/run/secrets/database"]);
    let read: Value = serde_json::from_str(&read).unwrap_or_else(|_| panic!("{read}{errors}"));
    let (user, password) = (read["username"].as_str().unwrap(), read["password"].as_str().unwrap());
    assert_eq!(postgres.query(&format!("SELECT count(*) FROM pg_roles WHERE rolname = '{user}'")), "1");
    assert_no_canary(&home, project.name(), &[password]);

    // A rotation gives a new role; the old one goes on for its grace.
    let eventually = |what: &str, holds: &dyn Fn() -> bool| {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {}", run(&["audit", "log"]).1);
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    let (code, _, errors) = run(&["credential", "rotate", "database", project.name()]);
    assert_eq!(code, Some(0), "{errors}");
    eventually("the new role's arrival", &|| {
        !run(&["exec", project.name(), "--", "cat", "/run/secrets/database"]).1.contains(user)
    });
    assert_eq!(roles(), "2");
    // A credential that was issued and cannot be delivered is revoked again.
    let gateway = format!("sandbox-{}.main-gateway", project.name());
    assert!(docker(&["pause", &gateway]).status.success());
    let (code, _, errors) = run(&["credential", "rotate", "database", project.name()]);
    assert_eq!(code, Some(0), "{errors}");
    eventually("the third role", &|| roles() == "3");
    eventually("its end", &|| roles() == "2");
    assert!(docker(&["unpause", &gateway]).status.success());
    assert!(run(&["audit", "log"]).1.contains("credential.rotation_failed"));

    let (code, _, errors) = run(&["down", "--discard", project.name()]);
    assert_eq!(code, Some(0), "{errors}");
    let begun = Instant::now();
    while roles() != "0" {
        assert!(begun.elapsed() < Duration::from_secs(10), "{} roles outlive the session", roles());
        std::thread::sleep(Duration::from_millis(100));
    }
    let (_, log, _) = run(&["audit", "log", "--format", "json"]);
    assert!(log.contains("credential.issued") && log.contains("credential.revoked"), "{log}");
    assert!(!log.contains(password) && !log.contains(&token), "the audit log holds a secret");
}
