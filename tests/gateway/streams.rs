//! Bodies and connections that go on for long: events, uploads and WebSockets pass as they come, and outlive the credential that
//! they began with.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, upgrade};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::sync::Notify;

use crate::harness::{Harness, PATIENCE};
use crate::inspection::{LOCAL, Streaming, authority, hold, open, serve, trusting};

fn allow(harness: &mut Harness, port: u16, rules: &[&str]) {
    let entry = json!({
        "host": "rules.example", "port": port, "allow_private": ["127.0.0.0/8"], "rules": rules, "broker": "key"
    });
    let policy = json!({ "allow": [entry], "authorities": authority().certificate });
    assert_eq!(harness.gateway.command(json!({ "policy": policy })), None);
}

/// A server of events, each said when it is told to and with the end of the request's key; of echoes; and of sockets.
fn server(protocol: &str, told: &Arc<Notify>) -> u16 {
    let told = told.clone();
    serve("rules.example", &[protocol], move |request: Request<Incoming>| {
        let told = told.clone();
        async move {
            let key = request.headers()["x-api-key"].to_str().unwrap().to_owned();
            let key = key.rsplit('-').next().unwrap().to_owned();
            let answer = Response::builder();
            Ok(match request.uri().path() {
                "/events" => {
                    let events = futures_util::stream::unfold(0, move |count| {
                        let (told, key) = (told.clone(), key.clone());
                        async move {
                            told.notified().await;
                            let text = format!("data: {count} {}\n\n", key);
                            (count < 3).then(|| (Ok(Frame::data(Bytes::from(text))), count + 1))
                        }
                    });
                    let body: Streaming = StreamBody::new(events).boxed_unsync();
                    answer.header("content-type", "text/event-stream").body(body).unwrap()
                }
                "/echo" => answer.body(request.into_body().boxed_unsync()).unwrap(),
                "/socket" => {
                    tokio::spawn(async move {
                        let Ok(socket) = upgrade::on(request).await else { return };
                        let (mut reader, mut writer) = tokio::io::split(TokioIo::new(socket));
                        let _ = tokio::io::copy(&mut reader, &mut writer).await;
                    });
                    let answer = answer.status(StatusCode::SWITCHING_PROTOCOLS);
                    let answer = answer.header("upgrade", "websocket").header("connection", "upgrade");
                    answer.body(Empty::new().map_err(|never| match never {}).boxed_unsync()).unwrap()
                }
                _ => answer.status(404).body(Empty::new().map_err(|never| match never {}).boxed_unsync()).unwrap(),
            })
        }
    })
}

/// curl, which says each byte as it comes and sends what is written to it.
fn curl(harness: &Harness, arguments: &[&str]) -> Child {
    Command::new("curl")
        .args(["-q", "--silent", "--show-error", "--no-buffer", "--max-time", "20"])
        .args(["--proxy", &format!("http://{}", harness.proxy), "--noproxy", ""])
        .arg("--cacert")
        .arg(harness.secrets().join("..authority.pem"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn events_pass_one_by_one_and_go_on_when_the_credential_is_swapped() {
    for (protocol, option) in [("http/1.1", "--http1.1"), ("h2", "--http2")] {
        let told = Arc::new(Notify::new());
        let port = server(protocol, &told);
        let mut harness = Harness::start(&[("rules.example", LOCAL)]);
        allow(&mut harness, port, &["GET /events"]);
        hold(&mut harness, "value-of-the-first");
        let url = format!("https://rules.example:{port}/events");
        let mut listener = curl(&harness, &[option, &url]);
        let mut lines = BufReader::new(listener.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut next = || lines.by_ref().find(|line| !line.is_empty());
        for count in 0..3 {
            // The server says nothing more before the one before was heard.
            told.notify_one();
            assert_eq!(next().unwrap(), format!("data: {count} first"), "{protocol}");
            if count == 0 {
                hold(&mut harness, "value-of-the-second");
            }
        }
        told.notify_one();
        assert_eq!(next(), None);
        assert!(listener.wait().unwrap().success());
    }
}

#[tokio::test]
async fn an_upload_and_its_answer_pass_at_once() {
    let port = server("h2", &Arc::default());
    let mut harness = Harness::start(&[("rules.example", LOCAL)]);
    allow(&mut harness, port, &["PUT /echo"]);
    hold(&mut harness, "value-of-the-key");
    let tunnel = harness.tunnel(&format!("rules.example:{port}")).unwrap();
    tunnel.set_nonblocking(true).unwrap();
    let tunnel = tokio::net::TcpStream::from_std(tunnel).unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(trusting(&harness, &["h2"])));
    let stream = connector.connect("rules.example".try_into().unwrap(), tunnel).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (input, parts) = parts_that_come();
    let url = format!("https://rules.example:{port}/echo");
    let request = Request::put(url).body(StreamBody::new(Box::pin(parts))).unwrap();
    let answer = client.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    for word in ["one", "two", "three"] {
        input.send(word).unwrap();
        // What could be the beginning of a credential is held back; this could not.
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), word);
    }
    drop(input);
    assert!(body.frame().await.is_none_or(|frame| frame.unwrap().into_data().is_ok_and(|rest| rest.is_empty())));
}

/// A body whose parts come one by one.
fn parts_that_come() -> (
    tokio::sync::mpsc::UnboundedSender<&'static str>,
    impl futures_util::Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>>,
) {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<&'static str>();
    let parts = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let word = receiver.recv().await?;
        Some((Ok(Frame::data(Bytes::from_static(word.as_bytes()))), receiver))
    });
    (sender, parts)
}

#[test]
fn a_websocket_opens_where_a_rule_says_so_and_outlives_its_credential() {
    let port = server("http/1.1", &Arc::default());
    let mut harness = Harness::start(&[("rules.example", LOCAL)]);
    let ask = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: rules.example:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    };
    let answer = |stream: &mut crate::inspection::Tls| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    };
    // A rule for GET is none for a WebSocket.
    allow(&mut harness, port, &["GET /**"]);
    hold(&mut harness, "value-of-the-first");
    let mut stream = open(&harness, port);
    stream.write_all(ask("/socket").as_bytes()).unwrap();
    let refused = answer(&mut stream);
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    let denied = harness.gateway.wait_for(|event| event["event"] == "request" && event["allowed"] == false);
    assert!(denied["detail"].as_str().unwrap().contains("no rule allows WEBSOCKET /socket"), "{denied}");

    allow(&mut harness, port, &["WEBSOCKET /socket"]);
    let mut stream = open(&harness, port);
    stream.write_all(ask("/socket").as_bytes()).unwrap();
    let opened = answer(&mut stream);
    assert!(opened.starts_with("HTTP/1.1 101 "), "{opened}");
    let mut echo = |bytes: &[u8]| {
        stream.write_all(bytes).unwrap();
        let mut back = vec![0; bytes.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, bytes);
    };
    echo(b"\x81\x05hello");
    hold(&mut harness, "value-of-the-second");
    echo(&vec![0x7f; 200_000]);
    assert_eq!(harness.gateway.command(json!({ "unbroker": ["key"] })), None);
    echo(b"\x81\x03end");
    // Once no rule allows it any more, it ends.
    allow(&mut harness, port, &["GET /other"]);
    let begun = std::time::Instant::now();
    let _ = stream.read(&mut [0; 16]);
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "the WebSocket outlives its rule");
}
