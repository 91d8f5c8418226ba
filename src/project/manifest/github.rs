//! Reads what a credential of the provider `github-app` says: app, installation, repositories, permissions, key.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::vault;
use crate::credential::spec::{GithubAccess, GithubAppSpec, GithubRepositories, KeySource};
use crate::project::reader::{Fields, Reader};
use crate::project::yaml::{Node, Value};

/// Keys of a credential that this provider has.
pub(super) const KEYS: &[&str] =
    &["address", "app", "installation", "repositories", "repository_ids", "permissions", "key_file", "key_command"];
/// The API of github.com.
const ADDRESS: &str = "https://api.github.com";
/// GitHub takes 500; with some 6 KiB of answer for each, the rest would not be read.
const REPOSITORIES: usize = 50;
const PERMISSIONS: usize = 64;
/// Words for what agents mostly need. None of them may change workflows (`workflows`), which run with more than the agent has
/// ("Permissions required for GitHub Apps").
const PRESETS: &[(&str, &[(&str, GithubAccess)])] = &[
    ("read", &[("contents", GithubAccess::Read)]),
    ("push", &[("contents", GithubAccess::Write)]),
    ("pull-requests", &[("contents", GithubAccess::Write), ("pull_requests", GithubAccess::Write)]),
    ("review", &[("contents", GithubAccess::Read), ("pull_requests", GithubAccess::Write)]),
    ("issues", &[("contents", GithubAccess::Read), ("issues", GithubAccess::Write)]),
];

/// The specification, or `None` with a problem reported.
pub(super) fn spec(reader: &mut Reader, fields: &Fields<'_>, root: &Path) -> Option<GithubAppSpec> {
    let example = "an address such as https://api.github.com or https://github.example.com/api/v3";
    let address = match fields.get("address") {
        None => Some(ADDRESS.to_owned()),
        Some(node) => reader.parsed(node, "`address`", example, vault::address),
    };
    let app = needed(reader, fields, "app", "the app's client id").and_then(|node| app(reader, node));
    let installation = needed(reader, fields, "installation", "the number at the end of the installation's address")
        .and_then(|node| reader.integer(node, "`installation`", 1..=i64::MAX))
        .and_then(|number| u64::try_from(number).ok());
    let repositories = repositories(reader, fields);
    let permissions = needed(reader, fields, "permissions", "what the agent needs, such as { contents: write }")
        .and_then(|node| permissions(reader, node));
    let key = key(reader, fields, root, "github-app");
    Some(GithubAppSpec {
        address: address?,
        app: app?,
        installation: installation?,
        repositories: repositories?,
        permissions: permissions?,
        key: key?,
    })
}

fn needed<'a>(reader: &mut Reader, fields: &Fields<'a>, key: &str, what: &str) -> Option<&'a Node> {
    let found = fields.get(key);
    if found.is_none() {
        reader.report(fields.place, format!("the provider `github-app` needs `{key}`"), format!("write {what}"));
    }
    found
}

fn app(reader: &mut Reader, node: &Node) -> Option<String> {
    // Old apps are known by their number, which nobody puts into quotes.
    if let Value::Integer(number) = node.value
        && number > 0
    {
        return Some(number.to_string());
    }
    let example = "the app's client id, such as Iv23liAbCdEfGhIjKlMn, or its number";
    reader.parsed(node, "`app`", example, |text| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        ((1..=64).contains(&text.len()) && text.bytes().all(plain)).then(|| text.to_owned())
    })
}

fn repositories(reader: &mut Reader, fields: &Fields<'_>) -> Option<GithubRepositories> {
    match (fields.get("repositories"), fields.get("repository_ids")) {
        (Some(node), None) => {
            let example = "a repository's name without its owner, such as payments";
            let names = list(reader, node, "`repositories`")?;
            let read: BTreeSet<String> =
                names.iter().filter_map(|name| reader.parsed(name, "a repository", example, repository)).collect();
            (read.len() == names.len()).then_some(GithubRepositories::Names(read))
        }
        (None, Some(node)) => {
            let ids = list(reader, node, "`repository_ids`")?;
            let read: BTreeSet<u64> = ids
                .iter()
                .filter_map(|id| reader.integer(id, "a repository's number", 1..=i64::MAX))
                .filter_map(|id| u64::try_from(id).ok())
                .collect();
            (read.len() == ids.len()).then_some(GithubRepositories::Ids(read))
        }
        _ => {
            let message = "the provider `github-app` needs one of `repositories` and `repository_ids`: without them a \
                           token covers EVERY repository of the installation";
            reader.report(fields.place, message, "write repositories: [NAME, NAME], without their owner");
            None
        }
    }
}

fn list<'a>(reader: &mut Reader, node: &'a Node, what: &str) -> Option<&'a [Node]> {
    let Value::List(items) = &node.value else {
        reader.report(node.place, format!("{what} is {}, not a list", node.value.kind()), "write [ONE, OTHER]");
        return None;
    };
    if items.is_empty() || items.len() > REPOSITORIES {
        let message = format!("{what} has {} entries", items.len());
        let remedy = format!("name 1 to {REPOSITORIES}; with none a token would cover every repository");
        reader.report(node.place, message, remedy);
        return None;
    }
    for (index, item) in items.iter().enumerate() {
        let same = |other: &Node| match (&other.value, &item.value) {
            (Value::Text(one), Value::Text(other)) => one.eq_ignore_ascii_case(other),
            (Value::Integer(one), Value::Integer(other)) => one == other,
            _ => false,
        };
        if items[..index].iter().any(same) {
            reader.report(item.place, format!("{what} names the same one twice"), "take one of them out");
            return None;
        }
    }
    Some(items)
}

/// "The repository name can only contain ASCII letters, digits, and the characters `.`, `-`, and `_`", at most 100.
fn repository(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let name = (1..=100).contains(&text.len()) && text.bytes().all(plain) && text != "." && text != "..";
    name.then(|| text.to_ascii_lowercase())
}

fn permissions(reader: &mut Reader, node: &Node) -> Option<BTreeMap<String, GithubAccess>> {
    let remedy = "write { contents: write, pull_requests: write }, with the names of the API";
    if matches!(node.value, Value::Text(_)) {
        return reader.parsed(node, "`permissions`", "a map, or read, push, pull-requests, review or issues", preset);
    }
    let Value::Map(entries) = &node.value else {
        reader.report(node.place, format!("`permissions` is {}, not a map", node.value.kind()), remedy);
        return None;
    };
    if entries.is_empty() || entries.len() > PERMISSIONS {
        let message = format!("`permissions` has {} entries: without any a token has all of the app's", entries.len());
        reader.report(node.place, message, remedy);
        return None;
    }
    let mut read = BTreeMap::new();
    for (key, value) in entries {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if key.text.is_empty() || key.text.len() > 64 || !key.text.bytes().all(plain) {
            let shown: String = key.text.chars().take(60).collect();
            let message = format!("`{}` is not the name of a permission", shown.escape_debug());
            reader.report(key.place, message, "write it as the API does, such as pull_requests");
            return None;
        }
        let access = reader.parsed(value, &format!("`permissions.{}`", key.text), "read, write or admin", access)?;
        read.insert(key.text.clone(), access);
    }
    Some(read)
}

fn preset(text: &str) -> Option<BTreeMap<String, GithubAccess>> {
    let (_, permissions) = PRESETS.iter().find(|(word, _)| *word == text)?;
    Some(permissions.iter().map(|(name, access)| ((*name).to_owned(), *access)).collect())
}

fn access(text: &str) -> Option<GithubAccess> {
    [GithubAccess::Read, GithubAccess::Write, GithubAccess::Admin].into_iter().find(|access| access.word() == text)
}

/// Where a key comes from that issues others: one of `key_file` and `key_command`.
pub(super) fn key(reader: &mut Reader, fields: &Fields<'_>, root: &Path, provider: &str) -> Option<KeySource> {
    match (fields.get("key_file"), fields.get("key_command")) {
        (Some(node), None) => {
            let example = "a path outside the project: ~/NAME or /NAME";
            let path = reader.parsed(node, "`key_file`", example, outer_path)?;
            if path.starts_with(root) {
                let message = "`key_file` is inside the project, from where it gets into commits";
                reader.report(node.place, message, "keep the key below your home folder, with mode 600");
                return None;
            }
            Some(KeySource::File(path))
        }
        (None, Some(node)) => reader.command(node, "`key_command`").map(KeySource::Command),
        _ => {
            let remedy = "write `key_command: [program, argument]`, or `key_file: ~/PATH` outside the project";
            let message = format!("the provider `{provider}` needs one of `key_file` and `key_command`");
            reader.report(fields.place, message, remedy);
            None
        }
    }
}

fn outer_path(text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    let begins = path.is_absolute() || text.starts_with("~/");
    let plain = !path.components().any(|part| part == Component::ParentDir);
    (begins && plain && text.len() <= 4096 && path.file_name().is_some()).then(|| path.to_owned())
}
