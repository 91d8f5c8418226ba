//! The one network of the engine that gateways go out through.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bollard::models::{NetworkCreateRequest, NetworkInspect};
use bollard::query_parameters::{InspectNetworkOptions, ListNetworksOptions};

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
        let created = match created {
            // Somebody else made it in between; newer engines notice that, older ones make a second one.
            Err(error) if error.status() == Some(409) => return Ok(()),
            other => other?,
        };
        self.settle_twins(name, &created.id).await
    }

    /// Where two launchers have made a network of the same name at once, both keep the one with the smaller id.
    async fn settle_twins(&self, name: &str, ours: &str) -> Result<(), EngineError> {
        let options = ListNetworksOptions { filters: Some(HashMap::from([("name".into(), vec![name.into()])])) };
        let listed = self.call("list networks", CALL_LIMIT, self.client().list_networks(Some(options))).await?;
        // The filter matches parts of names too.
        let twins = listed.into_iter().filter(|network| network.name.as_deref() == Some(name));
        match twins.filter_map(|network| network.id).min() {
            Some(first) if first != ours => self.remove_network(ours).await,
            _ => Ok(()),
        }
    }

    async fn network(&self, name: &str) -> Result<Option<NetworkInspect>, EngineError> {
        check_name(Kind::Network, name)?;
        let request = self.client().inspect_network(name, None::<InspectNetworkOptions>);
        optional(self.call("inspect a network", CALL_LIMIT, request).await)
    }

    /// Removes a network. That there is none is fine.
    ///
    /// # Errors
    ///
    /// [`EngineError::InUse`] when a container is still on it.
    pub async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        check_name(Kind::Network, name)?;
        match optional(self.call("remove a network", CALL_LIMIT, self.client().remove_network(name)).await) {
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
