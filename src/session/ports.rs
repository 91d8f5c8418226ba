//! Forwards ports of the agent's loopback to this machine's loopback, and to no other address of it.
//!
//! This side listens and connects; the sandbox only answers. Each connection has a session of its own in the agent's
//! container, so that one that is not read holds back no other, and a session that is done serves the next connection.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::engine::{Engine, EngineError};
use crate::project::{PortForward, ProjectName};
use crate::session::journal::{Journal, JournalError};
use crate::session::launch::{self, ExecSession};
use crate::session::stream_client::SessionError;

/// Connections at once, over all ports of one process; more wait where the kernel queues them. Each is a process in the
/// sandbox, whose limit they share with the agent.
pub const CONNECTIONS: usize = 64;
/// Sessions that wait for the next connection.
const IDLE: usize = 8;
/// How long a connection may be silent of which one direction has ended, or which takes nothing of what it is sent.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// Why a port of this machine cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Somebody else listens there.
    #[error("take port {0} of this machine, which another program has")]
    Taken(u16),
    /// The system refuses.
    #[error("take port {port} of this machine")]
    Listen {
        /// The port.
        port: u16,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Where a browser finds the port. A host name of the project's own keeps the cookies of other local servers from the
/// agent's: they go by name, not by port (RFC 6265, section 8.5), and names below `localhost` are loopback (RFC 6761,
/// section 6.3).
pub fn url(project: &ProjectName, forward: PortForward) -> String {
    format!("http://{project}.localhost:{}", forward.local)
}

/// A port that is taken on this machine.
#[derive(Debug)]
pub struct Listening {
    /// From where to where.
    pub forward: PortForward,
    sockets: Vec<TcpListener>,
}

/// Takes the port on both loopback addresses: if another program had one of them, `localhost` would lead to it.
///
/// # Errors
/// When it is taken or refused.
pub async fn listen(forward: PortForward) -> Result<Listening, PortError> {
    let port = forward.local;
    let mut sockets = Vec::with_capacity(2);
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
        match TcpListener::bind(SocketAddr::new(address, port)).await {
            Ok(socket) => sockets.push(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(PortError::Taken(port)),
            // A machine without IPv6.
            Err(error) if address.is_ipv6() && is_absent(&error) => {}
            Err(source) => return Err(PortError::Listen { port, source }),
        }
    }
    Ok(Listening { forward, sockets })
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// Takes the ports that the plan names, and journals which could not be had: a port that is taken is no reason to leave
/// an agent without its supervisor.
///
/// # Errors
/// When the journal fails.
pub async fn listen_as_planned(journal: &Journal) -> Result<Vec<Listening>, JournalError> {
    let mut ports = journal.read()?.map(|record| record.ports).unwrap_or_default();
    let mut listening = Vec::new();
    for port in &mut ports {
        port.problem = match listen(port.forward).await {
            Ok(taken) => {
                listening.push(taken);
                None
            }
            Err(error) => Some(match &error {
                PortError::Taken(_) => "another program has it".to_owned(),
                PortError::Listen { source, .. } => source.to_string(),
            }),
        };
    }
    if !ports.is_empty() {
        journal.update(|record| record.ports = ports)?;
    }
    Ok(listening)
}

/// What went over a process's ports.
#[derive(Debug, Default)]
pub struct Traffic {
    connections: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// The facts of it, for the audit log.
    pub fn facts(&self) -> [(&'static str, String); 3] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed).to_string();
        [("connections", read(&self.connections)), ("sent", read(&self.sent)), ("received", read(&self.received))]
    }
}

/// The connections of one sandbox.
pub struct Forwarder {
    engine: Engine,
    agent: String,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<ExecSession>>,
    traffic: Traffic,
    /// Told why a connection came to nothing, in a sentence that is fit for a terminal.
    complaints: mpsc::Sender<String>,
}

impl Forwarder {
    /// For the sandbox with this container.
    pub fn new(engine: Engine, agent: String, complaints: mpsc::Sender<String>) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        Arc::new(Self { engine, agent, permits, idle: Mutex::default(), traffic: Traffic::default(), complaints })
    }

    /// What went over it until now.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Accepts and passes connections until it is dropped, which cuts them off.
    pub async fn serve(self: Arc<Self>, listening: Listening) {
        let port = listening.forward.port;
        let mut connections = JoinSet::new();
        loop {
            // Nobody closes the semaphore.
            let Ok(permit) = self.permits.clone().acquire_owned().await else { return };
            while connections.try_join_next().is_some() {}
            match accept(&listening.sockets).await {
                Ok(socket) => {
                    let forwarder = self.clone();
                    connections.spawn(async move {
                        if let Err(error) = forwarder.pass(port, socket).await {
                            // Whoever is told does not wait for every one of many.
                            let _ = forwarder.complaints.try_send(format!("port {port} of the sandbox: {error}"));
                        }
                        drop(permit);
                    });
                }
                // Out of files, or a client that left before it was served.
                Err(error) => {
                    tracing::debug!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn pass(&self, port: u16, mut socket: TcpStream) -> Result<(), ConnectError> {
        let mut session = self.connect(port).await?;
        self.traffic.connections.fetch_add(1, Ordering::Relaxed);
        let _ = socket.set_nodelay(true);
        let (reader, writer) = socket.split();
        match session.pass(reader, writer, SILENCE_LIMIT, (&self.traffic.sent, &self.traffic.received)).await {
            Ok(()) => self.keep(session),
            // The client left, or the sandbox did: either is how connections end. The session ends with its stream.
            Err(error) => tracing::debug!(%error, "a forwarded connection was cut off"),
        }
        Ok(())
    }

    /// A session that is connected to the port: one that waited, or a new one.
    async fn connect(&self, port: u16) -> Result<ExecSession, ConnectError> {
        let waiting = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut session) = waiting {
            match session.connect(port).await {
                Ok(()) => return Ok(session),
                Err(error @ SessionError::Failed { .. }) => {
                    self.keep(session);
                    return Err(error.into());
                }
                // The container was started again since.
                Err(_) => drop(session),
            }
        }
        let mut session = launch::open_session(&self.engine, &self.agent).await?;
        match session.connect(port).await {
            Ok(()) => Ok(session),
            Err(error) => {
                if matches!(error, SessionError::Failed { .. }) {
                    self.keep(session);
                }
                Err(error.into())
            }
        }
    }

    fn keep(&self, session: ExecSession) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(session);
        }
    }
}

/// The next connection on either socket.
async fn accept(sockets: &[TcpListener]) -> io::Result<TcpStream> {
    let accepts = sockets.iter().map(|socket| Box::pin(socket.accept()));
    let (accepted, ..) = futures_util::future::select_all(accepts).await;
    let (stream, client) = accepted?;
    if client.ip().to_canonical().is_loopback() {
        return Ok(stream);
    }
    Err(io::ErrorKind::PermissionDenied.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_is_taken_on_loopback_alone_and_on_both_of_its_addresses() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let forward = PortForward { port: 1, local: free.local_addr().unwrap().port() };
        assert!(matches!(listen(forward).await, Err(PortError::Taken(port)) if port == forward.local));
        drop(free);
        let listening = listen(forward).await.unwrap();
        assert!(!listening.sockets.is_empty());
        for socket in &listening.sockets {
            assert!(socket.local_addr().unwrap().ip().is_loopback());
        }
    }

    #[tokio::test]
    async fn a_port_whose_other_loopback_address_is_somebody_elses_is_refused() {
        // Only a machine with IPv6 can show it.
        let Ok(other) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await else { return };
        let forward = PortForward { port: 1, local: other.local_addr().unwrap().port() };
        assert!(matches!(listen(forward).await, Err(PortError::Taken(_))));
    }

    #[test]
    fn a_browser_gets_a_host_name_of_the_projects_own() {
        let project: ProjectName = "payments-api".parse().unwrap();
        assert_eq!(url(&project, PortForward { port: 80, local: 8080 }), "http://payments-api.localhost:8080");
    }
}
