//! The audit log: one event for each step, in one hash chain.

pub mod event;
pub mod log;
pub mod report;
pub mod spoken;

pub use log::{AuditError, AuditLog};
