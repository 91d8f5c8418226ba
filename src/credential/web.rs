//! What all issuers that speak HTTP have in common: no secret in the clear or along a redirection, bounded waiting, and
//! bounded answers in memory that is wiped.

use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderValue;
use jiff::Timestamp;
use reqwest::{Response, Url};
use zeroize::Zeroizing;

use super::secret::Secret;

/// How long one call may take.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// A client for one address. It follows no redirection, which would take a secret along to whatever host it names.
pub(super) fn builder(url: &Url) -> reqwest::ClientBuilder {
    // reqwest takes the process's provider; a second installation says that there is one already, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .connect_timeout(LIMIT / 2)
        .timeout(LIMIT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("sandbox/", env!("CARGO_PKG_VERSION")));
    if is_loopback(url) { builder.no_proxy() } else { builder }
}

pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What is wrong with an address that gets a secret.
pub(super) fn check(url: &Url) -> Result<(), &'static str> {
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(url) => {}
        "http" => return Err("a token would be sent without encryption; write https://"),
        _ => return Err("it begins with neither https:// nor http://"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a user name");
    }
    if url.query().is_some() || url.fragment().is_some() || url.host_str().is_none() {
        return Err("it has more than scheme, host, port and path");
    }
    Ok(())
}

/// An address as it is shown: a password that stands in it is not.
pub(super) fn shown(text: &str) -> String {
    let text = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
    text.chars().filter(|character| !character.is_control()).take(100).collect()
}

/// A header's value that is wiped when its last user drops it, and that no log shows. None for what is no such value.
pub(super) fn header(parts: &[&[u8]]) -> Option<HeaderValue> {
    let bytes = Bytes::from_owner(Zeroizing::new(parts.concat()));
    let mut value = HeaderValue::from_maybe_shared(bytes).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The header `Authorization` with a bearer token (RFC 6750, section 2.1).
pub(super) fn bearer(token: &Secret) -> Option<HeaderValue> {
    header(&[b"Bearer ", token.expose()])
}

/// Reads a whole body, or none when it is longer than the limit. The buffer never grows, since growing would leave copies
/// of a secret behind.
pub(super) async fn body(mut response: Response, limit: usize) -> reqwest::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit));
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > limit {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

/// When the server says that it answered (RFC 9110, section 6.6.1).
pub(super) fn date(response: &Response) -> Option<Timestamp> {
    let text = response.headers().get(http::header::DATE)?.to_str().ok()?;
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_date_of_http() {
        let response = http::Response::builder().header("date", "Sun, 06 Nov 1994 08:49:37 GMT").body("").unwrap();
        let expected: Timestamp = "1994-11-06T08:49:37Z".parse().unwrap();
        assert_eq!(date(&Response::from(response)), Some(expected));
        assert_eq!(date(&Response::from(http::Response::builder().header("date", "soon").body("").unwrap())), None);
    }

    #[test]
    fn a_secret_in_a_header_is_not_shown() {
        let value = bearer(&Secret::new(b"canary".to_vec())).unwrap();
        assert!(value == "Bearer canary" && !format!("{value:?}").contains("canary"));
        assert!(bearer(&Secret::new(b"two\nlines".to_vec())).is_none());
    }
}
