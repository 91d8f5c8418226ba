//! A sandbox's life: plan, launch, journal, supervise, reconcile, tear down.
//!
//! [`plan`] is pure. [`launch`] applies a plan, [`journal`] remembers every object before it exists, [`reconcile`] says
//! what is alive, [`supervise`] keeps a session going and ends it, [`mend`] restarts what died, [`live_policy`] changes
//! what a running sandbox may reach, [`watchdog`] enforces what the engine does not, [`ports`] forwards to this machine,
//! [`teardown`] takes it all away. Nothing in here prints.

pub mod archive;
pub mod copy;
pub mod gateway_control;
mod gateway_events;
pub mod identity;
pub mod journal;
pub mod large_files;
pub mod launch;
pub mod launcher_image;
pub mod launcher_versions;
pub mod live_policy;
pub mod mend;
pub mod outside;
pub mod plan;
pub mod plan_parts;
pub mod ports;
mod recall;
pub mod reconcile;
mod rotation;
pub mod stream_client;
pub mod supervise;
pub mod teardown;
pub mod terminal;
pub mod watchdog;
