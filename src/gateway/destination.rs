//! From a host and a port to a connection: match, resolve, check, dial.
//!
//! The address that is dialled is the one that was checked; no name is resolved twice for one connection.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::gateway::budget::Exceeded;
use crate::gateway::leak::Leak;
use crate::gateway::upstream::TunnelError;
use crate::network::address::{SpecialUse, special_use};
use crate::network::name::{Host, HostName};
use crate::network::policy::{AllowRule, Policy};

/// How long one address may take to accept a connection.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// After how long the next address is tried beside the first (RFC 8305 section 5 recommends 250 ms).
const STAGGER: Duration = Duration::from_millis(250);

/// How many of a name's addresses are tried.
const ADDRESS_LIMIT: usize = 8;

/// Why a destination was not reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The launcher has sent no policy yet.
    #[error("there is no policy yet")]
    NoPolicy,
    /// No rule covers the destination.
    #[error("host not allowed")]
    Unlisted,
    /// A limit of the manifest is reached.
    #[error(transparent)]
    Limit(#[from] Exceeded),
    /// The name has no address, or resolving failed.
    #[error("the name cannot be resolved")]
    Resolve(#[source] Box<hickory_resolver::net::NetError>),
    /// The name resolved to nothing.
    #[error("the name has no address")]
    NoAddress,
    /// An address is not on the public Internet, and `allow_private` does not have it.
    #[error("{address} is a {special} address and not in allow_private")]
    Address {
        /// The address.
        address: IpAddr,
        /// What it is for.
        special: SpecialUse,
    },
    /// The name carries a credential.
    #[error(transparent)]
    Leak(Leak),
    /// No address accepted the connection.
    #[error("no connection to {0}")]
    Connect(SocketAddr, #[source] std::io::Error),
    /// The company's proxy opened no tunnel.
    #[error("no connection through the proxy {proxy}")]
    Proxy {
        /// The proxy.
        proxy: String,
        /// Why.
        #[source]
        source: TunnelError,
    },
}

/// The word for a connection that carries a credential in the host's name.
pub(super) const LEAK: &str = "leak";

impl DialError {
    /// The word for [`crate::gateway::protocol::Decision::reason`].
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoPolicy => "no_policy",
            Self::Unlisted => "unlisted",
            Self::Limit(_) => "limit",
            Self::Resolve(_) | Self::NoAddress => "resolve",
            Self::Address { .. } => "address",
            Self::Leak(_) => LEAK,
            Self::Connect(..) => "connect",
            Self::Proxy { .. } => "proxy",
        }
    }

    /// Whether the policy says no, rather than the network.
    pub fn is_denial(&self) -> bool {
        matches!(self, Self::NoPolicy | Self::Unlisted | Self::Limit(_) | Self::Address { .. } | Self::Leak(_))
    }
}

/// The rule that covers the destination.
pub fn authorise<'a>(policy: Option<&'a Policy>, host: &Host, port: u16) -> Result<Cow<'a, AllowRule>, DialError> {
    policy.ok_or(DialError::NoPolicy)?.entry(host, port).ok_or(DialError::Unlisted)
}

/// All addresses of the host, each of them checked. One that is refused refuses the host: a name that points at a
/// public and a private address at once is an attack or a mistake.
pub async fn resolve(resolver: &TokioResolver, rule: &AllowRule, host: &Host) -> Result<Vec<IpAddr>, DialError> {
    let addresses = addresses_of(resolver, host).await?;
    check(rule, &addresses)?;
    Ok(addresses)
}

/// All addresses of the host, unchecked.
pub async fn addresses_of(resolver: &TokioResolver, host: &Host) -> Result<Vec<IpAddr>, DialError> {
    match host {
        Host::Address(address) => Ok(vec![*address]),
        Host::Name(name) => lookup(resolver, name).await,
    }
}

/// Refuses the addresses if the rule does not permit one of them.
pub fn check(rule: &AllowRule, addresses: &[IpAddr]) -> Result<(), DialError> {
    if addresses.is_empty() {
        return Err(DialError::NoAddress);
    }
    match addresses.iter().find_map(|address| {
        let refused = !rule.permits(*address);
        special_use(*address).filter(|_| refused).map(|special| (*address, special))
    }) {
        Some((address, special)) => Err(DialError::Address { address, special }),
        None => Ok(()),
    }
}

async fn lookup(resolver: &TokioResolver, name: &HostName) -> Result<Vec<IpAddr>, DialError> {
    // The trailing dot keeps the resolver from trying its search list.
    let answer = resolver.lookup_ip(format!("{name}.")).await.map_err(|source| DialError::Resolve(Box::new(source)))?;
    Ok(answer.iter().collect())
}

/// Connects to the first address that answers. Each later one starts a little after the one before, or when that one
/// failed.
pub async fn dial(addresses: &[IpAddr], port: u16) -> Result<(TcpStream, SocketAddr), DialError> {
    let mut attempts = JoinSet::new();
    let mut waiting =
        interleave(addresses).into_iter().take(ADDRESS_LIMIT).map(|address| SocketAddr::new(address, port));
    let mut failure = None;
    let mut next = waiting.next();
    loop {
        if let Some(address) = next.take() {
            attempts.spawn(async move { (address, connect(address).await) });
        }
        let outcome = match timeout(STAGGER, attempts.join_next()).await {
            Err(_) => {
                next = waiting.next();
                continue;
            }
            Ok(outcome) => outcome,
        };
        match outcome {
            Some(Ok((address, Ok(stream)))) => return Ok((stream, address)),
            Some(Ok((address, Err(error)))) => {
                failure.get_or_insert(DialError::Connect(address, error));
                next = waiting.next();
            }
            // An attempt that panicked or was cancelled counts as one that failed without a word.
            Some(Err(_)) => next = waiting.next(),
            None => return Err(failure.unwrap_or(DialError::NoAddress)),
        }
    }
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = timeout(DIAL_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// IPv4 and IPv6 by turns, IPv4 first: an engine's bridge has no IPv6 unless somebody configured it.
fn interleave(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut fours = addresses.iter().filter(|address| address.is_ipv4());
    let mut sixes = addresses.iter().filter(|address| address.is_ipv6());
    let mut mixed = Vec::with_capacity(addresses.len());
    loop {
        let pair = (fours.next(), sixes.next());
        if pair == (None, None) {
            return mixed;
        }
        mixed.extend(pair.0);
        mixed.extend(pair.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(host: &str, allow_private: &[&str]) -> AllowRule {
        let allow_private = allow_private.iter().map(|network| network.parse().unwrap()).collect();
        AllowRule { allow_private, ..AllowRule::new(host.parse().unwrap(), 443) }
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn refuses_a_name_when_any_of_its_addresses_is_special() {
        let plain = rule("a.example", &[]);
        assert!(check(&plain, &addresses(&["1.1.1.1", "2606:4700::1"])).is_ok());
        for odd in ["127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "fd00::1"] {
            assert!(matches!(check(&plain, &addresses(&["1.1.1.1", odd])), Err(DialError::Address { .. })), "{odd}");
        }
        assert!(matches!(check(&plain, &[]), Err(DialError::NoAddress)));
    }

    #[test]
    fn allow_private_opens_its_own_network_alone() {
        let private = rule("a.example", &["10.1.0.0/16"]);
        assert!(check(&private, &addresses(&["10.1.2.3", "1.1.1.1"])).is_ok());
        assert!(check(&private, &addresses(&["10.2.0.1"])).is_err());
        assert!(check(&private, &addresses(&["::ffff:10.1.2.3"])).is_err());
    }

    #[test]
    fn denies_everything_without_a_policy_and_with_an_empty_one() {
        let host: Host = "a.example".parse().unwrap();
        assert!(matches!(authorise(None, &host, 443), Err(DialError::NoPolicy)));
        assert!(matches!(authorise(Some(&Policy::default()), &host, 443), Err(DialError::Unlisted)));
        let policy = Policy { allow: vec![rule("a.example", &[])], ..Policy::default() };
        assert!(authorise(Some(&policy), &host, 443).is_ok());
        assert!(authorise(Some(&policy), &host, 80).is_err());
    }
}
