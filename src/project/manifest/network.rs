//! Reads `network.allow`: short entries (`host`, port 443) and long ones (`{ host, port, allow_private }`).

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use crate::network::address::special_use;
use crate::network::name::{HostNameError, HostPattern};
use crate::network::policy::{AllowRule, Policy};
use crate::project::reader::Reader;
use crate::project::yaml::{Node, Value};

/// Keys of `network`.
pub(in crate::project) const NETWORK: &[&str] = &["allow"];
/// Keys of a long entry; `rules` is known so that its refusal says more than "unknown key".
pub(in crate::project) const RULE: &[&str] = &["host", "port", "allow_private", "rules"];

/// Entries that a list may have.
const RULE_LIMIT: usize = 500;

/// The allow list; empty when the manifest has none.
pub(super) fn policy(reader: &mut Reader, node: Option<&Node>, path: &Path) -> Policy {
    let mut policy = Policy::default();
    let Some(fields) = node.and_then(|node| reader.fields(node, "`network`", NETWORK)) else { return policy };
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
    for item in items {
        let mut rule = match &item.value {
            Value::Text(_) => host(reader, item, &[]).map(|host| AllowRule {
                host,
                port: 443,
                allow_private: Vec::new(),
                origin: None,
            }),
            _ => long(reader, item),
        };
        if let Some(rule) = &mut rule {
            rule.origin = Some(format!("{file}:{}", item.place.line));
        }
        policy.allow.extend(rule);
    }
    policy
}

fn long(reader: &mut Reader, item: &Node) -> Option<AllowRule> {
    let fields = reader.fields(item, "an entry of `network.allow`", RULE)?;
    if let Some(node) = fields.get("rules") {
        reader.report(
            node.place,
            "rules for methods and paths need TLS termination, which this version does not have",
            "take `rules` out; the whole host is then reachable, so ask whether it should be in the list",
        );
    }
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
    Some(AllowRule { host, port, allow_private, origin: None })
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
