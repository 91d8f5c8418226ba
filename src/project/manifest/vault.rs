//! Reads what a credential of the provider `vault` says: server, log-in, path, fields.

use std::path::Path;
use std::time::Duration;

use crate::credential::spec::{JwtSource, SecretSource, VaultAuth, VaultFields, VaultSpec};
use crate::project::quantity;
use crate::project::reader::{Fields, Reader};
use crate::project::yaml::{Node, Value};

/// Keys of `auth`.
pub(in crate::project) const AUTH: &[&str] =
    &["method", "mount", "role_id", "role", "secret_file", "secret_command", "identity", "wrapped"];
/// How long a child token lives when the manifest does not say.
const LIFE: Duration = Duration::from_secs(3600);
/// How long it is renewed when the manifest does not say.
const LONGEST_LIFE: Duration = Duration::from_secs(86_400);

const PATH: &str = "a path such as secret/payments/api or database/creds/payments, without `/` at its ends";
const WORD: &str = "1 to 128 of a-z, A-Z, 0-9, `-`, `_` and `.`";

/// The specification, or `None` with a problem reported.
pub(super) fn spec(reader: &mut Reader, fields: &Fields<'_>, root: &Path) -> Option<VaultSpec> {
    let address = optional(reader, fields, "address", "an address such as https://vault.example.com:8200", address);
    let namespace = optional(reader, fields, "namespace", "a namespace such as team-a/payments", path);
    let auth = match fields.get("auth") {
        None => Some(VaultAuth::Token),
        Some(node) => auth(reader, node, root),
    };
    let Some(node) = fields.get("path") else {
        reader.report(fields.place, "the provider `vault` needs `path`", format!("write {PATH}"));
        return None;
    };
    let path = reader.parsed(node, "`path`", PATH, path);
    let chosen = chosen(reader, fields);
    let ttl = match fields.get("ttl") {
        None => Some(LIFE),
        Some(node) => reader.parsed(node, "`ttl`", "a duration of 2m to 24h", |text| {
            quantity::duration(text).filter(|life| (120..=86_400).contains(&life.as_secs()))
        }),
    };
    let max_ttl = match fields.get("max_ttl") {
        None => Some(LONGEST_LIFE),
        Some(node) => reader.parsed(node, "`max_ttl`", "a duration of 2m to 30d", |text| {
            quantity::duration(text).filter(|life| (120..=30 * 86_400).contains(&life.as_secs()))
        }),
    };
    let policies = match fields.get("policies") {
        None => Some(Vec::new()),
        Some(node) => words(reader, node, "`policies`"),
    };
    Some(VaultSpec {
        address: address?,
        namespace: namespace?,
        auth: auth?,
        path: path?,
        fields: chosen?,
        ttl: ttl?,
        max_ttl: max_ttl?,
        policies: policies?,
    })
}

/// `Some(None)` when the key is absent, `None` with a problem reported when its value is wrong.
fn optional(
    reader: &mut Reader,
    fields: &Fields<'_>,
    key: &str,
    example: &str,
    parse: impl FnOnce(&str) -> Option<String>,
) -> Option<Option<String>> {
    match fields.get(key) {
        None => Some(None),
        Some(node) => reader.parsed(node, &format!("`{key}`"), example, parse).map(Some),
    }
}

fn chosen(reader: &mut Reader, fields: &Fields<'_>) -> Option<VaultFields> {
    match (fields.get("field"), fields.get("fields")) {
        (Some(node), None) => reader.parsed(node, "`field`", WORD, word).map(VaultFields::One),
        (None, Some(node)) => words(reader, node, "`fields`").map(VaultFields::Several),
        _ => {
            let remedy = "write `field: NAME` for its text alone, or `fields: [NAME, NAME]` for a JSON object";
            reader.report(fields.place, "the provider `vault` needs one of `field` and `fields`", remedy);
            None
        }
    }
}

fn auth(reader: &mut Reader, node: &Node, root: &Path) -> Option<VaultAuth> {
    let fields = reader.fields(node, "`auth`", AUTH)?;
    let example = "token, approle, jwt or cert";
    let Some(method) = fields.get("method") else {
        reader.report(fields.place, "`auth` has no `method`", format!("write `method:` and {example}"));
        return None;
    };
    let known = |text: &str| ["token", "approle", "jwt", "cert"].contains(&text).then(|| text.to_owned());
    let method = reader.parsed(method, "`auth.method`", example, known)?;
    let (role_key, allowed): (&str, &[&str]) = match method.as_str() {
        "approle" => ("role_id", &["method", "mount", "role_id", "secret_file", "secret_command", "wrapped"]),
        "jwt" => ("role", &["method", "mount", "role", "secret_file", "secret_command", "identity"]),
        "cert" => ("role", &["method", "mount", "role", "secret_file", "secret_command"]),
        _ => ("", &["method"]),
    };
    for key in AUTH.iter().filter(|key| !allowed.contains(key)) {
        if let Some(node) = fields.get(key) {
            let message = format!("the method `{method}` has no `{key}`");
            reader.report(node.place, message, format!("take it out; it has: {}", allowed.join(", ")));
            return None;
        }
    }
    if method == "token" {
        return Some(VaultAuth::Token);
    }
    let mount = match fields.get("mount") {
        None => method.clone(),
        Some(node) => reader.parsed(node, "`auth.mount`", "where the method is mounted, such as approle", path)?,
    };
    if method == "cert" {
        let role = match fields.get(role_key) {
            None => None,
            Some(node) => Some(reader.parsed(node, "`auth.role`", WORD, word)?),
        };
        return Some(VaultAuth::Cert { mount, role, identity: source(reader, &fields, root)? });
    }
    let Some(role) = fields.get(role_key) else {
        let message = format!("the method `{method}` needs `{role_key}`");
        reader.report(fields.place, message, format!("write `{role_key}: ROLE`"));
        return None;
    };
    let role = reader.parsed(role, &format!("`auth.{role_key}`"), WORD, word)?;
    if let Some(node) = fields.get("identity") {
        if let Some(other) = fields.get("secret_file").or_else(|| fields.get("secret_command")) {
            let remedy = "take one of them out; with `identity` the launcher signs the token itself";
            reader.report(other.place, "`auth` has `identity` and another source of the token", remedy);
            return None;
        }
        let audience = audience(reader, node, "`auth.identity`", "vault")?;
        return Some(VaultAuth::Jwt { mount, role, jwt: JwtSource::Identity(audience) });
    }
    let secret = source(reader, &fields, root)?;
    let wrapped = match fields.get("wrapped") {
        None => false,
        Some(node) => reader.boolean(node, "`auth.wrapped`")?,
    };
    if wrapped && let SecretSource::File(_) = secret {
        let message = "a wrapped secret id in a file can be opened once, and a session logs in more than once";
        reader.report(fields.place, message, "write `secret_command`, which gives a newly wrapped one each time");
        return None;
    }
    Some(match method.as_str() {
        "approle" => VaultAuth::Approle { mount, role_id: role, secret_id: secret, wrapped },
        _ => VaultAuth::Jwt { mount, role, jwt: JwtSource::Given(secret) },
    })
}

/// For whom the sandbox's identity is signed. Who else gets it must refuse it, so it is always said.
pub(super) fn audience(reader: &mut Reader, node: &Node, what: &str, example: &str) -> Option<String> {
    let remedy =
        format!("the audience that the issuer expects, such as {example}: 1 to 256 of a-z, A-Z, 0-9 and _.:/@-");
    reader.parsed(node, what, &remedy, |text| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:/@-".contains(&byte);
        ((1..=256).contains(&text.len()) && text.bytes().all(plain)).then(|| text.to_owned())
    })
}

fn source(reader: &mut Reader, fields: &Fields<'_>, root: &Path) -> Option<SecretSource> {
    match (fields.get("secret_file"), fields.get("secret_command")) {
        (Some(node), None) => reader.inner_path(node, "`auth.secret_file`", root).map(SecretSource::File),
        (None, Some(node)) => reader.command(node, "`auth.secret_command`").map(SecretSource::Command),
        _ => {
            let remedy = "write `secret_command: [program, argument]`, `secret_file: PATH` inside the project, or, for \
                          the method `jwt`, `identity: AUDIENCE`";
            reader.report(fields.place, "`auth` needs one of `secret_file` and `secret_command`", remedy);
            None
        }
    }
}

fn words(reader: &mut Reader, node: &Node, what: &str) -> Option<Vec<String>> {
    let Value::List(items) = &node.value else {
        reader.report(node.place, format!("{what} is {}, not a list", node.value.kind()), "write [NAME, NAME]");
        return None;
    };
    if items.is_empty() || items.len() > 32 {
        reader.report(node.place, format!("{what} has {} entries", items.len()), "write 1 to 32 names");
        return None;
    }
    let found: Vec<String> = items.iter().filter_map(|item| reader.parsed(item, what, WORD, word)).collect();
    (found.len() == items.len()).then_some(found)
}

fn word(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    ((1..=128).contains(&text.len()) && text.bytes().all(plain)).then(|| text.to_owned())
}

/// A path of plain segments. Nothing in it is escaped in a URL, and none of them leads upwards.
fn path(text: &str) -> Option<String> {
    let plain = |segment: &str| segment != "." && segment != ".." && word(segment).is_some();
    (text.len() <= 512 && text.split('/').all(plain)).then(|| text.to_owned())
}

/// The client refuses what is no URL; here only what could never be one, or would send a token in the clear.
pub(super) fn address(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/[]".contains(&byte);
    let rest = text.strip_prefix("https://").or_else(|| {
        let rest = text.strip_prefix("http://")?;
        let host = rest.split('/').next()?;
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        ["127.0.0.1", "[::1]", "localhost"].contains(&host).then_some(rest)
    })?;
    (!rest.is_empty() && text.len() <= 256 && rest.bytes().all(plain)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn knows_addresses_that_may_get_a_token() {
        for fine in ["https://vault.example.com:8200", "http://127.0.0.1:8200", "http://[::1]:8200", "http://localhost"]
        {
            assert_eq!(address(fine).as_deref(), Some(fine));
        }
        for refused in ["", "https://", "http://vault.example.com", "https://user@host", "https://host/?a", "ftp://x"] {
            assert_eq!(address(refused), None, "{refused}");
        }
    }

    proptest! {
        #[test]
        fn a_path_never_leaves_its_place_in_a_url(text in "\\PC{0,40}") {
            if let Some(path) = path(&text) {
                let base = "https://vault.example.com/v1/";
                let url = reqwest::Url::parse(&format!("{base}{path}")).unwrap();
                prop_assert_eq!(url.as_str(), format!("{base}{path}"));
            }
        }

        #[test]
        fn plain_paths_are_taken(text in "[a-z0-9]{1,8}(/[a-z0-9_-]{1,8}){0,4}") {
            prop_assert_eq!(path(&text), Some(text));
        }
    }
}
