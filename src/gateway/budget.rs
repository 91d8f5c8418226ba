//! What each host got in this session, measured against `network.limits`. A table entry is made for hosts that a rule
//! covers alone, and their number is one of the limits, so that no agent can make it grow.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::network::limits::NetworkLimits;
use crate::network::name::Host;

/// A limit that is reached, by its key in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// Bytes to one host.
    #[error("network.limits.upload: this host got as many bytes as it may in one session")]
    Upload,
    /// Bytes of one request.
    #[error("network.limits.request_body: the request's body is larger than one may be")]
    RequestBody,
    /// Connections to one host.
    #[error("network.limits.connections: as many connections to this host are open as may be")]
    Connections,
    /// Different names.
    #[error("network.limits.names: as many different names were reached as may be in one session")]
    Names,
    /// Nothing moved.
    #[error("network.limits.idle: nothing moved on the connection for too long")]
    Idle,
    /// The connection's time is over.
    #[error("network.limits.total: the connection was open for as long as one may be")]
    Total,
}

/// What every host got.
#[derive(Debug, Default)]
pub struct Budgets(Mutex<HashMap<Host, Arc<HostUse>>>);

/// What one host got.
#[derive(Debug, Default)]
struct HostUse {
    sent: AtomicU64,
    open: AtomicU32,
}

/// The place of one connection in the budget of its host.
#[derive(Debug)]
pub struct Slot {
    used: Arc<HostUse>,
    /// The limits when the connection began.
    pub limits: NetworkLimits,
    ended: OnceLock<Exceeded>,
}

impl Budgets {
    /// Takes a connection to a host into account, before its name is resolved.
    ///
    /// # Errors
    /// When a limit is reached.
    pub fn admit(&self, limits: NetworkLimits, host: &Host) -> Result<Arc<Slot>, Exceeded> {
        // A count is whole also after a panic.
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !table.contains_key(host) && table.len() >= limits.names as usize {
            return Err(Exceeded::Names);
        }
        let used = table.entry(host.clone()).or_default().clone();
        if used.sent.load(Ordering::Relaxed) >= limits.upload {
            return Err(Exceeded::Upload);
        }
        if used.open.load(Ordering::Relaxed) >= limits.connections {
            return Err(Exceeded::Connections);
        }
        used.open.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Slot { used, limits, ended: OnceLock::new() }))
    }
}

impl Slot {
    /// Whether the host may get another byte. Once it may not, the connection is over.
    pub fn has_room(&self) -> bool {
        let room = self.used.sent.load(Ordering::Relaxed) < self.limits.upload;
        if !room {
            self.end(Exceeded::Upload);
        }
        room
    }

    /// Counts bytes that the host got.
    pub fn sent(&self, bytes: u64) {
        self.used.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Judges a request by the length that it announces; one without is cut off when it gets too long.
    ///
    /// # Errors
    /// When a limit is reached.
    pub fn request(&self, length: Option<u64>) -> Result<(), Exceeded> {
        if length.is_some_and(|length| length > self.limits.request_body) {
            return Err(Exceeded::RequestBody);
        }
        let left = self.limits.upload.saturating_sub(self.used.sent.load(Ordering::Relaxed));
        if left == 0 || length.is_some_and(|length| length > left) { Err(Exceeded::Upload) } else { Ok(()) }
    }

    /// Notes by which limit the connection ended; the first counts.
    pub fn end(&self, limit: Exceeded) {
        let _ = self.ended.set(limit);
    }

    /// The limit by which the connection ended, if one did.
    pub fn ended(&self) -> Option<Exceeded> {
        self.ended.get().copied()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.used.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Host {
        name.parse().unwrap()
    }

    #[test]
    fn connections_at_once_and_names_are_limited_and_a_closed_connection_makes_room() {
        let budgets = Budgets::default();
        let limits = NetworkLimits { connections: 2, names: 2, ..NetworkLimits::default() };
        let first = budgets.admit(limits, &host("a.example")).unwrap();
        let _second = budgets.admit(limits, &host("a.example")).unwrap();
        assert_eq!(budgets.admit(limits, &host("a.example")).unwrap_err(), Exceeded::Connections);
        drop(first);
        assert!(budgets.admit(limits, &host("a.example")).is_ok());
        assert!(budgets.admit(limits, &host("b.example")).is_ok());
        assert_eq!(budgets.admit(limits, &host("c.example")).unwrap_err(), Exceeded::Names);
    }

    #[test]
    fn bytes_to_a_host_are_limited_over_all_its_connections() {
        let budgets = Budgets::default();
        let limits = NetworkLimits { upload: 100, request_body: 50, ..NetworkLimits::default() };
        let slot = budgets.admit(limits, &host("a.example")).unwrap();
        assert_eq!(slot.request(Some(51)), Err(Exceeded::RequestBody));
        slot.sent(60);
        assert_eq!((slot.request(Some(40)), slot.request(Some(41))), (Ok(()), Err(Exceeded::Upload)));
        let other = budgets.admit(limits, &host("a.example")).unwrap();
        other.sent(40);
        assert!(!slot.has_room());
        assert_eq!((slot.ended(), slot.request(None)), (Some(Exceeded::Upload), Err(Exceeded::Upload)));
        assert_eq!(budgets.admit(limits, &host("a.example")).unwrap_err(), Exceeded::Upload);
        assert!(budgets.admit(limits, &host("b.example")).is_ok(), "another host has its own budget");
    }
}
