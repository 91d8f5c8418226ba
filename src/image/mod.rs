//! Agent images: references that are always pinned, locks, and the builder that turns a lock into the same bytes.

pub mod reference;
