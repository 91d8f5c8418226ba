//! Servers that hang, overflow, redirect, or grant more than they were asked for.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sandbox::credential::vault::VaultError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::{Side, spec};

/// Requests as they came, without bodies.
type Seen = Arc<Mutex<Vec<String>>>;

/// A server that answers each request line by `answer`: a status line with further headers, and a body. None hangs.
async fn serve(answer: impl Fn(&str) -> Option<(String, String)> + Send + Sync + 'static) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let seen = Seen::default();
    let (kept, answer) = (Arc::clone(&seen), Arc::new(answer));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|window| window == b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read_exact(&mut byte).await.is_err() {
                        return;
                    }
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                kept.lock().unwrap().push(head.clone());
                let Some((status, body)) = answer(&head) else {
                    tokio::time::sleep(Duration::from_secs(600)).await;
                    return;
                };
                let text =
                    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.shutdown().await;
                // Closing with an unread body would reset the connection before the answer is read.
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            });
        }
    });
    (address, seen)
}

fn ok(body: &str) -> Option<(String, String)> {
    Some(("200 OK".to_owned(), body.to_owned()))
}

#[tokio::test]
async fn a_server_that_hangs_is_left() {
    let (address, _) = serve(|_| None).await;
    let start = Instant::now();
    let refused = Side::new(&address, "t").refused(&spec("secret/x", &["key"])).await;
    assert!(matches!(refused, VaultError::Timeout { .. }), "{refused:?}");
    assert!(start.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn a_busy_server_is_asked_three_times() {
    let (address, seen) = serve(|_| Some(("429 Too Many Requests".to_owned(), String::new()))).await;
    let refused = Side::new(&address, "t").refused(&spec("secret/x", &["key"])).await;
    assert!(matches!(refused, VaultError::Busy { status: 429, .. }), "{refused:?}");
    assert_eq!(seen.lock().unwrap().len(), 3);
}

/// Of a gateway before the server, or of a standby that does not know the active node yet: nothing was done.
#[tokio::test]
async fn a_server_that_is_busy_for_a_moment_is_used_when_it_is_not() {
    for status in ["429 Too Many Requests", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"] {
        let left = std::sync::atomic::AtomicU32::new(2);
        let (address, seen) = serve(move |head| {
            let busy = head.starts_with("POST /v1/auth/token/create ")
                && left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
            if busy { Some((status.to_owned(), "<html>later</html>".to_owned())) } else { stored(head) }
        })
        .await;
        let issued = Side::new(&address, "s.developer").issue(&spec("secret/x", &["key"])).await.unwrap();
        assert_eq!(issued.value.expose(), b"of-the-active-node");
        let asked = seen.lock().unwrap().iter().filter(|head| head.starts_with("POST /v1/auth/token/create ")).count();
        assert_eq!(asked, 3, "{status}");
    }
}

#[tokio::test]
async fn a_server_with_a_fault_is_asked_once_and_its_words_are_quoted() {
    let answer = || Some(("500 Internal Server Error".to_owned(), r#"{"errors":["storage is gone"]}"#.to_owned()));
    let (address, seen) = serve(move |_| answer()).await;
    let refused = Side::new(&address, "t").refused(&spec("secret/x", &["key"])).await;
    assert!(matches!(&refused, VaultError::Failed { status: 500, .. }), "{refused:?}");
    assert!(refused.to_string().contains("storage is gone"), "{refused}");
    assert_eq!(seen.lock().unwrap().len(), 1);
}

/// What a server with a stored value answers to a token of its own.
fn stored(head: &str) -> Option<(String, String)> {
    match head.split(' ').nth(1).unwrap() {
        "/v1/auth/token/create" => {
            ok(r#"{"auth":{"client_token":"s.child","accessor":"a1","policies":["default"],"lease_duration":600}}"#)
        }
        "/v1/sys/internal/ui/mounts/secret/x" => {
            ok(r#"{"data":{"type":"kv","path":"secret/","options":{"version":"1"}}}"#)
        }
        "/v1/secret/x" => ok(r#"{"data":{"key":"of-the-active-node"}}"#),
        "/v1/auth/token/revoke-self" => Some(("204 No Content".to_owned(), String::new())),
        _ => ok(r#"{"data":{"ttl":0}}"#),
    }
}

#[tokio::test]
async fn a_standby_is_left_for_the_active_node_at_each_call() {
    let (active, took) = serve(stored).await;
    let (standby, seen) = serve(move |head| {
        let path = head.split(' ').nth(1).unwrap();
        Some((format!("307 Temporary Redirect\r\nlocation: {active}{path}"), String::new()))
    })
    .await;
    let mut asked = spec("secret/x", &["key"]);
    asked.namespace = Some("team/payments".to_owned());
    let issued = Side::new(&standby, "s.developer").issue(&asked).await.unwrap();
    assert_eq!(issued.value.expose(), b"of-the-active-node");
    let took = took.lock().unwrap();
    assert_eq!(took.len(), seen.lock().unwrap().len());
    assert!(took.iter().all(|head| head.contains("x-vault-namespace: team/payments\r\n")), "{took:?}");
    assert!(took.iter().any(|head| head.starts_with("POST /v1/auth/token/revoke-self ")), "{took:?}");
}

#[tokio::test]
async fn an_endless_answer_is_not_read() {
    let (address, _) = serve(|_| ok(&format!("\"{}\"", "x".repeat(1 << 20)))).await;
    let refused = Side::new(&address, "t").refused(&spec("secret/x", &["key"])).await;
    assert!(matches!(refused, VaultError::Answer(_)), "{refused:?}");
}

#[tokio::test]
async fn a_token_follows_no_redirection_to_another_path() {
    let (stranger, took) = serve(|_| ok("{}")).await;
    let (address, _) =
        serve(move |_| Some((format!("307 Temporary Redirect\r\nlocation: {stranger}/steal"), String::new()))).await;
    let refused = Side::new(&address, "t").refused(&spec("secret/x", &["key"])).await;
    assert!(matches!(refused, VaultError::Redirection(_)), "{refused:?}");
    assert!(took.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_child_with_more_than_was_asked_for_is_revoked_and_not_used() {
    for (policies, seconds) in [(r#"["default","payments","admin"]"#, 600), (r#"["payments"]"#, 601)] {
        let child = format!(
            r#"{{"auth":{{"client_token":"s.child","accessor":"a1","policies":{policies},"lease_duration":{seconds}}}}}"#
        );
        let (address, seen) = serve(move |head| match head {
            _ if head.starts_with("POST /v1/auth/token/create ") => ok(&child),
            _ if head.starts_with("POST /v1/auth/token/revoke-self ") => Some(("204 No Content".into(), String::new())),
            _ => ok(r#"{"data":{"ttl":0}}"#),
        })
        .await;
        let asked = sandbox::credential::spec::VaultSpec {
            policies: vec!["payments".to_owned()],
            ..spec("secret/x", &["key"])
        };
        let refused = Side::new(&address, "s.developer").refused(&asked).await;
        assert!(matches!(refused, VaultError::Wider(_)), "{refused:?}");
        let seen = seen.lock().unwrap();
        let revoked = seen.iter().find(|head| head.contains("revoke-self")).unwrap();
        assert!(revoked.contains("x-vault-token: s.child"), "{revoked}");
        assert!(!seen.iter().any(|head| head.contains("secret/x")), "it was used: {seen:?}");
    }
}
