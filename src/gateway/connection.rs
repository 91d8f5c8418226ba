//! What the gateway does with one connection of the relay, from its header to its last byte.
//!
//! One decision is reported for each connection. An allowed one is reported before any byte of the client goes on.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use http::{HeaderValue, StatusCode};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::gateway::authority::Authority;
use crate::gateway::broker::Broker;
use crate::gateway::budget::{Budgets, Exceeded};
use crate::gateway::channel::{Header, ListedName, Listing, from_line, read_line, receive_header, to_line};
use crate::gateway::client::Client;
use crate::gateway::denials::{Denials, OTHERS};
use crate::gateway::destination::{DialError, LEAK, authorise, dial, resolve};
use crate::gateway::forward::{HeadError, forward, read_head, refuse};
use crate::gateway::hello::opens_tls;
use crate::gateway::inspect::{self, Inspected, PlainProxy};
use crate::gateway::leak::Leaks;
use crate::gateway::lookups::{Asked, Lookup, TOLD_APART};
use crate::gateway::permit::{CurrentPolicy, Permit};
use crate::gateway::protocol::{Closed, Decision, Event, LINE_LIMIT, ProxyLogIn};
use crate::gateway::report::{Reporter, visible};
use crate::gateway::request::Target;
use crate::gateway::stream::{Counted, Rewound};
use crate::gateway::transfer::End;
use crate::gateway::tunnel::{self, OpeningError};
use crate::gateway::upstream::{ProxyStream, Way, through};
use crate::network::name::{Host, HostPattern};
use crate::network::policy::{OBSERVED_PORTS, Policy};

/// How long the relay may take for its header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client may take for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How many requests may have their whole body held at a time. Others wait.
pub const BODIES: usize = 4;

/// What connections share.
#[derive(Debug)]
pub struct Shared {
    /// The policy, none before the launcher's first.
    pub policy: CurrentPolicy,
    /// What each host got.
    pub budgets: Budgets,
    /// What was denied.
    pub denials: Denials,
    /// What was looked up and is not listed. It has a table of its own: names in DNS are cheaper than connections.
    pub lookups: Denials,
    /// The way to the launcher.
    pub reporter: Reporter,
    /// Resolves allowed names.
    pub resolver: TokioResolver,
    /// Makes certificates for hosts with rules.
    pub authority: Authority,
    /// Credentials that are put into requests.
    pub broker: Broker,
    /// Credentials that must not leave but for where they are for.
    pub leaks: Leaks,
    /// The log-in at the company's proxy, where there is one.
    pub proxy_log_in: watch::Sender<Option<Arc<ProxyLogIn>>>,
    /// Who may hold a whole body, to sign it.
    pub bodies: Semaphore,
    /// The number of the last connection.
    pub last: AtomicU64,
}

/// What one connection asked for.
#[derive(Debug, Clone)]
struct Asking {
    number: u64,
    host: String,
    port: u16,
    via: &'static str,
}

/// A connection to an allowed destination that was dialled, and not yet reported.
struct Dialled {
    upstream: Counted<ProxyStream>,
    permit: Permit,
    /// How a proxy is between, where one is.
    proxied: Option<Proxied>,
}

struct Proxied {
    /// Whether it opened a tunnel, rather than taking the requests itself.
    tunnel: bool,
    /// Its address, for reports.
    proxy: String,
    /// The log-in that goes with each request.
    authorization: Option<HeaderValue>,
}

/// Serves one connection of the relay.
pub async fn serve(shared: Arc<Shared>, relay: UnixStream) {
    // A relay that says nothing, or something else, is not one.
    let Ok(Ok((header, descriptor))) = timeout(HEADER_TIMEOUT, receive_header(&relay)).await else { return };
    if header == (Header::Control {}) {
        return push_listings(&shared, relay).await;
    }
    drop(relay);
    // A client that is gone already needs nothing.
    let Some(Ok(client)) = descriptor.map(Client::take_over) else { return };
    match header {
        Header::Control {} => {}
        Header::Http {} => proxy(&shared, client.clone()).await,
        Header::Tcp { host, port } => transparent(&shared, client.clone(), host, port).await,
    }
    client.end().await;
}

/// Ends a connection for which there is no place.
pub async fn turn_away(relay: &UnixStream) {
    let Ok(Ok((header, Some(descriptor)))) = timeout(HEADER_TIMEOUT, receive_header(relay)).await else { return };
    let Ok(client) = Client::take_over(descriptor) else { return };
    if header == (Header::Http {}) {
        client.say(
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n",
        );
    }
    client.end().await;
}

/// Sends the names of the policy now and whenever it changes, until the relay goes away.
async fn push_listings(shared: &Shared, relay: UnixStream) {
    let mut policy = shared.policy.subscribe();
    let (asked, mut relay) = relay.into_split();
    // Ends when the relay is gone, or says what it cannot say.
    let mut taking = pin!(take_lookups(shared, BufReader::new(asked)));
    loop {
        let listing = listing(policy.borrow_and_update().as_deref());
        let Ok(line) = to_line(&listing) else { return };
        if relay.write_all(&line).await.is_err() {
            return;
        }
        tokio::select! {
            changed = policy.changed() => if changed.is_err() { return },
            () = taking.as_mut() => return,
        }
    }
}

/// Reports the names that were asked for in DNS and are not listed. The relay counts them; who took it over could say
/// what he likes here, and no more than fill a bounded table with it.
async fn take_lookups(shared: &Shared, mut relay: BufReader<OwnedReadHalf>) {
    let mut line = Vec::new();
    while let Ok(true) = read_line(&mut relay, &mut line, LINE_LIMIT).await {
        let Ok(asked) = from_line::<Asked>(&line) else { return };
        line = Vec::new();
        let others = (asked.others > 0).then(|| Lookup { name: OTHERS.to_owned(), count: asked.others });
        for Lookup { name, count } in asked.names.into_iter().take(TOLD_APART).chain(others) {
            let looked_up = Asking { number: 0, host: name, port: 0, via: "dns" };
            let count = (count > 1).then_some(count);
            if let Some(denial) = shared.lookups.take(Decision { count, ..decision(&looked_up, "lookup") })
                && !shared.reporter.send(Event::Decision(denial)).await
            {
                return;
            }
        }
    }
}

fn listing(policy: Option<&Policy>) -> Listing {
    let Some(policy) = policy else { return Listing::default() };
    let named = policy.allow.iter().filter(|rule| !matches!(rule.host, HostPattern::Address(_)));
    Listing {
        names: named.map(|rule| ListedName { host: rule.host.clone(), port: rule.port }).collect(),
        denied: policy.denied.clone(),
        all: if policy.observe { OBSERVED_PORTS.to_vec() } else { Vec::new() },
    }
}

/// An agent's program that knows of the proxy.
async fn proxy(shared: &Arc<Shared>, mut client: Client) {
    let mut bytes = Vec::with_capacity(1024);
    let head = match timeout(HEAD_TIMEOUT, read_head(&mut client, &mut bytes)).await {
        Ok(Ok(head)) => head,
        Ok(Err(HeadError::Refused(error))) => {
            let asked = shared.asked(String::new(), 0, "http");
            return refuse_request(shared, &asked, &mut client, &with_sources(&error)).await;
        }
        // Nothing was asked for.
        Ok(Err(HeadError::Ended)) | Err(_) => return,
    };
    match head.target {
        Target::Authority(host, port) => {
            let asked = shared.asked(host.to_string(), port, "connect");
            let rest = bytes.split_off(head.length);
            drop(bytes);
            let Some(dialled) = open_or_refuse(shared, &asked, &host, port, &mut client).await else { return };
            if client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.is_ok() {
                tunnelled(shared, asked, Rewound::new(rest, client), &host, port, dialled).await;
            }
        }
        Target::Absolute(host, port) => {
            let asked = shared.asked(host.to_string(), port, "http");
            let Some(dialled) = open_or_refuse(shared, &asked, &host, port, &mut client).await else { return };
            let client = Rewound::new(bytes, client);
            Box::pin(plain_http(shared, &asked, client, &host, port, dialled)).await;
        }
        Target::Origin(host, port) => {
            let asked = shared.asked(host.to_string(), port, "http");
            refuse_request(shared, &asked, &mut client, "a proxy is asked with an absolute target").await;
        }
    }
}

/// An agent's program that connected to the address of a listed name.
async fn transparent(shared: &Arc<Shared>, client: Client, text: String, port: u16) {
    let asked = shared.asked(text, port, "tcp");
    let Ok(host) = asked.host.parse::<Host>() else {
        shared.deny(&asked, "request", "the host is not valid".to_owned()).await;
        return;
    };
    match Box::pin(open(shared, &host, port)).await {
        Ok(dialled) => tunnelled(shared, asked, client, &host, port, dialled).await,
        Err(error) => {
            shared.deny(&asked, error.reason(), with_sources(&error)).await;
        }
    }
}

/// Match, resolve, check, dial.
async fn open(shared: &Shared, host: &Host, port: u16) -> Result<Dialled, DialError> {
    // The policy of this moment decides; a change while dialling is noticed when the connection is served.
    let policy = shared.policy.borrow().clone();
    if let Some(watch) = shared.leaks.watch() {
        watch.look_at_host(&host.to_string()).map_err(DialError::Leak)?;
    }
    let rule = authorise(policy.as_deref(), host, port)?;
    let rule = rule.as_ref();
    let limits = policy.as_ref().map(|policy| policy.limits).unwrap_or_default();
    let slot = shared.budgets.admit(limits, host)?;
    let proxy = policy.as_ref().and_then(|policy| policy.proxy.as_ref()).filter(|proxy| proxy.is_for(rule, host));
    let (stream, address, proxied) = match proxy {
        None => {
            let addresses = resolve(&shared.resolver, rule, host).await?;
            let (stream, address) = dial(&addresses, port).await?;
            (ProxyStream::Left(stream), Some(address), None)
        }
        Some(proxy) => {
            let log_in = shared.proxy_log_in.borrow().clone();
            let way = Way { proxy, log_in: log_in.as_deref(), authority: &shared.authority };
            let stream = through(&way, &shared.resolver, rule, host, port).await?;
            let tunnel = proxy.tunnels(port);
            let authorization = if tunnel { None } else { way.authorization() };
            (stream, None, Some(Proxied { tunnel, proxy: proxy.to_string(), authorization }))
        }
    };
    let (upstream, count) = Counted::within(stream, slot.clone());
    let permit = Permit { host: host.clone(), port, address, rule: rule.clone(), count, slot };
    Ok(Dialled { upstream, permit, proxied })
}

async fn open_or_refuse(
    shared: &Shared,
    asked: &Asking,
    host: &Host,
    port: u16,
    client: &mut Client,
) -> Option<Dialled> {
    let error = match Box::pin(open(shared, host, port)).await {
        Ok(dialled) => return Some(dialled),
        Err(error) => error,
    };
    if !shared.deny(asked, error.reason(), with_sources(&error)).await {
        return None;
    }
    let (status, next) = match &error {
        DialError::NoPolicy => (StatusCode::FORBIDDEN, "wait until the sandbox is up"),
        DialError::Address { .. } => (
            StatusCode::FORBIDDEN,
            "ask the developer to add the address to allow_private of this host in network.allow in sandbox.yaml",
        ),
        DialError::Limit(Exceeded::Upload) => {
            (StatusCode::FORBIDDEN, "ask the developer to raise it in sandbox.yaml, if so much is meant to go there")
        }
        DialError::Limit(_) => {
            (StatusCode::TOO_MANY_REQUESTS, "close connections, or ask the developer to raise it in sandbox.yaml")
        }
        DialError::Leak(_) => (StatusCode::FORBIDDEN, "a host's name is no place for a credential"),
        DialError::Unlisted => (StatusCode::FORBIDDEN, "ask the developer to add it to network.allow in sandbox.yaml"),
        DialError::Proxy { .. } => {
            (StatusCode::BAD_GATEWAY, "the host is allowed here; ask the developer about the proxy")
        }
        DialError::Resolve(_) | DialError::NoAddress | DialError::Connect(..) => {
            (StatusCode::BAD_GATEWAY, "the host is allowed; try again later")
        }
    };
    let body = json!({ "error": error.to_string(), "host": visible(&asked.host), "port": port, "next": next });
    refuse(client, status, &body).await;
    None
}

async fn refuse_request(shared: &Shared, asked: &Asking, client: &mut Client, detail: &str) {
    if shared.deny(asked, "request", detail.to_owned()).await {
        refuse(client, StatusCode::BAD_REQUEST, &json!({ "error": detail })).await;
    }
}

/// Serves a connection that stands for one to the host itself.
async fn tunnelled<C>(shared: &Arc<Shared>, asked: Asking, mut client: C, host: &Host, port: u16, mut dialled: Dialled)
where
    C: AsyncRead + AsyncWrite + End + Send + Unpin + 'static,
{
    // What is large goes to the heap while it lives: a tunnel, of which there may be thousands, stays small.
    if dialled.permit.rule.is_inspected() {
        return Box::pin(inspect_connection(shared, &asked, client, host, port, dialled)).await;
    }
    if port == 80 {
        return Box::pin(http_inside(shared, &asked, client, host, port, dialled)).await;
    }
    if port != 443 {
        if !shared.allow(&asked, &dialled).await {
            return;
        }
        let Dialled { upstream, permit, .. } = dialled;
        let moving = tunnel::relay_concurrently(client, upstream, host, port);
        let moved = permit.hold(&shared.policy, moving).await;
        if let Some(Err(error)) = moved
            && !matches!(error, OpeningError::Read(_))
        {
            shared.deny(&asked, "sni", with_sources(&error)).await;
        }
        return shared.closed(&asked, &permit).await;
    }
    let opening = match tunnel::read_opening(&mut client, host, port).await {
        Ok(opening) => opening,
        Err(error) => {
            shared.deny(&asked, "sni", with_sources(&error)).await;
            return;
        }
    };
    if !shared.allow(&asked, &dialled).await {
        return;
    }
    if !opening.is_empty() {
        let moving = tunnel::relay(&mut client, &mut dialled.upstream, &opening);
        dialled.permit.hold(&shared.policy, moving).await;
    }
    shared.closed(&asked, &dialled.permit).await;
}

/// A connection to a host whose rules are about methods and paths: TLS is terminated, and plain HTTP obeys the same rules.
async fn inspect_connection<C>(
    shared: &Arc<Shared>,
    asked: &Asking,
    mut client: C,
    host: &Host,
    port: u16,
    dialled: Dialled,
) where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let opening = match timeout(HEAD_TIMEOUT, tunnel::read_opening(&mut client, host, port)).await {
        Ok(Ok(opening)) => opening,
        Ok(Err(error)) => {
            shared.deny(asked, "sni", with_sources(&error)).await;
            return;
        }
        Err(_) => return,
    };
    let Some(&first) = opening.first() else { return };
    if !opens_tls(first) {
        return http_inside(shared, asked, Rewound::new(opening, client), host, port, dialled).await;
    }
    let Host::Name(name) = host else {
        shared.deny(asked, "sni", "an address has no certificate".to_owned()).await;
        return;
    };
    if !shared.allow(asked, &dialled).await {
        return;
    }
    let slot = dialled.permit.slot.clone();
    let inspected = Inspected { connection: asked.number, host: host.clone(), port, tls: true, proxy: None, slot };
    let Dialled { upstream, permit, .. } = dialled;
    let serving = inspect::serve_tls(shared, inspected, name, opening, client, upstream);
    if let Some(Err(error)) = permit.hold(&shared.policy, serving).await
        && !matches!(error, inspect::InspectError::Http(_))
    {
        shared.deny(asked, "tls", with_sources(&error)).await;
    }
    shared.closed(asked, &permit).await;
}

/// Plain HTTP on a connection to port 80: the request must be for the host that was allowed.
async fn http_inside<C>(shared: &Arc<Shared>, asked: &Asking, mut client: C, host: &Host, port: u16, dialled: Dialled)
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut bytes = Vec::with_capacity(1024);
    let refusal = match timeout(HEAD_TIMEOUT, read_head(&mut client, &mut bytes)).await {
        Ok(Ok(head)) => match head.target {
            Target::Origin(named, at) | Target::Absolute(named, at) if &named == host && at == port => {
                return plain_http(shared, asked, Rewound::new(bytes, client), host, port, dialled).await;
            }
            Target::Origin(..) | Target::Absolute(..) => {
                "the request names another host than was connected to".to_owned()
            }
            Target::Authority(..) => "a tunnel inside a tunnel".to_owned(),
        },
        Ok(Err(HeadError::Refused(error))) => with_sources(&error),
        // A client that connects and says nothing (a probe, a pool) was allowed to.
        Ok(Err(HeadError::Ended)) | Err(_) if bytes.is_empty() => {
            if shared.allow(asked, &dialled).await {
                shared.closed(asked, &dialled.permit).await;
            }
            return;
        }
        Ok(Err(HeadError::Ended)) | Err(_) => "the connection ended before the request did".to_owned(),
    };
    if shared.deny(asked, "request", refusal.clone()).await {
        refuse(&mut client, StatusCode::BAD_REQUEST, &json!({ "error": refusal })).await;
    }
}

async fn plain_http<C>(shared: &Arc<Shared>, asked: &Asking, client: C, host: &Host, port: u16, dialled: Dialled)
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    if !shared.allow(asked, &dialled).await {
        return;
    }
    let Dialled { upstream, permit, proxied } = dialled;
    let proxy = proxied.filter(|proxied| !proxied.tunnel).map(|proxied| PlainProxy(proxied.authorization));
    let slot = permit.slot.clone();
    let inspected = Inspected { connection: asked.number, host: host.clone(), port, tls: false, proxy, slot };
    if permit.rule.is_inspected() {
        permit.hold(&shared.policy, inspect::serve1(shared, inspected, client, upstream)).await;
    } else {
        permit.hold(&shared.policy, forward(shared, &inspected, client, upstream)).await;
    }
    shared.closed(asked, &permit).await;
}

impl Shared {
    fn asked(&self, host: String, port: u16, via: &'static str) -> Asking {
        Asking { number: self.last.fetch_add(1, Ordering::Relaxed) + 1, host, port, via }
    }

    async fn allow(&self, asked: &Asking, dialled: &Dialled) -> bool {
        let decision = Decision {
            allowed: true,
            address: dialled.permit.address.map(|address| address.ip().to_string()),
            detail: dialled.proxied.as_ref().map(|proxied| format!("through {}", proxied.proxy)),
            rule: dialled.permit.rule.origin.clone(),
            ..decision(asked, "listed")
        };
        self.reporter.send(Event::Decision(decision)).await
    }

    async fn deny(&self, asked: &Asking, reason: &str, detail: String) -> bool {
        let mut decision = Decision { detail: Some(visible(&detail)), ..decision(asked, reason) };
        if reason == LEAK {
            // The credential is in the name.
            "(withheld)".clone_into(&mut decision.host);
        }
        match self.denials.take(decision) {
            Some(decision) => self.reporter.send(Event::Decision(decision)).await,
            None => true,
        }
    }

    async fn closed(&self, asked: &Asking, permit: &Permit) {
        if let Some(limit) = permit.slot.ended() {
            self.deny(asked, "limit", limit.to_string()).await;
        }
        let count = &permit.count;
        let closed = Closed { connection: asked.number, sent: count.written(), received: count.read() };
        self.reporter.send(Event::Closed(closed)).await;
    }
}

/// A denial; the caller makes it more.
fn decision(asked: &Asking, reason: &str) -> Decision {
    Decision {
        connection: asked.number,
        allowed: false,
        reason: reason.to_owned(),
        host: visible(&asked.host),
        port: asked.port,
        via: asked.via.to_owned(),
        address: None,
        rule: None,
        detail: None,
        count: None,
    }
}

/// An error and its sources in one line.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
