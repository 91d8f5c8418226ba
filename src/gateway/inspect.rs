//! Reads every request to a host that has rules, and passes on those that a rule allows.
//!
//! Towards the agent the gateway is the host, by a certificate of [`super::authority`]; towards the host it is a client
//! that verifies it. Both sides speak the same version of HTTP, and each request is built anew from parsed parts, so
//! that no framing of the agent's reaches the host.

use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Either, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::{http1 as client1, http2 as client2};
use hyper::server::conn::{http1 as server1, http2 as server2};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::gateway::authority::AuthorityError;
use crate::gateway::broker::{self, BrokerError};
use crate::gateway::budget::Slot;
use crate::gateway::connection::Shared;
use crate::gateway::forward::{Answer, leaked, said, strip};
use crate::gateway::hello::offered_protocols;
use crate::gateway::leak::body::{Told, WatchedBody, ask_for_readable, look, refusal};
use crate::gateway::override_fields;
use crate::gateway::protocol::{Event, RequestDecision};
use crate::gateway::report::visible;
use crate::gateway::request::{HEAD_LIMIT, split_authority};
use crate::gateway::sigv4::{self, Payload};
use crate::gateway::stream::Rewound;
use crate::gateway::tunnel;
use crate::network::name::{Host, HostName};
use crate::network::placement::Placement;
use crate::network::request::RequestPath;

/// How long a TLS handshake may take, on either side.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may wait for its next request's head.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// How long a body may take that is held until it is whole, waiting for a place included.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);

/// Requests at once on one connection.
const STREAM_LIMIT: u32 = 32;

/// Streams that a client may reset before the gateway has taken them (CVE-2023-44487).
const RESET_LIMIT: usize = 20;

/// How much is read of TLS at once, in bytes: two records (RFC 8446 section 5.1). rustls itself asks for 4 KiB at a time.
const READ_BUFFER: usize = 32 << 10;

/// Bytes that wait for each stream and for each connection.
const WINDOW: u32 = 256 << 10;

/// Why a connection to a host with rules was not served.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The certificates failed.
    #[error("TLS cannot be terminated")]
    Authority(#[from] AuthorityError),
    /// The handshake with the host failed, or its certificate is not valid.
    #[error("no verified TLS connection to the host")]
    Upstream(#[source] io::Error),
    /// The handshake with the agent's program failed.
    #[error("no TLS connection from the client, which has to trust the session's authority")]
    Client(#[source] io::Error),
    /// HTTP failed.
    #[error("HTTP failed")]
    Http(#[from] hyper::Error),
}

/// A proxy that takes plain requests, in absolute form (RFC 9112 section 3.2.2), with the log-in there
/// (`Proxy-Authorization`, RFC 9110 section 11.7.2).
#[derive(Debug, Clone)]
pub struct PlainProxy(pub Option<HeaderValue>);

/// What a connection that is inspected is for.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// Number of the connection.
    pub connection: u64,
    /// The host that was connected to.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// Whether TLS carries it.
    pub tls: bool,
    /// The proxy that requests go to, when one takes them itself.
    pub proxy: Option<PlainProxy>,
    /// The connection's place in the budget of its host.
    pub slot: Arc<Slot>,
}

impl Inspected {
    /// What stands in the request line to the next hop.
    pub(super) fn uri(&self, authority: &str, target: PathAndQuery) -> Option<Uri> {
        if self.proxy.is_some() {
            return Uri::builder().scheme("http").authority(authority).path_and_query(target).build().ok();
        }
        Some(Uri::from(target))
    }

    /// Puts in what the next hop wants to know, after all that is for a hop was taken out.
    pub(super) fn log_in(&self, headers: &mut header::HeaderMap) {
        if let Some(PlainProxy(Some(authorization))) = &self.proxy {
            headers.insert(header::PROXY_AUTHORIZATION, authorization.clone());
        }
    }
}

/// A body on its way to the host: as it comes, or whole where it had to be signed.
type Sent = Limited<Either<WatchedBody, Full<Bytes>>>;

#[derive(Clone)]
enum Upstream {
    Http1(Arc<tokio::sync::Mutex<client1::SendRequest<Sent>>>),
    Http2(client2::SendRequest<Sent>),
}

/// The two sides of a connection that stopped being HTTP.
type Upgrades = Mutex<Option<(OnUpgrade, OnUpgrade)>>;

/// Why a request is refused.
struct Refusal {
    status: StatusCode,
    reason: &'static str,
    detail: String,
    next: String,
}

/// Serves a TLS connection, whose ClientHello was read and names the host.
///
/// # Errors
/// When a handshake fails on either side.
pub async fn serve_tls<C, U>(
    shared: &Arc<Shared>,
    inspected: Inspected,
    name: &HostName,
    hello: Vec<u8>,
    client: C,
    upstream: U,
) -> Result<(), InspectError>
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    U: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let known: [&[u8]; 2] = [b"h2", b"http/1.1"];
    let mut protocols = offered_protocols(&hello);
    protocols.retain(|protocol| known.contains(&protocol.as_slice()));
    let expected =
        ServerName::try_from(name.to_string()).map_err(|error| InspectError::Upstream(io::Error::other(error)))?;
    let connector = TlsConnector::from(Arc::new(shared.authority.client(protocols)?));
    let upstream = BufReader::with_capacity(READ_BUFFER, upstream);
    let upstream = timeout(HANDSHAKE_TIMEOUT, connector.connect(expected, upstream))
        .await
        .map_err(|_| InspectError::Upstream(io::ErrorKind::TimedOut.into()))?
        .map_err(InspectError::Upstream)?;
    // What the host chose is all that the client is offered: both sides then speak the same version.
    let chosen: Vec<Vec<u8>> = upstream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec).into_iter().collect();
    let http2 = chosen.first().is_some_and(|protocol| protocol == b"h2");
    let acceptor = TlsAcceptor::from(Arc::new(shared.authority.server(name, chosen)?));
    let client = BufReader::with_capacity(READ_BUFFER, Rewound::new(hello, client));
    let client = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(client))
        .await
        .map_err(|_| InspectError::Client(io::ErrorKind::TimedOut.into()))?
        .map_err(InspectError::Client)?;
    if http2 {
        serve2(shared, inspected, client, upstream).await
    } else {
        serve1(shared, inspected, client, upstream).await
    }
}

/// Serves a connection in HTTP/1.
///
/// # Errors
/// When HTTP fails.
pub async fn serve1<C, U>(
    shared: &Arc<Shared>,
    inspected: Inspected,
    client: C,
    upstream: U,
) -> Result<(), InspectError>
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    U: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) =
        client1::Builder::new().max_buf_size(HEAD_LIMIT).handshake(TokioIo::new(upstream)).await?;
    // Dropped with this future, and what runs in it with it.
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.with_upgrades().await) });
    let upgraded: Arc<Upgrades> = Arc::default();
    let upstream = Upstream::Http1(Arc::new(tokio::sync::Mutex::new(sender)));
    let service = service_fn(|request| {
        answer(shared.clone(), inspected.clone(), upstream.clone(), request, Some(upgraded.clone()))
    });
    let serving = server1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(HEAD_LIMIT)
        .serve_connection(TokioIo::new(client), service);
    {
        // The upgrade needs the client's stream back when the exchange is over.
        let mut serving = pin!(serving.with_upgrades());
        tokio::select! {
            served = serving.as_mut() => served?,
            _ = tasks.join_next() => {
                serving.as_mut().graceful_shutdown();
                serving.await?;
            }
        }
    }
    let pair = upgraded.lock().ok().and_then(|mut pair| pair.take());
    if let Some((client, upstream)) = pair {
        let (client, upstream) = tokio::try_join!(client, upstream)?;
        // How a WebSocket ends is for its two ends to know.
        let _ = tunnel::relay(&mut TokioIo::new(client), &mut TokioIo::new(upstream), &[]).await;
    }
    Ok(())
}

async fn serve2<C, U>(shared: &Arc<Shared>, inspected: Inspected, client: C, upstream: U) -> Result<(), InspectError>
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    U: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = client2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(HEAD_LIMIT as u32)
        .handshake(TokioIo::new(upstream))
        .await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    let (shared, upstream) = (shared.clone(), Upstream::Http2(sender));
    let service = service_fn(move |request| answer(shared.clone(), inspected.clone(), upstream.clone(), request, None));
    let mut serving = pin!(
        server2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(IDLE_TIMEOUT)
            .max_concurrent_streams(STREAM_LIMIT)
            .max_pending_accept_reset_streams(RESET_LIMIT)
            .max_local_error_reset_streams(RESET_LIMIT)
            .max_header_list_size(HEAD_LIMIT as u32)
            .max_send_buf_size(WINDOW as usize)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .serve_connection(TokioIo::new(client), service)
    );
    tokio::select! {
        served = serving.as_mut() => served?,
        _ = tasks.join_next() => {
            serving.as_mut().graceful_shutdown();
            serving.await?;
        }
    }
    Ok(())
}

/// Judges one request and passes it on. An error ends the connection.
async fn answer(
    shared: Arc<Shared>,
    inspected: Inspected,
    upstream: Upstream,
    mut request: Request<Incoming>,
    upgraded: Option<Arc<Upgrades>>,
) -> Result<Answer, io::Error> {
    let upgrades = asks_for_websocket(&request);
    let decision = RequestDecision {
        connection: inspected.connection,
        allowed: true,
        reason: "rule".to_owned(),
        host: inspected.host.to_string(),
        port: inspected.port,
        method: visible(request.method().as_str()),
        path: visible(request.uri().path()),
        rule: None,
        credential: None,
        detail: None,
        count: None,
    };
    let client = upgrades.then(|| hyper::upgrade::on(&mut request));
    let looked = look(&shared.leaks, &shared.reporter, &inspected.host, inspected.tls, request, decision.clone());
    let (request, watched) = match looked {
        Ok(looked) => looked,
        Err(refused) => {
            // A refusal needs no report to be one.
            shared.reporter.send(Event::Request(refused.decision)).await;
            return Ok(leaked(&refused.leak));
        }
    };
    let judged = match judge(&shared, &inspected, &request, upgrades) {
        Ok(allowed) => prepare(&shared, &inspected, request, allowed, upgrades).await,
        Err(refusal) => Err(refusal),
    };
    if let (Err(_), Some(leak)) = (&judged, watched.as_deref().and_then(|watched| watched.leak())) {
        // It came to light while the body was read, and was told then.
        return Ok(leaked(leak));
    }
    let (allowed, reason, detail, rule, credential) = match &judged {
        Ok((_, allowed)) => (true, "rule", None, Some(allowed.rule.clone()), allowed.credential.clone()),
        Err(refusal) => (false, refusal.reason, Some(visible(&refusal.detail)), None, None),
    };
    let injected = credential.clone();
    let decision = RequestDecision { allowed, reason: reason.to_owned(), rule, credential, detail, ..decision };
    if !shared.reporter.send(Event::Request(decision.clone())).await {
        // What cannot be reported does not happen.
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    let request = match judged {
        Ok((request, _)) => {
            let most = usize::try_from(inspected.slot.limits.request_body).unwrap_or(usize::MAX);
            request.map(|body| Limited::new(body, most))
        }
        Err(refusal) => return Ok(refused(&refusal)),
    };
    let sent = match upstream {
        Upstream::Http1(sender) => {
            let mut sender = sender.lock().await;
            match sender.ready().await {
                Ok(()) => sender.send_request(request).await,
                Err(error) => Err(error),
            }
        }
        Upstream::Http2(mut sender) => match sender.ready().await {
            Ok(()) => sender.send_request(request).await,
            Err(error) => Err(error),
        },
    };
    let Ok(mut response) = sent else {
        return Ok(match watched.as_deref().and_then(|watched| watched.leak()) {
            Some(leak) => leaked(leak),
            None => failed("the host ended the connection without an answer"),
        });
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (Some(client), Some(upgraded)) = (client, upgraded) else {
            return Ok(failed("the host changed the protocol without being asked to"));
        };
        let pair = (client, hyper::upgrade::on(&mut response));
        if let Ok(mut upgraded) = upgraded.lock() {
            *upgraded = Some(pair);
        }
        return Ok(response.map(|body| Either::Left(WatchedBody::unwatched_answer(body))));
    }
    strip(response.headers_mut());
    match injected {
        None => Ok(response.map(|body| Either::Left(WatchedBody::unwatched_answer(body)))),
        Some(credential) => {
            shared.broker.hide(&credential, response.headers_mut());
            Ok(watch_answer(&shared, decision, response).await)
        }
    }
}

/// Looks at the answer to a request that a credential was put into: a host that repeats it would show it to the agent.
async fn watch_answer(shared: &Shared, decision: RequestDecision, response: http::Response<Incoming>) -> Answer {
    let Some(watch) = shared.leaks.watch() else {
        return response.map(|body| Either::Left(WatchedBody::unwatched_answer(body)));
    };
    let (parts, body) = response.into_parts();
    let told = Told::new(shared.reporter.clone(), decision.clone());
    let watched =
        watch.look_at_answer(&parts.headers).and_then(|()| WatchedBody::of_answer(body, &parts.headers, watch, told));
    match watched {
        Ok(body) => http::Response::from_parts(parts, Either::Left(body)),
        Err(leak) => {
            // A refusal needs no report to be one.
            shared.reporter.send(Event::Request(refusal(decision, &leak))).await;
            leaked(&leak)
        }
    }
}

/// Whether a request asks for a WebSocket (RFC 6455 section 4.1). Any other upgrade is dropped with its header field.
fn asks_for_websocket<B>(request: &Request<B>) -> bool {
    let upgrade = request.headers().get(header::UPGRADE);
    request.version() == Version::HTTP_11
        && upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// A request that may be sent.
struct Allowed {
    /// The path to send.
    path: RequestPath,
    /// The rule, and where it was written.
    rule: String,
    /// The brokered credential to put in.
    credential: Option<String>,
}

/// What to do with a request, by the policy of this moment.
fn judge(
    shared: &Shared,
    inspected: &Inspected,
    request: &Request<WatchedBody>,
    upgrades: bool,
) -> Result<Allowed, Refusal> {
    let bad = |reason, detail: String| Refusal {
        status: StatusCode::BAD_REQUEST,
        reason,
        detail,
        next: "send the request in its plain form".to_owned(),
    };
    // The HTTP library bounds its buffer, which a head that arrives at once may exceed a little.
    let size: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if size > HEAD_LIMIT {
        return Err(bad("request", format!("the header fields have more than {HEAD_LIMIT} bytes")));
    }
    inspected.slot.request(request.body().size_hint().exact()).map_err(|limit| Refusal {
        status: StatusCode::FORBIDDEN,
        reason: "limit",
        detail: limit.to_string(),
        next: "ask the developer to raise it in sandbox.yaml, if so much is meant to go there".to_owned(),
    })?;
    check_names(inspected, request).map_err(|detail| bad("host", detail.to_owned()))?;
    if request.method() == Method::CONNECT {
        return Err(bad("request", "a tunnel inside a tunnel".to_owned()));
    }
    let overriding = override_fields::methods(request.headers(), request.uri());
    let mut methods = std::iter::once(request.method().as_str()).chain(overriding.iter().map(String::as_str));
    if methods.any(override_fields::shows_the_request) {
        return Err(bad("request", "an answer that shows the request is none for an agent".to_owned()));
    }
    let path: RequestPath = request.uri().path().parse().map_err(|error| bad("path", format!("{error}")))?;
    let policy = shared.policy.borrow().clone();
    let entry = policy.as_ref().and_then(|policy| policy.entry(&inspected.host, inspected.port));
    let method = request.method().as_str();
    // A request that asks to be taken for another method has to be allowed as both.
    let as_method = |method: &str| {
        entry.as_deref().and_then(|entry| match entry.rules.as_slice() {
            [] => Some("any request".to_owned()),
            rules => rules.iter().find(|rule| rule.allows(method, upgrades, &path)).map(ToString::to_string),
        })
    };
    let refused = overriding.iter().map(String::as_str).find(|method| as_method(method).is_none());
    let (method, rule) = refused.map_or_else(|| (method, as_method(method)), |method| (method, None));
    match (entry.as_deref(), rule) {
        (Some(entry), Some(rule)) => {
            let origin = entry.origin.as_deref().unwrap_or("network.allow");
            Ok(Allowed { path, rule: format!("{origin} {rule}"), credential: entry.broker.clone() })
        }
        _ => {
            let word = if upgrades { "WEBSOCKET".to_owned() } else { visible(method) };
            let origin = entry.as_deref().and_then(|entry| entry.origin.as_deref()).unwrap_or("sandbox.yaml");
            let host = &inspected.host;
            let path = visible(path.as_str());
            Err(Refusal {
                status: StatusCode::FORBIDDEN,
                reason: "rule",
                detail: format!("no rule allows {word} {path} on {host}"),
                next: format!(
                    "ask the developer to add a rule such as \"{word} {path}\" to `rules` of {host} at {origin}"
                ),
            })
        }
    }
}

/// Whether `Host`, `:authority` and an absolute target, as far as they are there, all name the host that was connected
/// to. A second request for another host on an open connection would be domain fronting.
fn check_names(inspected: &Inspected, request: &Request<WatchedBody>) -> Result<(), &'static str> {
    let default = if inspected.tls { 443 } else { 80 };
    let same = |text: &str| {
        split_authority(text, Some(default)).is_ok_and(|(host, port)| host == inspected.host && port == inspected.port)
    };
    let mut fields = request.headers().get_all(header::HOST).iter();
    let (first, second) = (fields.next(), fields.next());
    if second.is_some() {
        return Err("the request has two host fields");
    }
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    if first.is_none() && authority.is_none() {
        return Err("the request names no host");
    }
    let field = first.map(|value| value.to_str().unwrap_or_default());
    if field.into_iter().chain(authority).all(same) {
        Ok(())
    } else {
        Err("the request names another host than was connected to")
    }
}

/// The request as it is sent, with its brokered credential.
async fn prepare(
    shared: &Shared,
    inspected: &Inspected,
    request: Request<WatchedBody>,
    allowed: Allowed,
    upgrades: bool,
) -> Result<(Request<Either<WatchedBody, Full<Bytes>>>, Allowed), Refusal> {
    let refusal = |reason, detail: String, next: &str| Refusal {
        status: StatusCode::BAD_GATEWAY,
        reason,
        detail,
        next: next.to_owned(),
    };
    let rebuilt = rebuild(inspected, request, &allowed.path, upgrades).ok_or_else(|| {
        refusal("request", "the request cannot be passed on".to_owned(), "send the request in its plain form")
    })?;
    let Some(name) = &allowed.credential else { return Ok((rebuilt.map(Either::Left), allowed)) };
    if !inspected.tls {
        let next = "ask for the same by https";
        return Err(refusal("credential", "a credential is never sent without TLS".to_owned(), next));
    }
    let (mut parts, body) = rebuilt.into_parts();
    ask_for_readable(&mut parts.headers);
    let unfit = |error: BrokerError| {
        let next = match error {
            BrokerError::Chunks => {
                "have the client send the body whole or unsigned; TLS protects it on its way".to_owned()
            }
            _ => format!("ask the developer to look at `{name}` in `sandbox status`"),
        };
        refusal("credential", error.to_string(), &next)
    };
    let credential = shared.broker.find(name, &inspected.host).map_err(unfit)?;
    let payload = match &credential.placement {
        Placement::Sigv4 { service, .. } => Some(sigv4::payload(service, &parts.headers).map_err(unfit)?),
        _ => None,
    };
    let (payload, body) = match payload {
        None => (None, Either::Left(body)),
        Some(Payload::Said(said)) => (Some(said), Either::Left(body)),
        Some(Payload::Hash) => {
            let whole = hold(shared, body).await?;
            (Some(sigv4::hash(&whole)), Either::Right(Full::new(whole)))
        }
    };
    broker::apply(&credential, payload.as_deref(), &mut parts).map_err(unfit)?;
    Ok((Request::from_parts(parts, body), allowed))
}

/// The whole body, whose hash is signed.
async fn hold(shared: &Shared, body: WatchedBody) -> Result<Bytes, Refusal> {
    let refusal =
        |status, detail: String, next: &str| Refusal { status, reason: "request", detail, next: next.to_owned() };
    let held = async {
        // The semaphore is never closed.
        let _slot = shared.bodies.acquire().await;
        Limited::new(body, sigv4::BODY_LIMIT).collect().await
    };
    match timeout(BODY_TIMEOUT, held).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("a body that has to be signed has more than {} bytes", sigv4::BODY_LIMIT);
            Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, detail, "send it in parts"))
        }
        Ok(Err(_)) => Err(refusal(StatusCode::BAD_REQUEST, "the body did not come whole".to_owned(), "send it again")),
        Err(_) => {
            let detail = format!("a body that has to be signed took more than {} s", BODY_TIMEOUT.as_secs());
            Err(refusal(StatusCode::REQUEST_TIMEOUT, detail, "send it in parts"))
        }
    }
}

/// The request with the path that was judged and the host that was checked, and nothing that belongs to one connection.
fn rebuild(
    inspected: &Inspected,
    request: Request<WatchedBody>,
    path: &RequestPath,
    upgrades: bool,
) -> Option<Request<WatchedBody>> {
    let (mut parts, body) = request.into_parts();
    let target = match parts.uri.query() {
        Some(query) => format!("{}?{query}", path.as_str()),
        None => path.as_str().to_owned(),
    };
    let target: PathAndQuery = target.parse().ok()?;
    let default = if inspected.tls { 443 } else { 80 };
    let host = &inspected.host;
    let authority = if inspected.port == default { host.to_string() } else { format!("{host}:{}", inspected.port) };
    strip(&mut parts.headers);
    override_fields::strip(&mut parts.headers);
    inspected.log_in(&mut parts.headers);
    if parts.version == Version::HTTP_2 {
        parts.headers.remove(header::HOST);
        parts.uri = Uri::builder().scheme("https").authority(authority).path_and_query(target).build().ok()?;
    } else {
        parts.version = Version::HTTP_11;
        parts.headers.insert(header::HOST, HeaderValue::from_str(&authority).ok()?);
        parts.uri = inspected.uri(&authority, target)?;
        if upgrades {
            parts.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
    }
    parts.extensions.clear();
    Some(Request::from_parts(parts, body))
}

fn refused(refusal: &Refusal) -> Answer {
    said(refusal.status, &json!({ "error": visible(&refusal.detail), "next": refusal.next }))
}

fn failed(reason: &str) -> Answer {
    said(StatusCode::BAD_GATEWAY, &json!({ "error": reason }))
}
