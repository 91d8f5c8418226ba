//! Credentials that belong to one project: what is declared, who issues it, how it is delivered, rotated and revoked.

pub mod secret;
pub mod spec;
