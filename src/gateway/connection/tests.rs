//! What is special to ports 80 and 443, which a test cannot listen on: the port is a parameter here.

use std::io::{self, Write};
use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::network::policy::AllowRule;
use crate::network::proxy::{ProxyScheme, UpstreamProxy};

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

fn shared(policy: Policy, reported: Reported) -> Arc<Shared> {
    Arc::new(Shared {
        policy: watch::Sender::new(Some(Arc::new(policy))),
        budgets: Budgets::default(),
        denials: Denials::default(),
        lookups: Denials::default(),
        reporter: Reporter::start(reported).unwrap(),
        resolver: TokioResolver::builder_tokio().unwrap().build().unwrap(),
        authority: Authority::generate().unwrap(),
        broker: Broker::default(),
        leaks: Leaks::default(),
        bodies: Semaphore::new(BODIES),
        proxy_log_in: watch::Sender::new(None),
        last: AtomicU64::new(0),
    })
}

/// Serves one connection to `listed.example` at the port, whose client sends the bytes. Gives what the server got and
/// what was reported until the connection ended.
async fn serve_bytes(port: u16, sent: &[u8]) -> (String, String, String) {
    serve(port, sent, None).await
}

async fn serve(port: u16, sent: &[u8], proxied: Option<Proxied>) -> (String, String, String) {
    let reported = Reported::default();
    let mut rule = AllowRule::new("listed.example".parse().unwrap(), port);
    // The server of this test.
    rule.allow_private = vec!["127.0.0.0/8".parse().unwrap()];
    let shared = shared(Policy { allow: vec![rule.clone()], ..Policy::default() }, reported.clone());
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
    let (upstream, count) = Counted::new(ProxyStream::Left(tokio::net::TcpStream::connect(address).await.unwrap()));
    let host: Host = "listed.example".parse().unwrap();
    let slot = shared.budgets.admit(Default::default(), &host).unwrap();
    let permit = Permit { host: host.clone(), port, address: Some(address), rule, count, slot };
    let dialled = Dialled { upstream, permit, proxied };
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

#[tokio::test]
async fn a_proxy_gets_plain_http_in_absolute_form() {
    let proxied = Some(Proxied {
        tunnel: false,
        proxy: "http://proxy.example:3128".to_owned(),
        authorization: Some(HeaderValue::from_static("Basic YWRhOmh1bnRlcjI=")),
    });
    let (answer, got, reported) = serve(80, b"GET /x?y HTTP/1.1\r\nHost: Listed.Example\r\n\r\n", proxied).await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    assert!(got.starts_with("GET http://listed.example/x?y HTTP/1.1\r\n"), "{got}");
    assert!(got.contains("host: listed.example\r\n"), "{got}");
    assert!(got.contains("proxy-authorization: Basic YWRhOmh1bnRlcjI=\r\n"), "{got}");
    assert!(reported.contains("through http://proxy.example:3128"), "{reported}");
}

#[tokio::test]
async fn a_listed_host_is_reached_through_the_proxy_by_its_name_and_a_private_one_is_not() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = proxy.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (mut stream, _) = proxy.accept().await.unwrap();
        let mut asked = vec![0; 1024];
        let length = stream.read(&mut asked).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").await.unwrap();
        String::from_utf8_lossy(&asked[..length]).into_owned()
    });
    let host: Host = "listed.example".parse().unwrap();
    let private = AllowRule {
        allow_private: vec!["127.0.0.0/8".parse().unwrap()],
        ..AllowRule::new("127.0.0.1".parse().unwrap(), port)
    };
    let policy = Policy {
        allow: vec![AllowRule::new("listed.example".parse().unwrap(), 443), private],
        proxy: Some(UpstreamProxy {
            scheme: ProxyScheme::Http,
            host: "127.0.0.1".parse().unwrap(),
            port,
            direct: Vec::new(),
            log_in: false,
        }),
        ..Policy::default()
    };
    let shared = shared(policy, Reported::default());
    // It resolves nowhere: the name is the proxy's to resolve.
    let mut dialled = open(&shared, &host, 443).await.map_err(|error| error.to_string()).unwrap();
    let mut hello = [0; 5];
    dialled.upstream.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
    assert!(served.await.unwrap().starts_with("CONNECT listed.example:443 HTTP/1.1\r\n"));
    assert!(dialled.permit.address.is_none() && dialled.proxied.is_some_and(|proxied| proxied.tunnel));
    // Nobody listens there any more, and no answer is needed from a proxy to know it.
    let direct = open(&shared, &"127.0.0.1".parse().unwrap(), port).await;
    assert!(matches!(direct, Err(DialError::Connect(..))));
    assert!(matches!(open(&shared, &"other.example".parse().unwrap(), 443).await, Err(DialError::Unlisted)));
}
