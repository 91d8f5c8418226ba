//! Reads `network.allow`: short entries (`host`, port 443), long ones (`{ host, port, allow_private, rules }`) and presets
//! (`{ preset, with }`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use crate::image::reference::Digest;
use crate::network::address::special_use;
use crate::network::limits::NetworkLimits;
use crate::network::name::{HostName, HostNameError, HostPattern};
use crate::network::policy::{AllowRule, Policy};
use crate::network::request::RequestRule;
use crate::project::network_preset::{self, NetworkPreset, PresetError, VALUE_LIMIT};
use crate::project::problem::Place;
use crate::project::quantity;
use crate::project::reader::Reader;
use crate::project::yaml::{Node, Value};

/// Keys of `network`.
pub(in crate::project) const NETWORK: &[&str] = &["allow", "limits"];
/// Keys of `network.limits`.
pub(in crate::project) const LIMITS: &[&str] = &["upload", "request_body", "connections", "names", "idle", "total"];
/// Keys of a long entry.
pub(in crate::project) const RULE: &[&str] = &["host", "port", "allow_private", "rules"];
/// Keys of a preset's entry.
pub(in crate::project) const PRESET: &[&str] = &["preset", "with"];

/// Entries that a list may have.
const RULE_LIMIT: usize = 500;

/// Connections and names that the relay serves at most.
pub(in crate::project) const CONNECTION_LIMIT: i64 = 1024;
/// As [`CONNECTION_LIMIT`].
pub(in crate::project) const NAME_LIMIT: i64 = 4096;

/// Methods and paths that an entry may have, also after presets were written out.
pub(in crate::project) const REQUEST_LIMIT: usize = 256;

/// The files of presets that a manifest uses, with the digest of what was read of each.
pub(super) type PresetFiles = BTreeMap<String, Digest>;

/// The allow list, empty when the manifest has none, and the project's own presets in it.
pub(super) fn policy(reader: &mut Reader, node: Option<&Node>, path: &Path) -> (Policy, PresetFiles) {
    let mut policy = Policy::default();
    let mut files = PresetFiles::new();
    if let Some(fields) = node.and_then(|node| reader.fields(node, "`network`", NETWORK)) {
        if let Some(node) = fields.get("limits") {
            limits(reader, node, &mut policy.limits);
        }
        if let Some(list) = fields.get("allow") {
            policy.allow = allow(reader, list, path, &mut files);
        }
    }
    (policy, files)
}

/// An entry, before those of the same host were brought together.
struct Written {
    place: Place,
    rule: AllowRule,
    preset: bool,
}

fn allow(reader: &mut Reader, list: &Node, path: &Path, files: &mut PresetFiles) -> Vec<AllowRule> {
    let Value::List(items) = &list.value else {
        reader.report(list.place, "`network.allow` is not a list", "write `- host.example` lines below it, or `[]`");
        return Vec::new();
    };
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let root = path.parent().unwrap_or(Path::new(""));
    let mut entries = Vec::new();
    for item in items.iter().take(RULE_LIMIT + 1) {
        let uses_preset =
            matches!(&item.value, Value::Map(fields) if fields.iter().any(|(key, _)| key.text == "preset"));
        let written = match &item.value {
            Value::Text(_) => host(reader, item, &[]).map(|host| AllowRule::new(host, 443)).into_iter().collect(),
            _ if uses_preset => preset(reader, item, root, files),
            _ => long(reader, item).into_iter().collect(),
        };
        let origin = format!("{file}:{}", item.place.line);
        entries.extend(written.into_iter().map(|rule| Written {
            place: item.place,
            rule: AllowRule { origin: Some(origin.clone()), ..rule },
            preset: uses_preset,
        }));
    }
    let entries = together(entries);
    if entries.len() > RULE_LIMIT {
        let message =
            format!("`network.allow` has {} entries, at most {RULE_LIMIT} are allowed", items.len().max(entries.len()));
        reader.report(list.place, message, "name fewer hosts, or a domain as `*.example.com`");
        return Vec::new();
    }
    check_overlaps(reader, &entries);
    for entry in entries.iter().filter(|entry| entry.preset && entry.rule.rules.len() > REQUEST_LIMIT) {
        let message = format!(
            "`{}` has {} rules with its presets, at most {REQUEST_LIMIT} are allowed",
            entry.rule.host,
            entry.rule.rules.len()
        );
        reader.report(entry.place, message, "name fewer values in `with`");
    }
    entries.into_iter().map(|entry| entry.rule).collect()
}

/// Adds the rules of an entry to those of another one for the very same host and port, where one of the two is of a
/// preset: so a manifest extends a preset, and two presets share a host. Without rules on both sides nothing is added up.
fn together(entries: Vec<Written>) -> Vec<Written> {
    let mut brought: Vec<Written> = Vec::new();
    for entry in entries {
        let same = brought.iter_mut().find(|other| {
            other.rule.host == entry.rule.host
                && other.rule.port == entry.rule.port
                && (other.preset || entry.preset)
                && !other.rule.rules.is_empty()
                && !entry.rule.rules.is_empty()
        });
        let Some(other) = same else {
            brought.push(entry);
            continue;
        };
        let known = std::mem::take(&mut other.rule.rules);
        let added = entry.rule.rules.into_iter().filter(|rule| !known.contains(rule));
        other.rule.rules = known.iter().cloned().chain(added).collect();
        for range in entry.rule.allow_private {
            if !other.rule.allow_private.contains(&range) {
                other.rule.allow_private.push(range);
            }
        }
        other.preset = true;
    }
    brought
}

/// The entries of a preset, with the manifest's values.
fn preset(reader: &mut Reader, item: &Node, root: &Path, files: &mut PresetFiles) -> Vec<AllowRule> {
    if let Value::Map(fields) = &item.value
        && let Some((key, _)) = fields.iter().find(|(key, _)| RULE.contains(&key.text.as_str()))
    {
        let message = format!("`{}` stands beside `preset`, which names hosts and rules itself", key.text);
        reader.report(key.place, message, "write it as an entry of its own: rules for the same host are added up");
        return Vec::new();
    }
    let Some(fields) = reader.fields(item, "a preset in `network.allow`", PRESET) else { return Vec::new() };
    let Some(node) = fields.get("preset") else { return Vec::new() };
    let Some(name) = reader.text(node, "`preset`", "a preset's name such as github") else { return Vec::new() };
    let found = match network_preset::find(name, root) {
        Ok(found) => found,
        Err(error) => {
            let (message, remedy) = match error {
                PresetError::Unknown(name) => (
                    format!("there is no preset `{}`", name.escape_debug()),
                    format!("write one of {}", network_preset::names(root).join(", ")),
                ),
                PresetError::Read { path, source } => (
                    format!("the preset's file {path} cannot be read: {source}"),
                    "make it a regular file of text that you can read".to_owned(),
                ),
                PresetError::Syntax { path, problem } => (
                    format!("{path}:{}: {}", problem.line, problem.message),
                    format!("in that file, {}", problem.remedy),
                ),
                PresetError::Entry { path, fault } => {
                    (format!("{path}: {fault}"), "compare it with `sandbox network presets github`".to_owned())
                }
            };
            reader.report(node.place, message, remedy);
            return Vec::new();
        }
    };
    files.extend(found.file.clone());
    let Some(values) = values(reader, &found, fields.get("with"), item.place) else { return Vec::new() };
    match found.entries(&values) {
        Ok(entries) => entries,
        Err(error) => {
            let remedy = format!("look at the file: `sandbox network presets {}`", found.name);
            reader.report(item.place, error.to_string(), remedy);
            Vec::new()
        }
    }
}

/// What `with` says, checked; `None` when something in it is wrong.
fn values(
    reader: &mut Reader,
    preset: &NetworkPreset,
    with: Option<&Node>,
    place: Place,
) -> Option<BTreeMap<String, Vec<String>>> {
    let faults = reader.problems.len();
    let known: Vec<&str> = preset.parameters.keys().map(String::as_str).collect();
    let what = format!("`with` of the preset `{}`", preset.name);
    let fields = match with {
        Some(node) if known.is_empty() => {
            reader.report(node.place, format!("the preset `{}` has no parameters", preset.name), "take `with` out");
            return None;
        }
        Some(node) => Some(reader.fields(node, &what, &known)?),
        None => None,
    };
    let mut values = BTreeMap::new();
    for (name, parameter) in &preset.parameters {
        let Some(node) = fields.as_ref().and_then(|fields| fields.get(name)) else {
            if !parameter.optional {
                let message = format!("the preset `{}` needs `{name}`: {}", preset.name, parameter.description);
                reader.report(place, message, format!("write `{}`", preset.usage().trim_start_matches("- ")));
            }
            continue;
        };
        let single = std::slice::from_ref(node);
        let nodes = if let Value::List(nodes) = &node.value { nodes.as_slice() } else { single };
        if nodes.is_empty() || nodes.len() > VALUE_LIMIT {
            let message = format!("`{name}` has {} values, 1 to {VALUE_LIMIT} are allowed", nodes.len());
            reader.report(node.place, message, format!("write {}", parameter.list()));
            continue;
        }
        let example = format!("{} such as {}", parameter.description, parameter.list());
        let read = |node| {
            reader.parsed(node, &format!("`{name}`"), &example, |text| {
                parameter.check(text).is_ok().then(|| text.to_owned())
            })
        };
        values.insert(name.clone(), nodes.iter().filter_map(read).collect());
    }
    if reader.problems.len() > faults {
        return None;
    }
    if values.is_empty() && !known.is_empty() {
        let message = format!("the preset `{}` allows nothing without `with`", preset.name);
        reader.report(place, message, format!("write `{}`", preset.usage().trim_start_matches("- ")));
        return None;
    }
    Some(values)
}

fn limits(reader: &mut Reader, node: &Node, limits: &mut NetworkLimits) {
    let Some(fields) = reader.fields(node, "`network.limits`", LIMITS) else { return };
    for (key, bytes) in [("upload", &mut limits.upload), ("request_body", &mut limits.request_body)] {
        if let Some(node) = fields.get(key) {
            let what = format!("`network.limits.{key}`");
            *bytes = reader.parsed(node, &what, "a size such as 512MiB", quantity::size).unwrap_or(*bytes);
        }
    }
    for (key, most, number) in
        [("connections", CONNECTION_LIMIT, &mut limits.connections), ("names", NAME_LIMIT, &mut limits.names)]
    {
        if let Some(node) = fields.get(key) {
            let read = reader.integer(node, &format!("`network.limits.{key}`"), 1..=most);
            *number = read.and_then(|read| u32::try_from(read).ok()).unwrap_or(*number);
        }
    }
    for (key, seconds) in [("idle", &mut limits.idle), ("total", &mut limits.total)] {
        if let Some(node) = fields.get(key) {
            let what = format!("`network.limits.{key}`");
            let read = reader.parsed(node, &what, "a duration such as 30m", quantity::duration);
            *seconds = read.map_or(*seconds, |duration| duration.as_secs());
        }
    }
}

fn long(reader: &mut Reader, item: &Node) -> Option<AllowRule> {
    let fields = reader.fields(item, "an entry of `network.allow`", RULE)?;
    let rules = fields.get("rules").map(|node| requests(reader, node)).unwrap_or_default();
    let mut allow_private = Vec::new();
    if let Some(node) = fields.get("allow_private") {
        let single = std::slice::from_ref(node);
        let nodes = if let Value::List(nodes) = &node.value { nodes.as_slice() } else { single };
        for node in nodes {
            let Some(range) = reader.parsed(node, "`allow_private`", "a network such as 10.20.0.0/16", network) else {
                continue;
            };
            if never(&range) {
                let message = format!("`{range}` holds loopback, link-local or cloud metadata addresses, or is public");
                let remedy = "write the private network of that host alone, such as 10.20.0.0/16 or fd12:3456::/32";
                reader.report(node.place, message, remedy);
                continue;
            }
            allow_private.push(range);
        }
    }
    let port = match fields.get("port") {
        None => 443,
        Some(node) => reader.integer(node, "`port`", 1..=65_535).and_then(|port| u16::try_from(port).ok())?,
    };
    let Some(node) = fields.get("host") else {
        reader.report(fields.place, "an entry of `network.allow` has no `host`", "write `host: NAME`");
        return None;
    };
    let host = host(reader, node, &allow_private)?;
    if !rules.is_empty() && matches!(host, HostPattern::Address(_)) {
        let remedy = "write the host's name, or take `rules` out";
        reader.report(node.place, "an address has `rules`, and TLS to an address names no host to check", remedy);
    }
    Some(AllowRule { allow_private, rules, ..AllowRule::new(host, port) })
}

/// The methods and paths of one host.
fn requests(reader: &mut Reader, node: &Node) -> Vec<RequestRule> {
    let Value::List(items) = &node.value else {
        reader.report(node.place, "`rules` is not a list", "write [\"GET /path/**\"]");
        return Vec::new();
    };
    if items.is_empty() || items.len() > REQUEST_LIMIT {
        let message = format!("`rules` has {} entries, 1 to {REQUEST_LIMIT} are allowed", items.len());
        reader.report(node.place, message, "write the methods and paths, or take `rules` out to allow the whole host");
        return Vec::new();
    }
    let mut rules = Vec::new();
    for item in items {
        let example = "a method and a path such as \"GET /acme/api.git/**\"";
        let Some(text) = reader.text(item, "a rule", example) else { continue };
        match text.parse::<RequestRule>() {
            Ok(rule) => rules.push(rule),
            Err(error) => reader.report(item.place, error.to_string(), format!("write {example}")),
        }
    }
    rules
}

/// Refuses an entry that would let through what the rules of another entry for the same host refuse. The first entry
/// that covers a host decides, so such a list would mean something else than it says.
fn check_overlaps(reader: &mut Reader, entries: &[Written]) {
    for (index, Written { rule: first, .. }) in entries.iter().enumerate() {
        for Written { place, rule: second, .. } in &entries[index + 1..] {
            let differ = if first.port == second.port {
                first.rules != second.rules
            } else {
                first.rules.is_empty() != second.rules.is_empty()
            };
            if differ && overlap(&first.host, &second.host) {
                let before = first.origin.as_deref().unwrap_or("another entry");
                let message = format!("`{}` is also covered by {before}, with other `rules`", second.host);
                let remedy = if first.rules.is_empty() || second.rules.is_empty() {
                    "take the one without `rules` out, which allows the whole host, or give it rules"
                } else {
                    "write the same rules at both entries, or one entry with all of them"
                };
                reader.report(*place, message, remedy);
            }
        }
    }
}

/// Whether some host is covered by both patterns.
fn overlap(one: &HostPattern, other: &HostPattern) -> bool {
    let below = |name: &HostName, parent: &HostName| HostPattern::Below(parent.clone()).matches(name);
    match (one, other) {
        (HostPattern::Exact(one), HostPattern::Exact(other)) => one == other,
        (HostPattern::Exact(name), HostPattern::Below(parent))
        | (HostPattern::Below(parent), HostPattern::Exact(name)) => below(name, parent),
        (HostPattern::Below(one), HostPattern::Below(other)) => one == other || below(one, other) || below(other, one),
        (HostPattern::Address(one), HostPattern::Address(other)) => one == other,
        (HostPattern::Address(_), _) | (_, HostPattern::Address(_)) => false,
    }
}

fn network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()?;
    // Bits outside the prefix are a slip of the pen that would allow another network than the one that is read.
    (network.trunc() == network).then_some(network)
}

/// Whether a network is outside the private ranges that a manifest may name: RFC 1918, RFC 6598 and RFC 4193, without
/// the address at which a cloud serves its metadata over IPv6 (`fd00:ec2::254`).
fn never(network: &IpNet) -> bool {
    const PRIVATE: [&str; 5] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];
    let private = PRIVATE.iter().filter_map(|range| range.parse::<IpNet>().ok()).any(|range| range.contains(network));
    let metadata = ["fd00:ec2::254", "100.100.100.200"];
    !private || metadata.iter().filter_map(|text| text.parse::<IpAddr>().ok()).any(|address| network.contains(&address))
}

fn host(reader: &mut Reader, node: &Node, private: &[IpNet]) -> Option<HostPattern> {
    let text = reader.text(node, "a host", "a host name such as api.example.com")?;
    if let Some((name, rest)) = text.split_once(':')
        && !name.is_empty()
        && rest.bytes().all(|byte| byte.is_ascii_digit())
    {
        let message = "a host has its port behind a colon";
        reader.report(node.place, message, format!("write {{ host: {}, port: {rest} }}", name.escape_debug()));
        return None;
    }
    if text.contains('/') {
        let message = "a URL or a path stands where a host name is needed";
        reader.report(node.place, message, "write the host name alone, such as api.example.com");
        return None;
    }
    match text.parse::<HostPattern>() {
        Ok(HostPattern::Address(address))
            if special_use(address).is_some() && !private.iter().any(|range| range.contains(&address)) =>
        {
            let message = format!("`{address}` is a private or otherwise special address");
            let remedy = format!(
                "if it is meant, write {{ host: \"{text}\", port: PORT, allow_private: {address}/{} }}",
                if address.is_ipv4() { 32 } else { 128 }
            );
            reader.report(node.place, message, remedy);
            None
        }
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let remedy = match &error {
                HostNameError::Address(_) => {
                    "write a host name, or the address as four decimal numbers (IPv6: in brackets, in its shortest spelling); a private one also needs `allow_private`"
                }
                HostNameError::TooWide(_) => "name the hosts, or the domain that you own: `*.example.com`",
                _ => "write a host name such as api.example.com, or `*.example.com` for all below it",
            };
            reader.report(node.place, error.to_string(), remedy);
            None
        }
    }
}
