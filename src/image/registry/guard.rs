//! Which addresses a registry may send us to: public ones, and those of its own kind.
//!
//! A registry on the Internet could otherwise have the launcher ask the cloud's metadata service or a router. The check
//! is in the resolver of the HTTP client, so the addresses that are checked are those that are dialled.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use hickory_resolver::TokioResolver;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::RegistryError;
use crate::network::address::{SpecialUse, special_use};

/// What is known of the hosts of one conversation.
#[derive(Debug, Default)]
struct Known {
    /// The special uses of the registry's own addresses.
    home: Vec<Option<SpecialUse>>,
    /// Hosts that the registry named.
    foreign: HashSet<String>,
}

/// The resolver of one conversation with a registry.
#[derive(Clone)]
pub(super) struct Guard {
    home: Arc<str>,
    known: Arc<Mutex<Known>>,
    resolver: Option<TokioResolver>,
}

/// An address that a registry must not lead to.
#[derive(Debug, thiserror::Error)]
#[error("{host} has the address {address}, which is of another kind ({kind}) than the registry's own")]
pub(super) struct Misled {
    host: String,
    address: IpAddr,
    kind: SpecialUse,
}

impl Guard {
    /// A guard for a registry's host, which is trusted to be where it is.
    pub(super) fn new(home: &str) -> Result<Self, RegistryError> {
        let resolver = hickory_resolver::TokioResolver::builder_tokio()
            .and_then(|builder| builder.build())
            .map_err(|error| RegistryError::Setup(error.into()))?;
        let guard = Self { home: home.into(), known: Arc::default(), resolver: Some(resolver) };
        guard.note_literal();
        Ok(guard)
    }

    fn note_literal(&self) {
        let address = if &*self.home == "localhost" { Some([127, 0, 0, 1].into()) } else { self.home.parse().ok() };
        if let Some(address) = address {
            self.with(|known| known.home.push(special_use(address)));
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        act(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a host that the registry named into the conversation, or refuses it at once when it is an address.
    pub(super) fn admit(&self, url: &Url) -> Result<(), &'static str> {
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        if host == &*self.home {
            return Ok(());
        }
        self.with(|known| known.foreign.insert(host.to_owned()));
        // An address in a URL is dialled without asking the resolver.
        match host.parse() {
            Ok(address) if !self.permits(address) => {
                Err("its address is of another kind than the registry's own, such as private or link-local")
            }
            _ => Ok(()),
        }
    }

    fn permits(&self, address: IpAddr) -> bool {
        match special_use(address) {
            None => true,
            // Metadata services are link-local, and no registry is.
            Some(SpecialUse::LinkLocal) => false,
            kind => self.with(|known| known.home.contains(&kind)),
        }
    }

    fn judge(&self, host: &str, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, Misled> {
        if host == &*self.home {
            self.with(|known| known.home.extend(addresses.iter().map(|&address| special_use(address))));
            return Ok(addresses);
        }
        // Neither home nor foreign: the proxy that the user set up.
        if !self.with(|known| known.foreign.contains(host)) {
            return Ok(addresses);
        }
        for &address in &addresses {
            if let Some(kind) = special_use(address).filter(|_| !self.permits(address)) {
                return Err(Misled { host: host.to_owned(), address, kind });
            }
        }
        Ok(addresses)
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let host = name.as_str();
            let Some(resolver) = &guard.resolver else { return Err("no resolver".into()) };
            let answer = resolver.lookup_ip(host).await?;
            let addresses = guard.judge(host, answer.iter().collect())?;
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(home: &str) -> Guard {
        let guard = Guard { home: home.into(), known: Arc::default(), resolver: None };
        guard.note_literal();
        guard
    }

    fn judged(guard: &Guard, host: &str, address: &str) -> bool {
        let url = Url::parse(&format!("https://{host}/")).unwrap();
        guard.admit(&url).is_ok() && guard.judge(host, vec![address.parse().unwrap()]).is_ok()
    }

    #[test]
    fn a_public_registry_leads_to_public_addresses_alone() {
        let guard = guard("registry.example.com");
        guard.judge("registry.example.com", vec!["8.8.8.8".parse().unwrap()]).unwrap();
        assert!(judged(&guard, "cdn.example.com", "1.1.1.1"));
        for address in ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "fd00:ec2::254", "::ffff:10.0.0.1"] {
            assert!(!judged(&guard, "cdn.example.com", address), "{address}");
        }
        for literal in ["https://169.254.169.254/", "https://[::1]/", "https://192.168.0.1/", "https://2130706433/"] {
            assert!(guard.admit(&Url::parse(literal).unwrap()).is_err(), "{literal}");
        }
    }

    #[test]
    fn a_private_registry_leads_to_its_own_kind_and_never_to_metadata() {
        let guard = guard("registry.corp.example");
        guard.judge("registry.corp.example", vec!["10.1.2.3".parse().unwrap()]).unwrap();
        assert!(judged(&guard, "blobs.corp.example", "192.168.7.7"));
        assert!(!judged(&guard, "blobs.corp.example", "127.0.0.1"));
        assert!(!judged(&guard, "blobs.corp.example", "169.254.169.254"));
    }

    #[test]
    fn one_bad_address_among_good_ones_is_enough() {
        let guard = guard("127.0.0.1");
        guard.admit(&Url::parse("https://cdn.example.com/").unwrap()).unwrap();
        let addresses = vec!["1.1.1.1".parse().unwrap(), "10.0.0.1".parse().unwrap()];
        assert!(guard.judge("cdn.example.com", addresses).is_err());
        // The proxy of the user is nobody's redirection.
        assert!(guard.judge("proxy.corp.example", vec!["10.0.0.1".parse().unwrap()]).is_ok());
    }
}
