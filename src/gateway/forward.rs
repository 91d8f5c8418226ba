//! Forwards one plain HTTP request to a connection that was dialled for it, and its answer back.
//!
//! A connection carries one request: whatever follows it is never read, so each request is judged by its own head. The
//! head was judged by [`crate::gateway::request`] before; here it is rebuilt from the parsed parts.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode};
use http_body_util::{Either, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::gateway::budget::Exceeded;
use crate::gateway::connection::Shared;
use crate::gateway::inspect::Inspected;
use crate::gateway::leak::Leak;
use crate::gateway::leak::body::{WatchedBody, look};
use crate::gateway::protocol::{Event, RequestDecision};
use crate::gateway::report::visible;
use crate::gateway::request::{HEAD_LIMIT, HeadEnd, RequestError, RequestHead, parse_whole_head};

/// Header fields that belong to one connection alone (RFC 9110 section 7.6.1), or to the proxy. `Expect` is answered by
/// our own server.
const HOP_BY_HOP: [&str; 8] =
    ["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect", "http2-settings"];

/// Why a head could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// The client closed before the head's end, or reading failed.
    #[error("the connection ended before the request did")]
    Ended,
    /// The head is refused.
    #[error("the request is refused")]
    Refused(#[source] RequestError),
}

/// Reads a request's head. The bytes read are added to `bytes`, with what followed the head.
pub async fn read_head<C: AsyncRead + Unpin>(client: &mut C, bytes: &mut Vec<u8>) -> Result<RequestHead, HeadError> {
    let mut end = HeadEnd::default();
    loop {
        if let Some(length) = end.find(bytes).map_err(HeadError::Refused)? {
            return parse_whole_head(bytes, length).map_err(HeadError::Refused);
        }
        let room = (HEAD_LIMIT.saturating_sub(bytes.len())) as u64;
        match (&mut *client).take(room).read_buf(bytes).await {
            Ok(0) | Err(_) => return Err(HeadError::Ended),
            Ok(_) => {}
        }
    }
}

/// Serves the one request on `client` (whose head was put back before it) from `upstream`.
pub async fn forward<C, U>(shared: &Arc<Shared>, inspected: &Inspected, client: C, upstream: U) -> hyper::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(upstream)).await?;
    let sender = Mutex::new(Some(sender));
    let service = service_fn(|request: Request<Incoming>| {
        let sender = sender.lock().ok().and_then(|mut sender| sender.take());
        async move { Ok::<_, Infallible>(exchange(shared, inspected, sender, request).await) }
    });
    let serve = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_LIMIT)
        .serve_connection(TokioIo::new(client), service);
    let mut upstream = tokio::spawn(connection);
    let served = serve.await;
    // An upstream that keeps its side open has nothing more to say: the one answer was passed on.
    upstream.abort();
    let _ = (&mut upstream).await;
    served
}

pub(super) type Answer = Response<Either<WatchedBody, Full<Bytes>>>;

async fn exchange(
    shared: &Shared,
    inspected: &Inspected,
    sender: Option<SendRequest<Limited<WatchedBody>>>,
    request: Request<Incoming>,
) -> Answer {
    let Inspected { host, port, slot, .. } = inspected;
    if let Err(limit) = slot.request(request.body().size_hint().exact()) {
        slot.end(limit);
        return over(limit);
    }
    let decision = RequestDecision {
        connection: inspected.connection,
        allowed: true,
        reason: "listed".to_owned(),
        host: host.to_string(),
        port: *port,
        method: visible(request.method().as_str()),
        path: visible(request.uri().path()),
        rule: None,
        credential: None,
        detail: None,
        count: None,
    };
    let (request, watched) = match look(&shared.leaks, &shared.reporter, host, inspected.tls, request, decision) {
        Ok(looked) => looked,
        Err(refused) => {
            // A refusal needs no report to be one.
            shared.reporter.send(Event::Request(refused.decision)).await;
            return leaked(&refused.leak);
        }
    };
    let (Some(mut sender), Some(request)) = (sender, rebuild(request, inspected)) else {
        return failed("the request cannot be passed on");
    };
    let most = usize::try_from(slot.limits.request_body).unwrap_or(usize::MAX);
    match sender.send_request(request.map(|body| Limited::new(body, most))).await {
        Ok(mut response) => {
            strip(response.headers_mut());
            response.map(|body| Either::Left(WatchedBody::unwatched_answer(body)))
        }
        Err(_) => match watched.as_deref().and_then(|watched| watched.leak()) {
            Some(leak) => leaked(leak),
            None if !slot.has_room() => over(Exceeded::Upload),
            None => failed("the server ended the connection without an answer"),
        },
    }
}

/// The request in the next hop's form, with `Host` from the destination that was checked and nothing that is for us alone.
fn rebuild(request: Request<WatchedBody>, inspected: &Inspected) -> Option<Request<WatchedBody>> {
    let Inspected { host, port, .. } = inspected;
    let (mut parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    strip(&mut parts.headers);
    inspected.log_in(&mut parts.headers);
    let authority = if *port == 80 { host.to_string() } else { format!("{host}:{port}") };
    parts.headers.insert(header::HOST, HeaderValue::from_str(&authority).ok()?);
    parts.uri = inspected.uri(&authority, target)?;
    parts.version = http::Version::HTTP_11;
    parts.extensions.clear();
    Some(Request::from_parts(parts, body))
}

/// Takes out the fields of [`HOP_BY_HOP`], those that `Connection` names and all that begin with `Proxy-`.
pub(super) fn strip(headers: &mut HeaderMap) {
    let mut named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // A client must not make us drop the framing or the host by naming them here.
        .filter(|name| name != header::CONTENT_LENGTH && name != header::HOST)
        .collect();
    named.extend(headers.keys().filter(|name| name.as_str().starts_with("proxy-")).cloned());
    named.extend(HOP_BY_HOP.map(HeaderName::from_static));
    for name in named {
        headers.remove(name);
    }
}

fn failed(reason: &str) -> Answer {
    said(StatusCode::BAD_GATEWAY, &serde_json::json!({ "error": reason }))
}

/// The answer to a request for which a limit leaves no room.
fn over(limit: Exceeded) -> Answer {
    said(StatusCode::FORBIDDEN, &serde_json::json!({ "error": limit.to_string() }))
}

/// The answer to a request that carries a credential to where it is not for.
pub(super) fn leaked(leak: &Leak) -> Answer {
    let body = serde_json::json!({ "error": leak.to_string(), "credential": leak.credential(), "next": leak.next() });
    let status = if matches!(leak, Leak::Shows { .. }) { StatusCode::BAD_GATEWAY } else { StatusCode::FORBIDDEN };
    said(status, &body)
}

/// An answer of our own.
pub(super) fn said(status: StatusCode, body: &serde_json::Value) -> Answer {
    let mut response = Response::new(Either::Right(Full::new(Bytes::from(format!("{body}\n")))));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Writes an answer of our own, and waits a moment for the client to read it before the connection ends.
pub async fn refuse<C: AsyncRead + AsyncWrite + Unpin>(client: &mut C, status: StatusCode, body: &serde_json::Value) {
    let body = format!("{body}\n");
    let head = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        body.len(),
    );
    // A client that does not take its refusal is refused all the same.
    let _ = client.write_all(head.as_bytes()).await;
    let _ = client.write_all(body.as_bytes()).await;
    let _ = client.shutdown().await;
    drain(client).await;
}

/// Reads and drops what a client still sends, for a bounded time and size: closing a socket that has unread bytes resets
/// it, and the client could lose the answer.
async fn drain<C: AsyncRead + Unpin>(client: &mut C) {
    const SIZE: u64 = 256 << 10;
    const TIME: std::time::Duration = std::time::Duration::from_secs(1);
    let mut limited = client.take(SIZE);
    let _ = tokio::time::timeout(TIME, tokio::io::copy(&mut limited, &mut tokio::io::sink())).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_out_what_belongs_to_one_connection_or_to_the_proxy() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Private, content-length, host"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic eA=="),
            ("proxy-connection", "keep-alive"),
            ("x-private", "1"),
            ("upgrade", "websocket"),
            ("te", "trailers"),
            ("content-length", "3"),
            ("host", "a.example"),
            ("accept", "*/*"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length", "host"]);
    }
}
