//! What a command answers: our own JSON, an `ExecCredential` of Kubernetes (client.authentication.k8s.io, "client-go
//! credential plugins"), the JSON of an AWS `credential_process` (AWS SDKs reference, "Process credential provider"), or
//! else text.

use jiff::Timestamp;
use serde_json::Value;

use crate::credential::secret::Secret;
use crate::credential::wiped::Wiped;

/// The longest handle and the longest scope, in bytes.
const WORD_LIMIT: usize = 1024;
/// From this length on a value is looked for in the fields that are shown and stored. Shorter ones are in everything.
const RECOGNISABLE: usize = 6;

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    /// The value.
    pub value: Secret,
    /// When it runs out.
    pub expires_at: Option<Timestamp>,
    /// By what it is revoked.
    pub handle: Option<String>,
    /// What it is good for.
    pub scope: Option<String>,
}

impl Answer {
    fn of(value: &[u8], expires_at: Option<Timestamp>) -> Self {
        Self { value: Secret::new(value.to_vec()), expires_at, handle: None, scope: None }
    }
}

/// Reads an answer. An error says what is wrong, and never quotes it.
pub(super) fn parse(output: &[u8]) -> Result<Answer, &'static str> {
    let text = output.strip_suffix(b"\n").unwrap_or(output);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.is_empty() {
        return Err("it is empty");
    }
    if !text.trim_ascii_start().starts_with(b"{") {
        return Ok(Answer::of(text, None));
    }
    // Text that only begins like JSON is a value like any other.
    let Ok(document) = serde_json::from_slice(text) else { return Ok(Answer::of(text, None)) };
    let document = Wiped(document);
    let Wiped(document) = &document;
    if document.get("kind").and_then(Value::as_str) == Some("ExecCredential") {
        return kubernetes(document);
    }
    if document.get("AccessKeyId").is_some() {
        return aws(document, text);
    }
    if document.get("value").is_some() || document.get("files").is_some() {
        return ours(document);
    }
    Ok(Answer::of(text, None))
}

fn kubernetes(document: &Value) -> Result<Answer, &'static str> {
    let status = document.get("status").ok_or("an ExecCredential without `status`")?;
    let token = status.get("token").and_then(Value::as_str).ok_or("an ExecCredential without `status.token`")?;
    Ok(Answer::of(token.as_bytes(), time(status.get("expirationTimestamp"))?))
}

fn aws(document: &Value, text: &[u8]) -> Result<Answer, &'static str> {
    if document.get("Version").and_then(Value::as_u64) != Some(1) {
        return Err("AWS credentials whose `Version` is not 1");
    }
    if document.get("SecretAccessKey").and_then(Value::as_str).is_none() {
        return Err("AWS credentials without `SecretAccessKey`");
    }
    // The whole document is the value: tools of AWS read it through a `credential_process` of their own.
    Ok(Answer::of(text, time(document.get("Expiration"))?))
}

fn ours(document: &Value) -> Result<Answer, &'static str> {
    if document.get("files").is_some() {
        return Err("it has `files`, which this version does not deliver; answer with one `value` for each credential");
    }
    let value = document.get("value").and_then(Value::as_str).ok_or("a `value` that is not text")?;
    let word = |key: &str| match document.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() > WORD_LIMIT => Err("a `handle` or `scope` that is too long"),
        Some(Value::String(text)) if text.chars().any(char::is_control) => {
            Err("a `handle` or `scope` with control characters")
        }
        // Both are stored and shown.
        Some(Value::String(text)) if value.len() >= RECOGNISABLE && text.contains(value) => {
            Err("a `handle` or `scope` that holds the value")
        }
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err("a `handle` or `scope` that is not text"),
    };
    let (handle, scope) = (word("handle")?, word("scope")?);
    Ok(Answer { handle, scope, ..Answer::of(value.as_bytes(), time(document.get("expires_at"))?) })
}

fn time(value: Option<&Value>) -> Result<Option<Timestamp>, &'static str> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => text.parse().map(Some).map_err(|_| "a time that is not in RFC 3339"),
        Some(_) => Err("a time that is not text"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn value(output: &str) -> (String, Option<Timestamp>) {
        let answer = parse(output.as_bytes()).unwrap();
        (String::from_utf8(answer.value.expose().to_vec()).unwrap(), answer.expires_at)
    }

    #[test]
    fn understands_all_four_formats() {
        let end: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(value("plain\n"), ("plain".to_owned(), None));
        assert_eq!(value("plain\r\n"), ("plain".to_owned(), None));
        assert_eq!(value("two\nlines\n\n").0, "two\nlines\n");
        let kubernetes = r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"t","expirationTimestamp":"2030-01-01T00:00:00Z"}}"#;
        assert_eq!(value(kubernetes), ("t".to_owned(), Some(end)));
        let aws = r#"{"Version":1,"AccessKeyId":"ASIA1","SecretAccessKey":"s","SessionToken":"t","Expiration":"2030-01-01T00:00:00Z"}"#;
        assert_eq!(value(aws), (aws.to_owned(), Some(end)));
        let ours = r#"{"value":"v","expires_at":"2030-01-01T00:00:00Z","handle":"h1","scope":"read"}"#;
        assert_eq!(value(ours), ("v".to_owned(), Some(end)));
        let ours = parse(ours.as_bytes()).unwrap();
        assert_eq!((ours.handle.as_deref(), ours.scope.as_deref()), (Some("h1"), Some("read")));
    }

    #[test]
    fn takes_other_json_for_the_value_itself() {
        for text in [r#"{"some":"document"}"#, "{not json", "[1]", r#"{"kind":"Other"}"#] {
            assert_eq!(value(text), (text.to_owned(), None));
        }
    }

    #[test]
    fn refuses_answers_that_cannot_be_used_and_quotes_nothing_of_them() {
        for output in [
            "",
            "\n",
            r#"{"value":5}"#,
            r#"{"value":"canary-1","expires_at":"soon"}"#,
            r#"{"value":"canary-1","expires_at":5}"#,
            r#"{"value":"canary-1","handle":"xcanary-1x"}"#,
            r#"{"value":"canary-1","scope":"canary-1"}"#,
            r#"{"value":"canary-1","handle":"a\u001b[2J"}"#,
            r#"{"value":"canary-1","handle":{}}"#,
            r#"{"files":{"a":"canary-1"}}"#,
            r#"{"kind":"ExecCredential"}"#,
            r#"{"kind":"ExecCredential","status":{"clientKeyData":"canary-1"}}"#,
            r#"{"AccessKeyId":"canary-1"}"#,
            r#"{"Version":2,"AccessKeyId":"canary-1","SecretAccessKey":"canary-1"}"#,
        ] {
            let problem = parse(output.as_bytes()).unwrap_err();
            assert!(!problem.contains("canary"), "{output}");
        }
    }

    proptest! {
        #[test]
        fn text_is_the_value_whatever_it_holds(text in "[^{\\s]\\PC{0,200}") {
            prop_assert_eq!(value(&format!("{text}\n")).0, text);
        }

        #[test]
        fn a_value_in_json_comes_back_whole(text in any::<String>()) {
            let ours = json!({ "value": text }).to_string();
            prop_assert_eq!(value(&ours).0, text.clone());
            let kubernetes = json!({ "kind": "ExecCredential", "status": { "token": text } }).to_string();
            prop_assert_eq!(value(&kubernetes).0, text);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = parse(&[b"{", bytes.as_slice()].concat());
        }
    }
}
