//! Brokered credentials: the agent's requests carry none, or a stand-in, and the gateway puts the real one in.
//!
//! It is put into requests to its own host alone, over TLS that the gateway verified, after everything that could carry a
//! credential was taken out. The values are in this process's memory and in no file.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use http::request::Parts;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use zeroize::Zeroizing;

use crate::credential::aws::source::SourceKeys;
use crate::gateway::override_fields;
use crate::gateway::protocol::Brokered;
use crate::gateway::sigv4;
use crate::network::name::Host;
use crate::network::placement::Placement;

/// Header fields by which services take credentials, beside `Authorization` and `Cookie`: those of Anthropic, Azure,
/// Google, GitLab and AWS, and names in common use.
const CREDENTIAL_FIELDS: &[&str] = &[
    "api-key",
    "apikey",
    "deploy-token",
    "job-token",
    "private-token",
    "x-access-token",
    "x-amz-s3session-token",
    "x-amz-security-token",
    "x-api-key",
    "x-auth-key",
    "x-auth-token",
    "x-functions-key",
    "x-goog-api-key",
    "x-gitlab-token",
    "x-token",
];

/// Query parameters by which services take credentials.
const CREDENTIAL_PARAMETERS: &[&str] = &[
    "access_token",
    "api-key",
    "api_key",
    "apikey",
    "auth",
    "client_secret",
    "key",
    "private_token",
    "token",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
];

/// What stays as it is in a query parameter's value (RFC 3986 section 2.3).
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why a credential is not put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// None is there: it was withdrawn, or was never handed over.
    #[error("the credential for this host is not there")]
    Absent,
    /// It cannot stand where it has to.
    #[error("the credential for this host cannot be sent in that place")]
    Unfit,
    /// Each chunk of the body has a signature of its own, made with keys that the agent does not have.
    #[error("the body is signed chunk by chunk, which the gateway cannot do anew")]
    Chunks,
}

/// The session's brokered credentials, by name.
#[derive(Debug, Default)]
pub struct Broker {
    held: RwLock<BTreeMap<String, Arc<Brokered>>>,
}

impl Broker {
    /// Takes credentials over, in place of those of the same names.
    pub fn hold(&self, credentials: Vec<Brokered>) {
        // A poisoned lock only says that another task panicked; the map is whole at every moment.
        let mut held = self.held.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        held.extend(credentials.into_iter().map(|credential| (credential.name.clone(), Arc::new(credential))));
    }

    /// Forgets credentials.
    pub fn withdraw(&self, names: &[String]) {
        let mut held = self.held.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        held.retain(|name, _| !names.contains(name));
    }

    /// The credential of this name, for this host.
    ///
    /// # Errors
    /// When there is none; the request must not be sent then.
    pub fn find(&self, name: &str, host: &Host) -> Result<Arc<Brokered>, BrokerError> {
        let held = self.held.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let credential = held.get(name).cloned().ok_or(BrokerError::Absent)?;
        if matches!(host, Host::Name(host) if *host == credential.host) {
            Ok(credential)
        } else {
            Err(BrokerError::Absent)
        }
    }

    /// Takes a credential that stands in the query out of the place that an answer sends the client to: servers repeat the
    /// query when they redirect. The client's next request gets it again, if it is for the credential's host.
    pub fn hide(&self, name: &str, headers: &mut HeaderMap) {
        let held = self.held.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(Placement::Query(own)) = held.get(name).map(|credential| &credential.placement) else { return };
        let Some(location) = headers.get(LOCATION).and_then(|value| value.to_str().ok()) else { return };
        let Some((before, rest)) = location.split_once('?') else { return };
        let (query, fragment) = rest.split_once('#').map_or((rest, None), |(query, rest)| (query, Some(rest)));
        let other = |parameter: &&str| parameter.split('=').next().is_none_or(|name| !name.eq_ignore_ascii_case(own));
        let kept: Vec<&str> = query.split('&').filter(other).collect();
        let mut hidden = before.to_owned();
        for (mark, text) in [("?", (!kept.is_empty()).then(|| kept.join("&"))), ("#", fragment.map(str::to_owned))] {
            if let Some(text) = text {
                hidden.push_str(mark);
                hidden.push_str(&text);
            }
        }
        if let Ok(value) = HeaderValue::from_str(&hidden) {
            headers.insert(LOCATION, value);
        }
    }
}

/// Takes out of a request what could be a credential, and puts this one in. `payload` stands for the body where the
/// request is signed.
///
/// # Errors
/// When it does not fit; the request must not be sent then.
pub fn apply(credential: &Brokered, payload: Option<&str>, parts: &mut Parts) -> Result<(), BrokerError> {
    take_out(&credential.placement, parts)?;
    match &credential.placement {
        Placement::Sigv4 { service, region } => {
            let keys = SourceKeys::of_document(&credential.value).ok_or(BrokerError::Unfit)?;
            let payload = payload.ok_or(BrokerError::Unfit)?;
            sigv4::sign(parts, &keys, service, region, payload, Timestamp::now())
        }
        _ => put_in(credential, parts),
    }
}

fn take_out(placement: &Placement, parts: &mut Parts) -> Result<(), BrokerError> {
    let placed = match placement {
        Placement::Header(name) => name.replace('_', "-"),
        _ => String::new(),
    };
    override_fields::take_out(&mut parts.headers, |name| {
        name == AUTHORIZATION.as_str() || name == COOKIE.as_str() || name == placed || CREDENTIAL_FIELDS.contains(&name)
    });
    let own = match placement {
        Placement::Query(name) => Some(name.as_str()),
        // What carries a signature is taken out where it is made anew, and a service's own `token` is a place in a list.
        Placement::Sigv4 { .. } => return Ok(()),
        _ => None,
    };
    let Some(query) = parts.uri.query() else { return Ok(()) };
    let carries = |parameter: &&str| {
        let name = parameter.split('=').next().unwrap_or_default().replace('+', " ");
        let name = percent_decode_str(&name).decode_utf8_lossy().to_ascii_lowercase();
        !CREDENTIAL_PARAMETERS.contains(&name.as_str()) && own.is_none_or(|own| !own.eq_ignore_ascii_case(&name))
    };
    // `;` once separated parameters too, and some servers still take it so.
    let kept: Vec<String> = query
        .split('&')
        .map(|piece| piece.split(';').filter(|parameter| carries(parameter)).collect::<Vec<_>>().join(";"))
        .filter(|piece| !piece.is_empty())
        .collect();
    set_query(parts, &kept.join("&"))
}

fn put_in(credential: &Brokered, parts: &mut Parts) -> Result<(), BrokerError> {
    let value = credential.value.expose();
    let (name, text) = match &credential.placement {
        Placement::Bearer => (AUTHORIZATION, joined(b"Bearer ", value)),
        Placement::Basic(user) => {
            let pair = joined(format!("{user}:").as_bytes(), value);
            (AUTHORIZATION, joined(b"Basic ", Zeroizing::new(STANDARD.encode(&*pair)).as_bytes()))
        }
        Placement::Header(name) => {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| BrokerError::Unfit)?;
            (name, joined(b"", value))
        }
        // Signed, and not put anywhere.
        Placement::Sigv4 { .. } => return Err(BrokerError::Unfit),
        Placement::Query(name) => {
            let text = std::str::from_utf8(value).map_err(|_| BrokerError::Unfit)?;
            let parameter = Zeroizing::new(format!("{name}={}", utf8_percent_encode(text, VALUE)));
            let query = match parts.uri.query().filter(|query| !query.is_empty()) {
                Some(query) => Zeroizing::new(format!("{query}&{}", *parameter)),
                None => parameter,
            };
            return set_query(parts, &query);
        }
    };
    let mut field = HeaderValue::from_bytes(&text).map_err(|_| BrokerError::Unfit)?;
    // Kept out of debug output and of the compression table of HTTP/2 (RFC 7541 section 7.1.3).
    field.set_sensitive(true);
    parts.headers.insert(name, field);
    Ok(())
}

/// The value that stands in a request in the place of this credential. Of a request that is signed, the keys whose number stands
/// in the signature.
pub fn placed(credential: &Brokered, parts: &Parts) -> Option<Zeroizing<Vec<u8>>> {
    let field = |name: &str| parts.headers.get(name).map(HeaderValue::as_bytes);
    let found = match &credential.placement {
        Placement::Bearer => field("authorization")?.strip_prefix(b"Bearer ")?.to_vec(),
        Placement::Basic(user) => {
            let pair = Zeroizing::new(STANDARD.decode(field("authorization")?.strip_prefix(b"Basic ")?).ok()?);
            pair.strip_prefix(format!("{user}:").as_bytes())?.to_vec()
        }
        Placement::Header(name) => field(name)?.to_vec(),
        Placement::Query(name) => {
            let mut parameters = parts.uri.query()?.split('&').filter_map(|parameter| parameter.split_once('='));
            percent_decode_str(parameters.find(|(found, _)| found == name)?.1).collect()
        }
        Placement::Sigv4 { .. } => {
            let number = SourceKeys::of_document(&credential.value)?.id;
            let signed = format!("Credential={number}/");
            let found = String::from_utf8_lossy(field("authorization")?).contains(&signed);
            found.then(|| credential.value.expose().to_vec())?
        }
    };
    Some(Zeroizing::new(found))
}

fn joined(prefix: &[u8], value: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(prefix.len() + value.len()));
    text.extend_from_slice(prefix);
    text.extend_from_slice(value);
    text
}

/// Sets the query of a request, without one when it is empty.
pub(super) fn set_query(parts: &mut Parts, query: &str) -> Result<(), BrokerError> {
    let path = parts.uri.path();
    let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let target = target.parse().map_err(|_| BrokerError::Unfit)?;
    let mut uri = parts.uri.clone().into_parts();
    uri.path_and_query = Some(target);
    parts.uri = http::Uri::from_parts(uri).map_err(|_| BrokerError::Unfit)?;
    Ok(())
}

/// Whether requests carry credentials in this field.
pub(super) fn is_credential_field(name: &HeaderName) -> bool {
    name == AUTHORIZATION || CREDENTIAL_FIELDS.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::credential::secret::Secret;

    fn credential(placement: Placement, value: &str) -> Brokered {
        Brokered {
            name: "key".into(),
            host: "api.example".parse().unwrap(),
            placement,
            value: Secret::new(value.as_bytes().to_vec()),
        }
    }

    fn host(text: &str) -> Host {
        text.parse().unwrap()
    }

    fn request(target: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn applied(placement: Placement, value: &str, mut parts: Parts) -> Parts {
        let broker = Broker::default();
        broker.hold(vec![credential(placement, value)]);
        given(&broker, &host("api.example"), &mut parts).unwrap();
        parts
    }

    fn field(parts: &Parts, name: &str) -> String {
        String::from_utf8_lossy(parts.headers[name].as_bytes()).into_owned()
    }

    #[test]
    fn stands_where_it_has_to() {
        let plain = || request("https://api.example/v1?a=b", &[]);
        assert_eq!(field(&applied(Placement::Bearer, "word", plain()), "authorization"), "Bearer word");
        let basic = applied(Placement::basic("me").unwrap(), "word", plain());
        assert_eq!(field(&basic, "authorization"), format!("Basic {}", STANDARD.encode("me:word")));
        let own = applied(Placement::header("X-Key").unwrap(), "word", plain());
        assert_eq!(field(&own, "x-key"), "word");
        assert!(own.headers["x-key"].is_sensitive());
        let query = applied(Placement::query("key").unwrap(), "a&b=c", plain());
        assert_eq!(query.uri, "https://api.example/v1?a=b&key=a%26b%3Dc");
        assert_eq!(applied(Placement::query("key").unwrap(), "w", request("/v1", &[])).uri, "/v1?key=w");
    }

    #[test]
    fn whatever_the_agent_sent_in_its_place_is_taken_out() {
        let fields = [
            ("Authorization", "Bearer mine"),
            ("X-Api-Key", "mine"),
            ("x-api-key", "again"),
            ("X-Goog-Api-Key", "mine"),
            ("Cookie", "session=mine"),
            ("Private-Token", "mine"),
            ("X_Api_Key", "mine"),
            ("x_goog-api_key", "mine"),
            ("Accept", "text/html"),
        ];
        let target = "/v1?key=mine&a=b&ACCESS_TOKEN=mine&%6bey=mine&c;token=mine;d&api_key=mine";
        let parts = applied(Placement::header("x-api-key").unwrap(), "ours", request(target, &fields));
        let values: Vec<_> = parts.headers.values().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        assert!(values.iter().all(|value| !value.contains("mine") && value != "again"), "{values:?}");
        assert_eq!(field(&parts, "x-api-key"), "ours");
        assert_eq!(field(&parts, "accept"), "text/html");
        assert_eq!(parts.uri, "/v1?a=b&c;d");
    }

    fn given(broker: &Broker, host: &Host, parts: &mut Parts) -> Result<(), BrokerError> {
        broker.find("key", host).and_then(|credential| apply(&credential, None, parts))
    }

    #[test]
    fn a_redirect_does_not_show_a_credential_that_stands_in_the_query() {
        let broker = Broker::default();
        broker.hold(vec![credential(Placement::query("key").unwrap(), "ours")]);
        for (location, hidden) in [
            ("https://other.example/?key=ours", "https://other.example/"),
            ("/v1/?a=b&KEY=ours&c#key=d", "/v1/?a=b&c#key=d"),
            ("/v1/", "/v1/"),
        ] {
            let mut headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static(location))]);
            broker.hide("key", &mut headers);
            assert_eq!(headers[LOCATION], hidden);
        }
    }

    #[test]
    fn is_for_its_own_host_alone_and_gone_when_it_is_withdrawn() {
        let broker = Broker::default();
        let apply = |broker: &Broker, at: &str| given(broker, &host(at), &mut request("/", &[]));
        assert_eq!(apply(&broker, "api.example"), Err(BrokerError::Absent));
        broker.hold(vec![credential(Placement::Bearer, "old")]);
        assert_eq!(apply(&broker, "api.example"), Ok(()));
        assert_eq!(apply(&broker, "other.example"), Err(BrokerError::Absent));
        broker.hold(vec![credential(Placement::Bearer, "new")]);
        let mut parts = request("/", &[]);
        given(&broker, &host("api.example"), &mut parts).unwrap();
        assert_eq!(field(&parts, "authorization"), "Bearer new");
        broker.withdraw(&["key".to_owned()]);
        assert_eq!(apply(&broker, "api.example"), Err(BrokerError::Absent));
    }

    #[test]
    fn a_value_that_would_split_the_request_is_not_sent() {
        let broker = Broker::default();
        broker.hold(vec![credential(Placement::Bearer, "a\r\nHost: other")]);
        assert_eq!(given(&broker, &host("api.example"), &mut request("/", &[])), Err(BrokerError::Unfit));
        assert!(!format!("{broker:?}").contains("other"), "a value is in debug output");
    }
}
