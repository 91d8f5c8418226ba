//! The allow list: what the manifest names, and what the gateway is given.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::network::address::special_use;
use crate::network::limits::NetworkLimits;
use crate::network::name::{Host, HostName, HostPattern};
use crate::network::proxy::UpstreamProxy;
use crate::network::request::RequestRule;

/// The origin of an entry that a person added while the sandbox runs.
pub const ADDED: &str = "added while running";
/// The origin of an entry that stands for whatever host was asked for.
pub const OBSERVED: &str = "observed";
/// The ports on which a policy that observes lets every public host answer.
pub const OBSERVED_PORTS: [u16; 2] = [80, 443];

/// Everything that the agent may reach. An empty policy allows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The allowed destinations, in the manifest's order.
    pub allow: Vec<AllowRule>,
    /// What is denied although an entry allows it. A person adds to it while the sandbox runs; no manifest does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<DenyRule>,
    /// How much may go to each host.
    #[serde(default)]
    pub limits: NetworkLimits,
    /// Certificate authorities to trust beside the web's, in PEM: those of a company's own hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
    /// The company's proxy, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<UpstreamProxy>,
    /// Whether every public host answers on the ports of the web, its TLS is terminated and its requests are recorded. For
    /// `network learn --observe` alone, in which nobody has a credential; no manifest says it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub observe: bool,
    /// Where the credentials may be sent that the agent has as files, by file name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, CredentialPlace>,
}

/// Where a credential may be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialPlace {
    /// The credential's name.
    pub credential: String,
    /// The hosts. With none, it may stand where requests carry credentials, over TLS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostPattern>,
}

/// One allowed destination: a host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowRule {
    /// The host, or every host below one.
    pub host: HostPattern,
    /// The TCP port.
    pub port: u16,
    /// Private, loopback or otherwise special addresses that this host may resolve to. Empty for public hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_private: Vec<IpNet>,
    /// The allowed methods and paths. With none, all are, and TLS passes through unread; with some, the gateway reads every
    /// request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RequestRule>,
    /// The brokered credential that the gateway puts into each request to this host, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<String>,
    /// Where the rule was written, for messages: `sandbox.yaml:12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// A destination that was denied while the sandbox runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenyRule {
    /// The host, or every host below one.
    pub host: HostPattern,
    /// The TCP port; every port when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl DenyRule {
    /// Whether the rule denies this destination.
    pub fn covers(&self, host: &Host, port: u16) -> bool {
        self.port.is_none_or(|denied| denied == port) && self.host.covers(host)
    }

    /// Whether the rule denies all that an entry with this host and port allows.
    pub fn covers_pattern(&self, host: &HostPattern, port: u16) -> bool {
        self.port.is_none_or(|denied| denied == port) && self.host.contains(host)
    }
}

impl Policy {
    /// Whether the gateway reads the requests to some host.
    pub fn inspects(&self) -> bool {
        self.observe || self.allow.iter().any(AllowRule::is_inspected)
    }

    /// Whether the agent has to trust more authorities than its image does.
    pub fn adds_authorities(&self) -> bool {
        self.authorities.is_some() || self.inspects()
    }

    /// The first rule that covers the destination, unless it is denied.
    pub fn find(&self, host: &HostName, port: u16) -> Option<&AllowRule> {
        self.find_host(&Host::Name(host.clone()), port)
    }

    /// The first rule that covers the destination, which may be an address, unless it is denied.
    pub fn find_host(&self, host: &Host, port: u16) -> Option<&AllowRule> {
        if self.denied.iter().any(|rule| rule.covers(host, port)) {
            return None;
        }
        self.allow.iter().find(|rule| rule.port == port && rule.host.covers(host))
    }

    /// The rule that covers the destination: one of the list, or the one that stands for every public host where the policy
    /// observes.
    pub fn entry(&self, host: &Host, port: u16) -> Option<Cow<'_, AllowRule>> {
        if let Some(listed) = self.find_host(host, port) {
            return Some(Cow::Borrowed(listed));
        }
        let Host::Name(name) = host else { return None };
        let open = self.observe && OBSERVED_PORTS.contains(&port);
        if !open || self.denied.iter().any(|rule| rule.covers(host, port)) {
            return None;
        }
        let rules = ["* /**", "WEBSOCKET /**"].iter().filter_map(|rule| rule.parse().ok()).collect();
        let origin = Some(OBSERVED.to_owned());
        Some(Cow::Owned(AllowRule { rules, origin, ..AllowRule::new(HostPattern::Exact(name.clone()), port) }))
    }

    /// Whether a connection that `rule` allowed to this address may go on under this policy: its destination is still
    /// allowed, in the same way, and with at least the requests that were allowed when it began.
    pub fn still_allows(&self, rule: &AllowRule, host: &Host, port: u16, address: Option<IpAddr>) -> bool {
        self.entry(host, port).is_some_and(|now| {
            let requests = now.rules.is_empty() || !rule.rules.is_empty();
            address.is_none_or(|address| now.permits(address))
                && now.is_inspected() == rule.is_inspected()
                && now.broker == rule.broker
                && requests
                && (now.rules.is_empty() || rule.rules.iter().all(|request| now.rules.contains(request)))
        })
    }
}

impl AllowRule {
    /// An entry for a public host, without rules.
    pub fn new(host: HostPattern, port: u16) -> Self {
        Self { host, port, allow_private: Vec::new(), rules: Vec::new(), broker: None, origin: None }
    }

    /// Whether a person added the entry while the sandbox runs.
    pub fn is_added(&self) -> bool {
        self.origin.as_deref() == Some(ADDED)
    }

    /// Whether the gateway terminates TLS for the host and reads every request.
    pub fn is_inspected(&self) -> bool {
        !self.rules.is_empty() || self.broker.is_some()
    }

    /// Whether the rule lets its host be at this address: a public one always, a special one when `allow_private` has
    /// it.
    pub fn permits(&self, address: IpAddr) -> bool {
        special_use(address).is_none() || self.allow_private.iter().any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(host: &str, rules: &[&str]) -> AllowRule {
        let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        AllowRule { rules, ..AllowRule::new(host.parse().unwrap(), 443) }
    }

    fn denial(host: &str, port: Option<u16>) -> DenyRule {
        DenyRule { host: host.parse().unwrap(), port }
    }

    #[test]
    fn a_policy_that_observes_opens_the_web_of_public_hosts_and_nothing_else() {
        let listed = AllowRule::new("a.example".parse().unwrap(), 443);
        let policy = Policy {
            allow: vec![listed.clone()],
            denied: vec![denial("b.example", None)],
            observe: true,
            ..Policy::default()
        };
        let entry = |host: &str, port: u16| policy.entry(&host.parse().unwrap(), port).map(Cow::into_owned);
        assert_eq!(entry("a.example", 443), Some(listed), "an entry of the list is as it is");
        let observed = entry("c.example", 443).unwrap();
        assert!(observed.is_inspected() && observed.allow_private.is_empty() && observed.broker.is_none());
        assert!(!observed.permits("10.0.0.1".parse().unwrap()), "a private address is not opened");
        for (host, port) in [("b.example", 443), ("c.example", 22), ("1.1.1.1", 443)] {
            assert_eq!(entry(host, port), None, "{host}:{port}");
        }
        assert!(policy.inspects());
        assert!(Policy { observe: false, ..policy }.entry(&"c.example".parse().unwrap(), 443).is_none());
    }

    #[test]
    fn a_denial_wins_over_every_entry() {
        let policy = Policy {
            allow: vec![entry("*.a.example", &[]), entry("b.example", &[])],
            denied: vec![denial("x.a.example", None), denial("b.example", Some(80))],
            ..Policy::default()
        };
        let allowed = |host: &str| policy.find_host(&host.parse().unwrap(), 443).is_some();
        assert!(allowed("y.a.example") && !allowed("x.a.example") && allowed("b.example"));
        let whole = Policy { denied: vec![denial("*.a.example", Some(443))], ..policy };
        assert!(whole.find(&"y.a.example".parse().unwrap(), 443).is_none());
    }

    #[test]
    fn a_connection_goes_on_only_under_a_rule_that_allows_no_less() {
        let host: Host = "a.example".parse().unwrap();
        let at: IpAddr = "1.1.1.1".parse().unwrap();
        let under = |before: &AllowRule, now: Vec<AllowRule>| {
            Policy { allow: now, ..Policy::default() }.still_allows(before, &host, 443, Some(at))
        };
        let (open, get) = (entry("a.example", &[]), entry("a.example", &["GET /a/**"]));
        let both = entry("a.example", &["POST /b", "GET /a/**"]);
        assert!(under(&open, vec![open.clone()]));
        assert!(!under(&open, Vec::new()) && !under(&open, vec![get.clone()]) && !under(&get, vec![open.clone()]));
        assert!(under(&get, vec![both.clone()]) && !under(&both, vec![get.clone()]));
        let private = AllowRule { allow_private: vec!["10.0.0.0/8".parse().unwrap()], ..open.clone() };
        let inner: IpAddr = "10.1.1.1".parse().unwrap();
        let policy = |rule: &AllowRule| Policy { allow: vec![rule.clone()], ..Policy::default() };
        assert!(policy(&private).still_allows(&private, &host, 443, Some(inner)));
        assert!(!policy(&open).still_allows(&private, &host, 443, Some(inner)));
    }
}
