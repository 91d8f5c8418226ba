//! The administration API of OpenAI, as far as service accounts need it ("API reference", Administration).

use jiff::Timestamp;
use reqwest::{Method, Url};
use serde_json::Value;

use super::error::OpenaiError;
use crate::credential::exec::said;
use crate::credential::secret::Secret;
use crate::credential::web;
use crate::credential::wiped::Wiped;

/// The longest answer, in bytes: a page of a hundred accounts.
const ANSWER_LIMIT: usize = 256 << 10;

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
}

impl Answer {
    /// One sanitised line of what it says ("Error codes": `error.message`, which quotes a part of a wrong key).
    pub(super) fn said(&self) -> String {
        let message = self.body.0.pointer("/error/message").and_then(Value::as_str).unwrap_or_default();
        said::shown(message.as_bytes(), b"")
    }
}

impl Client {
    pub(super) fn new(address: &str) -> Result<Self, OpenaiError> {
        let refused = |problem| OpenaiError::Address { address: web::shown(address), problem };
        let url = Url::parse(address).map_err(|_| refused("it is not a URL"))?;
        web::check(&url).map_err(refused)?;
        let http = web::builder(&url).build().map_err(OpenaiError::Client)?;
        Ok(Self { http, address: url })
    }

    /// The API, without a slash at the end.
    pub(super) fn address(&self) -> &str {
        self.address.as_str().trim_end_matches('/')
    }

    /// One call with the admin key. What has an answer is no error here.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        admin: &Secret,
        body: Option<&Value>,
    ) -> Result<Answer, OpenaiError> {
        let url = Url::parse(&format!("{}/{path}", self.address()));
        let url = url.map_err(|_| OpenaiError::Answer("a path that makes no URL"))?;
        let authorization = web::bearer(admin).ok_or(OpenaiError::Key)?;
        let mut request = self.http.request(method, url).header(http::header::AUTHORIZATION, authorization);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.failed(false, error))?;
        let (status, date) = (response.status().as_u16(), web::date(&response));
        let bytes = web::body(response, ANSWER_LIMIT).await.map_err(|error| self.failed(true, error))?;
        let bytes = bytes.ok_or(OpenaiError::Answer("an answer that is too long"))?;
        // A proxy's page of HTML is as good as nothing: the status tells.
        let body = Wiped(serde_json::from_slice(&bytes).unwrap_or(Value::Null));
        Ok(Answer { status, body, date })
    }

    fn failed(&self, answering: bool, error: reqwest::Error) -> OpenaiError {
        let address = self.address().to_owned();
        let sent = answering || !error.is_connect();
        if error.is_timeout() {
            return OpenaiError::Timeout { address, sent, seconds: web::LIMIT.as_secs() };
        }
        OpenaiError::Unreachable { address, sent, source: error.without_url() }
    }
}
