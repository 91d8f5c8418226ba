//! A sandbox's life: plan, launch, journal, supervise, reconcile, tear down.

pub mod stream_client;

pub mod terminal;
