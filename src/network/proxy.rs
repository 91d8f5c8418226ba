//! The HTTP proxy of a company, through which the gateway goes where a network lets nothing out directly.
//!
//! The user's configuration or environment names it, never a manifest. It resolves the names that it is asked for, so that
//! it, not the gateway, has to refuse those that lead into the company's own network.

use std::fmt;

use http::Uri;
use serde::{Deserialize, Serialize};

use crate::network::name::{Host, HostName, HostNameError, HostPattern};
use crate::network::policy::AllowRule;

/// Domains that may be reached without the proxy.
const DIRECT_LIMIT: usize = 200;

/// A proxy that takes `CONNECT` (RFC 9110 section 9.3.6), and plain HTTP in absolute form (RFC 9112 section 3.2.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamProxy {
    /// Its host.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// Names that are reached without it, each with every name below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub direct: Vec<HostName>,
}

/// Why a text names no proxy that the gateway can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Not `http://HOST:PORT`.
    #[error("it is not http://HOST:PORT")]
    Form,
    /// TLS to the proxy itself, or SOCKS.
    #[error("the gateway speaks to a proxy in plain HTTP alone, not `{}`", .0.escape_debug())]
    Scheme(String),
    /// A user name or a password. It is not shown.
    #[error("it has a user name or password, and the gateway logs in at no proxy")]
    LogIn,
    /// The host is none.
    #[error("its host cannot be used")]
    Host(#[source] HostNameError),
    /// An address of this machine's loopback is the gateway's own in its container.
    #[error("it is on this machine's loopback, which the gateway's container does not reach")]
    Loopback,
}

impl UpstreamProxy {
    /// Reads `http://HOST:PORT`, and the names that need no proxy.
    ///
    /// # Errors
    /// When the gateway could not use it.
    pub fn new(address: &str, direct: Vec<HostName>) -> Result<Self, ProxyError> {
        let uri: Uri = address.parse().map_err(|_| ProxyError::Form)?;
        let authority = uri.authority().ok_or(ProxyError::Form)?;
        if authority.as_str().contains('@') {
            return Err(ProxyError::LogIn);
        }
        match uri.scheme_str() {
            Some("http") => {}
            Some(other) => return Err(ProxyError::Scheme(other.chars().take(20).collect())),
            None => return Err(ProxyError::Form),
        }
        let port = authority.port_u16().filter(|port| *port > 0).ok_or(ProxyError::Form)?;
        if !matches!(uri.path_and_query().map(|path| path.as_str()), None | Some("/" | "")) {
            return Err(ProxyError::Form);
        }
        let host: Host = authority.host().parse().map_err(ProxyError::Host)?;
        let loopback = match &host {
            Host::Name(name) => name.as_str() == "localhost" || name.as_str().ends_with(".localhost"),
            Host::Address(address) => address.is_loopback() || address.is_unspecified(),
        };
        if loopback {
            return Err(ProxyError::Loopback);
        }
        Ok(Self { host, port, direct })
    }

    /// Whether this destination is reached through it. A host in a private network of the company is not.
    pub fn is_for(&self, rule: &AllowRule, host: &Host) -> bool {
        let direct = |name: &HostName| match host {
            Host::Name(host) => host == name || HostPattern::Below(name.clone()).matches(host),
            Host::Address(_) => false,
        };
        rule.allow_private.is_empty() && !self.direct.iter().any(direct)
    }
}

impl fmt::Display for UpstreamProxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "http://{}:{}", self.host, self.port)
    }
}

/// The names of a variable `NO_PROXY`: separated by commas, each with every name below it, as curl reads it. `None` for
/// `*`, by which no host is reached through a proxy. Addresses and networks say nothing here: a manifest opens private
/// ones with `allow_private`, and those are reached directly.
pub fn direct_names(variable: &str) -> Option<Vec<HostName>> {
    let mut names = Vec::new();
    for entry in variable.split(',').map(str::trim).filter(|entry| !entry.is_empty()).take(DIRECT_LIMIT) {
        if entry == "*" {
            return None;
        }
        let name = entry.trim_start_matches('*').trim_start_matches('.');
        let name = name.rsplit_once(':').map_or(name, |(name, _)| name);
        names.extend(name.parse::<HostName>());
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct(names: &str) -> Vec<HostName> {
        direct_names(names).unwrap()
    }

    #[test]
    fn reads_a_plain_proxy_and_says_why_another_is_none() {
        let proxy = UpstreamProxy::new("http://proxy.acme.example:3128/", Vec::new()).unwrap();
        assert_eq!((proxy.to_string().as_str(), proxy.port), ("http://proxy.acme.example:3128", 3128));
        assert_eq!(UpstreamProxy::new("http://10.0.0.1:80", Vec::new()).unwrap().host.to_string(), "10.0.0.1");
        for (text, expected) in [
            ("proxy.acme.example:3128", ProxyError::Form),
            ("http://proxy.acme.example", ProxyError::Form),
            ("http://proxy.acme.example:0", ProxyError::Form),
            ("http://proxy.acme.example:3128/path", ProxyError::Form),
            ("", ProxyError::Form),
            ("https://proxy.acme.example:443", ProxyError::Scheme("https".to_owned())),
            ("socks5://proxy.acme.example:1080", ProxyError::Scheme("socks5".to_owned())),
            ("http://me:hunter2@proxy.acme.example:3128", ProxyError::LogIn),
            ("http://localhost:3128", ProxyError::Loopback),
            ("http://127.0.0.1:3128", ProxyError::Loopback),
            ("http://[::1]:3128", ProxyError::Loopback),
        ] {
            let error = UpstreamProxy::new(text, Vec::new()).unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn private_hosts_and_those_of_no_proxy_are_reached_directly() {
        let names = direct(" .intern.acme.example, *.dev.acme.example:443,10.0.0.0/8, build.example ,, ");
        let proxy = UpstreamProxy::new("http://proxy.acme.example:3128", names).unwrap();
        let is_for = |host: &str, private: bool| {
            let allow_private = if private { vec!["10.0.0.0/8".parse().unwrap()] } else { Vec::new() };
            proxy.is_for(
                &AllowRule { allow_private, ..AllowRule::new(host.parse().unwrap(), 443) },
                &host.parse().unwrap(),
            )
        };
        assert!(is_for("github.com", false) && is_for("notbuild.example", false) && is_for("1.1.1.1", false));
        assert!(!is_for("db.example", true));
        for name in ["build.example", "a.build.example", "intern.acme.example", "x.dev.acme.example"] {
            assert!(!is_for(name, false), "{name}");
        }
        assert_eq!(direct_names("a.example,*"), None);
    }
}
