//! The program `relay`: owns the agent's network namespace, answers its DNS and hands its connections to the gateway.
//!
//! It decides nothing and reads nothing of them. What it listens for is what the gateway pushes; without a gateway every
//! connection fails.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::gateway::channel::{Header, Listing, from_line, read_line, send_header, to_line};
use crate::gateway::dns::{self, Found};
use crate::gateway::forward::refuse;
use crate::gateway::lookups::Lookups;
use crate::gateway::names::NameTable;
use crate::gateway::program::{ended, event_loop, fail};
use crate::gateway::protocol::LINE_LIMIT;
use crate::gateway::tunnel::reset;
use crate::network::name::HostName;

/// How long to wait before the gateway is tried again. Both start at the same time, and a launch waits for this.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// How many questions are answered at once and in each second; more are dropped.
const QUESTION_RATE: f64 = 1000.0;

/// How often the gateway is told of the names that were asked for in vain.
const TELL_PAUSE: Duration = Duration::from_millis(100);

/// How many connections of DNS over TCP are served at a time, and for how long each may be idle.
const DNS_CONNECTION_LIMIT: usize = 64;
const DNS_IDLE: Duration = Duration::from_secs(10);

/// How many clients are told at a time that the gateway is away.
const REFUSAL_LIMIT: usize = 64;

/// Where the relay listens and where its gateway is. The defaults are those of its container.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// The gateway's socket.
    pub socket: PathBuf,
    /// Where the proxy listens.
    pub proxy: SocketAddr,
    /// Where DNS listens, on UDP and TCP.
    pub dns: SocketAddr,
    /// The address before the first one that stands for a name.
    pub names: Ipv4Addr,
}

/// Why the relay cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The event loop or a signal handler cannot be set up.
    #[error("start the event loop")]
    Runtime(#[source] io::Error),
    /// An address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody can be told that the relay is ready.
    #[error("write to standard output")]
    Output(#[source] io::Error),
}

/// What the relay's tasks share.
#[derive(Debug)]
struct Relay {
    socket: PathBuf,
    refusals: Arc<Semaphore>,
    /// A name was asked for in vain.
    asked: Notify,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    table: NameTable,
    lookups: Lookups,
    listeners: BTreeMap<(Ipv4Addr, u16), AbortHandle>,
    tokens: f64,
    refilled: Instant,
}

/// Runs the relay.
pub fn main(options: &RelayOptions) -> ExitCode {
    match event_loop().map_err(RelayError::Runtime).and_then(|runtime| runtime.block_on(run(options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail("relay", &error),
    }
}

async fn run(options: &RelayOptions) -> Result<(), RelayError> {
    let failed = |address| move |source| RelayError::Listen { address, source };
    let proxy = TcpListener::bind(options.proxy).await.map_err(failed(options.proxy))?;
    let datagrams = UdpSocket::bind(options.dns).await.map_err(failed(options.dns))?;
    let streams = TcpListener::bind(options.dns).await.map_err(failed(options.dns))?;
    let state = State {
        table: NameTable::new(options.names),
        lookups: Lookups::default(),
        listeners: BTreeMap::new(),
        tokens: QUESTION_RATE,
        refilled: Instant::now(),
    };
    let relay = Arc::new(Relay {
        socket: options.socket.clone(),
        refusals: Arc::new(Semaphore::new(REFUSAL_LIMIT)),
        asked: Notify::new(),
        state: Mutex::new(state),
    });
    // The launcher waits for this line in the container's log.
    writeln!(io::stdout(), r#"{{"event":"ready"}}"#).and_then(|()| io::stdout().flush()).map_err(RelayError::Output)?;
    tokio::select! {
        () = follow_gateway(relay.clone()) => Ok(()),
        () = accept(relay.clone(), proxy, None) => Ok(()),
        () = answer_datagrams(relay.clone(), datagrams) => Ok(()),
        () = answer_streams(relay, streams) => Ok(()),
        result = ended() => result.map_err(RelayError::Runtime),
    }
}

/// Takes listings from the gateway, and comes back to it for ever.
async fn follow_gateway(relay: Arc<Relay>) {
    loop {
        // Why the gateway is away is for the launcher to find out; here it only means to wait.
        let _ = take_listings(&relay).await;
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

async fn take_listings(relay: &Arc<Relay>) -> io::Result<()> {
    let stream = connect(&relay.socket, &Header::Control {}, None).await?;
    let (reader, writer) = stream.into_split();
    tokio::select! {
        result = read_listings(relay, BufReader::new(reader)) => result,
        result = tell_lookups(relay, writer) => result,
    }
}

/// Tells the gateway which names were asked for in vain, a moment later: the questions for both kinds of address are one.
async fn tell_lookups(relay: &Arc<Relay>, mut gateway: OwnedWriteHalf) -> io::Result<()> {
    loop {
        relay.asked.notified().await;
        tokio::time::sleep(TELL_PAUSE).await;
        let Some(asked) = relay.with_state(|state| state.lookups.take()) else { continue };
        if let Err(error) = gateway.write_all(&to_line(&asked)?).await {
            relay.with_state(|state| state.lookups.put_back(asked));
            relay.asked.notify_one();
            return Err(error);
        }
    }
}

async fn read_listings(relay: &Arc<Relay>, mut reader: BufReader<OwnedReadHalf>) -> io::Result<()> {
    let mut line = Vec::new();
    while read_line(&mut reader, &mut line, LINE_LIMIT).await.map_err(io::Error::other)? {
        let listing: Listing = from_line(&line).map_err(io::Error::other)?;
        line = Vec::new();
        relay.with_state(|state| state.table.replace(listing));
        listen_for_names(relay);
    }
    Ok(())
}

async fn connect(socket: &Path, header: &Header, client: Option<&TcpStream>) -> io::Result<UnixStream> {
    let gateway = UnixStream::connect(socket).await?;
    send_header(&gateway, header, client).await?;
    Ok(gateway)
}

/// Opens the sockets that the table asks for, and closes those that it no longer does.
fn listen_for_names(relay: &Arc<Relay>) {
    relay.with_state(|state| {
        let wanted = state.table.sockets();
        state.listeners.retain(|socket, task| {
            let kept = wanted.contains_key(socket);
            if !kept {
                task.abort();
            }
            kept
        });
        for ((address, port), name) in wanted {
            // A port that the agent took on this address harms the agent alone; the next listing tries again.
            let _ = open_listener(relay, state, address, port, name);
        }
    });
}

fn open_listener(
    relay: &Arc<Relay>,
    state: &mut State,
    address: Ipv4Addr,
    port: u16,
    name: HostName,
) -> io::Result<()> {
    if state.listeners.contains_key(&(address, port)) {
        return Ok(());
    }
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::V4(SocketAddrV4::new(address, port)))?;
    let listener = socket.listen(128)?;
    let task = tokio::spawn(accept(relay.clone(), listener, Some((name, port))));
    state.listeners.insert((address, port), task.abort_handle());
    Ok(())
}

/// Accepts connections for the proxy, or for one listed name and port.
async fn accept(relay: Arc<Relay>, listener: TcpListener, target: Option<(HostName, u16)>) {
    let header = match &target {
        None => Header::Http {},
        Some((name, port)) => Header::Tcp { host: name.to_string(), port: *port },
    };
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // Out of descriptors: connections have to end first.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // The gateway holds it from here on. This takes no longer than to queue it there.
        if connect(&relay.socket, &header, Some(&client)).await.is_err() {
            without_gateway(&relay, client, target.is_none());
        }
    }
}

/// Ends a connection that nobody takes. A client of the proxy is told why, unless too many are being told.
fn without_gateway(relay: &Arc<Relay>, mut client: TcpStream, proxy: bool) {
    match relay.refusals.clone().try_acquire_owned() {
        Ok(slot) if proxy => drop(tokio::spawn(async move {
            let body = json!({ "error": "the sandbox's gateway is not running", "next": "try again" });
            refuse(&mut client, StatusCode::BAD_GATEWAY, &body).await;
            drop(slot);
        })),
        _ => reset(&client),
    }
}

impl Relay {
    fn with_state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        // The state is consistent between any two of its changes, so a panic elsewhere does not spoil it.
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Answers one question, unless there are too many.
fn answer(relay: &Arc<Relay>, message: &[u8]) -> Option<Vec<u8>> {
    relay.with_state(|state| {
        let now = Instant::now();
        let refill = now.duration_since(state.refilled).as_secs_f64() * QUESTION_RATE;
        state.refilled = now;
        state.tokens = (state.tokens + refill).min(QUESTION_RATE);
        if state.tokens < 1.0 {
            return None;
        }
        state.tokens -= 1.0;
        let mut unlisted = None;
        let reply = dns::answer(
            message,
            |name| find(relay, state, name),
            |name, kind| unlisted = Some((name.to_owned(), kind)),
        );
        if let Some((name, kind)) = unlisted {
            state.lookups.count(&name, kind);
            relay.asked.notify_one();
        }
        reply
    })
}

/// Looks a name up. One below a wildcard gets its sockets before its address is told.
fn find(relay: &Arc<Relay>, state: &mut State, name: &HostName) -> Found {
    let found = state.table.find(name);
    if let Found::Address(address) = found {
        for port in state.table.ports(name) {
            // As in `listen_for_names`.
            let _ = open_listener(relay, state, address, port, name.clone());
        }
    }
    found
}

async fn answer_datagrams(relay: Arc<Relay>, socket: UdpSocket) {
    // One byte more than the limit shows that a datagram was longer.
    let mut buffer = [0; dns::QUESTION_LIMIT + 1];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        if let Some(reply) = answer(&relay, &buffer[..length]) {
            // A client that is gone does not need it.
            let _ = socket.send_to(&reply, client).await;
        }
    }
}

async fn answer_streams(relay: Arc<Relay>, listener: TcpListener) {
    let slots = Arc::new(Semaphore::new(DNS_CONNECTION_LIMIT));
    loop {
        let Ok((mut client, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let relay = relay.clone();
        tokio::spawn(async move {
            while let Ok(Some(())) = timeout(DNS_IDLE, answer_on(&relay, &mut client)).await {}
            drop(slot);
        });
    }
}

/// Answers one question of a TCP connection: two bytes of length, then the message (RFC 1035 section 4.2.2).
async fn answer_on(relay: &Arc<Relay>, client: &mut TcpStream) -> Option<()> {
    let length = usize::from(client.read_u16().await.ok()?);
    if length > dns::QUESTION_LIMIT {
        return None;
    }
    let mut message = vec![0; length];
    client.read_exact(&mut message).await.ok()?;
    let reply = answer(relay, &message)?;
    let mut framed = u16::try_from(reply.len()).ok()?.to_be_bytes().to_vec();
    framed.extend_from_slice(&reply);
    client.write_all(&framed).await.ok()
}
