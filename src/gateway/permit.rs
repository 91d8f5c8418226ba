//! What a connection was allowed by. Its bytes move for as long as the policy goes on to allow it.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use crate::gateway::budget::{Exceeded, Slot};
use crate::gateway::stream::Count;
use crate::network::name::Host;
use crate::network::policy::{AllowRule, Policy};

/// The policy in force, none before the launcher's first, as connections watch it.
pub type CurrentPolicy = watch::Sender<Option<Arc<Policy>>>;

/// The permission of one connection.
#[derive(Debug, Clone)]
pub struct Permit {
    /// The destination.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// The address that was checked and dialled; none where a proxy is between.
    pub address: Option<SocketAddr>,
    /// The rule that covered it when it was dialled.
    pub rule: AllowRule,
    /// The bytes that moved.
    pub count: Count,
    /// The connection's place in the budget of its host.
    pub slot: Arc<Slot>,
}

impl Permit {
    /// Runs the work until a new policy no longer allows what this connection was allowed. `None` means that it was cut
    /// off.
    pub async fn hold<T>(&self, policy: &CurrentPolicy, work: impl Future<Output = T>) -> Option<T> {
        let mut policy = policy.subscribe();
        let withdrawn = async {
            loop {
                let allowed = policy.borrow_and_update().as_ref().is_some_and(|policy| self.is_allowed_by(policy));
                if !allowed || policy.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            done = work => Some(done),
            () = withdrawn => None,
            () = self.time_is_over() => None,
        }
    }

    /// Ends when nothing has moved for too long, or after the longest time that a connection may last.
    async fn time_is_over(&self) {
        let limits = self.slot.limits;
        let idle = async {
            // Looked at now and then: a connection may be idle for a quarter longer.
            let mut moved = None;
            let mut still = 0;
            while still < 5 {
                let now = self.count.read() + self.count.written();
                still = if moved == Some(now) { still + 1 } else { 0 };
                moved = Some(now);
                tokio::time::sleep(limits.idle() / 4).await;
            }
        };
        let limit = tokio::select! {
            () = idle => Exceeded::Idle,
            () = tokio::time::sleep(limits.total()) => Exceeded::Total,
        };
        self.slot.end(limit);
    }

    fn is_allowed_by(&self, policy: &Policy) -> bool {
        policy.still_allows(&self.rule, &self.host, self.port, self.address.map(|address| address.ip()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::gateway::budget::Budgets;
    use crate::gateway::stream::Counted;
    use crate::network::limits::NetworkLimits;

    fn permit_within(limits: NetworkLimits) -> Permit {
        Permit {
            host: "a.example".parse().unwrap(),
            port: 443,
            address: Some("1.1.1.1:443".parse().unwrap()),
            rule: AllowRule::new("a.example".parse().unwrap(), 443),
            count: Count::default(),
            slot: Budgets::default().admit(limits, &"a.example".parse().unwrap()).unwrap(),
        }
    }

    fn permit() -> Permit {
        permit_within(NetworkLimits::default())
    }

    #[tokio::test]
    async fn a_connection_ends_when_nothing_moves_and_when_its_time_is_over() {
        let current: CurrentPolicy =
            watch::Sender::new(Some(Arc::new(Policy { allow: vec![permit().rule], ..Policy::default() })));
        let limits = NetworkLimits { idle: 1, total: 3, ..NetworkLimits::default() };
        let (idle, mut busy) = (permit_within(limits), permit_within(limits));
        let (mut stream, count) = Counted::new(tokio::io::sink());
        busy.count = count;
        let begun = std::time::Instant::now();
        let work = async {
            loop {
                stream.write_all(b"x").await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        };
        let after_idle = async {
            assert_eq!(idle.hold(&current, std::future::pending::<()>()).await, None);
            begun.elapsed()
        };
        let (after_idle, worked) = tokio::join!(after_idle, busy.hold::<()>(&current, work));
        assert_eq!((worked, idle.slot.ended(), busy.slot.ended()), (None, Some(Exceeded::Idle), Some(Exceeded::Total)));
        assert!(after_idle.as_secs() < 3 && begun.elapsed().as_secs() >= 3, "{after_idle:?}");
    }

    #[tokio::test]
    async fn work_is_cut_off_when_its_rule_is_gone_and_not_before() {
        let allowing = Arc::new(Policy { allow: vec![permit().rule], ..Policy::default() });
        let current: CurrentPolicy = watch::Sender::new(Some(allowing.clone()));
        assert_eq!(permit().hold(&current, async { 7 }).await, Some(7));
        let permit = permit();
        let endless = permit.hold(&current, std::future::pending::<()>());
        tokio::pin!(endless);
        let other = AllowRule::new("b.example".parse().unwrap(), 443);
        let wider = Policy { allow: [allowing.allow.clone(), vec![other]].concat(), ..Policy::default() };
        current.send_replace(Some(Arc::new(wider)));
        let moment = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(moment, endless.as_mut()).await.is_err());
        current.send_replace(Some(Arc::new(Policy::default())));
        assert_eq!(endless.await, None);
        // A rule that went while the connection was being dialled.
        assert_eq!(permit.hold(&current, std::future::pending::<()>()).await, None);
    }
}
