//! The program `gateway`: takes the launcher's commands from standard input and the relay's connections from a socket.
//!
//! It runs until it is told to end by a signal. The end of standard input does not end it: launchers attach and leave.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use rustix::process::{Resource, getrlimit};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::io::{AsyncRead, AsyncReadExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use zeroize::{Zeroize as _, Zeroizing};

use crate::gateway::authority::{Authority, AuthorityError};
use crate::gateway::broker::Broker;
use crate::gateway::budget::Budgets;
use crate::gateway::channel::{CONNECTION_LIMIT, LineError, read_line};
use crate::gateway::connection::{BODIES, Shared, serve, turn_away};
use crate::gateway::denials::Denials;
use crate::gateway::leak::Leaks;
use crate::gateway::proof;
use crate::gateway::protocol::{Action, Command, Event, LINE_LIMIT};
use crate::gateway::reads::ReadWatch;
use crate::gateway::report::Reporter;
use crate::gateway::secrets::{SecretFolder, SecretsError};
use crate::network::policy::Policy;

/// How long to wait before standard input is looked at again after its end.
const INPUT_PAUSE: Duration = Duration::from_secs(1);

/// Descriptors for the rest: files, the resolver's sockets, further attempts to reach a host, connections to be turned away.
const DESCRIPTORS: usize = 256;

/// How many connections beyond the limit are told so at a time.
const REFUSAL_LIMIT: usize = 64;

/// Where the gateway finds what it works with. The defaults are those of its container.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// The socket for the relay.
    pub socket: PathBuf,
    /// The only uid that may connect.
    pub relay_uid: u32,
    /// The group that the socket is given to.
    pub group: u32,
    /// The folder of the credential files.
    pub secrets: PathBuf,
    /// A name server, instead of those in `/etc/resolv.conf`.
    pub resolver: Option<SocketAddr>,
}

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The event loop or a signal handler cannot be set up.
    #[error("start the event loop")]
    Runtime(#[source] io::Error),
    /// `/etc/resolv.conf` cannot be used.
    #[error("set up the resolver")]
    Resolver(#[source] Box<hickory_resolver::net::NetError>),
    /// The session's certificate authority cannot be made.
    #[error("set up the session's certificate authority")]
    Authority(#[source] AuthorityError),
    /// The socket cannot be opened.
    #[error("listen on `{}`", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The folder of the credential files cannot be used.
    #[error("open the credential files")]
    Secrets(#[source] SecretsError),
}

/// Runs the gateway.
pub fn main(options: &GatewayOptions) -> ExitCode {
    match event_loop().map_err(GatewayError::Runtime).and_then(|runtime| {
        let result = runtime.block_on(run(options));
        // Reading standard input blocks a thread that cannot be woken.
        runtime.shutdown_background();
        result
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail("gateway", &error),
    }
}

/// An event loop on this thread alone.
pub(super) fn event_loop() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()
}

/// Says on standard error why a program cannot start.
pub(super) fn fail(program: &str, error: &dyn std::error::Error) -> ExitCode {
    let mut text = format!("{program}: failed to {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    // Without standard error the exit code has to say it.
    let _ = writeln!(io::stderr(), "{text}");
    ExitCode::FAILURE
}

/// Waits for a signal to end. As PID 1 of its container the program gets none that it does not ask for.
pub(super) async fn ended() -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn run(options: &GatewayOptions) -> Result<(), GatewayError> {
    let reporter = Reporter::start(io::stdout()).map_err(GatewayError::Runtime)?;
    let resolver = resolver(options.resolver)?;
    let folder = SecretFolder::open(&options.secrets).map_err(GatewayError::Secrets)?;
    let reads = ReadWatch::new().map_err(GatewayError::Runtime)?;
    let leaks = Leaks::default();
    // What a gateway before this one handed out is looked for as well; reading it now is no read by the agent.
    leaks.hold_files(folder.contents().map_err(GatewayError::Secrets)?, true);
    if let Some(current) = folder.current() {
        // A folder of the gateway before this one: only its audit is at stake.
        let _ = reads.add(&current);
    }
    let listener = listen(&options.socket, options.group)
        .map_err(|source| GatewayError::Socket { path: options.socket.clone(), source })?;
    let shared = Arc::new(Shared {
        policy: watch::Sender::new(None),
        budgets: Budgets::default(),
        denials: Denials::default(),
        lookups: Denials::default(),
        reporter: reporter.clone(),
        resolver,
        broker: Broker::default(),
        leaks,
        authority: Authority::generate().map_err(GatewayError::Authority)?,
        bodies: Semaphore::new(BODIES),
        proxy_log_in: watch::Sender::new(None),
        last: AtomicU64::new(0),
    });
    reporter.send(Event::Ready).await;
    tokio::select! {
        () = take_connections(&shared, &listener, options.relay_uid) => Ok(()),
        () = take_commands(&shared, folder, &reads, tokio::io::stdin()) => Ok(()),
        // Without a way to report nothing is decided any more.
        () = shared.denials.report(&reporter) => Ok(()),
        () = reporter.tell_sums() => Ok(()),
        () = shared.lookups.report(&reporter) => Ok(()),
        result = reads.report(&reporter) => result.map_err(GatewayError::Runtime),
        result = ended() => result.map_err(GatewayError::Runtime),
    }
}

fn resolver(server: Option<SocketAddr>) -> Result<TokioResolver, GatewayError> {
    let failed = |error| GatewayError::Resolver(Box::new(error));
    let mut builder = match server {
        None => TokioResolver::builder_tokio().map_err(failed)?,
        Some(server) => {
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            for connection in &mut config.connections {
                connection.port = server.port();
            }
            let config = ResolverConfig::from_name_servers(vec![config]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let options = builder.options_mut();
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.cache_size = 256;
    options.timeout = Duration::from_secs(3);
    options.attempts = 2;
    builder.build().map_err(failed)
}

/// Opens the socket. One that a gateway before this left behind is removed.
fn listen(path: &Path, group: u32) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    chown(path, None, Some(group))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// How many connections leave enough descriptors for everything else: each has one of its client and one of its host.
fn connection_limit() -> usize {
    let all = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    (all.saturating_sub(DESCRIPTORS) / 2).clamp(1, CONNECTION_LIMIT)
}

async fn take_connections(shared: &Arc<Shared>, listener: &UnixListener, relay_uid: u32) {
    let slots = Arc::new(Semaphore::new(connection_limit()));
    let refusals = Arc::new(Semaphore::new(REFUSAL_LIMIT));
    loop {
        let Ok((relay, _)) = listener.accept().await else {
            // Out of descriptors: connections have to end first.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if !is_relay(&relay, relay_uid) {
            continue;
        }
        match slots.clone().try_acquire_owned() {
            Ok(slot) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    serve(shared, relay).await;
                    drop(slot);
                });
            }
            Err(_) => {
                // Too many to be told ends with a reset.
                let Ok(slot) = refusals.clone().try_acquire_owned() else { continue };
                tokio::spawn(async move {
                    turn_away(&relay).await;
                    drop(slot);
                });
            }
        }
    }
}

fn is_relay(stream: &UnixStream, uid: u32) -> bool {
    stream.peer_cred().is_ok_and(|credentials| credentials.uid() == uid)
}

/// Carries out the launcher's commands until there is nobody to answer to.
async fn take_commands(shared: &Shared, mut folder: SecretFolder, reads: &ReadWatch, input: impl AsyncRead + Unpin) {
    let mut input = BufReader::new(input);
    let mut line = Zeroizing::new(Vec::new());
    loop {
        let outcome = read_line(&mut input, &mut line, LINE_LIMIT).await;
        let answer = match outcome {
            Ok(false) => {
                tokio::time::sleep(INPUT_PAUSE).await;
                continue;
            }
            Ok(true) if line.trim_ascii().is_empty() => None,
            Ok(true) => Some(carry_out(shared, &mut folder, reads, &line).await),
            Err(error) => {
                let gone = matches!(error, LineError::Read(_));
                shared.policy.send_replace(None);
                skip_line(&mut input).await;
                if gone {
                    tokio::time::sleep(INPUT_PAUSE).await;
                }
                Some(Event::Acknowledged { id: 0, error: Some(error.to_string()) })
            }
        };
        line.zeroize();
        *line = Vec::new();
        if let Some(answer) = answer
            && !shared.reporter.send(answer).await
        {
            return;
        }
    }
}

/// Drops the rest of a line that is too long.
async fn skip_line(input: &mut (impl AsyncRead + Unpin)) {
    loop {
        match input.read_u8().await {
            Ok(b'\n') | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// As much of a command as tells whom to answer and what it was about.
#[derive(Debug, Deserialize)]
struct Outline {
    #[serde(default)]
    id: u64,
    #[serde(default)]
    action: HashMap<String, IgnoredAny>,
}

async fn carry_out(shared: &Shared, folder: &mut SecretFolder, reads: &ReadWatch, line: &[u8]) -> Event {
    let command: Command = match serde_json::from_slice(line) {
        Ok(command) => command,
        Err(error) => {
            let outline = serde_json::from_slice::<Outline>(line).ok();
            // An invalid policy allows nothing. So does a line that could have been one.
            if !outline.as_ref().is_some_and(|outline| {
                outline
                    .action
                    .keys()
                    .any(|action| ["secrets", "broker", "proxy"].iter().any(|word| action.contains(word)))
            }) {
                shared.policy.send_replace(None);
            }
            // The parser's message can quote the line, and with it a secret: its place must do.
            let place = format!("the command is not valid at column {}", error.column());
            return Event::Acknowledged { id: outline.map_or(0, |outline| outline.id), error: Some(place) };
        }
    };
    let error = match command.action {
        Action::Policy(policy) => {
            let prepared = prepare(shared, folder, &policy);
            shared.leaks.obey(&policy);
            shared.policy.send_replace(prepared.is_ok().then(|| Arc::new(policy)));
            prepared.err()
        }
        Action::Secrets(files) => {
            let done = folder.replace(&files);
            shared.leaks.hold_files(files, done.is_ok());
            changed(done, folder, reads)
        }
        Action::UpdateSecrets(files) => {
            let done = folder.update(&files);
            shared.leaks.hold_files(files, false);
            changed(done, folder, reads)
        }
        Action::RemoveSecrets(names) => {
            let done = folder.remove(&names);
            if done.is_ok() {
                shared.leaks.forget_files(&names);
            }
            changed(done, folder, reads)
        }
        Action::Broker(credentials) => {
            shared.leaks.hold_brokered(&credentials);
            shared.broker.hold(credentials);
            None
        }
        Action::ProxyLogIn(log_in) => {
            shared.proxy_log_in.send_replace(Some(Arc::new(log_in)));
            None
        }
        Action::ProveBrokered(asked) => {
            let policy = shared.policy.borrow().clone();
            match proof::prove(policy.as_deref(), &shared.broker, &asked) {
                Ok(proven) => return Event::Proven { id: command.id, proven },
                Err(error) => Some(error),
            }
        }
        Action::ReportSums {} => {
            // Those of the denials become events first, of which there may be a flood.
            let told = shared.denials.report_now(&shared.reporter).await
                && shared.lookups.report_now(&shared.reporter).await
                && shared.reporter.tell_sums_now().await;
            (!told).then(|| "nobody takes the events".to_owned())
        }
        Action::Unbroker(names) => {
            shared.broker.withdraw(&names);
            shared.leaks.forget_brokered(&names);
            None
        }
    };
    Event::Acknowledged { id: command.id, error }
}

/// What has to be there before the first connection under a policy: whom to trust upstream, and for the agent the
/// certificates that it has to trust. Gives what went wrong, in words for the launcher.
fn prepare(shared: &Shared, folder: &SecretFolder, policy: &Policy) -> Result<(), String> {
    let authorities = policy.authorities.as_deref().unwrap_or_default();
    shared.authority.trust(authorities).map_err(|error| format!("failed to {}", with_source(&error)))?;
    if policy.adds_authorities() {
        let certificates = format!("{authorities}\n{}", shared.authority.certificate());
        folder.publish_authorities(&certificates).map_err(|error| format!("failed to {}", with_source(&error)))?;
    }
    Ok(())
}

/// Watches the set that is current now; gives what went wrong, in words for the launcher.
fn changed(result: Result<(), SecretsError>, folder: &SecretFolder, reads: &ReadWatch) -> Option<String> {
    if let Err(error) = result {
        return Some(format!("failed to {}", with_source(&error)));
    }
    if let Some(current) = folder.current() {
        // Without a watch the files are as safe as with it; only their reads go unreported.
        let _ = reads.add(&current);
    }
    None
}

fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
