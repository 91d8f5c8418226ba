//! The proxy of a company, through which the gateway goes where a network lets nothing out directly.
//!
//! The user's configuration or environment names it, never a manifest. It resolves the names that it is asked for, so that
//! it, not the gateway, has to refuse those that lead into the company's own network. A log-in is no part of it: what is
//! written down says only that there is one.

use std::fmt;

use http::Uri;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::network::name::{Host, HostName, HostNameError, HostPattern};
use crate::network::policy::AllowRule;

/// Domains that may be reached without the proxy.
const DIRECT_LIMIT: usize = 200;

/// The longest user name and password, in bytes: "The UNAME field contains … 1 to 255" (RFC 1929 section 2).
const LOG_IN_LIMIT: usize = 255;

/// How the gateway speaks to a proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyScheme {
    /// HTTP: `CONNECT` (RFC 9110 section 9.3.6), and plain HTTP in absolute form (RFC 9112 section 3.2.2).
    #[default]
    Http,
    /// The same inside TLS.
    Https,
    /// SOCKS 5 (RFC 1928). Names are its to resolve, as with the others.
    Socks5,
}

impl ProxyScheme {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks5 => "socks5",
        }
    }
}

/// A proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamProxy {
    /// How it is spoken to.
    #[serde(default, skip_serializing_if = "ProxyScheme::is_default")]
    pub scheme: ProxyScheme,
    /// Its host.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// Names that are reached without it, each with every name below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub direct: Vec<HostName>,
    /// Whether the gateway logs in. The log-in itself goes to its memory alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub log_in: bool,
}

/// The user name and password of a URL.
#[derive(Clone, PartialEq, Eq)]
pub struct UrlLogIn {
    /// The user name.
    pub user: String,
    /// The password, which may be empty.
    pub password: Zeroizing<String>,
}

impl fmt::Debug for UrlLogIn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("UrlLogIn(…)")
    }
}

/// Why a text names no proxy that the gateway can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Not `http://HOST:PORT`.
    #[error("it is not http://HOST:PORT")]
    Form,
    /// Another protocol.
    #[error("the gateway speaks to a proxy by http, https or socks5, not `{}`", .0.escape_debug())]
    Scheme(String),
    /// A user name or a password that no log-in can carry. It is not shown.
    #[error("its user name or password cannot be sent")]
    LogIn,
    /// The host is none.
    #[error("its host cannot be used")]
    Host(#[source] HostNameError),
    /// An address of this machine's loopback is the gateway's own in its container.
    #[error("it is on this machine's loopback, which the gateway's container does not reach")]
    Loopback,
}

impl UpstreamProxy {
    /// Reads `SCHEME://[USER:PASSWORD@]HOST:PORT`, and the names that need no proxy.
    ///
    /// # Errors
    /// When the gateway could not use it.
    pub fn read(address: &str, direct: Vec<HostName>) -> Result<(Self, Option<UrlLogIn>), ProxyError> {
        let uri: Uri = address.parse().map_err(|_| ProxyError::Form)?;
        let authority = uri.authority().ok_or(ProxyError::Form)?;
        let scheme = match uri.scheme_str() {
            Some("http") => ProxyScheme::Http,
            Some("https") => ProxyScheme::Https,
            Some("socks5" | "socks5h") => ProxyScheme::Socks5,
            Some(other) => return Err(ProxyError::Scheme(other.chars().take(20).collect())),
            None => return Err(ProxyError::Form),
        };
        let log_in = match authority.as_str().rsplit_once('@') {
            Some((text, _)) => Some(log_in(text).ok_or(ProxyError::LogIn)?),
            None => None,
        };
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
        Ok((Self { scheme, host, port, direct, log_in: log_in.is_some() }, log_in))
    }

    /// Whether this destination is reached through it. A host in a private network of the company is not.
    pub fn is_for(&self, rule: &AllowRule, host: &Host) -> bool {
        let direct = |name: &HostName| match host {
            Host::Name(host) => host == name || HostPattern::Below(name.clone()).matches(host),
            Host::Address(_) => false,
        };
        rule.allow_private.is_empty() && !self.direct.iter().any(direct)
    }

    /// Whether a destination at this port is reached through a tunnel. Plain HTTP is asked of an HTTP proxy itself: most
    /// open tunnels for TLS alone.
    pub fn tunnels(&self, port: u16) -> bool {
        port != 80 || self.scheme == ProxyScheme::Socks5
    }
}

/// User name and password of a URL (RFC 3986 section 3.2.1), without what would end either (RFC 7617 section 2).
fn log_in(text: &str) -> Option<UrlLogIn> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    let decoded = |text: &str| {
        let text = Zeroizing::new(percent_decode_str(text).decode_utf8().ok()?.into_owned());
        (text.len() <= LOG_IN_LIMIT && !text.chars().any(char::is_control)).then_some(text)
    };
    let user = decoded(user)?.to_string();
    let fits = !user.is_empty() && !user.contains(':');
    fits.then_some(UrlLogIn { user, password: decoded(password)? })
}

/// Whether a user name can be sent in a log-in.
pub fn is_user(name: &str) -> bool {
    !name.is_empty() && name.len() <= LOG_IN_LIMIT && !name.contains(|part: char| part == ':' || part.is_control())
}

impl fmt::Display for UpstreamProxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}:{}", self.scheme.as_str(), self.host, self.port)
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

    fn read(address: &str) -> Result<(UpstreamProxy, Option<UrlLogIn>), ProxyError> {
        UpstreamProxy::read(address, Vec::new())
    }

    #[test]
    fn reads_a_proxy_and_says_why_another_is_none() {
        for (text, shown) in [
            ("http://proxy.acme.example:3128/", "http://proxy.acme.example:3128"),
            ("http://10.0.0.1:80", "http://10.0.0.1:80"),
            ("https://proxy.acme.example:8443", "https://proxy.acme.example:8443"),
            ("socks5://proxy.acme.example:1080", "socks5://proxy.acme.example:1080"),
            ("socks5h://proxy.acme.example:1080", "socks5://proxy.acme.example:1080"),
        ] {
            let (proxy, log_in) = read(text).unwrap();
            assert_eq!((proxy.to_string().as_str(), proxy.log_in, log_in), (shown, false, None));
        }
        for (text, expected) in [
            ("proxy.acme.example:3128", ProxyError::Form),
            ("http://proxy.acme.example", ProxyError::Form),
            ("http://proxy.acme.example:0", ProxyError::Form),
            ("http://proxy.acme.example:3128/path", ProxyError::Form),
            ("", ProxyError::Form),
            ("ftp://proxy.acme.example:21", ProxyError::Scheme("ftp".to_owned())),
            ("http://:hunter2@proxy.acme.example:3128", ProxyError::LogIn),
            ("http://a%3Ab:hunter2@proxy.acme.example:3128", ProxyError::LogIn),
            ("http://me:hunter2%0d%0a@proxy.acme.example:3128", ProxyError::LogIn),
            ("http://localhost:3128", ProxyError::Loopback),
            ("http://127.0.0.1:3128", ProxyError::Loopback),
            ("http://[::1]:3128", ProxyError::Loopback),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn a_log_in_is_read_and_is_in_nothing_that_is_written_or_shown() {
        let (proxy, log_in) = read("https://ada:hunter%402%2F@proxy.acme.example:3128").unwrap();
        let log_in = log_in.unwrap();
        assert_eq!((log_in.user.as_str(), log_in.password.as_str()), ("ada", "hunter@2/"));
        assert!(proxy.log_in);
        let written = format!("{proxy} {proxy:?} {log_in:?} {}", serde_json::to_string(&proxy).unwrap());
        assert!(!written.contains("hunter") && !written.contains("ada"), "{written}");
        assert_eq!(read("http://ada@p.example:1").unwrap().1.unwrap().password.as_str(), "");
    }

    #[test]
    fn private_hosts_and_those_of_no_proxy_are_reached_directly() {
        let names = direct(" .intern.acme.example, *.dev.acme.example:443,10.0.0.0/8, build.example ,, ");
        let (proxy, _) = UpstreamProxy::read("http://proxy.acme.example:3128", names).unwrap();
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
