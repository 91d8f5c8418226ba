//! One conversation with one repository: logging in, waiting for a busy registry, following redirections with care.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::RegistryError;
use super::challenge::{self, Challenge};
use super::error::said;
use super::guard::Guard;
use super::login::{self, Login};
use super::name::{self, Repository};
use crate::credential::secret::Secret;

/// How often a busy registry is asked, and how long to wait when it does not say.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);
/// The longest that one wait may be, whatever the registry says.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Redirections of one request.
const REDIRECTIONS: u32 = 5;
/// The longest answer of a token service, and of a failure.
const ANSWER_LIMIT: usize = 256 << 10;

/// What a request carries.
#[derive(Clone)]
pub(super) enum Body {
    Nothing,
    Bytes(Bytes),
    /// A file from this byte on.
    File {
        path: PathBuf,
        offset: u64,
        length: u64,
        bar: indicatif::ProgressBar,
    },
}

/// A request, which may have to be sent more than once.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) body: Body,
}

impl Request {
    pub(super) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: Vec::new(), body: Body::Nothing }
    }

    pub(super) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn carrying(mut self, body: Body) -> Self {
        self.body = body;
        self
    }
}

/// A repository, and how to be let in.
pub(super) struct Client {
    http: reqwest::Client,
    guard: Guard,
    repository: Repository,
    base: Url,
    scope: String,
    login: Option<Login>,
    authorization: Mutex<Option<HeaderValue>>,
}

impl Client {
    /// A conversation with these scopes of access, such as `repository:team/tool:pull`. `authorities` are certificates in
    /// PEM that are trusted beside the system's.
    pub(super) fn new(
        repository: &Repository,
        scope: String,
        login: Option<Login>,
        authorities: Option<&str>,
    ) -> Result<Self, RegistryError> {
        let base = Url::parse(&repository.base())
            .map_err(|_| RegistryError::Name { name: repository.to_string(), problem: "it makes no address" })?;
        let guard = Guard::new(base.host_str().map_or("", |host| host.trim_matches(['[', ']'])))?;
        // reqwest takes the process's provider; a second installation says that there is one already, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(15))
            .read_timeout(Duration::from_secs(60))
            // A login would go along to wherever it leads; see `place`.
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(std::sync::Arc::new(guard.clone()))
            .user_agent(concat!("sandbox/", env!("CARGO_PKG_VERSION")));
        if repository.is_loopback() {
            builder = builder.no_proxy();
        }
        if let Some(authorities) = authorities {
            let found = reqwest::Certificate::from_pem_bundle(authorities.as_bytes());
            builder = builder.tls_certs_merge(found.map_err(|error| RegistryError::Setup(error.into()))?);
        }
        let http = builder.build().map_err(|error| RegistryError::Setup(error.into()))?;
        let repository = repository.clone();
        Ok(Self { http, guard, repository, base, scope, login, authorization: Mutex::default() })
    }

    pub(super) fn repository(&self) -> &Repository {
        &self.repository
    }

    /// An address below the repository's own, such as `blobs/uploads/`.
    pub(super) fn at(&self, path: &str) -> Result<Url, RegistryError> {
        Url::parse(&format!("{}/{path}", self.base.as_str().trim_end_matches('/')))
            .map_err(|_| RegistryError::Name { name: self.repository.to_string(), problem: "it makes no address" })
    }

    /// Sends a request until there is an answer that is about it: logs in, waits, follows.
    pub(super) async fn send(&self, mut request: Request) -> Result<Response, RegistryError> {
        let (mut attempt, mut redirections, mut logged_in) = (1, 0, false);
        loop {
            let own = self.is_own(&request.url);
            let response = match self.once(&request, own).await {
                Ok(response) => response,
                // Reading again does no harm; writing again is for who knows how much was taken.
                Err(source)
                    if attempt < ATTEMPTS && (source.is_connect() || reads(&request.method)) && !denied(&source) =>
                {
                    tokio::time::sleep(PAUSE * attempt).await;
                    attempt += 1;
                    continue;
                }
                Err(source) => {
                    return Err(RegistryError::Unreachable { host: shown(&request.url), source: source.without_url() });
                }
            };
            let status = response.status();
            match status.as_u16() {
                401 if own && !logged_in => {
                    self.log_in(&response).await?;
                    logged_in = true;
                }
                401 | 403 => {
                    let (host, status) = (shown(&request.url), status.as_u16());
                    return Err(RegistryError::Denied { host, status, said: said(&short(response).await) });
                }
                429 | 502..=504 if attempt < ATTEMPTS => {
                    tokio::time::sleep(pause(&response, attempt)).await;
                    attempt += 1;
                }
                429 | 502..=504 => {
                    return Err(RegistryError::Busy { host: shown(&request.url), status: status.as_u16() });
                }
                301 | 302 | 303 | 307 | 308 => {
                    let reads = reads(&request.method);
                    let next = self.place(&request.url, &response)?;
                    redirections += 1;
                    if !reads || redirections > REDIRECTIONS {
                        let problem = if reads { "it goes on and on" } else { "an upload is not redirected" };
                        return Err(redirection(&request.url, &next, problem));
                    }
                    request.url = next;
                }
                _ => return Ok(response),
            }
        }
    }

    async fn once(&self, request: &Request, own: bool) -> Result<Response, reqwest::Error> {
        let mut builder = self.http.request(request.method.clone(), request.url.clone());
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(value) = authorization.filter(|_| own) {
            builder = builder.header(AUTHORIZATION, value);
        }
        builder = match &request.body {
            Body::Nothing if reads(&request.method) => builder,
            Body::Nothing => builder.header(CONTENT_LENGTH, "0"),
            Body::Bytes(bytes) => builder.body(bytes.clone()),
            Body::File { path, offset, length, bar } => {
                let (path, offset, length, bar) = (path.clone(), *offset, *length, bar.clone());
                bar.set_position(offset);
                let stream = futures_util::TryStreamExt::try_flatten(futures_util::stream::once(async move {
                    let mut file = tokio::fs::File::open(path).await?;
                    file.seek(std::io::SeekFrom::Start(offset)).await?;
                    let chunks = ReaderStream::with_capacity(file.take(length), 1 << 17);
                    Ok::<_, std::io::Error>(futures_util::TryStreamExt::inspect_ok(chunks, move |chunk| {
                        bar.inc(chunk.len() as u64);
                    }))
                }));
                builder.header(CONTENT_LENGTH, length.to_string()).body(reqwest::Body::wrap_stream(stream))
            }
        };
        builder.send().await
    }

    /// Where an answer sends us, when that is a place to go to.
    pub(super) fn place(&self, from: &Url, response: &Response) -> Result<Url, RegistryError> {
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let Some(next) = location.and_then(|location| from.join(location).ok()) else {
            return Err(redirection(from, from, "it names no place"));
        };
        self.check(&next).map_err(|problem| redirection(from, &next, problem))?;
        Ok(next)
    }

    fn check(&self, url: &Url) -> Result<(), &'static str> {
        let loopback = || {
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        };
        match url.scheme() {
            "https" => {}
            "http" if self.repository.is_loopback() && loopback() => {}
            _ => return Err("it is not encrypted"),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it holds a user name");
        }
        self.guard.admit(url)
    }

    /// Whether an address is the registry's own: scheme, host and port. Only there the login goes.
    fn is_own(&self, url: &Url) -> bool {
        let origin =
            |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default());
        origin(url) == origin(&self.base)
    }

    async fn log_in(&self, response: &Response) -> Result<(), RegistryError> {
        let host = name::host(&self.repository.registry).to_owned();
        let failed = |problem| RegistryError::Challenge { host: host.clone(), problem };
        let headers = response.headers().get_all(http::header::WWW_AUTHENTICATE);
        let mut challenges = headers.iter().filter_map(|value| challenge::parse(value.to_str().ok()?));
        let value =
            match challenges.next().ok_or_else(|| failed("it does not say how, or in a way that is not known"))? {
                Challenge::Basic => {
                    let denied = || RegistryError::Denied { host: host.clone(), status: 401, said: String::new() };
                    self.login.as_ref().and_then(Login::basic).ok_or_else(denied)?
                }
                Challenge::Bearer { realm, service } => {
                    let token = self.token(&realm, service.as_deref()).await?;
                    login::bearer(&token).ok_or_else(|| failed("its token is no text"))?
                }
            };
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    }

    /// Asks a token service for what this conversation needs and no more, whatever the challenge names.
    async fn token(&self, realm: &str, service: Option<&str>) -> Result<Secret, RegistryError> {
        let failed = |problem| RegistryError::Challenge { host: self.repository.registry.clone(), problem };
        let mut url = Url::parse(realm).map_err(|_| failed("its token service has no address"))?;
        self.check(&url).map_err(failed)?;
        let exchange = self.login.as_ref().and_then(|login| login.exchange(service, &self.scope));
        let request = match exchange {
            Some(form) => {
                let body = Bytes::from_owner(zeroize::Zeroizing::new(form.as_bytes().to_vec()));
                self.http.post(url.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
            }
            None => {
                if let Some(service) = service {
                    url.query_pairs_mut().append_pair("service", service);
                }
                for scope in self.scope.split(' ') {
                    url.query_pairs_mut().append_pair("scope", scope);
                }
                let request = self.http.get(url.clone());
                match self.login.as_ref().and_then(Login::basic) {
                    Some(value) => request.header(AUTHORIZATION, value),
                    None => request,
                }
            }
        };
        let host = shown(&url);
        let unreachable =
            |source: reqwest::Error| RegistryError::Unreachable { host: host.clone(), source: source.without_url() };
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        match status {
            200 => {}
            401 | 403 => return Err(RegistryError::Denied { host, status, said: said(&short(response).await) }),
            429 | 502..=504 => return Err(RegistryError::Busy { host, status }),
            _ => {
                let said = said(&short(response).await);
                return Err(RegistryError::Status { what: "ask for a token", host, status, said });
            }
        }
        let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(ANSWER_LIMIT));
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if bytes.len() + chunk.len() > ANSWER_LIMIT {
                return Err(failed("the answer of its token service is too long"));
            }
            bytes.extend_from_slice(&chunk);
        }
        let answer: TokenAnswer =
            serde_json::from_slice(&bytes).map_err(|_| failed("its token service gave no token"))?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        token.map(|token| Secret::new(token.into_bytes())).ok_or_else(|| failed("its token service gave no token"))
    }

    /// The whole body of an answer, which may not be longer than this.
    pub(super) async fn body(
        &self,
        mut response: Response,
        limit: usize,
        document: &'static str,
    ) -> Result<Vec<u8>, RegistryError> {
        let host = shown(response.url());
        let mut bytes = Vec::new();
        let failed =
            |source: reqwest::Error| RegistryError::Unreachable { host: host.clone(), source: source.without_url() };
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if bytes.len() + chunk.len() > limit {
                return Err(RegistryError::Document { document, problem: "it is longer than allowed" });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// The error of an answer with a status that was not expected.
    pub(super) async fn unexpected(&self, what: &'static str, response: Response) -> RegistryError {
        let (host, status) = (shown(response.url()), response.status());
        if status == StatusCode::NOT_FOUND {
            return RegistryError::Absent { what: what.to_owned(), repository: self.repository.to_string() };
        }
        RegistryError::Status { what, host, status: status.as_u16(), said: said(&short(response).await) }
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

fn reads(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

/// Host and port; path and query may hold a signature.
fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}{port}", url.host_str().unwrap_or_default())
}

fn redirection(from: &Url, to: &Url, problem: &'static str) -> RegistryError {
    RegistryError::Redirection { host: shown(from), target: format!("{}://{}", to.scheme(), shown(to)), problem }
}

/// Whether a connection failed because the guard refused its address, which no second attempt changes.
fn denied(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.is::<super::guard::Misled>() {
            return true;
        }
        source = cause.source();
    }
    false
}

/// How long a busy registry wants us to wait (RFC 9110, section 10.2.3), within reason. A date counts as not said.
fn pause(response: &Response, attempt: u32) -> Duration {
    let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    header.map_or(PAUSE * 2_u32.pow(attempt), Duration::from_secs).min(LONGEST_PAUSE)
}

/// The beginning of the body of a failure.
async fn short(mut response: Response) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk[..chunk.len().min(ANSWER_LIMIT - bytes.len())]);
        if bytes.len() == ANSWER_LIMIT {
            break;
        }
    }
    bytes
}
