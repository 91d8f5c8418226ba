//! Images in registries (OCI distribution-spec 1.1): [`pull()`] brings one in by digest, [`push()`] takes one of ours out
//! with its bytes unchanged.
//!
//! Nothing is used before its digest and size were compared. A login goes to its own registry and that registry's token
//! service alone, and no redirection is followed to a kind of address that the registry itself does not have. The
//! engine's own pull is not used: what it makes of an image depends on its version.

mod challenge;
mod client;
mod error;
mod guard;
pub mod login;
mod manifest;
pub mod name;
pub mod pull;
pub mod push;

pub use error::RegistryError;
pub use login::Login;
pub use name::Repository;
pub use pull::{PullContext, pull, resolve};
pub use push::{PushTarget, Pushed, push};
