//! Reads `network.allow`: short entries (`host`, port 443) and long ones (`{ host, port, allow_private, rules }`).

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use crate::network::address::special_use;
use crate::network::limits::NetworkLimits;
use crate::network::name::{HostName, HostNameError, HostPattern};
use crate::network::policy::{AllowRule, Policy};
use crate::network::request::RequestRule;
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

/// Entries that a list may have.
const RULE_LIMIT: usize = 500;

/// Connections and names that the relay serves at most.
pub(in crate::project) const CONNECTION_LIMIT: i64 = 1024;
/// As [`CONNECTION_LIMIT`].
pub(in crate::project) const NAME_LIMIT: i64 = 4096;

/// Methods and paths that an entry may have.
const REQUEST_LIMIT: usize = 64;

/// The allow list; empty when the manifest has none.
pub(super) fn policy(reader: &mut Reader, node: Option<&Node>, path: &Path) -> Policy {
    let mut policy = Policy::default();
    let Some(fields) = node.and_then(|node| reader.fields(node, "`network`", NETWORK)) else { return policy };
    if let Some(node) = fields.get("limits") {
        limits(reader, node, &mut policy.limits);
    }
    let Some(list) = fields.get("allow") else { return policy };
    let Value::List(items) = &list.value else {
        reader.report(list.place, "`network.allow` is not a list", "write `- host.example` lines below it, or `[]`");
        return policy;
    };
    if items.len() > RULE_LIMIT {
        let message = format!("`network.allow` has {} entries, at most {RULE_LIMIT} are allowed", items.len());
        reader.report(list.place, message, "name fewer hosts, or a domain as `*.example.com`");
        return policy;
    }
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let mut entries = Vec::new();
    for item in items {
        let mut rule = match &item.value {
            Value::Text(_) => host(reader, item, &[]).map(|host| AllowRule::new(host, 443)),
            _ => long(reader, item),
        };
        if let Some(rule) = &mut rule {
            rule.origin = Some(format!("{file}:{}", item.place.line));
        }
        entries.extend(rule.map(|rule| (item.place, rule)));
    }
    check_overlaps(reader, &entries);
    policy.allow = entries.into_iter().map(|(_, rule)| rule).collect();
    policy
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
fn check_overlaps(reader: &mut Reader, entries: &[(Place, AllowRule)]) {
    for (index, (_, first)) in entries.iter().enumerate() {
        for (place, second) in &entries[index + 1..] {
            let differ = if first.port == second.port {
                first.rules != second.rules
            } else {
                first.rules.is_empty() != second.rules.is_empty()
            };
            if differ && overlap(&first.host, &second.host) {
                let before = first.origin.as_deref().unwrap_or("another entry");
                let message = format!("`{}` is also covered by {before}, with other `rules`", second.host);
                let remedy = "write the same rules at both entries, or one entry with all of them";
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
