//! Logins of registries as Docker's configuration has them (docker login, "Credential stores"). Reading the file and
//! running a helper is not done here: `commands` does.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::HeaderValue;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::credential::secret::Secret;

/// Docker Hub's key in the configuration, and its registry.
const HUB: (&str, &str) = ("https://index.docker.io/v1/", "docker.io");

/// What a registry is shown.
#[derive(Clone)]
pub enum Login {
    /// A name and a password, or an access token in its place.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token, which the token service exchanges for tokens.
    Identity(Secret),
}

impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(formatter, "Login::Password({user:?}, …)"),
            Self::Identity(_) => formatter.write_str("Login::Identity(…)"),
        }
    }
}

impl Login {
    /// The value of `Authorization` for a password (RFC 7617).
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let Self::Password { user, password } = self else { return None };
        // A colon would move the border between name and password.
        if user.contains(':') {
            return None;
        }
        let mut plain = Zeroizing::new(Vec::with_capacity(user.len() + 1 + password.len()));
        plain.extend_from_slice(user.as_bytes());
        plain.push(b':');
        plain.extend_from_slice(password.expose());
        let mut text = Zeroizing::new(b"Basic ".to_vec());
        let mut encoded = Zeroizing::new(vec![0; plain.len().div_ceil(3) * 4]);
        let length = STANDARD.encode_slice(&*plain, &mut encoded).ok()?;
        text.reserve_exact(length);
        text.extend_from_slice(&encoded[..length]);
        sensitive(text)
    }

    /// The body of a request for a token with a refresh token ("Authenticate via OAuth2" of the Distribution project).
    pub(super) fn exchange(&self, service: Option<&str>, scope: &str) -> Option<Zeroizing<String>> {
        let Self::Identity(token) = self else { return None };
        let fields: [(&str, &[u8]); 5] = [
            ("grant_type", b"refresh_token"),
            ("service", service.unwrap_or_default().as_bytes()),
            ("client_id", b"sandbox"),
            ("scope", scope.as_bytes()),
            ("refresh_token", token.expose()),
        ];
        // The text never grows, since growing would leave copies of the token behind.
        let room = fields.iter().map(|(name, value)| name.len() + 2 + 3 * value.len()).sum();
        let mut form = Zeroizing::new(String::with_capacity(room));
        for (name, value) in fields {
            if !form.is_empty() {
                form.push('&');
            }
            form.push_str(name);
            form.push('=');
            for &byte in value {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    form.push(char::from(byte));
                } else {
                    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0').to_ascii_uppercase();
                    form.extend(['%', digit(byte >> 4), digit(byte & 15)]);
                }
            }
        }
        Some(form)
    }
}

/// The value of `Authorization` for a token of a token service.
pub(super) fn bearer(token: &Secret) -> Option<HeaderValue> {
    let mut text = Zeroizing::new(Vec::with_capacity(7 + token.len()));
    text.extend_from_slice(b"Bearer ");
    text.extend_from_slice(token.expose());
    sensitive(text)
}

/// The buffer is wiped when the last user of the header drops it.
fn sensitive(text: Zeroizing<Vec<u8>>) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Why Docker's configuration has no login to use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// It is no JSON, or not of the form.
    #[error("it is not a configuration of Docker")]
    Form,
    /// The entry of a registry is broken.
    #[error("its entry for {0} is not base64 of a name, a colon and a password")]
    Entry(String),
    /// The name of a helper is no word.
    #[error("`{}` is not the name of a credential helper", .0.escape_debug())]
    Helper(String),
}

/// Where the login of a registry is.
#[derive(Debug)]
pub enum LoginSource {
    /// In the file.
    Here(Login),
    /// With the program `docker-credential-NAME`, under this server's name.
    Helper {
        /// The program.
        program: String,
        /// What it calls the registry.
        server: String,
    },
    /// Nowhere.
    None,
}

/// The part of Docker's `config.json` that is about logins.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct DockerLogins {
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    #[serde(deserialize_with = "secret")]
    auth: Option<Secret>,
    #[serde(rename = "identitytoken", deserialize_with = "secret")]
    identity: Option<Secret>,
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.filter(|text| !text.is_empty()).map(|text| Secret::new(text.into_bytes())))
}

impl DockerLogins {
    /// Parses the configuration.
    ///
    /// # Errors
    /// When it is not of the form; the error does not quote it.
    pub fn parse(text: &Secret) -> Result<Self, LoginError> {
        serde_json::from_slice(text.expose()).map_err(|_| LoginError::Form)
    }

    /// Where the login of a registry is: its own helper first, then the common one, then the file.
    ///
    /// # Errors
    /// When the entry is broken.
    pub fn find(&self, registry: &str) -> Result<LoginSource, LoginError> {
        let own = self.helpers.get(registry).or(self.store.as_ref()).filter(|name| !name.is_empty());
        if let Some(name) = own {
            let word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if name.len() > 60 || !name.bytes().all(word) {
                return Err(LoginError::Helper(name.chars().take(60).collect()));
            }
            let server = if registry == HUB.1 { HUB.0 } else { registry };
            let program = format!("docker-credential-{name}");
            return Ok(LoginSource::Helper { program, server: server.to_owned() });
        }
        let Some((_, entry)) = self.auths.iter().find(|(server, _)| host_of(server) == registry) else {
            return Ok(LoginSource::None);
        };
        if let Some(token) = &entry.identity {
            return Ok(LoginSource::Here(Login::Identity(token.clone())));
        }
        let Some(auth) = &entry.auth else { return Ok(LoginSource::None) };
        let broken = || LoginError::Entry(registry.to_owned());
        let plain = Zeroizing::new(STANDARD.decode(auth.expose()).map_err(|_| broken())?);
        let colon = plain.iter().position(|&byte| byte == b':').ok_or_else(broken)?;
        let user = std::str::from_utf8(&plain[..colon]).map_err(|_| broken())?.to_owned();
        // Docker pads with zero bytes.
        let password = plain[colon + 1..].trim_ascii_end().split(|&byte| byte == 0).next().unwrap_or_default();
        Ok(LoginSource::Here(Login::Password { user, password: Secret::new(password.to_vec()) }))
    }
}

/// The registry of a key of `auths`, which may be an address.
fn host_of(server: &str) -> &str {
    if server == HUB.0 {
        return HUB.1;
    }
    let rest = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    rest.split('/').next().unwrap_or(rest)
}

#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username")]
    user: String,
    #[serde(rename = "Secret", deserialize_with = "secret")]
    secret: Option<Secret>,
}

/// The login in what a helper answers to `get` (docker-credential-helpers, "Usage").
pub fn helper_answer(output: &[u8]) -> Option<Login> {
    let answer: HelperAnswer = serde_json::from_slice(output).ok()?;
    let secret = answer.secret?;
    Some(if answer.user == "<token>" {
        Login::Identity(secret)
    } else {
        Login::Password { user: answer.user, password: secret }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(config: &str, registry: &str) -> Result<LoginSource, LoginError> {
        DockerLogins::parse(&Secret::new(config.as_bytes().to_vec()))?.find(registry)
    }

    #[test]
    fn finds_names_and_passwords_under_every_form_of_the_key() {
        // ada:pass:word
        let auth = r#"{"auth":"YWRhOnBhc3M6d29yZA=="}"#;
        for (key, registry) in [
            ("ghcr.io", "ghcr.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("https://registry.example.com:5000/v2/", "registry.example.com:5000"),
        ] {
            let config = format!(r#"{{"auths":{{"{key}":{auth}}},"HttpHeaders":{{}}}}"#);
            let LoginSource::Here(login) = find(&config, registry).unwrap() else { panic!("{key}") };
            let header = login.basic().unwrap();
            assert!(header.is_sensitive());
            assert_eq!(header.to_str().unwrap(), "Basic YWRhOnBhc3M6d29yZA==");
            assert!(!format!("{login:?}").contains("pass:"));
            assert!(matches!(find(&config, "other.example.com").unwrap(), LoginSource::None));
        }
    }

    #[test]
    fn a_helper_of_the_registry_goes_before_the_store_and_the_file() {
        let config = r#"{"auths":{"a.example":{"auth":"YTpi"},"b.example":{"auth":"YTpi"}},
            "credsStore":"pass","credHelpers":{"a.example":"ecr-login"}}"#;
        let program = |registry| match find(config, registry).unwrap() {
            LoginSource::Helper { program, server } => (program, server),
            other => panic!("{other:?}"),
        };
        assert_eq!(program("a.example"), ("docker-credential-ecr-login".into(), "a.example".into()));
        assert_eq!(program("docker.io"), ("docker-credential-pass".into(), "https://index.docker.io/v1/".into()));
    }

    #[test]
    fn refuses_broken_entries_without_quoting_them_and_helpers_that_are_paths() {
        let error = find(r#"{"auths":{"a.example":{"auth":"canary"}}}"#, "a.example").unwrap_err();
        assert!(!error.to_string().contains("canary"));
        assert_eq!(find(r#"{"auths":{"a":"canary"}}"#, "a").unwrap_err(), LoginError::Form);
        assert!(matches!(find(r#"{"credsStore":"../../bin/sh"}"#, "a"), Err(LoginError::Helper(_))));
    }

    #[test]
    fn reads_what_helpers_answer() {
        let token = helper_answer(br#"{"ServerURL":"x","Username":"<token>","Secret":"t&t"}"#).unwrap();
        let form = token.exchange(Some("s"), "repository:a:pull").unwrap();
        assert!(form.ends_with("&scope=repository%3Aa%3Apull&refresh_token=t%26t"), "{}", *form);
        assert!(matches!(helper_answer(br#"{"Username":"u","Secret":"p"}"#), Some(Login::Password { .. })));
        assert!(helper_answer(br#"{"Username":"u","Secret":""}"#).is_none());
        assert!(helper_answer(b"credentials not found in native keychain").is_none());
    }
}
