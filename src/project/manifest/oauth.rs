//! Reads what a credential of the provider `oauth` says: client, addresses, scopes.

use super::vault;
use crate::credential::spec::OauthSpec;
use crate::project::reader::{Fields, Reader};
use crate::project::yaml::{Node, Value};

/// Keys of a credential that this provider has.
pub(super) const KEYS: &[&str] = &["client_id", "token_url", "device_url", "scopes"];
/// Scopes that a log-in may have.
const SCOPES: usize = 32;

/// The specification, or `None` with a problem reported.
pub(super) fn spec(reader: &mut Reader, fields: &Fields<'_>) -> Option<OauthSpec> {
    let client_id = needed(reader, fields, "client_id", "the client's id, which the agent's vendor publishes")
        .and_then(|node| reader.parsed(node, "`client_id`", "a client's id, such as Iv23liAbCdEf", client));
    let example = "an address such as https://auth.example.com/oauth/token";
    let token_url = needed(reader, fields, "token_url", example)
        .and_then(|node| reader.parsed(node, "`token_url`", example, vault::address));
    let device_url = match fields.get("device_url") {
        None => None,
        Some(node) => Some(reader.parsed(node, "`device_url`", example, vault::address)?),
    };
    let scopes = match fields.get("scopes") {
        None => Vec::new(),
        Some(node) => scopes(reader, node)?,
    };
    Some(OauthSpec { client_id: client_id?, token_url: token_url?, device_url, scopes })
}

fn needed<'a>(reader: &mut Reader, fields: &Fields<'a>, key: &str, what: &str) -> Option<&'a Node> {
    let found = fields.get(key);
    if found.is_none() {
        reader.report(fields.place, format!("the provider `oauth` needs `{key}`"), format!("write {what}"));
    }
    found
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
