//! The programs `relay` and `gateway`, and the line protocol between launcher and gateway.
//!
//! The relay owns the agent's network namespace, moves bytes and decides nothing. The gateway makes every decision.

pub mod protocol;
