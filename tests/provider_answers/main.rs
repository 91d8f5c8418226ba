//! Whatever an issuer answers, nothing of it is shown but what was looked at: no secret is in an error, in its debugging
//! form, in a handle or scope, or in the log at its finest level.
#![allow(clippy::unwrap_used)]

mod scene;

use proptest::prelude::*;
use serde_json::{Value, json};

use scene::{Answer, CANARY, Scene, leaked};

/// How an answer differs from the one that is right.
#[derive(Debug, Clone)]
enum Change {
    /// The rest is missing.
    Cut(prop::sample::Index),
    /// Other bytes stand somewhere in it.
    Bytes(prop::sample::Index, Vec<u8>),
    /// Another value stands in the document.
    Value(prop::sample::Index, usize),
    /// It is refused, in the words of one issuer or another.
    Refused(usize, u16),
    Status(u16),
}

static STATUSES: [u16; 10] = [200, 201, 204, 301, 307, 400, 401, 403, 404, 500];

fn change() -> impl Strategy<Value = Change> {
    let status = || prop::sample::select(&STATUSES[..]);
    prop_oneof![
        2 => any::<prop::sample::Index>().prop_map(Change::Cut),
        2 => (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..12)).prop_map(|(at, bytes)| Change::Bytes(at, bytes)),
        6 => (any::<prop::sample::Index>(), 0..values().len()).prop_map(|(at, value)| Change::Value(at, value)),
        4 => (0..refusals().len(), status()).prop_map(|(words, status)| Change::Refused(words, status)),
        1 => status().prop_map(Change::Status),
    ]
}

/// What may stand in place of a value.
fn values() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(-1),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!(CANARY),
        json!(format!("token={CANARY}")),
        json!(format!("\u{1b}[2J{CANARY}\u{202e}")),
        json!(format!("{CANARY}|x|https://{CANARY}.example.com")),
        json!([CANARY, { "token": CANARY }]),
        json!({ CANARY: CANARY }),
        json!("x".repeat(70_000)),
    ]
}

/// Refusals that quote what they refuse.
fn refusals() -> Vec<String> {
    let text = format!("the token {CANARY} is not good, nor is \"{CANARY}\"");
    vec![
        json!({ "errors": [text, format!("secret:{CANARY}"), CANARY] }).to_string(),
        json!({ "message": text, "documentation_url": CANARY }).to_string(),
        json!({ "error": CANARY, "error_description": text }).to_string(),
        json!({ "error": { "type": CANARY, "status": CANARY, "message": text } }).to_string(),
        format!("<ErrorResponse><Error><Code>{CANARY}</Code><Message>{text}</Message></Error></ErrorResponse>"),
        format!("<html>{CANARY}</html>"),
        CANARY.to_owned(),
    ]
}

fn apply(answer: &mut Answer, change: &Change) {
    match change {
        Change::Cut(at) => {
            let length = at.index(answer.body.len() + 1);
            answer.body.truncate(length);
        }
        Change::Bytes(at, bytes) => {
            let at = at.index(answer.body.len() + 1);
            answer.body.splice(at..at, bytes.iter().copied());
        }
        Change::Value(at, value) => {
            let value = &values()[*value];
            put(answer, at.index(places(answer)), value);
        }
        Change::Refused(words, status) => {
            answer.body = refusals()[*words].clone().into_bytes();
            answer.status = *status;
        }
        Change::Status(status) => answer.status = *status,
    }
}

/// In how many places of an answer a value may stand.
fn places(answer: &Answer) -> usize {
    match serde_json::from_slice::<Value>(&answer.body) {
        Ok(document) => {
            let mut places = Vec::new();
            find(&document, String::new(), &mut places);
            places.len()
        }
        Err(_) => String::from_utf8_lossy(&answer.body).split('>').count(),
    }
}

/// Puts another value into one of them.
fn put(answer: &mut Answer, place: usize, value: &Value) {
    match serde_json::from_slice::<Value>(&answer.body) {
        Ok(mut document) => {
            let mut places = Vec::new();
            find(&document, String::new(), &mut places);
            *document.pointer_mut(&places[place]).unwrap() = value.clone();
            answer.body = document.to_string().into_bytes();
        }
        Err(_) => {
            // Between two tags, as XML has it.
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            let mut pieces: Vec<String> = text.split('>').map(str::to_owned).collect();
            let tag = pieces[place].find('<').map_or(String::new(), |at| pieces[place][at..].to_owned());
            let plain = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            pieces[place] = format!("{plain}{tag}");
            answer.body = pieces.join(">").into_bytes();
        }
    }
}

/// The places of a document.
fn find(value: &Value, place: String, places: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                find(field, format!("{place}/{}", key.replace('~', "~0").replace('/', "~1")), places);
            }
        }
        Value::Array(fields) => {
            for (index, field) in fields.iter().enumerate() {
                find(field, format!("{place}/{index}"), places);
            }
        }
        _ => {}
    }
    places.push(place);
}

/// Secrets where an issuer has ids, names and ends.
#[test]
fn no_secret_in_any_place_of_an_answer_is_shown() {
    let scene = Scene::new();
    for case in scene.cases() {
        for which in 0..case.open {
            for place in 0..places(&case.answers[which]) {
                for value in [json!(CANARY), json!(format!("token={CANARY}"))] {
                    let mut answers = case.answers.clone();
                    put(&mut answers[which], place, &value);
                    let shown = scene.shown(&case, &answers);
                    let said = String::from_utf8_lossy(&answers[which].body).into_owned();
                    assert!(leaked(&shown).is_none(), "{}: {shown}\nanswered: {said}", case.name);
                }
            }
        }
    }
}

#[test]
fn no_answer_of_an_issuer_is_shown() {
    let scene = Scene::new();
    let cases = if std::env::var_os("SANDBOX_TEST_FULL").is_some() { 2000 } else { 60 };
    for case in scene.cases() {
        // What is right is taken, or nothing would be shown of it either.
        let good = scene.shown(&case, &case.answers);
        assert!(good.starts_with("Issued"), "{}: {good}", case.name);
        assert_eq!(leaked(&good), None, "{}: {good}", case.name);
        let configuration = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
        // What a command of the user's own says is shown, but for its value, so that value has to be known.
        let most = if case.name.starts_with("exec") { 1 } else { 2 };
        let changes = (0..case.open, prop::collection::vec(change(), 1..=most));
        let done = proptest::test_runner::TestRunner::new(configuration).run(&changes, |(which, changes)| {
            let mut answers = case.answers.clone();
            for change in &changes {
                apply(&mut answers[which], change);
            }
            let shown = scene.shown(&case, &answers);
            let said = String::from_utf8_lossy(&answers[which].body).into_owned();
            prop_assert!(leaked(&shown).is_none(), "{:?} is in: {shown}\nanswered: {said}", leaked(&shown));
            Ok(())
        });
        assert!(done.is_ok(), "{}: {}", case.name, done.unwrap_err());
    }
}
