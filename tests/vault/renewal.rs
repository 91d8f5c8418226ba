//! Values that are made to live longer instead of being read anew.

use std::time::Duration;

use jiff::Timestamp;
use sandbox::credential::renew;
use sandbox::credential::spec::{SecretSource, VaultAuth, VaultSpec};

use crate::server::{Bao, Postgres};
use crate::{READ, Side, credential, name, spec, with_database};

fn seconds_left(end: Timestamp) -> i64 {
    end.as_second() - Timestamp::now().as_second()
}

async fn renewed(side: &Side, spec: &VaultSpec, handle: &str) -> Option<i64> {
    renew(&name(), &credential(spec), handle, &side.context()).await.unwrap().map(seconds_left)
}

#[tokio::test]
async fn a_lease_goes_on_as_far_as_engine_and_token_allow() {
    let (bao, postgres) = (Bao::start(), Postgres::start());
    with_database(&bao, &postgres);
    bao.run(&["write", "database/roles/payments", "default_ttl=8s", "max_ttl=20s"]);
    bao.policy("payments", READ);
    let mut side = Side::new(&bao.address, &bao.token(&["payments"]));
    let spec =
        VaultSpec { max_ttl: Duration::from_secs(3600), ..spec("database/creds/payments", &["username", "password"]) };
    let issued = side.issue(&spec).await.unwrap();
    let handle = issued.handle.unwrap();
    assert!(seconds_left(issued.expires_at.unwrap()) <= 8);
    let accessor = handle.split('|').next().unwrap();
    let token = bao.json(&["token", "lookup", "-accessor", accessor]);
    assert_eq!((&token["data"]["explicit_max_ttl"], &token["data"]["renewable"]), (&3600.into(), &true.into()));

    // Asked for ten minutes, the engine gives what is left of its own limit.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let left = renewed(&side, &spec, &handle).await.unwrap();
    assert!((9..=18).contains(&left), "{left}");
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(postgres.query("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'"), "1");

    // Another process knows no token, and what is not to be renewed is not.
    let own = std::mem::take(&mut side.held);
    assert_eq!(renewed(&side, &spec, &handle).await, None);
    let strict = VaultSpec { max_ttl: Duration::ZERO, ..spec.clone() };
    let once = side.issue(&strict).await.unwrap().handle.unwrap();
    assert_eq!(renewed(&side, &strict, &once).await, None);
    // Nor what somebody ended at the server.
    side.held = own;
    bao.run(&["token", "revoke", "-accessor", accessor]);
    assert_eq!(renewed(&side, &spec, &handle).await, None);
}

#[tokio::test]
async fn the_log_in_that_a_lease_hangs_on_goes_on_with_it() {
    let (bao, postgres) = (Bao::start(), Postgres::start());
    with_database(&bao, &postgres);
    bao.policy("payments", READ);
    bao.run(&["auth", "enable", "approle"]);
    bao.run(&["write", "auth/approle/role/agents", "token_policies=payments", "token_ttl=8s", "token_max_ttl=1h"]);
    let role_id = bao.run(&["read", "-field=role_id", "auth/approle/role/agents/role-id"]);
    let secret_id = bao.run(&["write", "-f", "-field=secret_id", "auth/approle/role/agents/secret-id"]);
    let side = Side::new(&bao.address, "unused");
    let command = vec!["echo".to_owned(), secret_id];
    let secret_id = SecretSource::Command(command);
    let auth = VaultAuth::Approle { mount: "approle".to_owned(), role_id, secret_id, wrapped: false };
    let base = spec("database/creds/payments", &["username", "password"]);
    let spec = VaultSpec { auth, max_ttl: Duration::from_secs(3600), ..base };
    let issued = side.issue(&spec).await.unwrap();
    assert!(seconds_left(issued.expires_at.unwrap()) <= 8);
    let handle = issued.handle.unwrap();
    let left = renewed(&side, &spec, &handle).await.unwrap();
    assert!((590..=600).contains(&left), "{left}");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(postgres.query("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'"), "1");
    side.revoke(&spec, Some(&handle)).await.unwrap();
    assert_eq!(renewed(&side, &spec, &handle).await, None);
}
