//! A request's body that is looked at while it passes, and ends with an error where it would carry a credential out; and
//! an answer's, which does where it would show a brokered credential to the agent.
//!
//! Bytes that could be the beginning of a value stay here until it is clear that they are not, so that the host gets no
//! more than a few bytes of one.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue};
use http::request::Parts;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::scan::{BodyScanner, Scanner};
use super::{Leak, Leaks, Watch};
use crate::gateway::protocol::{Event, RequestDecision};
use crate::gateway::report::Reporter;
use crate::network::name::Host;

/// How many bytes may be held back.
const HELD_LIMIT: usize = 1 << 20;

/// Why a body ended.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The agent's side failed.
    #[error("the request's body did not come")]
    Incoming(#[source] hyper::Error),
    /// It is refused.
    #[error("the request's body is refused")]
    Leak(#[source] Leak),
}

/// What is reported when a request turns out to be refused while its body passes.
#[derive(Debug)]
pub struct Told {
    reporter: Reporter,
    decision: RequestDecision,
    found: OnceLock<Leak>,
}

impl Told {
    /// For a request that this decision tells of, but for the reason.
    pub fn new(reporter: Reporter, decision: RequestDecision) -> Arc<Self> {
        Arc::new(Self { reporter, decision, found: OnceLock::new() })
    }

    /// Why the body was refused, once it was.
    pub fn leak(&self) -> Option<&Leak> {
        self.found.get()
    }

    fn tell(&self, leak: &Leak) {
        if self.found.set(leak.clone()).is_err() {
            return;
        }
        let event = Event::Request(refusal(self.decision.clone(), leak));
        let reporter = self.reporter.clone();
        // The body is polled, and must not wait for the report: it is refused in any case.
        tokio::spawn(async move { reporter.send(event).await });
    }
}

/// The decision on a request that carries a credential. What was asked for is left out where the credential is in it.
pub fn refusal(decision: RequestDecision, leak: &Leak) -> RequestDecision {
    let in_target = matches!(leak, Leak::Carries { place: "target" | "method", .. });
    let withheld = |text: String| if in_target { "(withheld)".to_owned() } else { text };
    RequestDecision {
        allowed: false,
        reason: "leak".to_owned(),
        method: withheld(decision.method),
        path: withheld(decision.path),
        rule: None,
        credential: leak.credential().map(str::to_owned),
        detail: Some(leak.to_string()),
        ..decision
    }
}

/// A body, looked at or not.
pub struct WatchedBody {
    inner: Incoming,
    looking: Option<Looking>,
    /// Whether trailers go on. Those of a request have no use (RFC 9110 section 6.5.1 lets a server merge them into the
    /// header fields, which were judged without them).
    trailers: bool,
}

struct Looking {
    watch: Arc<Watch>,
    scanner: BodyScanner,
    held: BytesMut,
    trailers: Option<Frame<Bytes>>,
    ended: bool,
    /// The host that a request is for, and whether TLS carries it; none for an answer.
    to: Option<(Host, bool)>,
    told: Arc<Told>,
}

/// Has a host pack its answer in no way that could not be looked into.
pub fn ask_for_readable(headers: &mut HeaderMap) {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let known = |coding: &&str| {
        let name = coding.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        matches!(name.as_str(), "gzip" | "x-gzip" | "deflate" | "zstd" | "identity")
    };
    let kept: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).filter(known).collect();
    let kept = if kept.is_empty() { "identity".to_owned() } else { kept.join(", ") };
    if let Ok(value) = HeaderValue::from_str(&kept) {
        headers.insert(ACCEPT_ENCODING, value);
    }
}

impl WatchedBody {
    /// A request's body in which nothing is looked for.
    pub fn unwatched(inner: Incoming) -> Self {
        Self { inner, looking: None, trailers: false }
    }

    /// An answer's body in which nothing is looked for.
    pub fn unwatched_answer(inner: Incoming) -> Self {
        Self { inner, looking: None, trailers: true }
    }

    /// An answer's body in which brokered credentials are looked for.
    ///
    /// # Errors
    /// When there is no memory to unpack it.
    pub fn of_answer(inner: Incoming, headers: &HeaderMap, watch: Arc<Watch>, told: Arc<Told>) -> Result<Self, Leak> {
        let scanner = Scanner::of_answer(watch.clone(), watch.shown().into(), "body");
        let looking = Looking::new(watch, scanner, headers, None, told)?;
        Ok(Self { inner, looking: Some(looking), trailers: true })
    }

    /// A body in which credentials are looked for that are not for this host.
    ///
    /// # Errors
    /// When it says that it is packed and cannot be unpacked.
    pub fn new(
        inner: Incoming,
        parts: &Parts,
        watch: Arc<Watch>,
        host: &Host,
        tls: bool,
        told: Arc<Told>,
    ) -> Result<Self, Leak> {
        let permitted: Arc<[bool]> = watch.permitted(host, tls, false).into();
        let scanner = Scanner::new(watch.clone(), permitted, "body");
        let looking = Looking::new(watch, scanner, &parts.headers, Some((host.clone(), tls)), told)?;
        Ok(Self { inner, looking: Some(looking), trailers: false })
    }
}

impl Looking {
    fn new(
        watch: Arc<Watch>,
        scanner: Scanner,
        headers: &HeaderMap,
        to: Option<(Host, bool)>,
        told: Arc<Told>,
    ) -> Result<Self, Leak> {
        let encoding = headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let scanner = BodyScanner::new(scanner, encoding)?;
        Ok(Self { watch, scanner, held: BytesMut::new(), trailers: None, ended: false, to, told })
    }

    /// Takes a part of the body in and gives what may go on.
    fn data(&mut self, bytes: Bytes) -> Result<Bytes, Leak> {
        self.scanner.push(&bytes)?;
        let undecided = self.scanner.undecided(self.held.len() + bytes.len());
        if undecided == 0 && self.held.is_empty() {
            return Ok(bytes);
        }
        self.held.extend_from_slice(&bytes);
        if undecided > HELD_LIMIT {
            return Err(Leak::Unreadable("it unpacks to too much at once"));
        }
        Ok(self.held.split_to(self.held.len() - undecided).freeze())
    }

    fn end(&mut self, trailers: Option<Frame<Bytes>>) -> Result<(), Leak> {
        self.ended = true;
        self.scanner.end()?;
        if let Some(fields) = trailers.as_ref().and_then(Frame::trailers_ref) {
            match &self.to {
                Some((host, tls)) => self.watch.look_at_fields(host, *tls, fields)?,
                None => self.watch.look_at_answer(fields)?,
            }
        }
        self.trailers = trailers.filter(|_| self.to.is_none());
        Ok(())
    }

    fn refused(&self, leak: Leak) -> BodyError {
        self.told.tell(&leak);
        BodyError::Leak(leak)
    }
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(looking) = &mut this.looking else {
            let frame = ready!(Pin::new(&mut this.inner).poll_frame(context));
            let frame = frame.filter(|frame| this.trailers || frame.as_ref().map_or(true, Frame::is_data));
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Incoming)));
        };
        loop {
            if looking.ended {
                if !looking.held.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(looking.held.split().freeze()))));
                }
                return Poll::Ready(looking.trailers.take().map(Ok));
            }
            let passed = match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                Some(Err(error)) => return Poll::Ready(Some(Err(BodyError::Incoming(error)))),
                None => looking.end(None).map(|()| Bytes::new()),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => looking.data(bytes),
                    Err(trailers) => looking.end(Some(trailers)).map(|()| Bytes::new()),
                },
            };
            match passed {
                Err(leak) => {
                    // Nothing more of it goes on.
                    looking.held.clear();
                    return Poll::Ready(Some(Err(looking.refused(leak))));
                }
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.looking {
            None => self.inner.is_end_stream(),
            Some(looking) if looking.ended => looking.held.is_empty() && looking.trailers.is_none(),
            // A body that has not been polled to its end may still hold bytes back.
            Some(looking) => looking.held.is_empty() && self.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.inner.size_hint();
        let held = self.looking.as_ref().map_or(0, |looking| looking.held.len() as u64);
        let (lower, upper) = (hint.lower() + held, hint.upper().map(|upper| upper + held));
        if let Some(upper) = upper {
            hint.set_upper(upper);
        }
        hint.set_lower(lower);
        hint
    }
}

/// A request whose head may go on, and how to know what its body turned out to carry.
pub type Looked = (http::Request<WatchedBody>, Option<Arc<Told>>);

/// A request that must not go on.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub leak: Leak,
    /// What to report.
    pub decision: RequestDecision,
}

/// Looks at a request before anything of it goes on, and has its body looked at while it passes.
///
/// # Errors
/// When its head carries a credential, or its body cannot be read.
pub fn look(
    leaks: &Leaks,
    reporter: &Reporter,
    host: &Host,
    tls: bool,
    request: http::Request<Incoming>,
    decision: RequestDecision,
) -> Result<Looked, Box<Refused>> {
    let Some(watch) = leaks.watch() else { return Ok((request.map(WatchedBody::unwatched), None)) };
    let (parts, body) = request.into_parts();
    let refused = |leak: Leak, decision| Box::new(Refused { decision: refusal(decision, &leak), leak });
    if let Err(leak) = watch.look_at_head(host, tls, &parts) {
        return Err(refused(leak, decision));
    }
    let told = Told::new(reporter.clone(), decision.clone());
    match WatchedBody::new(body, &parts, watch, host, tls, told.clone()) {
        Ok(body) => Ok((http::Request::from_parts(parts, body), Some(told))),
        Err(leak) => Err(refused(leak, decision)),
    }
}
