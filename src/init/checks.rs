//! The probe: what the agent's container looks like from inside, check by check.
//!
//! It needs no other program, and it asks the kernel for what must be refused instead of reading a setting.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::net::{AddressFamily, SocketType, socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::frame::{Finding, Outcome, ProbeRequest};

/// How long a name or a refusal may take.
const SHORT: Duration = Duration::from_secs(2);
/// How long an allowed connection may take; the gateway has to reach the upstream first.
const LONG: Duration = Duration::from_secs(5);
/// The pause before a question is asked again.
const PAUSE: Duration = Duration::from_millis(10);
/// The relay's name server: the address in the agent's resolv.conf.
const NAME_SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), 53);
/// Where the engine's socket would be.
const ENGINE_SOCKETS: [&str; 4] =
    ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock"];
/// Files that masks must hide: they read as empty, or not at all.
const MASKED: [&str; 6] =
    ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/cmdline", "/proc/config.gz", "/proc/kallsyms"];

/// The kernel's cryptographic sockets, for which rustix has no name on every target (linux/socket.h).
const AF_ALG: AddressFamily = AddressFamily::from_raw(38);

/// Seen, or why it is worth a word, or a hole.
type Seen = (Outcome, String);

/// Runs every check; the ones of the network side by side.
pub(super) async fn probe(request: ProbeRequest) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |check: &str, (outcome, detail): Seen| {
        findings.push(Finding { check: check.into(), outcome, detail });
    };
    let read = |path: &str| fs::read_to_string(path);
    add("interfaces", interfaces());
    add("routes", routes(read("/proc/net/route"), read("/proc/net/ipv6_route")));
    for (check, family) in [("vsock", AddressFamily::VSOCK), ("packet", AddressFamily::PACKET), ("alg", AF_ALG)] {
        let kind = if family == AF_ALG { SocketType::SEQPACKET } else { SocketType::RAW };
        let kinds = [kind, SocketType::STREAM, SocketType::DGRAM];
        let open = kinds.iter().find(|kind| socket(family, **kind, None).is_ok());
        add(check, hold(open.is_none(), "sockets are refused", "a socket could be opened"));
    }
    let status = read("/proc/self/status").unwrap_or_default();
    add("privileges", privileges(&status));
    add("user", {
        let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        (outcome(user != 0 && group != 0), format!("runs as {user}:{group}"))
    });
    add("root_filesystem", read_only_root());
    let mounts = read("/proc/self/mountinfo").unwrap_or_default();
    add("secrets", secrets(&mounts));
    add("engine_socket", {
        let found = ENGINE_SOCKETS.iter().find(|path| Path::new(path).exists());
        found.map_or((Outcome::Held, "none".into()), |path| (Outcome::Broken, format!("{path} exists")))
    });
    add("masks", {
        let found = MASKED.iter().find(|path| readable(path));
        found.map_or((Outcome::Held, "nothing to read".into()), |path| (Outcome::Broken, format!("{path} is readable")))
    });
    add("mounting", {
        let refused = mount("none", "/tmp", "tmpfs", MountFlags::empty(), None);
        let held = matches!(refused, Err(Errno::PERM | Errno::NOSYS | Errno::ACCESS));
        (outcome(held), refused.map_or_else(|error| error.to_string(), |()| "a file system could be mounted".into()))
    });
    add("writable", {
        let failed = request.writable.iter().find_map(|path| Some((path, tempfile::tempfile_in(path).err()?)));
        failed.map_or((Outcome::Held, request.writable.join(", ")), |(path, error)| {
            (Outcome::Broken, format!("{path} cannot be written: {error}"))
        })
    });
    add("first_process", {
        let same = fs::read("/proc/1/cmdline").is_ok_and(|line| line.split(|byte| *byte == 0).nth(1) == Some(b"reap"));
        hold(same, "ours", "PID 1 is not this program's init")
    });
    let (name, refused, known, listed) = tokio::join!(
        unlisted_name(&request),
        unlisted_connection(&request),
        listed_name(&request),
        listed_connection(&request)
    );
    add("unlisted_name", name);
    add("unlisted_connection", refused);
    if let Some(known) = known {
        add("listed_name", known);
    }
    if let Some(listed) = listed {
        add("listed_connection", listed);
    }
    findings
}

fn outcome(held: bool) -> Outcome {
    if held { Outcome::Held } else { Outcome::Broken }
}

fn hold(held: bool, good: &str, bad: &str) -> Seen {
    (outcome(held), if held { good } else { bad }.into())
}

/// Only `lo` may be up or have an address: kernels put tunnels, without either, into every namespace.
fn interfaces() -> Seen {
    let Ok(folders) = fs::read_dir("/sys/class/net") else {
        return (Outcome::Broken, "the interfaces cannot be listed".into());
    };
    for name in folders.flatten().map(|folder| folder.file_name().to_string_lossy().into_owned()) {
        let flags = fs::read_to_string(format!("/sys/class/net/{name}/flags")).unwrap_or_default();
        let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16);
        // IFF_UP is bit 0, see netdevice(7); what cannot be read counts as up.
        let down = flags.is_ok_and(|flags| flags & 1 == 0);
        // A file of the bonding driver beside the interfaces, not one of them.
        if !down && name != "lo" && name != "bonding_masters" {
            return (Outcome::Broken, format!("{name} is up"));
        }
    }
    let six = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    if let Some(name) = six.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|name| *name != "lo") {
        return (Outcome::Broken, format!("{name} has an address"));
    }
    // The kernel lists each address of this host as `/32 host LOCAL`, after the line that spells it.
    let four = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    match foreign_address(&four) {
        Some(address) => (Outcome::Broken, format!("has the address {address}")),
        None => (Outcome::Held, "only lo".into()),
    }
}

fn foreign_address(trie: &str) -> Option<Ipv4Addr> {
    let mut lines = trie.lines().peekable();
    while let Some(line) = lines.next() {
        if lines.peek().is_some_and(|next| next.contains("host LOCAL")) {
            let address: Option<Ipv4Addr> = line.split_whitespace().last().and_then(|word| word.parse().ok());
            if let Some(address) = address.filter(|address| !address.is_loopback()) {
                return Some(address);
            }
        }
    }
    None
}

fn routes(four: io::Result<String>, six: io::Result<String>) -> Seen {
    let Ok(four) = four else { return (Outcome::Broken, "the route table cannot be read".into()) };
    // The first line of the one for IPv4 is a heading; the one for IPv6 lists lo's own and has the interface last.
    if let Some(route) = four.lines().skip(1).find(|line| !line.trim().is_empty()) {
        return (Outcome::Broken, format!("a route exists: {}", route.split_whitespace().next().unwrap_or_default()));
    }
    let six = six.unwrap_or_default();
    match six.lines().filter_map(|line| line.split_whitespace().last()).find(|interface| *interface != "lo") {
        Some(interface) => (Outcome::Broken, format!("an IPv6 route leads to {interface}")),
        None => (Outcome::Held, "none".into()),
    }
}

/// No capability in any set, no way to gain one, and a system call filter; see proc(5).
fn privileges(status: &str) -> Seen {
    let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        if !value(set).is_some_and(|bits| u64::from_str_radix(bits, 16) == Ok(0)) {
            return (Outcome::Broken, format!("{set} is {}", value(set).unwrap_or("unknown")));
        }
    }
    for (name, wanted) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
        if value(name) != Some(wanted) {
            return (Outcome::Broken, format!("{name} is {}", value(name).unwrap_or("unknown")));
        }
    }
    (Outcome::Held, "none".into())
}

fn read_only_root() -> Seen {
    for folder in ["/", "/usr"] {
        let file = Path::new(folder).join(".sandbox-probe");
        // open(2) names a read-only mount before it looks at permissions; access(2) does it the other way round.
        match rustix::fs::open(&file, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR) {
            Err(Errno::ROFS) => {}
            Err(error) => return (Outcome::Broken, format!("{folder} is protected by permissions alone: {error}")),
            Ok(_) => {
                let _ = fs::remove_file(&file);
                return (Outcome::Broken, format!("{folder} is writable"));
            }
        }
    }
    (Outcome::Held, "read-only".into())
}

fn secrets(mounts: &str) -> Seen {
    // Fields by proc(5): …, mount point, options, optional fields, `-`, type, source, super options.
    let entry = mounts.lines().rev().find(|line| line.split(' ').nth(4) == Some("/run/secrets"));
    let Some((mount, filesystem)) = entry.and_then(|line| line.split_once(" - ")) else {
        return (Outcome::Broken, "/run/secrets is not a mount".into());
    };
    let options: Vec<&str> = mount.split(' ').nth(5).unwrap_or_default().split(',').collect();
    if filesystem.split(' ').next() != Some("tmpfs") {
        return (Outcome::Broken, "/run/secrets is not a tmpfs".into());
    }
    if !options.contains(&"ro") {
        return (Outcome::Broken, "/run/secrets is writable".into());
    }
    let missing: Vec<&str> = ["nosuid", "nodev", "noexec"].into_iter().filter(|flag| !options.contains(flag)).collect();
    if missing.is_empty() {
        return (Outcome::Held, "tmpfs, read-only".into());
    }
    // Engine 20.10 drops these flags on a read-only mount of a volume. Nothing is lost: the agent cannot write there, no
    // set-user-id bit works under no-new-privileges, and devices are refused by the engine.
    (Outcome::Held, format!("tmpfs, read-only, mounted without {}", missing.join(", ")))
}

/// Whether even one byte can be read.
fn readable(path: &str) -> bool {
    fs::File::open(path).and_then(|mut file| io::Read::read(&mut file, &mut [0])).is_ok_and(|count| count > 0)
}

/// Asks the relay for a name that must not exist.
async fn unlisted_name(request: &ProbeRequest) -> Seen {
    let (name, port) = unlisted(request);
    if port != 443 {
        return (Outcome::Held, "every name is listed, on some ports".into());
    }
    match timeout(SHORT, ask(name)).await {
        Err(_) => (Outcome::Broken, "the name server does not answer".into()),
        Ok(Err(error)) => (Outcome::Broken, format!("the name server cannot be asked: {error}")),
        // RFC 1035, 4.1.1: response code 3 is a name error.
        Ok(Ok(3)) => (Outcome::Held, "no such name".into()),
        Ok(Ok(code)) => (Outcome::Broken, format!("answered with code {code}, not with a name error")),
    }
}

/// Asks the relay for a name that must exist. The relay may hear of it a moment after the gateway does.
async fn listed_name(request: &ProbeRequest) -> Option<Seen> {
    let (host, _) = request.listed.as_ref()?;
    let known = async {
        while !matches!(ask(host).await, Ok(0)) {
            tokio::time::sleep(PAUSE).await;
        }
    };
    Some(match timeout(SHORT, known).await {
        Ok(()) => (Outcome::Held, format!("{host} has an address")),
        Err(_) => (Outcome::Warning, format!("{host} is listed, yet has no address")),
    })
}

async fn ask(name: &str) -> io::Result<u8> {
    // Header: identity, "recursion desired", one question. Question: labels, type A, class IN (RFC 1035, 4.1).
    let mut query = vec![0x5b, 0x78, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length));
        query.push(length.ok_or(io::ErrorKind::InvalidInput)?);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(NAME_SERVER).await?;
    socket.send(&query).await?;
    let mut answer = [0; 512];
    let count = socket.recv(&mut answer).await?;
    if count < 12 || answer[..2] != query[..2] || answer[2] & 0x80 == 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(answer[3] & 0x0f)
}

/// The destination that must be refused. With a port of its own its name is listed on others.
fn unlisted(request: &ProbeRequest) -> (&str, u16) {
    let (host, port) = request.unlisted.rsplit_once(':').unwrap_or((&request.unlisted, ""));
    (host, port.parse().unwrap_or(443))
}

async fn unlisted_connection(request: &ProbeRequest) -> Seen {
    let (host, port) = unlisted(request);
    match timeout(SHORT, connect_through(&request.proxy, host, port)).await {
        Err(_) => (Outcome::Broken, "the proxy does not answer".into()),
        Ok(Err(error)) => (Outcome::Broken, format!("the proxy cannot be asked: {error}")),
        Ok(Ok(403)) => (Outcome::Held, "refused".into()),
        Ok(Ok(status)) => (Outcome::Broken, format!("answered with {status}, not with 403")),
    }
}

async fn listed_connection(request: &ProbeRequest) -> Option<Seen> {
    let (host, port) = request.listed.as_ref()?;
    let expected = if request.offline { Outcome::Held } else { Outcome::Warning };
    Some(match timeout(LONG, connect_through(&request.proxy, host, *port)).await {
        Err(_) => (expected, format!("{host}:{port} does not answer in time")),
        Ok(Err(error)) => (Outcome::Broken, format!("the proxy cannot be asked: {error}")),
        Ok(Ok(200)) => (Outcome::Held, format!("{host}:{port} is reached")),
        Ok(Ok(status @ (502 | 504))) => (expected, format!("{host}:{port} is allowed but not reached ({status})")),
        Ok(Ok(status)) => (Outcome::Broken, format!("{host}:{port} is listed, yet answered with {status}")),
    })
}

/// Asks the proxy for a tunnel and gives the status of its answer.
async fn connect_through(proxy: &str, host: &str, port: u16) -> io::Result<u16> {
    // An address, never a name: nothing here may look one up.
    let proxy: SocketAddr = proxy.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut stream = TcpStream::connect(proxy).await?;
    stream.write_all(format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n").as_bytes()).await?;
    // `HTTP/1.1 403`: the status line's first twelve bytes (RFC 9112, 4).
    let mut line = [0; 12];
    stream.read_exact(&mut line).await?;
    let status = std::str::from_utf8(&line[9..]).ok().and_then(|status| status.parse().ok());
    status.filter(|_| line.starts_with(b"HTTP/1.")).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_an_address_beside_the_loopback() {
        let trie = "  |-- 127.0.0.1\n     /32 host LOCAL\n  |-- 172.17.0.2\n     /32 host LOCAL\n";
        assert_eq!(foreign_address(trie), Some(Ipv4Addr::new(172, 17, 0, 2)));
        assert_eq!(foreign_address(trie.split("  |-- 172").next().unwrap()), None);
    }

    #[test]
    fn takes_any_capability_for_a_hole() {
        let none = "CapInh:\t0\nCapPrm:\t0\nCapEff:\t0\nCapBnd:\t0\nCapAmb:\t0\nNoNewPrivs:\t1\nSeccomp:\t2\n";
        assert_eq!(privileges(none).0, Outcome::Held);
        assert_eq!(privileges(&none.replace("CapBnd:\t0", "CapBnd:\t2000")).0, Outcome::Broken);
        assert_eq!(privileges(&none.replace("Seccomp:\t2", "Seccomp:\t0")).0, Outcome::Broken);
    }

    #[test]
    fn wants_the_secrets_on_a_read_only_tmpfs() {
        let line = |options: &str, kind: &str| format!("9 1 0:5 / /run/secrets {options} - {kind} x rw");
        assert_eq!(secrets(&line("ro,nosuid,nodev,noexec", "tmpfs")).0, Outcome::Held);
        let (outcome, seen) = secrets(&line("ro,nosuid,nodev", "tmpfs"));
        assert_eq!((outcome, seen.contains("without noexec")), (Outcome::Held, true));
        assert_eq!(secrets(&line("rw,nosuid,nodev,noexec", "tmpfs")).0, Outcome::Broken);
        assert_eq!(secrets(&line("ro,nosuid,nodev,noexec", "ext4")).0, Outcome::Broken);
        assert_eq!(secrets("").0, Outcome::Broken);
    }

    #[test]
    fn takes_a_route_for_a_hole() {
        let heading = "Iface\tDestination\n";
        assert_eq!(routes(Ok(heading.into()), Ok("0 lo\n".into())).0, Outcome::Held);
        assert_eq!(routes(Ok(format!("{heading}eth0\t0\n")), Ok(String::new())).0, Outcome::Broken);
        assert_eq!(routes(Ok(heading.into()), Ok("0 eth0\n".into())).0, Outcome::Broken);
    }
}
