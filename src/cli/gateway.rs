//! The arguments of the hidden verbs `relay` and `gateway`. Their defaults are right inside the containers; tests give
//! others.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::gateway::channel;
use crate::gateway::program::GatewayOptions;
use crate::gateway::relay::RelayOptions;

/// Arguments of `relay`.
#[derive(Debug, clap::Args)]
pub(super) struct RelayArguments {
    /// The gateway's socket
    #[arg(long, default_value = channel::SOCKET)]
    socket: PathBuf,
    /// Where the proxy listens
    #[arg(long, default_value = "127.0.0.1:3128")]
    proxy: SocketAddr,
    /// Where DNS listens
    #[arg(long, default_value = "127.0.0.53:53")]
    dns: SocketAddr,
    /// The address before the first one that stands for a name
    #[arg(long, default_value = "127.100.0.0")]
    names: Ipv4Addr,
}

/// Arguments of `gateway`.
#[derive(Debug, clap::Args)]
pub(super) struct GatewayArguments {
    /// The socket for the relay
    #[arg(long, default_value = channel::SOCKET)]
    socket: PathBuf,
    /// The only uid that may connect
    #[arg(long, default_value_t = 65534)]
    relay_uid: u32,
    /// The group that the socket is given to
    #[arg(long, default_value_t = 65533)]
    group: u32,
    /// The folder of the credential files
    #[arg(long, default_value = "/run/secrets")]
    secrets: PathBuf,
    /// A name server, instead of those in /etc/resolv.conf
    #[arg(long)]
    resolver: Option<SocketAddr>,
}

impl From<RelayArguments> for RelayOptions {
    fn from(RelayArguments { socket, proxy, dns, names }: RelayArguments) -> Self {
        Self { socket, proxy, dns, names }
    }
}

impl From<GatewayArguments> for GatewayOptions {
    fn from(GatewayArguments { socket, relay_uid, group, secrets, resolver }: GatewayArguments) -> Self {
        Self { socket, relay_uid, group, secrets, resolver }
    }
}
