//! Connections of our own to the engine, for what the client library cannot be trusted with: the first questions, before
//! an API version is agreed on, and streams.
//!
//! One connection a request; nothing is pooled, because a stream takes its connection with it.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::{TcpStream, UnixStream};

use super::endpoint::Endpoint;
use super::error::{EngineError, Refusal};

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long the engine may take for the head of an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// The largest answer that is not a stream, in bytes.
const BODY_LIMIT: usize = 4 << 20;

/// An endpoint whose name has been resolved once.
#[derive(Debug, Clone)]
pub(super) enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// Resolves an endpoint. Not by `getaddrinfo`, which a static executable cannot rely on.
pub(super) async fn resolve(endpoint: &Endpoint) -> Result<Address, EngineError> {
    let authority = match endpoint {
        Endpoint::Unix(path) => return Ok(Address::Unix(path.clone())),
        Endpoint::Tcp(authority) => authority,
    };
    if let Ok(address) = authority.parse() {
        return Ok(Address::Tcp(address));
    }
    let unresolved = |source: io::Error| EngineError::NotAnswering { endpoint: endpoint.clone(), source };
    let (host, port) = authority.rsplit_once(':').ok_or_else(|| unresolved(io::ErrorKind::InvalidInput.into()))?;
    let port = port.parse().map_err(|_| unresolved(io::ErrorKind::InvalidInput.into()))?;
    let address = within("resolve the engine's name", CONNECT_LIMIT, lookup(host)).await?.map_err(unresolved)?;
    Ok(Address::Tcp(SocketAddr::new(address, port)))
}

async fn lookup(host: &str) -> io::Result<IpAddr> {
    let resolver = hickory_resolver::TokioResolver::builder_tokio()
        .and_then(|builder| builder.build())
        .map_err(io::Error::other)?;
    let answer = resolver.lookup_ip(host).await.map_err(io::Error::other)?;
    answer.iter().next().ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Gives a future so long and no longer.
pub(super) async fn within<F: Future>(
    call: &'static str,
    limit: Duration,
    future: F,
) -> Result<F::Output, EngineError> {
    tokio::time::timeout(limit, future).await.map_err(|_| EngineError::Timeout { call, limit })
}

/// What a request carries.
type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A request of ours.
pub(super) struct Call<'a> {
    /// What is asked, for errors.
    pub(super) name: &'static str,
    pub(super) method: Method,
    /// Path and query, with the API version.
    pub(super) path: &'a str,
    pub(super) body: Bytes,
}

/// Finds out whether something listens, and tells the two usual reasons against it apart.
pub(super) async fn probe(endpoint: &Endpoint, address: &Address) -> Result<(), EngineError> {
    let attempt = async {
        match address {
            Address::Unix(path) => UnixStream::connect(path).await.map(drop),
            Address::Tcp(address) => TcpStream::connect(address).await.map(drop),
        }
    };
    match tokio::time::timeout(CONNECT_LIMIT, attempt).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(source)) if source.kind() == io::ErrorKind::PermissionDenied => {
            Err(EngineError::NotPermitted { endpoint: endpoint.clone() })
        }
        Ok(Err(source)) => Err(EngineError::NotAnswering { endpoint: endpoint.clone(), source }),
        Err(_) => Err(EngineError::NotAnswering { endpoint: endpoint.clone(), source: io::ErrorKind::TimedOut.into() }),
    }
}

/// Asks for a JSON document.
pub(super) async fn get_json<T: DeserializeOwned>(
    address: &Address,
    name: &'static str,
    path: &str,
) -> Result<T, EngineError> {
    let call = Call { name, method: Method::GET, path, body: Bytes::new() };
    let response = request(address, &call, false).await?;
    let body = within(name, ANSWER_LIMIT, Limited::new(response.into_body(), BODY_LIMIT).collect())
        .await?
        .map_err(|source| EngineError::Transport { call: name, source })?;
    serde_json::from_slice(&body.to_bytes())
        .map_err(|source| EngineError::Transport { call: name, source: Box::new(source) })
}

/// Asks for an answer that is read as it comes.
pub(super) async fn stream(address: &Address, call: &Call<'_>) -> Result<Incoming, EngineError> {
    Ok(request(address, call, false).await?.into_body())
}

/// Asks the engine to give up HTTP on this connection, which then carries the streams of a container both ways.
pub(super) async fn hijack(address: &Address, call: &Call<'_>) -> Result<TokioIo<Upgraded>, EngineError> {
    let response = request(address, call, true).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(EngineError::Api {
            call: call.name,
            status: response.status().as_u16(),
            source: Refusal::new("the connection was not upgraded"),
        });
    }
    let upgraded = within(call.name, ANSWER_LIMIT, hyper::upgrade::on(response))
        .await?
        .map_err(|source| EngineError::Transport { call: call.name, source: Box::new(source) })?;
    Ok(TokioIo::new(upgraded))
}

/// Asks for one field of an answer's head.
pub(super) async fn header(
    address: &Address,
    name: &'static str,
    path: &str,
    field: &str,
) -> Result<Option<String>, EngineError> {
    let call = Call { name, method: Method::GET, path, body: Bytes::new() };
    let response = request(address, &call, false).await?;
    Ok(response.headers().get(field).and_then(|value| value.to_str().ok()).map(str::to_owned))
}

/// Sends a tar of any size, and gives the answer, which is read as it comes. The caller limits the time: the engine may
/// answer only when it has all of it.
pub(super) async fn upload(
    address: &Address,
    name: &'static str,
    path: &str,
    content: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Result<Incoming, EngineError> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, "docker")
        .header(header::CONTENT_TYPE, "application/x-tar")
        .body(StreamBody::new(content.map_ok(Frame::data)).boxed_unsync())
        .map_err(|source| EngineError::Transport { call: name, source: Box::new(source) })?;
    Ok(accepted(name, send(address, request).await).await?.into_body())
}

async fn request(address: &Address, call: &Call<'_>, upgrade: bool) -> Result<Response<Incoming>, EngineError> {
    let mut builder = Request::builder()
        .method(call.method.clone())
        .uri(call.path)
        .header(header::HOST, "docker")
        .header(header::CONTENT_TYPE, "application/json");
    if upgrade {
        builder = builder.header(header::CONNECTION, "Upgrade").header(header::UPGRADE, "tcp");
    }
    let request = builder
        .body(Full::new(call.body.clone()).map_err(|never| match never {}).boxed_unsync())
        .map_err(|source| EngineError::Transport { call: call.name, source: Box::new(source) })?;
    let response = within(call.name, ANSWER_LIMIT, send(address, request)).await?;
    accepted(call.name, response).await
}

/// Sends a request on a connection of its own.
async fn send(address: &Address, request: Request<Body>) -> io::Result<Response<Incoming>> {
    let mut sender = match address {
        Address::Unix(path) => drive(UnixStream::connect(path).await?).await?,
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            // Keystrokes travel on this connection.
            stream.set_nodelay(true)?;
            drive(stream).await?
        }
    };
    sender.send_request(request).await.map_err(io::Error::other)
}

/// An answer that is not a refusal.
async fn accepted(
    call: &'static str,
    response: io::Result<Response<Incoming>>,
) -> Result<Response<Incoming>, EngineError> {
    let broken = |source: Box<dyn std::error::Error + Send + Sync>| EngineError::Transport { call, source };
    let response = response.map_err(|source| broken(Box::new(source)))?;
    if response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    let status = response.status().as_u16();
    let body = within(call, ANSWER_LIMIT, Limited::new(response.into_body(), BODY_LIMIT).collect())
        .await?
        .map_err(broken)?
        .to_bytes();
    Err(EngineError::Api { call, status, source: refusal(&body) })
}

/// Starts the task that moves the bytes of a connection; it ends with the connection.
async fn drive<S>(stream: S) -> io::Result<http1::SendRequest<Body>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // An error of the connection also reaches whoever waits for the answer, so it is not lost here.
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

/// The `message` of an error document of the engine, or its text.
fn refusal(body: &[u8]) -> Refusal {
    #[derive(serde::Deserialize)]
    struct ErrorDocument {
        message: String,
    }
    match serde_json::from_slice::<ErrorDocument>(body) {
        Ok(document) => Refusal::new(&document.message),
        Err(_) => Refusal::new(&String::from_utf8_lossy(body)),
    }
}
