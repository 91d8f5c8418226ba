//! Reads what a credential of the provider `oauth` says: whose log-in, client, addresses, scopes.

use std::collections::BTreeMap;
use std::path::Path;

use super::{github, vault};
use crate::credential::oauth::agent::Published;
use crate::credential::spec::{LoginAgent, OauthSpec};
use crate::project::reader::{Fields, Reader};
use crate::project::yaml::{Node, Value};

/// Keys of a credential that this provider has.
pub(super) const KEYS: &[&str] = &[
    "agent",
    "client_id",
    "key_file",
    "key_command",
    "token_url",
    "token_request",
    "device_url",
    "authorize_url",
    "authorize_parameters",
    "redirect_url",
    "revoke_url",
    "scopes",
];
/// Scopes that a log-in may have.
const SCOPES: usize = 32;
/// Further parameters of an authorization request.
const PARAMETERS: usize = 16;
const EXAMPLE: &str = "an address such as https://auth.example.com/oauth/token";

/// The specification, or `None` with a problem reported.
pub(super) fn spec(reader: &mut Reader, fields: &Fields<'_>, root: &Path) -> Option<OauthSpec> {
    let agent = match fields.get("agent") {
        None => None,
        Some(node) => Some(reader.parsed(node, "`agent`", "codex, claude-code or gemini-cli", |text| {
            LoginAgent::ALL.into_iter().find(|agent| agent.word() == text)
        })?),
    };
    let published = agent.and_then(LoginAgent::published);
    let own = |pick: fn(&Published) -> &'static str| published.as_ref().map(|published| pick(published).to_owned());
    let client_id = match fields.get("client_id") {
        Some(node) => reader.parsed(node, "`client_id`", "a client's id, such as Iv23liAbCdEf", client),
        None => own(|published| published.client_id)
            .or_else(|| missing(reader, fields, "client_id", "the client's id, which the agent's vendor publishes")),
    };
    let token_url = match fields.get("token_url") {
        Some(node) => reader.parsed(node, "`token_url`", EXAMPLE, vault::address),
        None => own(|published| published.token_url).or_else(|| missing(reader, fields, "token_url", EXAMPLE)),
    };
    let mut address = |key: &str| match fields.get(key) {
        None => Some(None),
        Some(node) => reader.parsed(node, &format!("`{key}`"), EXAMPLE, vault::address).map(Some),
    };
    let (device_url, authorize_url, revoke_url) =
        (address("device_url"), address("authorize_url"), address("revoke_url"));
    let redirect_url = match fields.get("redirect_url") {
        None => Some(own(|published| published.redirect_url)),
        Some(node) => {
            let example =
                "http://127.0.0.1/PATH or http://localhost:PORT/PATH: a code comes back to this machine alone";
            reader.parsed(node, "`redirect_url`", example, loopback).map(Some)
        }
    };
    let scopes = match fields.get("scopes") {
        None => {
            Some(published.iter().flat_map(|published| published.scopes).map(|scope| (*scope).to_owned()).collect())
        }
        Some(node) => scopes(reader, node),
    };
    let authorize_parameters = match fields.get("authorize_parameters") {
        None => {
            let own = published.iter().flat_map(|published| published.parameters);
            Some(own.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
        }
        Some(node) => parameters(reader, node),
    };
    let json_requests = match fields.get("token_request") {
        None => Some(false),
        Some(node) => reader.parsed(node, "`token_request`", "form or json", |text| match text {
            "form" => Some(false),
            "json" => Some(true),
            _ => None,
        }),
    };
    let has_secret = published.as_ref().is_some_and(|published| published.has_secret);
    let client_secret = if has_secret || fields.get("key_file").is_some() || fields.get("key_command").is_some() {
        Some(github::key(reader, fields, root, "oauth")?)
    } else {
        None
    };
    Some(OauthSpec {
        agent,
        client_id: client_id?,
        client_secret,
        token_url: token_url?,
        device_url: device_url?,
        authorize_url: authorize_url?.or_else(|| own(|published| published.authorize_url)),
        redirect_url: redirect_url?,
        authorize_parameters: authorize_parameters?,
        revoke_url: revoke_url?,
        json_requests: json_requests?,
        scopes: scopes?,
    })
}

fn missing(reader: &mut Reader, fields: &Fields<'_>, key: &str, what: &str) -> Option<String> {
    reader.report(fields.place, format!("the provider `oauth` needs `{key}`"), format!("write {what}"));
    None
}

/// An address of this machine, over HTTP (RFC 8252, section 7.3).
fn loopback(text: &str) -> Option<String> {
    let rest = text.strip_prefix("http://127.0.0.1").or_else(|| text.strip_prefix("http://localhost"))?;
    let (port, path) = rest.split_once('/')?;
    let port = port.is_empty() || port.strip_prefix(':')?.parse::<u16>().is_ok_and(|port| port >= 1024);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    (port && path.len() <= 200 && path.bytes().all(plain)).then(|| text.to_owned())
}

/// Further parameters, none of which is one of ours.
fn parameters(reader: &mut Reader, node: &Node) -> Option<BTreeMap<String, String>> {
    let remedy = "write { access_type: offline }";
    let Value::Map(entries) = &node.value else {
        reader.report(node.place, "`authorize_parameters` is not a map", remedy);
        return None;
    };
    if entries.len() > PARAMETERS {
        reader.report(node.place, format!("`authorize_parameters` has {} entries", entries.len()), remedy);
        return None;
    }
    let mut read = BTreeMap::new();
    for (key, value) in entries {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let ours =
            ["response_type", "client_id", "redirect_uri", "state", "code_challenge", "code_challenge_method", "scope"];
        if !(1..=64).contains(&key.text.len()) || !key.text.bytes().all(plain) || ours.contains(&key.text.as_str()) {
            let shown: String = key.text.chars().take(60).collect();
            let message = format!("`{}` is no further parameter of an authorization request", shown.escape_debug());
            reader.report(key.place, message, remedy);
            return None;
        }
        let example = "a word such as offline, in quotes where YAML would take it for something else";
        let value = reader.parsed(value, "a parameter", example, |text| {
            let fine = (1..=256).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            fine.then(|| text.to_owned())
        })?;
        read.insert(key.text.clone(), value);
    }
    Some(read)
}

fn client(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte);
    ((1..=256).contains(&text.len()) && text.bytes().all(plain)).then(|| text.to_owned())
}

fn scopes(reader: &mut Reader, node: &Node) -> Option<Vec<String>> {
    let Value::List(items) = &node.value else {
        reader.report(node.place, "`scopes` is not a list", "write [openid, offline_access]");
        return None;
    };
    if items.is_empty() || items.len() > SCOPES {
        let message = format!("`scopes` has {} entries, 1 to {SCOPES} are allowed", items.len());
        reader.report(node.place, message, "name what the agent needs, or take `scopes` out");
        return None;
    }
    let read: Vec<String> = items
        .iter()
        .filter_map(|item| reader.parsed(item, "a scope", "a word such as offline_access", scope))
        .collect();
    (read.len() == items.len()).then_some(read)
}

/// `scope-token` of RFC 6749, section 3.3; without the comma, which parts them at some issuers.
fn scope(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"\\,".contains(&byte);
    ((1..=256).contains(&text.len()) && text.bytes().all(plain)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::credential::spec::{KeySource, LoginAgent, OauthSpec, ProviderSpec};
    use crate::project::manifest::parse;

    fn read(credential: &str) -> Result<OauthSpec, Vec<String>> {
        let text = format!(
            "version: 1\nproject: payments\nimage: agent\nnetwork: {{ allow: [chatgpt.com] }}\ncredentials:\n  a: {{ {credential} }}\n"
        );
        let manifest = parse(&text, Path::new("/nowhere/sandbox.yaml"))
            .map_err(|error| error.problems().iter().map(|problem| problem.message.clone()).collect::<Vec<_>>())?;
        match manifest.credentials.into_values().next().unwrap().provider {
            ProviderSpec::Oauth(spec) => Ok(*spec),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_agent_brings_what_its_vendor_publishes_and_the_manifest_can_say_otherwise() {
        let codex = read("provider: oauth, agent: codex, deliver: { broker: chatgpt.com }").unwrap();
        assert_eq!((codex.agent, codex.client_secret.is_none()), (Some(LoginAgent::Codex), true));
        assert_eq!(codex.redirect_url.as_deref(), Some("http://localhost:1455/auth/callback"));
        assert!(codex.authorize_url.is_some() && codex.scopes.contains(&"offline_access".to_owned()));
        assert_eq!(codex.authorize_parameters.len(), 2);
        let own = "provider: oauth, agent: codex, client_id: mine, token_url: \"https://a.example/t\", scopes: [x]";
        let own = read(own).unwrap();
        assert_eq!((own.client_id.as_str(), own.token_url.as_str()), ("mine", "https://a.example/t"));
        assert_eq!(own.scopes, ["x"]);
        let gemini = read("provider: oauth, agent: gemini-cli, key_command: [secret]").unwrap();
        assert_eq!(gemini.client_secret, Some(KeySource::Command(vec!["secret".to_owned()])));
        assert_eq!(gemini.authorize_parameters["access_type"], "offline");
        for published in LoginAgent::ALL.into_iter().filter_map(LoginAgent::published) {
            for address in [published.authorize_url, published.token_url] {
                assert!(address.starts_with("https://"), "{address}");
            }
            assert_eq!(super::loopback(published.redirect_url).as_deref(), Some(published.redirect_url));
        }
    }

    #[test]
    fn tells_what_is_wrong_with_a_log_in() {
        let base = "provider: oauth, client_id: c, token_url: \"https://a.example/t\"";
        for (credential, part) in [
            ("provider: oauth, agent: claude-code".to_owned(), "needs `client_id`"),
            ("provider: oauth, agent: gemini-cli".to_owned(), "needs one of `key_file` and `key_command`"),
            (
                "provider: oauth, agent: gemini-cli, key_command: [s], deliver: { broker: chatgpt.com }".to_owned(),
                "shows its token to two hosts",
            ),
            ("provider: oauth, agent: emacs".to_owned(), "`emacs` is not a value for `agent`"),
            (format!("{base}, redirect_url: \"https://127.0.0.1/x\""), "for `redirect_url`"),
            (format!("{base}, redirect_url: \"http://127.0.0.1:80/x\""), "for `redirect_url`"),
            (format!("{base}, redirect_url: \"http://127.0.0.1.example.com/x\""), "for `redirect_url`"),
            (format!("{base}, authorize_url: \"http://a.example/x\""), "for `authorize_url`"),
            (format!("{base}, token_request: xml"), "for `token_request`"),
            (format!("{base}, authorize_parameters: {{ state: x }}"), "`state` is no further parameter"),
            (format!("{base}, authorize_parameters: [x]"), "`authorize_parameters` is not a map"),
            ("provider: openai-project, key_command: [k]".to_owned(), "needs `project_id`"),
            ("provider: openai-project, project_id: p, key_command: [k]".to_owned(), "for `project_id`"),
            ("provider: openai-project, project_id: proj_a".to_owned(), "needs one of `key_file` and `key_command`"),
            ("provider: openai-project, project_id: proj_a, key_command: [k], ttl: 1m".to_owned(), "for `ttl`"),
            ("provider: openai-project, project_id: proj_a, key_file: \"/nowhere/k\"".to_owned(), "inside the project"),
            ("provider: exec, command: [c], rotate_command: [d]".to_owned(), "has no `rotate_command`"),
        ] {
            let messages = read(&credential).unwrap_err();
            assert!(messages.iter().any(|message| message.contains(part)), "{credential}: {messages:?}");
        }
    }
}
