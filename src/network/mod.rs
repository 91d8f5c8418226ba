//! The network policy as data: host names, allow rules and address checks, shared by the manifest and the gateway.
//!
//! Nothing here opens a socket.

pub mod address;
pub mod limits;
pub mod name;
pub mod placement;
pub mod policy;
pub mod proxy;
pub mod request;
