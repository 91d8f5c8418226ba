//! The program inside the agent's container: PID 1, and the sessions that `exec` starts beside it.
//!
//! It runs as the agent's own user and holds no authority: it clones, probes and runs commands, and it is never
//! believed in a matter of security.

pub mod frame;
