//! Through a company's proxy with a log-in: squid in plain HTTP and in TLS, tinyproxy, and microsocks, all of Debian.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{Harness, echo};
use crate::inspection::{LOCAL, authority, certified};
use crate::receive;

const USER: &str = "ada";
const PASSWORD: &str = "hunter2.canary";

/// A proxy that knows `listed.example` and `plain.example`, until it is dropped.
struct Proxy {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the server of `plain.example` is: no other test has this address.
fn plain_address() -> String {
    format!("127.{}.{}.9", 210 + std::process::id() % 40, std::process::id() / 40 % 250)
}

impl Proxy {
    /// Starts a program with what `configure` gives for its folder and port.
    fn start(configure: impl Fn(&Path, u16) -> Command) -> Self {
        let folder = tempfile::Builder::new().permissions(open()).tempdir().unwrap();
        let hosts = format!("127.0.0.1 listed.example\n{} plain.example\n", plain_address());
        std::fs::write(folder.path().join("hosts"), hosts).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = configure(folder.path(), port);
        command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap()));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let proxy = Self { child: child.expect("the proxies are missing: run `make packages`"), port, _folder: folder };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the proxy does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        proxy
    }

    fn squid(tls: bool) -> Self {
        Self::start(|folder, port| {
            let path = |name: &str| folder.join(name).display().to_string();
            let hash = Command::new("openssl").args(["passwd", "-apr1", PASSWORD]).output().unwrap();
            let line = format!("{USER}:{}", String::from_utf8(hash.stdout).unwrap());
            std::fs::write(folder.join("passwords"), line).unwrap();
            let (certificate, key) = certified("proxy.example");
            std::fs::write(folder.join("certificate.pem"), certificate).unwrap();
            std::fs::write(folder.join("key.pem"), key).unwrap();
            let listen = if tls {
                format!("https_port 127.0.0.1:{port} tls-cert={} tls-key={}", path("certificate.pem"), path("key.pem"))
            } else {
                format!("http_port 127.0.0.1:{port}")
            };
            let text = format!(
                "{listen}\nhosts_file {}\nauth_param basic program /usr/lib/squid/basic_ncsa_auth {}\n\
                 auth_param basic children 1\nacl known proxy_auth REQUIRED\nhttp_access allow known\n\
                 http_access deny all\ncache deny all\nvisible_hostname test\npid_filename none\naccess_log none\n\
                 cache_log /dev/null\ncache_store_log none\nnetdb_filename none\nmax_filedescriptors 256\n\
                 shutdown_lifetime 0 seconds\n",
                path("hosts"),
                path("passwords")
            );
            std::fs::write(folder.join("squid.conf"), text).unwrap();
            let mut command = Command::new("squid");
            command.arg("-N").arg("-f").arg(folder.join("squid.conf"));
            command
        })
    }

    fn tinyproxy() -> Self {
        Self::start(|folder, port| {
            let text = format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nBasicAuth {USER} {PASSWORD}\n");
            std::fs::write(folder.join("tinyproxy.conf"), text).unwrap();
            let mut command = with_hosts("tinyproxy", folder);
            command.arg("-d").arg("-c").arg(folder.join("tinyproxy.conf"));
            command
        })
    }

    fn microsocks() -> Self {
        Self::start(|folder, port| {
            let mut command = with_hosts("microsocks", folder);
            command.args(["-i", "127.0.0.1", "-p", &port.to_string(), "-u", USER, "-P", PASSWORD]);
            command
        })
    }
}

fn open() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o755)
}

/// A program that finds names in a file of the test's own, by nss_wrapper.
fn with_hosts(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("LD_PRELOAD", "libnss_wrapper.so").env("NSS_WRAPPER_HOSTS", folder.join("hosts"));
    command
}

/// Has the gateway go through a proxy, without its log-in at first.
fn go_through(scheme: &str, proxy: &Proxy, port: u16) -> Harness {
    let mut harness = Harness::start(&[("proxy.example", LOCAL)]);
    let policy = json!({
        "allow": [{ "host": "listed.example", "port": port }, { "host": "plain.example", "port": 80 }],
        "authorities": authority().certificate,
        "proxy": { "scheme": scheme, "host": "proxy.example", "port": proxy.port, "log_in": true },
    });
    assert_eq!(harness.gateway.command(json!({ "policy": policy })), None);
    harness
}

fn log_in(harness: &mut Harness, password: &str) {
    let log_in = json!({ "user": USER, "password": STANDARD.encode(password) });
    assert_eq!(harness.gateway.command(json!({ "proxy_log_in": log_in })), None);
}

/// A tunnel without the log-in, with a wrong one and with the right one.
fn tunnels(harness: &mut Harness, port: u16) {
    let authority = format!("listed.example:{port}");
    let refused = harness.tunnel(&authority).unwrap_err();
    assert!(refused.starts_with("HTTP/1.1 502") && refused.contains("the host is allowed here"), "{refused}");
    let why = |harness: &Harness, part: &str| {
        let reported = |event: &Value| event["detail"].as_str().is_some_and(|detail| detail.contains(part));
        assert_eq!(harness.gateway.wait_for(reported)["reason"], "proxy");
    };
    why(harness, "its log-in is not here yet");
    log_in(harness, "wrong");
    assert!(harness.tunnel(&authority).is_err());
    why(harness, "it refused the log-in");
    log_in(harness, PASSWORD);
    let mut stream = harness.tunnel(&authority).unwrap();
    std::io::Write::write_all(&mut stream, b"hello").unwrap();
    assert_eq!(receive(&mut stream, 8), "hi hello");
    let reported = format!("{:?}", harness.gateway.events());
    assert!(!reported.contains(PASSWORD) && !reported.contains("canary") && !reported.contains(USER), "{reported}");
}

/// A request in plain HTTP, which an HTTP proxy takes itself.
fn plain_request(harness: &Harness) {
    let listener = TcpListener::bind((plain_address(), 80)).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = vec![0; 4096];
        let length = std::io::Read::read(&mut stream, &mut head).unwrap();
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            .unwrap();
        String::from_utf8_lossy(&head[..length]).to_lowercase()
    });
    let answer = harness.ask(
        "GET http://plain.example/x HTTP/1.1\r\nHost: plain.example\r\nProxy-Authorization: Basic bWU6b3du\r\n\
         Connection: close\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
    let got = server.join().unwrap();
    assert!(got.starts_with("get /x http/1.1\r\n") && got.contains("host: plain.example"), "{got}");
    assert!(!got.contains("proxy-authorization"), "the log-in went on to the host: {got}");
}

#[test]
fn squid_takes_the_log_in_for_tunnels_and_for_plain_requests() {
    let port = echo("hi ");
    let proxy = Proxy::squid(false);
    let mut harness = go_through("http", &proxy, port);
    tunnels(&mut harness, port);
    plain_request(&harness);
}

#[test]
fn squid_behind_tls_takes_the_log_in_and_its_certificate_is_verified() {
    let port = echo("hi ");
    let proxy = Proxy::squid(true);
    let mut harness = go_through("https", &proxy, port);
    tunnels(&mut harness, port);
    // Without the company's authority its proxy is nobody.
    let policy = json!({
        "allow": [{ "host": "listed.example", "port": port }],
        "proxy": { "scheme": "https", "host": "proxy.example", "port": proxy.port, "log_in": true },
    });
    assert_eq!(harness.gateway.command(json!({ "policy": policy })), None);
    assert!(harness.tunnel(&format!("listed.example:{port}")).is_err());
    harness.gateway.wait_for(|event| {
        event["detail"].as_str().is_some_and(|detail| detail.contains("no verified TLS connection to it"))
    });
}

#[test]
fn tinyproxy_takes_the_log_in() {
    let port = echo("hi ");
    let proxy = Proxy::tinyproxy();
    tunnels(&mut go_through("http", &proxy, port), port);
}

#[test]
fn microsocks_takes_the_log_in_and_resolves_the_name() {
    let port = echo("hi ");
    let proxy = Proxy::microsocks();
    tunnels(&mut go_through("socks5", &proxy, port), port);
}
