//! Relay and gateway, against a direct connection and against squid, to a server on the bridge's address.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::measure::{Aim, Quantity, Table, median};
use crate::sessions::Running;
use crate::succeed;
use crate::support::{Home, docker};

const CLIENT: &str = include_str!("client.py");

/// Where the relay's proxy is in every sandbox.
const PROXY: [&str; 2] = ["127.0.0.1", "3128"];

/// Bytes of one download.
const SIZE: &str = "268435456";

/// What a client has found out.
#[derive(serde::Deserialize)]
struct Found {
    /// A new connection with one small answer on it, in seconds.
    opening: f64,
    /// A small answer on an open connection, in seconds.
    trip: f64,
    /// Bytes in a second.
    rate: f64,
}

pub(crate) fn run(table: &Table) {
    let bridge = bridge();
    let Ok(listener) = TcpListener::bind((bridge, 0)) else {
        table.remark(&format!("network: {bridge}, the address of Docker's bridge, is not on this machine"));
        return;
    };
    let port = listener.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || serve(&listener));
    let home = Home::new();
    let rule = format!("{{ host: {bridge}, port: {port}, allow_private: {bridge}/32 }}");
    let manifest = format!("image: agent\ncommand: [sleep, infinity]\nnetwork: {{ allow: [{rule}] }}\n");
    let running = Running::start(&home, &manifest);
    let image = running.image();
    let squid = Squid::start(bridge);

    let bridge = bridge.to_string();
    let client = ["python3", "-c", CLIENT, &bridge, &port, SIZE];
    let found = |command: &mut Command| -> Found { serde_json::from_slice(&succeed(command)).unwrap() };
    let bare = || {
        let mut command = Command::new("docker");
        command.args(["run", "--rm", &image]).args(client);
        command
    };
    let (mut ours, mut direct, mut proxied) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..table.runs {
        ours.push(found(running.exec().args(client).args(PROXY)));
        direct.push(found(&mut bare()));
        proxied.push(found(bare().args([&bridge, &squid.port])));
    }
    let of = |all: &[Found], pick: fn(&Found) -> f64| median(all.iter().map(pick).collect());
    let rate = |all: &[Found]| Quantity::BytesPerSecond(of(all, |found| found.rate));
    let opening = |all: &[Found]| Quantity::Seconds(of(all, |found| found.opening));
    let trip = |all: &[Found]| Quantity::Seconds(of(all, |found| found.trip));
    let what = "download through relay and gateway";
    table.compare(what, rate(&ours), "squid", rate(&proxied), Aim::AtLeastTimes(0.7));
    table.compare(what, rate(&ours), "direct", rate(&direct), Aim::None);
    table.compare("new connection and a small answer", opening(&ours), "squid", opening(&proxied), Aim::None);
    table.compare("new connection and a small answer", opening(&ours), "direct", opening(&direct), Aim::None);
    table.compare("small answer on an open connection", trip(&ours), "squid", trip(&proxied), Aim::None);
    table.compare("small answer on an open connection", trip(&ours), "direct", trip(&direct), Aim::None);
}

/// The address that the host has on Docker's bridge.
fn bridge() -> Ipv4Addr {
    let output = docker(&["network", "inspect", "bridge", "--format", "{{json .IPAM.Config}}"]);
    let entries: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let told = entries.iter().find_map(|entry| entry["Gateway"].as_str()?.parse().ok());
    // Some engines tell only the network, of which the bridge has the first address.
    let subnet = entries.iter().find_map(|entry| entry["Subnet"].as_str()?.split('/').next()?.parse::<Ipv4Addr>().ok());
    told.or_else(|| subnet.map(|network| Ipv4Addr::from(u32::from(network) + 1)))
        .expect("Docker has a network `bridge` with IPv4 addresses")
}

/// Serves `GET /N` with N bytes, for as long as the benchmark runs.
fn serve(listener: &TcpListener) {
    for connection in listener.incoming().flatten() {
        std::thread::spawn(move || answer(&connection));
    }
}

fn answer(connection: &TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let block = vec![b'x'; 1 << 20];
    let mut lines = BufReader::new(connection).lines();
    while let Some(line) = lines.next() {
        let line = line?;
        let size: usize = line.split(['/', ' ']).nth(2).and_then(|text| text.parse().ok()).unwrap_or_default();
        // The other lines of the head say nothing that matters here.
        while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
        let mut output = connection;
        write!(output, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")?;
        let mut left = size;
        while left > 0 {
            let length = left.min(block.len());
            output.write_all(&block[..length])?;
            left -= length;
        }
    }
    Ok(())
}

/// A squid of our own that passes everything and keeps nothing, until it is dropped.
struct Squid {
    child: Child,
    port: String,
    _folder: tempfile::TempDir,
}

impl Squid {
    fn start(bridge: Ipv4Addr) -> Self {
        let port = TcpListener::bind((bridge, 0)).unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let configuration = folder.path().join("squid.conf");
        let text = format!(
            "http_port {bridge}:{port}\nhttp_access allow all\ncache deny all\nvisible_hostname bench\n\
             pid_filename none\naccess_log none\ncache_log /dev/null\ncache_store_log none\nnetdb_filename none\n\
             max_filedescriptors 1024\nshutdown_lifetime 0 seconds\n"
        );
        std::fs::write(&configuration, text).unwrap();
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("squid");
        command.env("PATH", path).arg("-N").arg("-f").arg(&configuration);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let squid = Self { child, port: port.to_string(), _folder: folder };
        let begun = Instant::now();
        while TcpStream::connect((bridge, port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "squid does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        squid
    }
}

impl Drop for Squid {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
