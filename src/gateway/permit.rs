//! What a connection was allowed by. Its bytes move for as long as the policy goes on to allow it.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

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
    /// The address that was checked and dialled.
    pub address: SocketAddr,
    /// The rule that covered it when it was dialled.
    pub rule: AllowRule,
    /// The bytes that moved.
    pub count: Count,
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
        }
    }

    fn is_allowed_by(&self, policy: &Policy) -> bool {
        policy.still_allows(&self.rule, &self.host, self.port, self.address.ip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permit() -> Permit {
        Permit {
            host: "a.example".parse().unwrap(),
            port: 443,
            address: "1.1.1.1:443".parse().unwrap(),
            rule: AllowRule::new("a.example".parse().unwrap(), 443),
            count: Count::default(),
        }
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
