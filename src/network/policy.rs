//! The allow list: what the manifest names, and what the gateway is given.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::network::address::special_use;
use crate::network::name::{Host, HostName, HostPattern};
use crate::network::request::RequestRule;

/// Everything that the agent may reach. An empty policy allows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The allowed destinations, in the manifest's order.
    pub allow: Vec<AllowRule>,
    /// Certificate authorities to trust beside the web's, in PEM: those of a company's own hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
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

impl Policy {
    /// Whether the gateway reads the requests to some host.
    pub fn inspects(&self) -> bool {
        self.allow.iter().any(AllowRule::is_inspected)
    }

    /// Whether the agent has to trust more authorities than its image does.
    pub fn adds_authorities(&self) -> bool {
        self.authorities.is_some() || self.inspects()
    }

    /// The first rule that covers the destination.
    pub fn find(&self, host: &HostName, port: u16) -> Option<&AllowRule> {
        self.allow.iter().find(|rule| rule.port == port && rule.host.matches(host))
    }

    /// The first rule that covers the destination, which may be an address.
    pub fn find_host(&self, host: &Host, port: u16) -> Option<&AllowRule> {
        self.allow.iter().find(|rule| rule.port == port && rule.host.covers(host))
    }
}

impl AllowRule {
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
