//! The developer's own keys, with which a role is assumed: from the environment, a profile of the shared credentials file,
//! or a command that answers as a `credential_process` does. They sign one request and go nowhere else.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use serde_json::Value;

use super::error::StsError;
use crate::credential::secret::Secret;
use crate::credential::spec::{AwsSource, AwsStsSpec};
use crate::credential::wiped::Wiped;
use crate::credential::{IssueContext, exec};
use crate::project::CredentialName;

/// The largest credentials file, in bytes.
const FILE_LIMIT: usize = 256 << 10;

/// What the developer's environment says of AWS ("Environment variables", AWS SDKs and Tools reference).
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key_id: Option<String>,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: Option<Secret>,
    /// `AWS_SESSION_TOKEN`.
    pub session_token: Option<Secret>,
    /// `AWS_PROFILE`.
    pub profile: Option<String>,
    /// `AWS_SHARED_CREDENTIALS_FILE`, or `~/.aws/credentials`.
    pub credentials_file: PathBuf,
}

/// Keys that sign.
#[derive(Debug)]
pub(crate) struct SourceKeys {
    pub(crate) id: String,
    pub(crate) secret: Secret,
    /// Of keys that are themselves of a session.
    pub(crate) session: Option<Secret>,
}

impl SourceKeys {
    /// Reads what a `credential_process` prints; none when it is something else.
    pub(crate) fn of_document(document: &Secret) -> Option<Self> {
        let document = Wiped(serde_json::from_slice(document.expose()).unwrap_or(Value::Null));
        let word = |key: &str| document.0.get(key).and_then(Value::as_str).filter(|word| !word.is_empty());
        let value = |word: &str| Secret::new(word.as_bytes().to_vec());
        checked(word("AccessKeyId")?, value(word("SecretAccessKey")?), word("SessionToken").map(value)).ok()
    }
}

pub(super) async fn keys(
    name: &CredentialName,
    spec: &AwsStsSpec,
    context: &IssueContext<'_>,
) -> Result<SourceKeys, StsError> {
    let own = &context.aws;
    match &spec.source {
        AwsSource::Command(command) => {
            let answer = exec::issue(command, &exec::Request::new(name, context, None)).await?;
            SourceKeys::of_document(&answer.value).ok_or(StsError::CommandAnswer)
        }
        AwsSource::Profile(profile) => of_file(&own.credentials_file, profile),
        // Nobody asks for keys then: the identity stands in the form, and the request is not signed.
        AwsSource::Identity(_) => Err(StsError::KeyId),
        AwsSource::Environment => match (&own.access_key_id, &own.secret_access_key) {
            (Some(id), Some(secret)) => checked(id, secret.clone(), own.session_token.clone()),
            _ => of_file(&own.credentials_file, own.profile.as_deref().unwrap_or("default")),
        },
    }
}

/// An id that can stand in a header; the rest is not looked at.
fn checked(id: &str, secret: Secret, session: Option<Secret>) -> Result<SourceKeys, StsError> {
    let plain = (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if plain { Ok(SourceKeys { id: id.to_owned(), secret, session }) } else { Err(StsError::KeyId) }
}

fn of_file(path: &PathBuf, profile: &str) -> Result<SourceKeys, StsError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => StsError::NoKeys { path: path.clone(), profile: profile.to_owned() },
        _ => StsError::File { path: path.clone(), source },
    };
    let text = Secret::read(File::open(path).map_err(failed)?, FILE_LIMIT).map_err(failed)?;
    let [id, secret, session] = section(text.expose(), profile);
    let none = || StsError::NoKeys { path: path.clone(), profile: profile.to_owned() };
    let id = id.and_then(|id| std::str::from_utf8(id).ok()).ok_or_else(none)?;
    let secret = secret.ok_or_else(none)?;
    checked(id, Secret::new(secret.to_vec()), session.map(|token| Secret::new(token.to_vec())))
}

/// Key id, secret and session token of a profile ("Shared config and credentials files": `[NAME]`, then `key = value`).
fn section<'a>(text: &'a [u8], profile: &str) -> [Option<&'a [u8]>; 3] {
    let mut found = [None; 3];
    let mut within = false;
    for line in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        if let Some(rest) = line.strip_prefix(b"[") {
            within = rest.strip_suffix(b"]").is_some_and(|name| name.trim_ascii() == profile.as_bytes());
        } else if within
            && !line.starts_with(b"#")
            && !line.starts_with(b";")
            && let Some(at) = line.iter().position(|byte| *byte == b'=')
        {
            let (key, value) = (line[..at].trim_ascii().to_ascii_lowercase(), line[at + 1..].trim_ascii());
            let keys: [&[u8]; 3] = [b"aws_access_key_id", b"aws_secret_access_key", b"aws_session_token"];
            if let Some(index) = keys.iter().position(|known| *known == key)
                && !value.is_empty()
            {
                found[index] = Some(value);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_one_profile_of_several() {
        let text = b"[default]\naws_access_key_id=A1\naws_secret_access_key = s/+=1\n\n# [work]\n[work]\r\nAWS_ACCESS_KEY_ID = B2\r\n\
            aws_secret_access_key = t\naws_session_token = x==\n; aws_session_token = y\nregion = eu\n[ other ]\n";
        let of =
            |profile| section(text, profile).map(|value| value.map(|value| String::from_utf8(value.to_vec()).unwrap()));
        assert_eq!(of("default"), [Some("A1".to_owned()), Some("s/+=1".to_owned()), None]);
        assert_eq!(of("work"), [Some("B2".to_owned()), Some("t".to_owned()), Some("x==".to_owned())]);
        assert_eq!(of("other"), [None, None, None]);
        assert_eq!(of("absent"), [None, None, None]);
    }

    #[test]
    fn an_id_that_breaks_a_header_is_refused() {
        for id in ["", "A B", "A\nB", "A/B", "A,B"] {
            assert!(checked(id, Secret::new(b"s".to_vec()), None).is_err(), "{id:?}");
        }
    }
}
