use proptest::prelude::*;

use super::*;
use crate::credential::spec::KeySource;

fn spec() -> GithubAppSpec {
    GithubAppSpec {
        address: "https://api.github.com".to_owned(),
        app: "Iv1".to_owned(),
        installation: 7,
        repositories: GithubRepositories::Names(["payments".to_owned()].into()),
        permissions: [("contents".to_owned(), GithubAccess::Write), ("issues".to_owned(), GithubAccess::Read)].into(),
        key: KeySource::Command(vec!["key".to_owned()]),
    }
}

fn answer(access: &str) -> Value {
    json!({
        "permissions": { "contents": access, "metadata": "read" },
        "repository_selection": "selected",
        "repositories": [{ "id": 1, "name": "Payments" }],
    })
}

#[test]
fn less_than_was_asked_for_is_taken_and_told() {
    assert_eq!(granted(&spec(), &answer("read")).unwrap(), "contents:read metadata:read on payments");
    assert_eq!(granted(&spec(), &answer("write")).unwrap(), "contents:write metadata:read on payments");
    assert!(matches!(granted(&spec(), &answer("admin")), Err(GithubError::Wider { .. })));
}

#[test]
fn a_handle_says_when_and_where_the_token_ends() {
    let end: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    let handle = handle_of(end, "https://github.example.com/api/v3").unwrap();
    assert_eq!(split_handle(&handle), Some((end, "https://github.example.com/api/v3")));
    assert_ne!(handle, handle_of(end, "https://github.example.com/api/v3").unwrap());
    for wrong in ["", "a|b", "a|soon|https://api.github.com"] {
        assert_eq!(split_handle(wrong), None, "{wrong}");
    }
}

proptest! {
    #[test]
    fn nothing_that_was_not_asked_for_passes(name in "[a-z_]{1,12}", access in "read|write|admin", other in "[a-z.-]{1,12}") {
        let mut wide = answer("write");
        wide["permissions"][&name] = json!(access);
        let asked = |name: &str, access: &str| match name {
            "contents" => access != "admin",
            "issues" | "metadata" => access == "read",
            _ => false,
        };
        prop_assert_eq!(granted(&spec(), &wide).is_ok(), asked(&name, &access));
        let mut wide = answer("write");
        wide["repositories"][0]["name"] = json!(other);
        prop_assert_eq!(granted(&spec(), &wide).is_ok(), other == "payments");
    }
}
