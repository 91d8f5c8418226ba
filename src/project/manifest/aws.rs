//! Reads what a credential of the provider `aws-sts` says: role, region, whose keys, and what narrows the session.

use std::collections::BTreeMap;

use super::vault;
use crate::credential::aws::{LONGEST, SHORTEST};
use crate::credential::spec::{AwsSource, AwsStsSpec};
use crate::project::quantity;
use crate::project::reader::{Fields, Reader};
use crate::project::yaml::{Node, Value};

/// Keys of a credential that this provider has.
pub(super) const KEYS: &[&str] = &[
    "address",
    "role",
    "region",
    "profile",
    "key_command",
    "identity",
    "ttl",
    "policy",
    "policy_arns",
    "tags",
    "external_id",
    "source_identity",
];

/// The specification, or `None` with a problem reported.
pub(super) fn spec(reader: &mut Reader, fields: &Fields<'_>) -> Option<AwsStsSpec> {
    let example = "an address such as https://sts.eu-central-1.amazonaws.com";
    let address = optional(reader, fields, "address", example, vault::address);
    let role = needed(reader, fields, "role", "arn:aws:iam::123456789012:role/NAME", |text| arn(text, ":role/"));
    let region = needed(reader, fields, "region", "a region such as eu-central-1", |text| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        ((2..=32).contains(&text.len()) && text.bytes().all(plain)).then(|| text.to_owned())
    });
    let source = source(reader, fields);
    let ttl = match fields.get("ttl") {
        None => Some(SHORTEST),
        Some(node) => reader.parsed(node, "`ttl`", "a duration of 15m to 12h", |text| {
            quantity::duration(text).filter(|life| (SHORTEST..=LONGEST).contains(life))
        }),
    };
    let example = "a policy in JSON of at most 2048 characters";
    let policy = optional(reader, fields, "policy", example, |text| {
        let object = serde_json::from_str::<serde_json::Value>(text).is_ok_and(|policy| policy.is_object());
        (object && text.chars().count() <= 2048).then(|| text.to_owned())
    });
    let policy_arns = match fields.get("policy_arns") {
        None => Some(Vec::new()),
        Some(node) => arns(reader, node),
    };
    let tags = match fields.get("tags") {
        None => Some(BTreeMap::new()),
        Some(node) => tags(reader, node),
    };
    let example = "an external id of 2 to 1224 of a-z, A-Z, 0-9 and _+=,.@:/-";
    let external_id = optional(reader, fields, "external_id", example, |text| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&byte);
        ((2..=1224).contains(&text.len()) && text.bytes().all(plain)).then(|| text.to_owned())
    });
    if let (Some(AwsSource::Identity(_)), Some(node)) = (&source, fields.get("external_id")) {
        let remedy = "take it out; the role's trust policy compares `sub` and `aud` of the identity";
        reader.report(node.place, "a role that is assumed with `identity` takes no `external_id`", remedy);
    }
    let source_identity = match fields.get("source_identity") {
        None => Some(false),
        Some(node) => reader.boolean(node, "`source_identity`"),
    };
    Some(AwsStsSpec {
        address: address?,
        role: role?,
        region: region?,
        source: source?,
        ttl: ttl?,
        policy: policy?,
        policy_arns: policy_arns?,
        tags: tags?,
        external_id: external_id?,
        source_identity: source_identity?,
    })
}

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

fn needed(
    reader: &mut Reader,
    fields: &Fields<'_>,
    key: &str,
    example: &str,
    parse: impl FnOnce(&str) -> Option<String>,
) -> Option<String> {
    if fields.get(key).is_none() {
        reader.report(fields.place, format!("the provider `aws-sts` needs `{key}`"), format!("write {example}"));
    }
    optional(reader, fields, key, example, parse)?
}

fn source(reader: &mut Reader, fields: &Fields<'_>) -> Option<AwsSource> {
    let given: Vec<&str> =
        ["profile", "key_command", "identity"].into_iter().filter(|key| fields.get(key).is_some()).collect();
    if let [first, second, ..] = given.as_slice() {
        let message = format!("the provider `aws-sts` has both `{first}` and `{second}`");
        let remedy = "take one of them out; without any, the keys of your environment are used";
        reader.report(fields.get(second).map_or(fields.place, |node| node.place), message, remedy);
        return None;
    }
    if let Some(node) = fields.get("identity") {
        return vault::audience(reader, node, "`identity`", "sts.amazonaws.com").map(AwsSource::Identity);
    }
    match (fields.get("profile"), fields.get("key_command")) {
        (None, None) => Some(AwsSource::Environment),
        (Some(node), None) => {
            let name = reader.parsed(node, "`profile`", "a profile of ~/.aws/credentials", |text| {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.@+=/".contains(&byte);
                ((1..=128).contains(&text.len()) && text.bytes().all(plain)).then(|| text.to_owned())
            })?;
            Some(AwsSource::Profile(name))
        }
        (_, Some(node)) => reader.command(node, "`key_command`").map(AwsSource::Command),
    }
}

/// `arn:PARTITION:iam::ACCOUNT:KIND/NAME`.
fn arn(text: &str, kind: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&byte);
    let mut parts = text.splitn(6, ':');
    let head = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let account = parts.next()?;
    let known = head[0] == "arn" && head[1].starts_with("aws") && head[2] == "iam" && head[3].is_empty();
    let account = account == "aws" || (account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()));
    let named = format!(":{}", parts.next()?).strip_prefix(kind).is_some_and(|name| !name.is_empty());
    (known && account && named && text.len() <= 512 && text.bytes().all(plain)).then(|| text.to_owned())
}

fn arns(reader: &mut Reader, node: &Node) -> Option<Vec<String>> {
    let Value::List(items) = &node.value else {
        reader.report(node.place, format!("`policy_arns` is {}, not a list", node.value.kind()), "write [ARN, ARN]");
        return None;
    };
    if items.is_empty() || items.len() > 10 {
        reader.report(node.place, format!("`policy_arns` has {} entries", items.len()), "write 1 to 10 ARNs");
        return None;
    }
    let example = "an ARN such as arn:aws:iam::aws:policy/ReadOnlyAccess";
    let read: Vec<String> = (items.iter())
        .filter_map(|item| reader.parsed(item, "`policy_arns`", example, |text| arn(text, ":policy/")))
        .collect();
    (read.len() == items.len()).then_some(read)
}

fn tags(reader: &mut Reader, node: &Node) -> Option<BTreeMap<String, String>> {
    let Value::Map(entries) = &node.value else {
        reader.report(node.place, format!("`tags` is {}, not a map", node.value.kind()), "write { key: value }");
        return None;
    };
    if entries.len() > 50 {
        reader.report(node.place, format!("`tags` has {} entries", entries.len()), "write at most 50");
        return None;
    }
    // "The characters can be letters, spaces, numbers and _.:/=+-@", here those of ASCII.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b" _.:/=+-@".contains(&byte);
    let mut read = BTreeMap::new();
    for (key, value) in entries {
        if key.text.is_empty() || key.text.len() > 128 || !key.text.bytes().all(plain) || key.text.starts_with("aws:") {
            let shown: String = key.text.chars().take(60).collect();
            let message = format!("`{}` is not the key of a tag", shown.escape_debug());
            reader.report(key.place, message, "write 1 to 128 of a-z, A-Z, 0-9, space and _.:/=+-@");
            return None;
        }
        let value = reader.parsed(value, "a tag's value", "at most 256 of the same characters", |text| {
            (text.len() <= 256 && text.bytes().all(plain)).then(|| text.to_owned())
        })?;
        read.insert(key.text.clone(), value);
    }
    Some(read)
}
