//! Relay and gateway alone, without an engine between, against the proxies that others would put in their place: squid
//! and tinyproxy for tunnels, mitmproxy where TLS is terminated. All of them on this machine's loopback, in turn.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use crate::harness::Harness;
use crate::measure::{Aim, Quantity, Table, median};

/// A name that everybody's resolver knows.
const HOST: &str = "localhost";

/// Bytes of one download through a tunnel, and of one where TLS is terminated.
const TUNNELLED: usize = 1 << 30;
const TERMINATED: usize = 128 << 20;
/// The same against a mitmproxy as it comes, which holds a body until it is whole, and takes long for it.
const HELD: usize = 16 << 20;

/// Connections at once for latencies, and small answers on each.
const BUSY: usize = 100;
const ROUNDS: usize = 40;

/// Connections that are opened for nothing else than to be open, where a process may have as many descriptors as they take:
/// two each, in the gateway and here.
const IDLE: usize = 10_000;

type Tls = StreamOwned<ClientConnection, Buffered>;

/// A connection that is read in large pieces: rustls asks for 4 KiB at a time, and what measures must not be what is measured.
struct Buffered(BufReader<TcpStream>);

impl Buffered {
    fn new(stream: TcpStream) -> Self {
        Self(BufReader::with_capacity(64 << 10, stream))
    }
}

impl io::Read for Buffered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl io::Write for Buffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.get_mut().flush()
    }
}

pub(crate) fn run(table: &Table) {
    let idle = IDLE.min((raise_limit() - 400) / 2);
    let folder = tempfile::tempdir().unwrap();
    let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = plain.local_addr().unwrap().port();
    thread::spawn(move || serve(&plain));
    let (tls_port, authority) = serve_tls();
    let holding = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let holding_port = holding.local_addr().unwrap().port();
    thread::spawn(move || holding.incoming().collect::<Vec<_>>());

    let mut harness = Harness::start(&[(HOST, &["127.0.0.1"])]);
    let entry = |port: u16, rules: &[&str]| json!({ "host": HOST, "port": port, "allow_private": ["127.0.0.0/8", "::1/128"], "rules": rules });
    let policy = json!({
        "allow": [entry(port, &[]), entry(holding_port, &[]), entry(tls_port, &["GET /**"])],
        "authorities": authority,
        "limits": { "connections": 20_000 },
    });
    assert_eq!(harness.gateway.command(json!({ "policy": policy })), None);
    let ours = Proxy { address: harness.proxy, authority: harness.secrets().join("..authority.pem"), _child: None };
    let squid = squid(folder.path());
    let tinyproxy = tinyproxy(folder.path());
    let mitmproxy = mitmproxies(folder.path(), &["--set", "stream_large_bodies=64k"], "streams");
    let holding_mitmproxy = mitmproxies(folder.path(), &[], "holds");

    let peers = [("squid", &squid), ("tinyproxy", &tinyproxy)];
    let in_turn = |measure: &dyn Fn(&Proxy) -> f64| {
        let all: Vec<[f64; 3]> =
            (0..table.runs).map(|_| [measure(&ours), measure(&squid), measure(&tinyproxy)]).collect();
        [0, 1, 2].map(|index| median(all.iter().map(|values| values[index]).collect()))
    };
    let compare =
        |what: &str, values: [f64; 3], quantity: fn(f64) -> Quantity, better: fn(f64, f64) -> bool, aim: Aim| {
            let best = if better(values[1], values[2]) { 0 } else { 1 };
            for (index, (name, _)) in peers.iter().enumerate() {
                let aim = if index == best { aim } else { Aim::None };
                table.compare(what, quantity(values[0]), name, quantity(values[index + 1]), aim);
            }
        };
    let more = |one: f64, other: f64| one >= other;
    let less = |one: f64, other: f64| one <= other;
    let rates = in_turn(&|proxy| download(proxy, port));
    compare("download through CONNECT", rates, Quantity::BytesPerSecond, more, Aim::AtLeastTimes(1.5));
    let openings = in_turn(&|proxy| openings(proxy, port));
    compare("new tunnels with a small answer", openings, Quantity::PerSecond, more, Aim::None);
    let busy: std::cell::RefCell<Vec<f64>> = std::cell::RefCell::default();
    let latencies = in_turn(&|proxy| {
        let (latency, rate) = small_answers(proxy, port);
        busy.borrow_mut().push(rate);
        latency
    });
    compare(&format!("p99 of small answers, {BUSY} connections"), latencies, Quantity::Seconds, less, Aim::None);
    let busy = busy.into_inner();
    let rates = [0, 1, 2].map(|index| median(busy.iter().skip(index).step_by(3).copied().collect()));
    compare(&format!("small answers, {BUSY} connections"), rates, Quantity::PerSecond, more, Aim::None);

    let terminated: Vec<[f64; 6]> = (0..table.runs)
        .map(|_| {
            let [own, peer] = [&ours, &mitmproxy].map(|proxy| terminated(proxy, tls_port, TERMINATED));
            let held = [&ours, &holding_mitmproxy].map(|proxy| terminated(proxy, tls_port, HELD).0);
            [own.0, peer.0, own.1, peer.1, held[0], held[1]]
        })
        .collect();
    let of = |index: usize| median(terminated.iter().map(|values| values[index]).collect());
    let rate = |index| Quantity::BytesPerSecond(of(index));
    table.compare("download with TLS terminated", rate(4), "mitmproxy", rate(5), Aim::AtLeastTimes(10.0));
    table.compare("download with TLS terminated", rate(0), "mitmproxy that streams", rate(1), Aim::None);
    let rate = |index| Quantity::PerSecond(of(index));
    table.compare("small answers with TLS terminated", rate(2), "mitmproxy", rate(3), Aim::AtLeastTimes(10.0));

    let before = harness.gateway.anonymous_memory() + harness.relay_memory();
    let open: Vec<TcpStream> = (0..idle).map(|_| tunnel(&ours, holding_port)).collect();
    let used = harness.gateway.anonymous_memory() + harness.relay_memory();
    drop(open);
    table.single(
        &format!("relay and gateway with {idle} open tunnels"),
        Quantity::Bytes(used as f64 * 1024.0),
        Aim::AtMost(Quantity::Bytes(60e6)),
    );
    table.remark(&format!("RssAnon, of which {:.1} MB were there before", before as f64 * 1024.0 / 1e6));
}

/// Takes as many descriptors as this process may have, and gives their number.
fn raise_limit() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    limit.current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// Where a proxy listens, and the authority by which it stands for hosts.
struct Proxy {
    address: SocketAddr,
    authority: PathBuf,
    _child: Option<Running>,
}

/// A program that ends with the benchmark.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command, address: SocketAddr, authority: PathBuf) -> Proxy {
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    command.env("PATH", path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = Running(command.spawn().unwrap());
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{command:?} does not listen");
        thread::sleep(Duration::from_millis(50));
    }
    Proxy { address, authority, _child: Some(child) }
}

fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn squid(folder: &Path) -> Proxy {
    let address = free();
    let configuration = folder.join("squid.conf");
    let text = format!(
        "http_port {address}\nhttp_access allow all\ncache deny all\nvisible_hostname bench\npid_filename none\n\
         access_log none\ncache_log /dev/null\ncache_store_log none\nnetdb_filename none\nmax_filedescriptors 16384\n\
         shutdown_lifetime 0 seconds\n"
    );
    std::fs::write(&configuration, text).unwrap();
    start(Command::new("squid").arg("-N").arg("-f").arg(&configuration), address, PathBuf::new())
}

fn tinyproxy(folder: &Path) -> Proxy {
    let address = free();
    let configuration = folder.join("tinyproxy.conf");
    let text = format!("Port {}\nListen 127.0.0.1\nTimeout 600\nMaxClients 2000\nLogLevel Error\n", address.port());
    std::fs::write(&configuration, text).unwrap();
    start(Command::new("tinyproxy").arg("-d").arg("-c").arg(&configuration), address, PathBuf::new())
}

fn mitmproxies(folder: &Path, options: &[&str], name: &str) -> Proxy {
    let address = free();
    let home = folder.join(name);
    let mut command = Command::new("mitmdump");
    command.args(["--quiet", "--listen-host", "127.0.0.1", "--listen-port", &address.port().to_string()]);
    command.args(["--ssl-insecure", "--set", &format!("confdir={}", home.display())]).args(options);
    start(&mut command, address, home.join("mitmproxy-ca-cert.pem"))
}

/// Opens a tunnel to the port.
fn tunnel(proxy: &Proxy, port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "CONNECT {HOST}:{port} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n").unwrap();
    let head = head(&mut stream).unwrap();
    assert!(head.contains(" 200 "), "{head}");
    stream
}

/// Reads up to the empty line, byte for byte, so that nothing of the body is taken.
fn head(stream: &mut impl io::Read) -> io::Result<String> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        text.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Gets so many bytes, and gives the time that it took.
fn get(stream: &mut (impl io::Read + io::Write), port: u16, size: usize) -> f64 {
    let begun = Instant::now();
    write!(stream, "GET /{size} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n").unwrap();
    stream.flush().unwrap();
    head(stream).unwrap();
    let mut buffer = vec![0; 256 << 10];
    let mut left = size;
    while left > 0 {
        let length = left.min(buffer.len());
        let read = stream.read(&mut buffer[..length]).unwrap();
        assert!(read > 0, "the connection ended early");
        left -= read;
    }
    begun.elapsed().as_secs_f64()
}

fn download(proxy: &Proxy, port: u16) -> f64 {
    let mut stream = tunnel(proxy, port);
    get(&mut stream, port, 1);
    TUNNELLED as f64 / get(&mut stream, port, TUNNELLED)
}

/// New tunnels in a second, four at a time, each with one small answer.
fn openings(proxy: &Proxy, port: u16) -> f64 {
    const EACH: usize = 400;
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..EACH).for_each(|_| _ = get(&mut tunnel(proxy, port), port, 1)));
        }
    });
    4.0 * EACH as f64 / begun.elapsed().as_secs_f64()
}

/// The time in which 99 of 100 small answers were there, and how many there were in a second.
fn small_answers(proxy: &Proxy, port: u16) -> (f64, f64) {
    let streams: Vec<TcpStream> = (0..BUSY).map(|_| tunnel(proxy, port)).collect();
    let begun = Instant::now();
    let mut times: Vec<f64> = thread::scope(|scope| {
        let tasks: Vec<_> = streams
            .into_iter()
            .map(|mut stream| scope.spawn(move || (0..ROUNDS).map(|_| get(&mut stream, port, 1)).collect::<Vec<_>>()))
            .collect();
        tasks.into_iter().flat_map(|task| task.join().unwrap()).collect()
    });
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    (times[times.len() * 99 / 100], rate)
}

/// Bytes in a second of a download, and small answers in a second, where the proxy stands for the host.
fn terminated(proxy: &Proxy, port: u16, size: usize) -> (f64, f64) {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&proxy.authority).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), HOST.try_into().unwrap()).unwrap();
    let mut stream: Tls = StreamOwned::new(connection, Buffered::new(tunnel(proxy, port)));
    get(&mut stream, port, 1);
    let rate = size as f64 / get(&mut stream, port, size);
    let begun = Instant::now();
    (0..300).for_each(|_| _ = get(&mut stream, port, 1));
    (rate, 300.0 / begun.elapsed().as_secs_f64())
}

/// Serves `GET /N` with N bytes, for as long as the benchmark runs.
fn serve(listener: &TcpListener) {
    for connection in listener.incoming().flatten() {
        thread::spawn(move || connection.set_nodelay(true).and_then(|()| answer(connection)));
    }
}

fn answer(stream: impl io::Read + io::Write) -> io::Result<()> {
    static BLOCK: [u8; 256 << 10] = [b'x'; 256 << 10];
    let mut stream = BufReader::with_capacity(1024, stream);
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let size: usize = line.split(['/', ' ']).nth(2).and_then(|text| text.parse().ok()).unwrap_or_default();
        // The other lines of the head say nothing that matters here.
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
        }
        let output = stream.get_mut();
        output.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes())?;
        let mut left = size;
        while left > 0 {
            let length = left.min(BLOCK.len());
            output.write_all(&BLOCK[..length])?;
            left -= length;
        }
        output.flush()?;
    }
}

/// The same by TLS, with a certificate that vouches for itself. Gives its port and the certificate.
fn serve_tls() -> (u16, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![HOST.to_owned()]).unwrap().self_signed(&key).unwrap();
    let text = certificate.pem();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind((IpAddr::from(Ipv4Addr::LOCALHOST), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = config.clone();
            thread::spawn(move || {
                stream.set_nodelay(true)?;
                let connection = ServerConnection::new(config).map_err(io::Error::other)?;
                answer(StreamOwned::new(connection, Buffered::new(stream)))
            });
        }
    });
    (port, text)
}
