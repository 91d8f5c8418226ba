//! The authorization code grant in the person's own browser (RFC 8252), with PKCE (RFC 7636): the code comes back to a
//! listener on loopback that lives for this one log-in.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{percent_decode_str, utf8_percent_encode};
use reqwest::Url;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::client::{ESCAPED, Tokens, post, tokens};
use super::error::OauthError;
use crate::credential::secret::Secret;
use crate::credential::spec::OauthSpec;
use crate::credential::web;

/// How long the person has.
pub const LIFE: Duration = Duration::from_secs(10 * 60);
/// How long a connection may take to say what it wants. Browsers open some in advance that say nothing.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// The largest head of a request, in bytes.
const HEAD_LIMIT: usize = 32 << 10;
/// How many connections wait at once, the rest in the kernel.
const CONNECTIONS: usize = 16;

/// A log-in that was begun.
pub struct Browser {
    listener: TcpListener,
    redirect: Url,
    verifier: Zeroizing<String>,
    state: Zeroizing<String>,
    /// The page that the person opens.
    pub page: String,
}

/// What came back to the listener, and where to say how it went.
struct Callback {
    stream: TcpStream,
    answer: Result<Zeroizing<String>, OauthError>,
}

impl Browser {
    /// Listens, and makes the page's address (RFC 6749, section 4.1.1; RFC 7636, section 4.3).
    ///
    /// # Errors
    /// When an address is not fit for it, or the port is taken.
    pub async fn begin(spec: &OauthSpec, authorize: &str) -> Result<Self, OauthError> {
        let refused = |problem| OauthError::Address { address: web::shown(authorize), problem };
        let mut page = Url::parse(authorize).map_err(|_| refused("it is not a URL"))?;
        web::check(&page).map_err(refused)?;
        let mut redirect = redirect(spec)?;
        // "The authorization server MUST allow any port to be specified at the time of the request for loopback IP redirect
        // URIs" (RFC 8252, section 7.3); some have one registered.
        let port = redirect.port().unwrap_or(0);
        let listener =
            TcpListener::bind(("127.0.0.1", port)).await.map_err(|source| OauthError::Listen { port, source })?;
        let own = listener.local_addr().map_err(|source| OauthError::Listen { port, source })?;
        redirect.set_port(Some(own.port())).map_err(|()| OauthError::Answer("a port that is none"))?;
        // 32 random bytes as base64url are the 43 characters that are recommended (RFC 7636, section 4.1).
        let (verifier, state) = (random()?, random()?);
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        let scope = spec.scopes.join(" ");
        let mut query = vec![
            ("response_type", "code"),
            ("client_id", &spec.client_id),
            ("redirect_uri", redirect.as_str()),
            ("state", &state),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        if !scope.is_empty() {
            query.push(("scope", &scope));
        }
        query.extend(spec.authorize_parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        // A space is `%20` here: not every issuer takes the `+` of forms.
        let escaped = |text: &str| utf8_percent_encode(text, ESCAPED).to_string();
        let pairs: Vec<String> =
            query.into_iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
        page.set_query(Some(&pairs.join("&")));
        Ok(Self { listener, redirect, verifier, state, page: page.to_string() })
    }

    /// Waits until the browser brings the code, and redeems it (RFC 6749, section 4.1.3).
    ///
    /// # Errors
    /// When the person declines or does nothing, or the issuer refuses.
    pub async fn wait(self, spec: &OauthSpec, secret: Option<&Secret>) -> Result<Tokens, OauthError> {
        let callback = self.callback().await?;
        let redeemed = match callback.answer {
            Ok(code) => self.redeem(spec, secret, &code).await,
            Err(error) => Err(error),
        };
        let said = match &redeemed {
            Ok(_) => "You are logged in. You can close this page.",
            Err(_) => "The log-in failed. The terminal says why.",
        };
        respond(callback.stream, 200, said).await;
        redeemed
    }

    async fn redeem(&self, spec: &OauthSpec, secret: Option<&Secret>, code: &str) -> Result<Tokens, OauthError> {
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", self.redirect.as_str()),
            ("client_id", spec.client_id.as_str()),
            ("code_verifier", self.verifier.as_str()),
        ];
        // Not of the standard, and asked for by an issuer that takes JSON.
        if spec.json_requests {
            fields.push(("state", &self.state));
        }
        let answer = post(spec, &spec.token_url, secret, &fields).await?;
        if answer.is_good() { tokens(spec, &answer) } else { Err(answer.failed()) }
    }

    /// The first request that has this log-in's state. All others are turned away and end nothing.
    async fn callback(&self) -> Result<Callback, OauthError> {
        let (found, mut callbacks) = mpsc::channel(1);
        let accept = async {
            let mut open = tokio::task::JoinSet::new();
            loop {
                while open.len() >= CONNECTIONS {
                    open.join_next().await;
                }
                let Ok((stream, _)) = self.listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let (found, state, redirect) = (found.clone(), self.state.clone(), self.redirect.clone());
                open.spawn(async move {
                    if let Some(callback) = heard(stream, &state, &redirect).await {
                        let _ = found.send(callback).await;
                    }
                });
            }
        };
        let begun = Instant::now();
        tokio::select! {
            () = accept => Err(OauthError::CodeExpired),
            callback = callbacks.recv() => callback.ok_or(OauthError::CodeExpired),
            () = tokio::time::sleep(LIFE.saturating_sub(begun.elapsed())) => Err(OauthError::CodeExpired),
        }
    }
}

/// Where the code comes back to: loopback, over HTTP, since it does not leave this machine (RFC 8252, section 8.3).
fn redirect(spec: &OauthSpec) -> Result<Url, OauthError> {
    let text = spec.redirect_url.as_deref().unwrap_or("http://127.0.0.1/callback");
    let refused = |problem| OauthError::Address { address: web::shown(text), problem };
    let url = Url::parse(text).map_err(|_| refused("it is not a URL"))?;
    let loopback = matches!(url.host_str(), Some("127.0.0.1" | "localhost"));
    if url.scheme() != "http" || !loopback || url.query().is_some() || url.fragment().is_some() {
        return Err(refused("a code comes back to http://127.0.0.1 or http://localhost alone"));
    }
    Ok(url)
}

fn random() -> Result<Zeroizing<String>, OauthError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(|error| OauthError::Random(error.into()))?;
    Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes)))
}

/// Reads one request. None when it is not the one that is waited for, which is answered here.
async fn heard(mut stream: TcpStream, state: &str, redirect: &Url) -> Option<Callback> {
    let head = tokio::time::timeout(REQUEST_LIMIT, head(&mut stream)).await.ok()??;
    match understood(&head, state, redirect) {
        Ok(answer) => Some(Callback { stream, answer }),
        Err((status, said)) => {
            respond(stream, status, said).await;
            None
        }
    }
}

/// The head of a request, which may hold a code.
async fn head(stream: &mut TcpStream) -> Option<Zeroizing<Vec<u8>>> {
    let mut head = Zeroizing::new(Vec::with_capacity(HEAD_LIMIT));
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut part = Zeroizing::new([0; 2048]);
        let room = part.len().min(HEAD_LIMIT - head.len());
        let read = stream.read(&mut part[..room]).await.ok().filter(|read| *read > 0)?;
        head.extend_from_slice(&part[..read]);
    }
    Some(head)
}

/// The code, or the issuer's refusal, of the redirection that belongs to this log-in (RFC 6749, sections 4.1.2, 10.12).
fn understood(
    head: &[u8],
    state: &str,
    redirect: &Url,
) -> Result<Result<Zeroizing<String>, OauthError>, (u16, &'static str)> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(head).is_ok_and(|status| status.is_complete());
    let (Some("GET"), Some(path), true) = (request.method, request.path, parsed) else {
        return Err((400, "This is no page."));
    };
    // A page of somebody's that has this machine as its own address comes with another name.
    let authority = format!("{}:{}", redirect.host_str().unwrap_or_default(), redirect.port().unwrap_or(0));
    let named = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case("host")).map(|field| field.value);
    if named != Some(authority.as_bytes()) {
        return Err((400, "This is no page."));
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    if path != redirect.path() {
        return Err((404, "There is nothing here."));
    }
    let field = |name: &str| {
        let mut found = query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(key, _)| *key == name);
        let (_, value) = found.next()?;
        // One that stands twice is nobody's.
        if found.next().is_some() {
            return None;
        }
        let spaced = value.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8().ok().map(|text| Zeroizing::new(text.into_owned()))
    };
    let ours = field("state").is_some_and(|given| bool::from(given.as_bytes().ct_eq(state.as_bytes())));
    if !ours {
        return Err((400, "This belongs to another log-in."));
    }
    if let Some(error) = field("error") {
        if error.as_str() == "access_denied" {
            return Ok(Err(OauthError::Declined));
        }
        let plain = |one: &char| one.is_ascii_alphanumeric() || *one == '_' || *one == '-';
        let word = error.chars().filter(plain).take(64).collect();
        return Ok(Err(OauthError::Failed { status: 302, word }));
    }
    // Visible characters and spaces (RFC 6749, appendix A.11).
    let plain = |code: &Zeroizing<String>| !code.is_empty() && code.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    match field("code").filter(plain) {
        Some(code) => Ok(Ok(code)),
        None => Ok(Err(OauthError::Answer("a redirection without a code"))),
    }
}

/// A page of one sentence, which nobody keeps and which loads nothing.
async fn respond(mut stream: TcpStream, status: u16, said: &str) {
    let page = format!("<!doctype html><meta charset=utf-8><title>sandbox</title><p>{said}</p>\n");
    let head = "content-type: text/html; charset=utf-8\r\ncache-control: no-store\r\nreferrer-policy: no-referrer\r\n\
                content-security-policy: default-src 'none'\r\nconnection: close";
    let text = format!("HTTP/1.1 {status} .\r\n{head}\r\ncontent-length: {}\r\n\r\n{page}", page.len());
    // A browser that went away has nothing to be told.
    let _ = tokio::time::timeout(REQUEST_LIMIT, async {
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
}
