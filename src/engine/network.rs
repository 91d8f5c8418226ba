//! The one network of the engine that gateways go out through.
//!
//! Engines before 25 make two networks of the same name when two launchers ask at once, and then refuse the name as
//! ambiguous. So a network is always found by listing, the oldest of its name counts, and containers join it by its id.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bollard::models::{Network, NetworkCreateRequest};
use bollard::query_parameters::ListNetworksOptions;

use super::error::{EngineError, Kind, optional};
use super::{CALL_LIMIT, Engine, check_name};

impl Engine {
    /// Makes sure that there is a bridge network of this name on which containers cannot reach one another.
    ///
    /// # Errors
    ///
    /// [`EngineError::NameTaken`] when the name belongs to a network of another kind.
    pub async fn ensure_network(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<(), EngineError> {
        check_name(Kind::Network, name)?;
        let taken = || EngineError::NameTaken { kind: Kind::Network, name: name.to_owned() };
        if let Some(network) = self.network(name).await? {
            let fits = network.driver.as_deref() == Some("bridge") && network.internal != Some(true);
            return if fits { Ok(()) } else { Err(taken()) };
        }
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".into()),
            enable_ipv6: Some(false),
            options: Some(HashMap::from([("com.docker.network.bridge.enable_icc".into(), "false".into())])),
            labels: Some(labels.clone().into_iter().collect()),
            ..NetworkCreateRequest::default()
        };
        let created = self.call("create a network", CALL_LIMIT, self.client().create_network(request)).await;
        let ours = match created {
            // Somebody else made it in between, and this engine noticed.
            Err(error) if error.status() == Some(409) => return Ok(()),
            other => other?.id,
        };
        // Whoever came later gives way, so what somebody has already found stays.
        match self.network(name).await?.and_then(|oldest| oldest.id) {
            Some(oldest) if oldest != ours => self.remove_one_network(&ours, name).await,
            _ => Ok(()),
        }
    }

    /// The oldest network of this name.
    async fn network(&self, name: &str) -> Result<Option<Network>, EngineError> {
        Ok(self.networks(name).await?.into_iter().next())
    }

    /// The id of the network of this name.
    pub(super) async fn network_id(&self, name: &str) -> Result<String, EngineError> {
        let missing = || EngineError::NotFound { kind: Kind::Network, name: name.to_owned() };
        self.network(name).await?.and_then(|network| network.id).ok_or_else(missing)
    }

    /// All networks of this name, the oldest first.
    async fn networks(&self, name: &str) -> Result<Vec<Network>, EngineError> {
        check_name(Kind::Network, name)?;
        let options = ListNetworksOptions { filters: Some(HashMap::from([("name".into(), vec![name.into()])])) };
        let mut listed = self.call("list networks", CALL_LIMIT, self.client().list_networks(Some(options))).await?;
        // The filter matches parts of names too.
        listed.retain(|network| network.name.as_deref() == Some(name));
        listed.sort_by_cached_key(|network| {
            let created = network.created.as_deref().and_then(|created| created.parse::<jiff::Timestamp>().ok());
            (created, network.id.clone())
        });
        Ok(listed)
    }

    /// Removes a network. That there is none is fine.
    ///
    /// # Errors
    ///
    /// [`EngineError::InUse`] when a container is still on it.
    pub async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        for network in self.networks(name).await? {
            if let Some(id) = network.id {
                self.remove_one_network(&id, name).await?;
            }
        }
        Ok(())
    }

    async fn remove_one_network(&self, id: &str, name: &str) -> Result<(), EngineError> {
        match optional(self.call("remove a network", CALL_LIMIT, self.client().remove_network(id)).await) {
            Ok(_) => Ok(()),
            // 403 before Engine 26, 409 from then on.
            Err(error) if matches!(error.status(), Some(403 | 409)) => {
                Err(EngineError::InUse { kind: Kind::Network, name: name.to_owned() })
            }
            Err(error) => Err(error),
        }
    }

    /// The address that the engine's machine has on a network, if the network is there and has one.
    pub async fn network_gateway(&self, name: &str) -> Result<Option<IpAddr>, EngineError> {
        let pools = self.network(name).await?.and_then(|network| network.ipam).and_then(|ipam| ipam.config);
        Ok(pools
            .iter()
            .flatten()
            .filter_map(|pool| pool.gateway.as_deref())
            // Older engines write the length of the prefix behind it.
            .find_map(|gateway| gateway.split('/').next()?.parse().ok()))
    }
}
