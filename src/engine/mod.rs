//! The one module that talks to Docker: containers, volumes, networks, images, exec and attach streams.
//!
//! What a container may ask for is a [`container::ContainerSpec`], which has no field for a host path, a capability, a
//! privilege or a host namespace.

pub mod container;
