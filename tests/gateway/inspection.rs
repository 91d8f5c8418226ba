//! Hosts with rules by method and path: real clients, a real TLS server, and everything that a client could try.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;

use crate::harness::Harness;

pub(crate) const LOCAL: &[&str] = &["127.0.0.1"];

pub(crate) struct TestAuthority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: String,
}

/// The authority of the servers in these tests, as that of a company's own hosts.
pub(crate) fn authority() -> &'static TestAuthority {
    static AUTHORITY: OnceLock<TestAuthority> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::<String>::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).unwrap().pem();
        TestAuthority { issuer: Issuer::new(parameters, key), certificate }
    })
}

/// A certificate of this authority for a name, and its key, both in PEM.
pub(crate) fn certified(name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (parameters.signed_by(&key, &authority().issuer).unwrap().pem(), key.serialize_pem())
}

pub(crate) type Seen = Arc<Mutex<Vec<String>>>;

/// What a server answers to what it was asked, in one line.
type Answering = fn(&str) -> Response<Full<Bytes>>;

/// A TLS server for this name that keeps what it is asked, and answers `ok`.
pub(crate) fn server(name: &str, protocols: &[&str]) -> (u16, Seen) {
    server_answering(name, protocols, |_| Response::new(Full::new(Bytes::from_static(b"ok"))))
}

/// The same with another answer.
pub(crate) fn server_answering(name: &str, protocols: &[&str], answering: Answering) -> (u16, Seen) {
    let seen = Seen::default();
    let kept = seen.clone();
    let port = serve(name, protocols, move |request| {
        let answer = keep(kept.clone(), answering, request);
        async move { answer.await.map(|answer| answer.map(|body| body.map_err(|never| match never {}).boxed_unsync())) }
    });
    (port, seen)
}

/// What a server sends, as it comes.
pub(crate) type Streaming = http_body_util::combinators::UnsyncBoxBody<Bytes, hyper::Error>;

/// A TLS server for this name that does with each request what it is told to.
pub(crate) fn serve<S, F>(name: &str, protocols: &[&str], service: S) -> u16
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Streaming>, hyper::Error>> + Send + 'static,
{
    let key = KeyPair::generate().unwrap();
    let parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = parameters.signed_by(&key, &authority().issuer).unwrap().der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, service) = (acceptor.clone(), service.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    let (stream, service) = (TokioIo::new(stream), service_fn(service));
                    if http2 {
                        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        let _ = builder.serve_connection(stream, service).await;
                    } else {
                        let connection = hyper::server::conn::http1::Builder::new().serve_connection(stream, service);
                        let _ = connection.with_upgrades().await;
                    }
                });
            }
        });
    });
    port
}

async fn keep(
    seen: Seen,
    answering: Answering,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let mut line = format!("{:?} {} {}", request.version(), request.method(), request.uri());
    for (name, value) in request.headers() {
        line.push_str(&format!(" {name}={}", value.to_str().unwrap()));
    }
    let body = request.into_body().collect().await?;
    for (name, value) in body.trailers().into_iter().flatten() {
        line.push_str(&format!(" trailer {name}={}", value.to_str().unwrap()));
    }
    line.push_str(&format!(" body={}", String::from_utf8_lossy(&body.to_bytes())));
    seen.lock().unwrap().push(line.clone());
    Ok(answering(&line))
}

fn allow(harness: &mut Harness, host: &str, port: u16, rules: &[&str]) {
    let entry = json!({
        "host": host, "port": port, "allow_private": ["127.0.0.0/8"], "rules": rules, "origin": "sandbox.yaml:7"
    });
    let policy = json!({ "allow": [entry], "authorities": authority().certificate });
    assert_eq!(harness.gateway.command(json!({ "policy": policy })), None);
}

fn certificate(harness: &Harness) -> PathBuf {
    harness.secrets().join("..authority.pem")
}

/// What curl prints: the body, and on its last line the status.
pub(crate) fn curl(harness: &Harness, arguments: &[&str]) -> String {
    let output = Command::new("curl")
        .args(["-q", "--silent", "--show-error", "--max-time", "10", "--path-as-is"])
        .args(["--write-out", "%{http_code} HTTP/%{http_version}"])
        .args(["--proxy", &format!("http://{}", harness.proxy), "--noproxy", ""])
        .arg("--cacert")
        .arg(certificate(harness))
        .args(arguments)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_rule_decides_on_each_request_in_both_versions_of_http() {
    for (protocol, option) in [("http/1.1", "--http1.1"), ("h2", "--http2")] {
        let (port, seen) = server("rules.example", &[protocol]);
        let mut harness = Harness::start(&[("rules.example", LOCAL)]);
        allow(&mut harness, "rules.example", port, &["GET /public/**", "POST /v1/messages*"]);
        let url = |path: &str| format!("https://rules.example:{port}{path}");
        let version = if protocol == "h2" { "2" } else { "1.1" };
        assert_eq!(curl(&harness, &[option, &url("/public/a%2Db?q=%2F..")]), format!("ok200 HTTP/{version}"));
        assert_eq!(curl(&harness, &[option, "--data", "text", &url("/v1/messages")]), format!("ok200 HTTP/{version}"));
        // Both on one connection: the first is allowed, the second not.
        let both = curl(&harness, &[option, &url("/public/x"), &url("/private")]);
        assert!(both.starts_with("ok200"), "{both}");
        assert!(both.contains("no rule allows GET /private on rules.example"), "{both}");
        assert!(both.contains("at sandbox.yaml:7"), "{both}");
        assert!(both.contains(&format!("403 HTTP/{version}")), "{both}");
        assert!(curl(&harness, &[option, "-X", "DELETE", &url("/public/a")]).contains("403 HTTP/"));
        for path in [
            "/public/../private",
            "/public/%2e%2e/private",
            "/public//x",
            "/public/%252e",
            "/public/..%2fx",
            "/public/..;/x",
        ] {
            assert!(curl(&harness, &[option, &url(path)]).contains("400 HTTP/"), "{path}");
        }
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 3, "{seen:#?}");
        assert!(seen[0].contains("/public/a-b?q=%2F.."), "{seen:#?}");
        assert!(seen[1].ends_with("body=text"), "{seen:#?}");
        let denied = harness.gateway.wait_for(|event| event["event"] == "request" && event["allowed"] == false);
        assert_eq!((&denied["path"], &denied["reason"]), (&json!("/private"), &json!("rule")));
        let allowed = harness.gateway.wait_for(|event| event["event"] == "request" && event["method"] == "POST");
        assert_eq!(allowed["rule"], "sandbox.yaml:7 POST /v1/messages*");
        assert!(!format!("{:?}", harness.gateway.events()).contains("q=%2F"), "a query is in an event");
    }
}

#[test]
fn a_request_for_another_host_on_an_open_connection_is_refused() {
    for (protocol, option) in [("http/1.1", "--http1.1"), ("h2", "--http2")] {
        let (port, seen) = server("rules.example", &[protocol]);
        let mut harness = Harness::start(&[("rules.example", LOCAL)]);
        allow(&mut harness, "rules.example", port, &["* /**"]);
        let url = format!("https://rules.example:{port}/");
        let answer = curl(&harness, &[option, "-H", "Host: other.example", &url]);
        assert!(answer.contains("another host") && answer.contains("400 HTTP/"), "{answer}");
        assert!(seen.lock().unwrap().is_empty());
        harness.gateway.wait_for(|event| event["event"] == "request" && event["reason"] == "host");
        assert!(curl(&harness, &[option, &url]).starts_with("ok200"));
    }
}

#[test]
fn the_hosts_own_certificate_is_verified() {
    let (port, seen) = server("another.example", &["http/1.1"]);
    let mut harness = Harness::start(&[("rules.example", LOCAL)]);
    allow(&mut harness, "rules.example", port, &["* /**"]);
    let answer = curl(&harness, &[&format!("https://rules.example:{port}/")]);
    assert!(answer.starts_with("000"), "{answer}");
    let event = harness.gateway.decision("rules.example", "tls");
    assert!(event["detail"].as_str().unwrap().contains("no verified TLS connection"), "{event}");
    assert!(seen.lock().unwrap().is_empty());
}

/// A TLS connection through the gateway to the host, which trusts the session's authority.
pub(crate) fn open(harness: &Harness, port: u16) -> Tls {
    open_for(harness, port, &[])
}

pub(crate) type Tls = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// The same, with these protocols offered.
pub(crate) fn open_for(harness: &Harness, port: u16, protocols: &[&str]) -> Tls {
    let stream = harness.tunnel(&format!("rules.example:{port}")).unwrap();
    let config = Arc::new(trusting(harness, protocols));
    let client = rustls::ClientConnection::new(config, "rules.example".try_into().unwrap()).unwrap();
    rustls::StreamOwned::new(client, stream)
}

/// A client's settings that trust the session's authority.
pub(crate) fn trusting(harness: &Harness, protocols: &[&str]) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(certificate(harness)).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

#[test]
fn what_one_parser_reads_differently_never_reaches_the_host() {
    let (port, seen) = server("rules.example", &["http/1.1"]);
    let mut harness = Harness::start(&[("rules.example", LOCAL)]);
    allow(&mut harness, "rules.example", port, &["POST /open", "GET /open"]);
    let host = format!("rules.example:{port}");
    let hidden = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n";
    let long = "x".repeat(80 << 10);
    for request in [
        format!("GET /open HTTP/1.1\r\nHost: {host}\r\nHost: other.example\r\n\r\n"),
        format!("GET /open HTTP/1.1\r\nHost: {host}\r\n folded: x\r\n\r\n"),
        format!("GET /open HTTP/1.1\r\nHost: {host}\r\nX: a\rb\r\n\r\n"),
        format!("GET /open HTTP/1.1\r\nHost : {host}\r\n\r\n"),
        format!("GET /open HTTP/1.1\r\nHost: {host}\r\nX: {long}\r\n\r\n"),
        format!("GET http://other.example/open HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET https://user@{host}/open HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        "GET /open HTTP/1.1\r\n\r\n".to_owned(),
        format!("POST /open HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n{hidden}"),
        format!("POST /open HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: x\r\n\r\n{hidden}"),
    ] {
        let mut stream = open(&harness, port);
        let _ = stream.write_all(request.as_bytes());
        let mut answer = vec![0; 12];
        let start = stream.read(&mut answer).map(|length| String::from_utf8_lossy(&answer[..length]).into_owned());
        let shown: String = request.chars().take(120).collect();
        assert!(!start.as_deref().unwrap_or_default().contains(" 200"), "{shown:?} gave {start:?}");
    }
    assert!(seen.lock().unwrap().is_empty(), "{:#?}", seen.lock().unwrap());
    // Two lengths at once: whatever is taken for the body, what is behind it is judged as a request of its own.
    let mut stream = open(&harness, port);
    let smuggled = format!(
        "POST /open HTTP/1.1\r\nHost: {host}\r\nContent-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
    );
    stream.write_all(smuggled.as_bytes()).unwrap();
    let mut answer = [0; 4096];
    let _ = stream.read(&mut answer);
    let mut stream = open(&harness, port);
    stream.write_all(format!("GET /open HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    assert!(String::from_utf8_lossy(&text).starts_with("HTTP/1.1 200"), "{}", String::from_utf8_lossy(&text));
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|line| !line.contains("/hidden") || line.contains("/open")), "{seen:#?}");
    assert!(seen.iter().all(|line| line.contains(" /open ")), "{seen:#?}");
}

#[test]
fn plain_http_obeys_the_same_rules() {
    let (port, requests) = crate::harness::http();
    let mut harness = Harness::start(&[("rules.example", LOCAL)]);
    allow(&mut harness, "rules.example", port, &["GET /open"]);
    let host = format!("rules.example:{port}");
    let answer = harness.ask(&format!("GET http://{host}/closed HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let answer = harness.ask(&format!("GET http://{host}/open HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(requests.lock().unwrap().iter().all(|request| !request.contains("/closed")));
}

#[test]
fn each_gateway_has_an_authority_of_its_own_and_its_key_is_in_no_file() {
    let mut harness = Harness::start(&[("rules.example", LOCAL)]);
    allow(&mut harness, "rules.example", 443, &["GET /open"]);
    let first = std::fs::read_to_string(certificate(&harness)).unwrap();
    harness.kill_gateway();
    harness.restart_gateway();
    allow(&mut harness, "rules.example", 443, &["GET /open"]);
    let second = std::fs::read_to_string(certificate(&harness)).unwrap();
    assert_ne!(first, second);
    for entry in std::fs::read_dir(harness.secrets()).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        assert!(!text.contains("PRIVATE"), "{text}");
    }
}

pub(crate) fn hold(harness: &mut Harness, value: &str) {
    use base64::Engine as _;
    let value = base64::engine::general_purpose::STANDARD.encode(value);
    let key = json!({ "name": "key", "host": "rules.example", "placement": { "header": "x-api-key" }, "value": value });
    assert_eq!(harness.gateway.command(json!({ "broker": [key] })), None);
}

fn allow_brokered(harness: &mut Harness, port: u16) {
    let entry = |host: &str, broker: Option<&str>| json!({ "host": host, "port": port, "allow_private": ["127.0.0.0/8"], "rules": ["GET /**"], "broker": broker });
    let allow = [entry("rules.example", Some("key")), entry("other.example", None)];
    let policy = json!({ "allow": allow, "authorities": authority().certificate });
    assert_eq!(harness.gateway.command(json!({ "policy": policy })), None);
}

#[test]
fn a_brokered_credential_is_in_each_request_to_its_host_and_is_swapped_between_two() {
    for (protocol, option) in [("http/1.1", "--http1.1"), ("h2", "--http2")] {
        let (port, seen) = server("rules.example", &[protocol]);
        let mut harness = Harness::start(&[("rules.example", LOCAL)]);
        allow_brokered(&mut harness, port);
        let url = format!("https://rules.example:{port}/v1?api_key=mine&a=b");
        let ask = |harness: &Harness| {
            curl(harness, &[option, "-H", "X-Api-Key: mine", "-H", "Authorization: Bearer mine", "-b", "c=mine", &url])
        };
        let early = ask(&harness);
        assert!(early.contains("the credential for this host is not there") && early.contains("502"), "{early}");
        hold(&mut harness, "canary-first");
        assert!(ask(&harness).starts_with("ok200"));
        // An open connection gets the new value with its next request.
        let mut open = open(&harness, port);
        let request = format!("GET /open HTTP/1.1\r\nHost: rules.example:{port}\r\n\r\n");
        let mut exchange = || {
            open.write_all(request.as_bytes()).unwrap();
            let mut answer = [0; 2048];
            let length = open.read(&mut answer).unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..length]));
        };
        if protocol == "http/1.1" {
            exchange();
        }
        hold(&mut harness, "canary-second");
        if protocol == "http/1.1" {
            exchange();
        }
        assert!(ask(&harness).starts_with("ok200"));
        assert_eq!(harness.gateway.command(json!({ "unbroker": ["key"] })), None);
        assert!(ask(&harness).contains("502"));
        let seen = seen.lock().unwrap();
        assert!(seen.iter().all(|line| !line.contains("mine")), "{seen:#?}");
        let values: Vec<_> = seen.iter().map(|line| line.contains("x-api-key=canary-first")).collect();
        let expected: &[bool] = if protocol == "http/1.1" { &[true, true, false, false] } else { &[true, false] };
        assert_eq!(values, expected, "{seen:#?}");
        assert!(seen.iter().all(|line| line.matches("x-api-key=").count() == 1 && line.contains("/")), "{seen:#?}");
        let event = harness.gateway.wait_for(|event| event["event"] == "request" && event["credential"] == "key");
        assert_eq!(event["allowed"], true);
        assert!(!format!("{:?}", harness.gateway.events()).contains("canary"), "a value is in an event");
        for entry in std::fs::read_dir(harness.secrets()).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
            assert!(!text.contains("canary"), "{text}");
        }
    }
}

#[test]
fn a_brokered_credential_goes_to_no_other_host_and_never_without_tls() {
    let (port, seen) = server("other.example", &["http/1.1"]);
    let mut harness = Harness::start(&[("rules.example", LOCAL), ("other.example", LOCAL)]);
    allow_brokered(&mut harness, port);
    hold(&mut harness, "canary-value");
    assert!(curl(&harness, &[&format!("https://other.example:{port}/")]).starts_with("ok200"));
    assert!(seen.lock().unwrap().iter().all(|line| !line.contains("canary")), "{:#?}", seen.lock().unwrap());
    // The server is not the one that it says it is: nothing is sent to it.
    assert!(curl(&harness, &[&format!("https://rules.example:{port}/")]).starts_with("000"));
    assert_eq!(seen.lock().unwrap().len(), 1);
    let (port, requests) = crate::harness::http();
    allow_brokered(&mut harness, port);
    let host = format!("rules.example:{port}");
    let answer = harness.ask(&format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("never sent without TLS"), "{answer}");
    // The connection was opened, and nothing was sent on it.
    assert!(requests.lock().unwrap().iter().all(String::is_empty), "{:?}", requests.lock().unwrap());
}
