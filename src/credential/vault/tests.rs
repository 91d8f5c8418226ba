use proptest::prelude::*;
use serde_json::json;

use super::*;

fn mounted(kind: &str, version: &str, path: &str) -> Value {
    json!({ "data": { "type": kind, "path": path, "options": { "version": version } } })
}

#[test]
fn data_comes_between_only_below_a_versioned_store() {
    let two = mounted("kv", "2", "secret/");
    assert_eq!(api_path(&two, "secret/a/b"), ("secret/data/a/b".to_owned(), true));
    assert_eq!(api_path(&two, "secret/data/a/b"), ("secret/data/a/b".to_owned(), true));
    let deep = mounted("kv", "2", "team/secret/");
    assert_eq!(api_path(&deep, "team/secret/a"), ("team/secret/data/a".to_owned(), true));
    for mount in [mounted("kv", "1", "secret/"), mounted("database", "2", "secret/"), json!({}), json!(null)] {
        assert_eq!(api_path(&mount, "secret/a"), ("secret/a".to_owned(), false), "{mount}");
    }
}

#[test]
fn a_handle_says_which_server_knows_it() {
    let client = Client::new("https://vault.example.com:8200/", Some("team/a"), None, None).unwrap();
    let handle = handle_of("acc.essor", &client);
    assert_eq!(handle, "acc.essor|team/a|https://vault.example.com:8200");
    assert_eq!(split_handle(&handle), Some(("acc.essor", Some("team/a"), "https://vault.example.com:8200")));
    let client = Client::new("https://vault.example.com", None, None, None).unwrap();
    assert_eq!(split_handle(&handle_of("a", &client)), Some(("a", None, "https://vault.example.com")));
    assert_eq!(split_handle("a"), None);
}

#[test]
fn takes_no_token_that_cannot_be_revoked() {
    let of = |auth: Value| token_of(&Wiped(json!({ "auth": auth }))).map(|(_, accessor, seconds)| (accessor, seconds));
    let good = json!({ "client_token": "s.canary", "accessor": "a1", "lease_duration": 60 });
    assert_eq!(of(good).unwrap(), ("a1".to_owned(), 60));
    for wrong in [
        json!(null),
        json!({ "client_token": "", "accessor": "a1", "lease_duration": 60 }),
        json!({ "client_token": "s.canary", "accessor": "", "lease_duration": 60 }),
        json!({ "client_token": "s.canary", "accessor": "a|b", "lease_duration": 60 }),
        json!({ "client_token": "s.canary", "accessor": "s.canary", "lease_duration": 60 }),
        json!({ "client_token": "s.canary0123456789", "accessor": "canary0123456789", "lease_duration": 60 }),
        json!({ "client_token": "s.canary", "accessor": "a".repeat(300), "lease_duration": 60 }),
        json!({ "client_token": "s.canary", "accessor": "a1" }),
        json!({ "client_token": "s.canary", "accessor": "a1", "lease_duration": -1 }),
    ] {
        let error = of(wrong.clone()).unwrap_err();
        assert!(!error.to_string().contains("canary"), "{wrong}: {error}");
    }
}

proptest! {
    #[test]
    fn one_field_comes_as_its_text(text in any::<String>()) {
        let data = json!({ "key": text, "other": 1 });
        let value = value_of(data.as_object().unwrap(), &VaultFields::One("key".to_owned())).unwrap();
        prop_assert_eq!(value.expose(), text.as_bytes());
    }

    #[test]
    fn several_fields_come_as_json_that_says_the_same(one in any::<String>(), two in any::<String>()) {
        let data = json!({ "one": one, "two": two, "three": "x" });
        let fields = VaultFields::Several(vec!["one".to_owned(), "two".to_owned()]);
        let value = value_of(data.as_object().unwrap(), &fields).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Value>(value.expose()).unwrap(), json!({ "one": one, "two": two }));
    }
}
