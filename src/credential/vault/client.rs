//! The HTTP API of Vault and OpenBao: bounded answers, bounded waiting, and no token to where it does not belong.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderName;
use reqwest::{Method, Response, Url};
use rustls::CertificateError;
use serde_json::Value;

use super::error::{CertificateFault, VaultError};
use crate::credential::exec::said;
use crate::credential::secret::Secret;
use crate::credential::web::{self, LIMIT, check, shown};
use crate::credential::wiped::{self, Wiped};

/// The longest answer, in bytes.
const ANSWER_LIMIT: usize = 256 << 10;
/// How often a server that is busy is asked, and how long to wait first.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);
/// Many certificates.
const CERTIFICATES_LIMIT: usize = 4 << 20;

/// A server and a namespace in it.
pub(super) struct Client {
    http: reqwest::Client,
    address: Url,
    namespace: Option<String>,
}

impl Client {
    /// `identity` is a client's certificate with its private key, as PEM.
    pub(super) fn new(
        address: &str,
        namespace: Option<&str>,
        ca_file: Option<&Path>,
        identity: Option<&Secret>,
    ) -> Result<Self, VaultError> {
        let refused = |problem| VaultError::Address { address: shown(address), problem };
        let url = Url::parse(address).map_err(|_| refused("it is not a URL"))?;
        check(&url).map_err(refused)?;
        // The one redirection that is followed is looked at first; see `follow`.
        let mut builder = web::builder(&url);
        if let Some(path) = ca_file {
            let failed = |source: Box<dyn std::error::Error + Send + Sync>| VaultError::Certificates {
                path: path.to_path_buf(),
                source,
            };
            let file = std::fs::File::open(path).map_err(|error| failed(error.into()))?;
            let text = Secret::read(file, CERTIFICATES_LIMIT).map_err(|error| failed(error.into()))?;
            let found = reqwest::Certificate::from_pem_bundle(text.expose()).map_err(|error| failed(error.into()))?;
            if found.is_empty() {
                return Err(failed("it holds no certificate".into()));
            }
            // As Vault's own command line has it: with a file, that file alone.
            builder = builder.tls_certs_only(found);
        }
        if let Some(identity) = identity {
            // What is wrong with it is not quoted: it holds a private key.
            let identity = reqwest::Identity::from_pem(identity.expose()).map_err(|_| VaultError::Identity)?;
            builder = builder.identity(identity);
        }
        let http = builder.build().map_err(VaultError::Client)?;
        Ok(Self { http, address: url, namespace: namespace.map(str::to_owned) })
    }

    /// The server, without a slash at the end.
    pub(super) fn address(&self) -> &str {
        self.address.as_str().trim_end_matches('/')
    }

    pub(super) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// One call. An answer without a body is JSON's null.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&Secret>,
        body: Option<&Wiped>,
    ) -> Result<Wiped, VaultError> {
        let mut pause = PAUSE;
        let mut attempt = 1;
        loop {
            let response = self.send(&method, path, token, body).await?;
            let status = response.status().as_u16();
            let answer = self.body(response).await?;
            match status {
                200..=299 => return Ok(answer),
                // "HTTP status codes" of Vault's API: 429 a quota, 503 sealed or in maintenance, 502 and 504 of what
                // stands before it. None of them did what was asked.
                503 if sealed(&answer.0) => return Err(VaultError::Sealed(self.address().to_owned())),
                429 | 502..=504 if attempt < ATTEMPTS => {}
                429 | 502..=504 => return Err(VaultError::Busy { address: self.address().to_owned(), status }),
                // Not the path is missing then, whichever it is.
                403 | 404 if words(&answer.0).contains("namespace not found") => {
                    return Err(VaultError::NoNamespace(self.namespace.clone().unwrap_or_default()));
                }
                _ => return Err(refusal(path, status, &answer.0)),
            }
            tokio::time::sleep(pause).await;
            pause *= 3;
            attempt += 1;
        }
    }

    async fn send(
        &self,
        method: &Method,
        path: &str,
        token: Option<&Secret>,
        body: Option<&Wiped>,
    ) -> Result<Response, VaultError> {
        let first = format!("{}/v1/{path}", self.address());
        let first = Url::parse(&first).map_err(|_| VaultError::Answer("a path that makes no URL"))?;
        let response = self.request(method, first.clone(), token, body).await?;
        // A standby that does not forward names the active node ("High availability", client redirection).
        if !matches!(response.status().as_u16(), 307 | 308) {
            return Ok(response);
        }
        let location = response.headers().get(http::header::LOCATION).and_then(|value| value.to_str().ok());
        let next = location.and_then(|text| first.join(text).ok());
        let next = next.ok_or(VaultError::Redirection("it names no place"))?;
        follow(&first, &next).map_err(VaultError::Redirection)?;
        let response = self.request(method, next, token, body).await?;
        if response.status().is_redirection() {
            return Err(VaultError::Redirection("it sends from one to the next"));
        }
        Ok(response)
    }

    async fn request(
        &self,
        method: &Method,
        url: Url,
        token: Option<&Secret>,
        body: Option<&Wiped>,
    ) -> Result<Response, VaultError> {
        let mut request = self.http.request(method.clone(), url).header("X-Vault-Request", "true");
        if let Some(namespace) = &self.namespace {
            request = request.header("X-Vault-Namespace", namespace.as_str());
        }
        if let Some(token) = token {
            let value = web::header(&[token.expose()]).ok_or(VaultError::NotText)?;
            request = request.header(HeaderName::from_static("x-vault-token"), value);
        }
        if let Some(Wiped(body)) = body {
            let text = wiped::text(body).map_err(|_| VaultError::Answer("more to log in with than it takes"))?;
            request = request.header(http::header::CONTENT_TYPE, "application/json").body(Bytes::from_owner(text));
        }
        request.send().await.map_err(|error| self.failed(error))
    }

    async fn body(&self, response: Response) -> Result<Wiped, VaultError> {
        let bytes = web::body(response, ANSWER_LIMIT).await.map_err(|error| self.failed(error))?;
        let bytes = bytes.ok_or(VaultError::Answer("an answer that is too long"))?;
        // A proxy's page of HTML is as good as nothing: the status tells.
        Ok(Wiped(serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }

    fn failed(&self, error: reqwest::Error) -> VaultError {
        let address = self.address().to_owned();
        if error.is_timeout() {
            return VaultError::Timeout { address, seconds: LIMIT.as_secs() };
        }
        let source = error.without_url();
        match untrusted(&source) {
            Some(fault) => VaultError::Untrusted { address, fault, source },
            None => VaultError::Unreachable { address, source },
        }
    }
}

/// What is wrong with the server's certificate, when that is why there is no connection.
fn untrusted(error: &reqwest::Error) -> Option<CertificateFault> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(rustls::Error::InvalidCertificate(problem)) = cause.downcast_ref() {
            return Some(fault_of(problem));
        }
        // The source of an `io::Error` is the source of what it holds, which may be one more `io::Error`.
        let held = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        source = match held {
            Some(held) => Some(held),
            None => cause.source(),
        };
    }
    None
}

fn fault_of(problem: &CertificateError) -> CertificateFault {
    match problem {
        CertificateError::UnknownIssuer => CertificateFault::Issuer,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => CertificateFault::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => CertificateFault::Early,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => CertificateFault::Name,
        _ => CertificateFault::Other,
    }
}

/// Whether a redirection may take the token along: never to a weaker scheme, never to another path.
fn follow(from: &Url, to: &Url) -> Result<(), &'static str> {
    if to.scheme() != from.scheme() {
        return Err("it leads to another scheme");
    }
    if to.path() != from.path() {
        return Err("it leads to another path");
    }
    check(to)
}

fn sealed(answer: &Value) -> bool {
    words(answer).contains("is sealed")
}

fn words(answer: &Value) -> String {
    let errors = answer.get("errors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    errors.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")
}

fn refusal(path: &str, status: u16, answer: &Value) -> VaultError {
    let said = said::shown(words(answer).as_bytes(), b"");
    let path = path.to_owned();
    match status {
        403 => VaultError::Denied { path, said },
        // A 404 with data is a version that was deleted or destroyed; an empty place has no data.
        404 if answer.get("data").is_some_and(Value::is_object) => VaultError::Deleted { path },
        404 => VaultError::Absent { path },
        _ => VaultError::Failed { path, status, said },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn sends_no_token_in_the_clear() {
        for fine in ["https://vault.example.com:8200", "http://127.0.0.1:8200", "http://[::1]:8200", "http://localhost"]
        {
            assert_eq!(check(&url(fine)), Ok(()), "{fine}");
        }
        for refused in [
            "http://vault.example.com:8200",
            "http://localhost.example.com",
            "ftp://vault.example.com",
            "https://user:canary@vault.example.com",
            "https://vault.example.com/?x=1",
        ] {
            assert!(check(&url(refused)).is_err(), "{refused}");
            let error = Client::new(refused, None, None, None).err().unwrap();
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn follows_to_another_node_only_for_the_same_call() {
        let from = url("https://a.example.com:8200/v1/secret/data/x");
        assert_eq!(follow(&from, &url("https://b.example.com:8200/v1/secret/data/x")), Ok(()));
        for refused in [
            "http://b.example.com/v1/secret/data/x",
            "https://b.example.com/v1/secret/data/y",
            "https://u:p@b.example.com/v1/secret/data/x",
        ] {
            assert!(follow(&from, &url(refused)).is_err(), "{refused}");
        }
    }

    #[test]
    fn tells_faults_of_a_certificate_apart() {
        for (problem, fault) in [
            (CertificateError::UnknownIssuer, CertificateFault::Issuer),
            (CertificateError::Expired, CertificateFault::Expired),
            (CertificateError::NotValidYet, CertificateFault::Early),
            (CertificateError::NotValidForName, CertificateFault::Name),
            (CertificateError::Revoked, CertificateFault::Other),
        ] {
            assert_eq!(fault_of(&problem), fault, "{problem:?}");
        }
    }

    #[test]
    fn tells_refusals_apart_and_quotes_no_secret() {
        let said = json!({ "errors": ["permission denied\u{1b}[2J for token=canary"] });
        let error = refusal("secret/x", 403, &said);
        assert!(matches!(&error, VaultError::Denied { .. }), "{error:?}");
        assert!(!error.to_string().contains("canary") && !error.to_string().contains('\u{1b}'), "{error}");
        let deleted = json!({ "data": { "data": null, "metadata": { "deletion_time": "2030-01-01T00:00:00Z" } } });
        assert!(matches!(refusal("secret/x", 404, &deleted), VaultError::Deleted { .. }));
        assert!(matches!(refusal("secret/x", 404, &json!({ "errors": [] })), VaultError::Absent { .. }));
        assert!(matches!(refusal("x", 500, &Value::Null), VaultError::Failed { status: 500, .. }));
        assert!(sealed(&json!({ "errors": ["Vault is sealed"] })));
    }
}
