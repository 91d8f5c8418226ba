//! Namespaces of a real server: a value is read, and a lease ended, in the one that the manifest names and in no other.

use sandbox::credential::Revocation;
use sandbox::credential::spec::VaultSpec;
use sandbox::credential::vault::VaultError;

use crate::server::{Bao, Postgres};
use crate::{READ, Side, spec, with_database};

#[tokio::test]
async fn a_lease_is_given_and_ended_in_the_namespace_of_the_manifest() {
    let (bao, postgres) = (Bao::start(), Postgres::start());
    bao.run(&["namespace", "create", "team"]);
    let team = bao.inside("team");
    with_database(&team, &postgres);
    team.policy("payments", READ);
    team.run(&["secrets", "enable", "-path=secret", "-version=2", "kv"]);
    team.run(&["kv", "put", "-mount=secret", "payments/api", "key=of-the-team"]);
    bao.run(&["kv", "put", "-mount=secret", "payments/api", "key=of-the-root"]);
    let side = Side::new(&bao.address, &team.token(&["payments"]));
    let named = |path: &str, fields: &[&str]| VaultSpec { namespace: Some("team".to_owned()), ..spec(path, fields) };

    let issued = side.issue(&named("secret/payments/api", &["key"])).await.unwrap();
    assert_eq!(issued.value.expose(), b"of-the-team");
    // A token of the namespace is nobody outside of it.
    let refused = side.refused(&spec("secret/payments/api", &["key"])).await;
    assert!(matches!(refused, VaultError::Denied { .. }), "{refused:?}");
    let absent = VaultSpec { namespace: Some("nobody".to_owned()), ..spec("secret/payments/api", &["key"]) };
    let refused = side.refused(&absent).await;
    assert!(matches!(&refused, VaultError::NoNamespace(name) if name == "nobody"), "{refused:?}");

    let roles = || postgres.query("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'");
    let leased = named("database/creds/payments", &["username", "password"]);
    let issued = side.issue(&leased).await.unwrap();
    assert_eq!(roles(), "1");
    let handle = issued.handle.unwrap();
    assert_eq!(handle.split('|').nth(1), Some("team"));
    // By what the handle says, also when the manifest says another one by now.
    assert_eq!(
        side.revoke(&spec("database/creds/payments", &["x"]), Some(&handle)).await.unwrap(),
        Revocation::Revoked
    );
    for _ in 0..50 {
        if roles() == "0" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(roles(), "0");
}
