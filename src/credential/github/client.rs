//! The REST API of GitHub, as far as tokens of installations need it ("Authenticating as a GitHub App installation").

use jiff::Timestamp;
use reqwest::{Method, Url};
use serde_json::Value;

use super::error::GithubError;
use crate::credential::exec::said;
use crate::credential::secret::Secret;
use crate::credential::web;
use crate::credential::wiped::Wiped;

/// The longest answer, in bytes. One repository takes some 6 KiB of it, and a manifest names at most 50.
const ANSWER_LIMIT: usize = 1 << 20;
/// The version of the API that the code was written for ("API Versions").
const VERSION: &str = "2022-11-28";

/// One API.
pub(super) struct Client {
    http: reqwest::Client,
    address: Url,
}

/// What the API answered, whatever the status.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Wiped,
    /// The server's clock.
    pub(super) date: Option<Timestamp>,
    /// Whether it says that there were too many requests ("Rate limits for the REST API").
    pub(super) limited: bool,
}

impl Answer {
    /// One sanitised line of what it says.
    pub(super) fn said(&self) -> String {
        let message = self.body.0.get("message").and_then(Value::as_str).unwrap_or_default();
        said::shown(message.as_bytes(), b"")
    }
}

impl Client {
    pub(super) fn new(address: &str) -> Result<Self, GithubError> {
        let refused = |problem| GithubError::Address { address: web::shown(address), problem };
        let url = Url::parse(address).map_err(|_| refused("it is not a URL"))?;
        web::check(&url).map_err(refused)?;
        let http = web::builder(&url).build().map_err(GithubError::Client)?;
        Ok(Self { http, address: url })
    }

    /// The API, without a slash at the end.
    pub(super) fn address(&self) -> &str {
        self.address.as_str().trim_end_matches('/')
    }

    /// One call. What has an answer is no error here.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        token: &Secret,
        body: Option<&Value>,
    ) -> Result<Answer, GithubError> {
        let url = Url::parse(&format!("{}/{path}", self.address()));
        let url = url.map_err(|_| GithubError::Answer("a path that makes no URL"))?;
        let authorization = web::bearer(token).ok_or(GithubError::Answer("a token that is not plain text"))?;
        let mut request = self
            .http
            .request(method, url)
            .header(http::header::ACCEPT, "application/vnd.github+json")
            .header("X-GitHub-Api-Version", VERSION)
            .header(http::header::AUTHORIZATION, authorization);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.failed(error))?;
        let status = response.status().as_u16();
        let date = web::date(&response);
        let zero = |name: &str| response.headers().get(name).is_some_and(|value| value == "0");
        let limited = status == 429
            || (status == 403 && (zero("x-ratelimit-remaining") || response.headers().contains_key("retry-after")));
        let bytes = web::body(response, ANSWER_LIMIT).await.map_err(|error| self.failed(error))?;
        let bytes = bytes.ok_or(GithubError::Answer("an answer that is too long"))?;
        // A proxy's page of HTML is as good as nothing: the status tells.
        let body = Wiped(serde_json::from_slice(&bytes).unwrap_or(Value::Null));
        Ok(Answer { status, body, date, limited })
    }

    fn failed(&self, error: reqwest::Error) -> GithubError {
        let address = self.address().to_owned();
        if error.is_timeout() {
            return GithubError::Timeout { address, seconds: web::LIMIT.as_secs() };
        }
        GithubError::Unreachable { address, source: error.without_url() }
    }
}
