//! Starts relay and gateway as child processes on loopback addresses of their own, with a name server and servers to
//! reach.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::{Value, json};

/// The longest that anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A gateway program and what it reported.
pub(crate) struct Gateway {
    child: Child,
    input: Option<ChildStdin>,
    events: Arc<(Mutex<Vec<Value>>, Condvar)>,
    last: u64,
}

/// A relay, a gateway and a name server.
pub(crate) struct Harness {
    folder: tempfile::TempDir,
    relay: Child,
    pub(crate) gateway: Gateway,
    pub(crate) proxy: SocketAddr,
    pub(crate) dns: SocketAddr,
    name_server: SocketAddr,
    names: Names,
}

/// What the name server says. Names have their last dot.
#[derive(Debug, Default)]
pub(crate) struct Zone {
    names: HashMap<String, Vec<IpAddr>>,
    /// Names that are another one's.
    pub(crate) aliases: HashMap<String, String>,
    /// For how many seconds an answer holds.
    pub(crate) ttl: u32,
    /// Whom it was asked for.
    pub(crate) asked: Vec<(String, RecordType)>,
    pub(crate) mood: Mood,
}

/// How the name server behaves.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Right,
    /// Says nothing to this many questions.
    Silent(u32),
    /// Answers with what is no message.
    Garbage,
    /// Answers another question first, as somebody who guesses would, with this address.
    Forged(IpAddr),
    /// Answers that it failed (RFC 1035 section 4.1.1).
    Failed,
}

type Names = Arc<Mutex<Zone>>;

impl Drop for Harness {
    fn drop(&mut self) {
        let _ = self.relay.kill();
        let _ = self.relay.wait();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Gateway {
    fn start(folder: &Path, name_server: SocketAddr, relay_uid: Option<u32>) -> Self {
        let owner = std::fs::metadata(folder).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_sandbox"))
            .arg("gateway")
            .arg("--socket")
            .arg(folder.join("gateway.sock"))
            .arg("--secrets")
            .arg(folder.join("secrets"))
            .args(["--relay-uid", &relay_uid.unwrap_or(owner.uid()).to_string()])
            .args(["--group", &owner.gid().to_string()])
            .args(["--resolver", &name_server.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let events = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let output = BufReader::new(child.stdout.take().unwrap());
        let collected = events.clone();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                collected.0.lock().unwrap().push(serde_json::from_str(&line).unwrap());
                collected.1.notify_all();
            }
        });
        let input = child.stdin.take();
        let gateway = Self { child, input, events, last: 0 };
        gateway.wait_for(|event| event["event"] == "ready");
        gateway
    }

    /// Waits for an event and gives it.
    pub(crate) fn wait_for(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut events = self.events.0.lock().unwrap();
        loop {
            if let Some(event) = events.iter().find(|event| wanted(event)) {
                return event.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the event did not come; there were {:#?}", *events);
            events = self.events.1.wait_timeout(events, left).unwrap().0;
        }
    }

    pub(crate) fn decision(&self, host: &str, reason: &str) -> Value {
        self.wait_for(|event| event["event"] == "decision" && event["host"] == host && event["reason"] == reason)
    }

    /// All events so far.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.events.0.lock().unwrap().clone()
    }

    /// Sends a command and gives the error with which it was acknowledged.
    pub(crate) fn command(&mut self, action: Value) -> Option<String> {
        self.last += 1;
        let id = self.last;
        self.line(&json!({ "id": id, "action": action }).to_string());
        let answer = self.wait_for(|event| event["event"] == "acknowledged" && event["id"] == id);
        answer["error"].as_str().map(str::to_owned)
    }

    pub(crate) fn line(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    pub(crate) fn close_input(&mut self) {
        self.input = None;
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends it a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// The time that it has computed.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // proc_pid_stat(5): behind the name in parentheses, the 12th and 13th are ticks, of which a second has 100.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks = [fields[11], fields[12]].iter().map(|text| text.parse::<u64>().unwrap()).sum::<u64>();
        Duration::from_millis(ticks * 10)
    }

    /// Anonymous memory in KiB.
    pub(crate) fn anonymous_memory(&self) -> u64 {
        anonymous_memory(&self.child)
    }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success(), "{name}");
}

fn anonymous_memory(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

impl Harness {
    /// Starts everything. The name server knows the given names.
    pub(crate) fn start(names: &[(&str, &[&str])]) -> Self {
        Self::start_for_uid(names, None)
    }

    pub(crate) fn start_for_uid(names: &[(&str, &[&str])], relay_uid: Option<u32>) -> Self {
        static LAST: AtomicU8 = AtomicU8::new(1);
        // Loopback addresses of its own for each test of each process: no port can be taken.
        let network = [127, 110 + (std::process::id() % 100) as u8, LAST.fetch_add(1, Ordering::Relaxed)];
        let [a, b, c] = network;
        let at = |last: u8, port: u16| SocketAddr::from(([a, b, c, last], port));
        let (proxy, dns, name_server) = (at(250, 3128), at(251, 5353), at(252, 5353));
        let names = serve_names(name_server, names);
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("secrets")).unwrap();
        let mut relay = Command::new(env!("CARGO_BIN_EXE_sandbox"))
            .arg("relay")
            .arg("--socket")
            .arg(folder.path().join("gateway.sock"))
            .args(["--proxy", &proxy.to_string(), "--dns", &dns.to_string()])
            .args(["--names", &Ipv4Addr::new(a, b, c, 0).to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(relay.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "{\"event\":\"ready\"}\n");
        let gateway = Gateway::start(folder.path(), name_server, relay_uid);
        Self { folder, relay, gateway, proxy, dns, name_server, names }
    }

    /// Replaces the policy by rules of host, port and private networks.
    pub(crate) fn allow(&mut self, rules: &[(&str, u16, &[&str])]) {
        let rules: Vec<Value> = rules
            .iter()
            .map(|(host, port, private)| json!({ "host": host, "port": port, "allow_private": private, "origin": "sandbox.yaml:1" }))
            .collect();
        assert_eq!(self.gateway.command(json!({ "policy": { "allow": rules } })), None);
    }

    /// Kills the gateway, and starts another one in `restart_gateway`.
    pub(crate) fn kill_gateway(&mut self) {
        self.gateway.child.kill().unwrap();
        self.gateway.child.wait().unwrap();
    }

    pub(crate) fn restart_gateway(&mut self) {
        self.gateway = Gateway::start(self.folder.path(), self.name_server, None);
    }

    pub(crate) fn secrets(&self) -> std::path::PathBuf {
        self.folder.path().join("secrets")
    }

    /// Sends the relay a signal by its name.
    pub(crate) fn signal_relay(&self, name: &str) {
        signal(&self.relay, name);
    }

    /// Has the name server answer a name with other addresses from now on.
    pub(crate) fn name(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self.names.lock().unwrap().names.insert(format!("{name}."), addresses);
    }

    /// Changes what the name server says.
    pub(crate) fn zone<T>(&self, change: impl FnOnce(&mut Zone) -> T) -> T {
        change(&mut self.names.lock().unwrap())
    }

    /// The relay's anonymous memory in KiB.
    pub(crate) fn relay_memory(&self) -> u64 {
        anonymous_memory(&self.relay)
    }

    /// Sends bytes to the proxy and gives all of its answer.
    pub(crate) fn ask(&self, request: &str) -> String {
        let mut stream = self.open(request);
        let mut answer = Vec::new();
        // A reset after the answer is as good as its end.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(crate) fn open(&self, request: &str) -> TcpStream {
        let mut stream = connect(self.proxy).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// Opens a tunnel, or gives the answer that refused it.
    pub(crate) fn tunnel(&self, authority: &str) -> Result<TcpStream, String> {
        let mut stream = self.open(&format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"));
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).unwrap_or(0) == 0 {
                return Err(String::from_utf8_lossy(&answer).into_owned());
            }
            answer.push(byte[0]);
        }
        if answer.starts_with(b"HTTP/1.1 200 ") {
            return Ok(stream);
        }
        let _ = stream.read_to_end(&mut answer);
        Err(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Asks the relay's DNS.
    pub(crate) fn resolve(&self, name: &str, kind: RecordType) -> (ResponseCode, Option<IpAddr>) {
        let mut question = Message::new(9, MessageType::Query, OpCode::Query);
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(&question.to_vec().unwrap(), self.dns).unwrap();
        let mut buffer = [0; 1500];
        let length = socket.recv(&mut buffer).unwrap();
        let reply = Message::from_vec(&buffer[..length]).unwrap();
        let address = reply.answers.first().map(|record| match record.data {
            RData::A(A(address)) => IpAddr::V4(address),
            ref other => panic!("{other:?}"),
        });
        (reply.metadata.response_code, address)
    }

    /// Waits until the relay's DNS says so.
    pub(crate) fn wait_for_name(&self, name: &str, code: ResponseCode) -> Option<IpAddr> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (found, address) = self.resolve(name, RecordType::A);
            if found == code {
                return address;
            }
            assert!(Instant::now() < deadline, "{name} is still {found}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Waits until it is so.
pub(crate) fn eventually(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it did not come to that");
        thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn serve_names(address: SocketAddr, names: &[(&str, &[&str])]) -> Names {
    let socket = UdpSocket::bind(address).unwrap();
    let names = names
        .iter()
        .map(|(name, addresses)| (format!("{name}."), addresses.iter().map(|text| text.parse().unwrap()).collect()))
        .collect();
    let names: Names = Arc::new(Mutex::new(Zone { names, ..Zone::default() }));
    let known = names.clone();
    thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let question = Message::from_vec(&buffer[..length]).unwrap();
            for answer in known.lock().unwrap().answers(&question) {
                socket.send_to(&answer, client).unwrap();
            }
        }
    });
    names
}

impl Zone {
    /// The datagrams that answer a question.
    fn answers(&mut self, question: &Message) -> Vec<Vec<u8>> {
        let query = question.queries[0].clone();
        self.asked.push((query.name().to_ascii().to_lowercase(), query.query_type()));
        let right = self.right(question.metadata.id, &query);
        match self.mood {
            Mood::Right => vec![right.to_vec().unwrap()],
            Mood::Silent(0) => {
                self.mood = Mood::Right;
                vec![right.to_vec().unwrap()]
            }
            Mood::Silent(left) => {
                self.mood = Mood::Silent(left - 1);
                Vec::new()
            }
            Mood::Garbage => vec![b"\xff\xfe no message".to_vec(), vec![0; 3]],
            Mood::Forged(address) => {
                let mut forged = Message::response(question.metadata.id.wrapping_add(1), OpCode::Query);
                forged.add_query(query.clone());
                let data = match address {
                    IpAddr::V4(address) => RData::A(A(address)),
                    IpAddr::V6(address) => RData::AAAA(AAAA(address)),
                };
                forged.add_answer(Record::from_rdata(query.name().clone(), 0, data));
                vec![forged.to_vec().unwrap(), right.to_vec().unwrap()]
            }
            Mood::Failed => {
                let mut failed = Message::response(question.metadata.id, OpCode::Query);
                failed.add_query(query);
                failed.metadata.response_code = ResponseCode::ServFail;
                vec![failed.to_vec().unwrap()]
            }
        }
    }

    fn right(&self, id: u16, query: &Query) -> Message {
        let mut reply = Message::response(id, OpCode::Query);
        reply.add_query(query.clone());
        let mut name = query.name().clone();
        if let Some(other) = self.aliases.get(&name.to_ascii().to_lowercase()) {
            let other = Name::from_ascii(other).unwrap();
            reply.add_answer(Record::from_rdata(name, self.ttl, RData::CNAME(CNAME(other.clone()))));
            name = other;
        }
        let Some(addresses) = self.names.get(&name.to_ascii().to_lowercase()) else {
            reply.metadata.response_code = ResponseCode::NXDomain;
            return reply;
        };
        for address in addresses {
            let data = match (query.query_type(), address) {
                (RecordType::A, IpAddr::V4(address)) => RData::A(A(*address)),
                (RecordType::AAAA, IpAddr::V6(address)) => RData::AAAA(AAAA(*address)),
                _ => continue,
            };
            reply.add_answer(Record::from_rdata(name.clone(), self.ttl, data));
        }
        reply
    }
}

/// A server that sends back what it gets, after a greeting.
pub(crate) fn echo(greeting: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                stream.write_all(greeting.as_bytes()).unwrap();
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// An HTTP server that answers every request with `ok`, and keeps what it got.
pub(crate) fn http() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = requests.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                request.extend_from_slice(&buffer[..length]);
            }
            kept.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=5\r\n\r\nok");
        }
    });
    (port, requests)
}
