//! What is special to ports 80 and 443, which a test cannot listen on: the port is a parameter here.

use std::io::{self, Write};
use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::network::policy::AllowRule;

/// What was reported, as text.
#[derive(Clone, Default)]
struct Reported(Arc<Mutex<Vec<u8>>>);

impl Write for Reported {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Serves one connection to `listed.example` at the port, whose client sends the bytes. Gives what the server got and
/// what was reported until the connection ended.
async fn serve_bytes(port: u16, sent: &[u8]) -> (String, String, String) {
    let reported = Reported::default();
    let mut rule = AllowRule::new("listed.example".parse().unwrap(), port);
    // The server of this test.
    rule.allow_private = vec!["127.0.0.0/8".parse().unwrap()];
    let shared = Arc::new(Shared {
        policy: watch::Sender::new(Some(Arc::new(Policy { allow: vec![rule.clone()], ..Policy::default() }))),
        budgets: Budgets::default(),
        denials: Denials::default(),
        reporter: Reporter::start(reported.clone()).unwrap(),
        resolver: TokioResolver::builder_tokio().unwrap().build().unwrap(),
        authority: Authority::generate().unwrap(),
        broker: Broker::default(),
        leaks: Leaks::default(),
        last: AtomicU64::new(0),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut got = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(Ok(length @ 1..)) = timeout(Duration::from_millis(200), stream.read(&mut buffer)).await {
            got.extend_from_slice(&buffer[..length]);
        }
        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        String::from_utf8_lossy(&got).into_owned()
    });
    let (upstream, count) = Counted::new(TcpStream::connect(address).await.unwrap());
    let host: Host = "listed.example".parse().unwrap();
    let slot = shared.budgets.admit(Default::default(), &host).unwrap();
    let permit = Permit { host: host.clone(), port, address, rule, count, slot };
    let dialled = Dialled { upstream, permit };
    let (mut client, served): (DuplexStream, DuplexStream) = duplex(64 << 10);
    client.write_all(sent).await.unwrap();
    if port != 80 || sent.is_empty() {
        client.shutdown().await.unwrap();
    }
    let asked = shared.asked("listed.example".to_owned(), port, "tcp");
    tunnelled(&shared, asked, served, &"listed.example".parse().unwrap(), port, dialled).await;
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    drop(shared);
    let got = server.await.unwrap();
    // The thread that writes ends after its last event.
    while Arc::strong_count(&reported.0) > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let reported = String::from_utf8(reported.0.lock().unwrap().clone()).unwrap();
    (String::from_utf8_lossy(&answer).into_owned(), got, reported)
}

#[tokio::test]
async fn port_80_passes_a_request_for_the_host_that_was_connected_to() {
    let (answer, got, reported) = serve_bytes(80, b"GET /x HTTP/1.1\r\nHost: Listed.Example\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    assert!(got.starts_with("GET /x HTTP/1.1\r\n") && got.contains("host: listed.example\r\n"), "{got}");
    assert!(reported.contains(r#""reason":"listed""#) && reported.contains(r#""event":"closed""#), "{reported}");
}

#[tokio::test]
async fn port_80_refuses_a_request_for_another_host_and_what_is_not_http() {
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: listed.example:8080\r\n\r\n",
        b"GET http://other.example/ HTTP/1.1\r\nHost: listed.example\r\n\r\n",
        b"CONNECT listed.example:80 HTTP/1.1\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
    ] {
        let (answer, got, reported) = serve_bytes(80, bytes).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert_eq!(got, "");
        assert!(reported.contains(r#""reason":"request""#) && !reported.contains("listed\""), "{reported}");
    }
}

#[tokio::test]
async fn port_443_takes_nothing_but_tls() {
    for bytes in [&b"GET / HTTP/1.1\r\nHost: listed.example\r\n\r\n"[..], b"SSH-2.0-x\r\n", b"\x16\x03\x01\x00\x05\x01"]
    {
        let (answer, got, reported) = serve_bytes(443, bytes).await;
        assert_eq!((answer.as_str(), got.as_str()), ("", ""));
        assert!(reported.contains(r#""allowed":false,"reason":"sni""#), "{reported}");
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_allowed_and_carries_nothing() {
    for port in [80, 443] {
        let (answer, got, reported) = serve_bytes(port, b"").await;
        assert_eq!((answer.as_str(), got.as_str()), ("", ""));
        assert!(reported.contains(r#""reason":"listed""#) && reported.contains(r#""sent":0"#), "{reported}");
    }
}
