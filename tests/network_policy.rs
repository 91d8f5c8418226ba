//! The network of a running sandbox on a real engine: what a person changes without a restart, what is counted, and what
//! an agent tries against it.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use support::neighbour::Neighbour;
use support::{Home, Project, docker, eventually, text};

/// HTTP on 8000, and lines that are echoed on 7000 for as long as they come.
const SERVERS: &str = r#"
import http.server, socketserver, threading
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = ("page %s\n" % self.path).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0)); self.do_GET()
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(b"echo " + line)
servers = [http.server.ThreadingHTTPServer(("", 8000), Page), socketserver.ThreadingTCPServer(("", 7000), Echo)]
for server in servers:
    threading.Thread(target=server.serve_forever).start()
print("serving", flush=True)
"#;

/// Holds a connection open, says a line each tenth of a second, and writes how it ended.
const HOLD: &str = r#"
import socket, time
stream = socket.create_connection(("shop.example.test", 7000), 10); lines = stream.makefile("rw")
try:
    while True:
        lines.write("hello\n"); lines.flush()
        if not lines.readline():
            break
        open("/tmp/held", "w").write("open"); time.sleep(0.1)
except OSError:
    pass
open("/tmp/held", "w").write("cut")
"#;

/// What an agent could try: the launcher in its container, the gateway's protocol on the proxy, the gateway's socket.
const ATTACK: &str = r#"
policy='{"id":1,"action":{"policy":{"allow":[{"host":"other.example.test","port":8000}]}}}'
/.sandbox/sandbox network allow demo other.example.test:8000 >/dev/null 2>&1; echo "launcher $?"
python3 - "$policy" <<'END'
import socket, sys
for first in (sys.argv[1] + "\n", '{"control":{}}\n', "POLICY / HTTP/1.1\r\nHost: gateway\r\n\r\n" + sys.argv[1]):
    stream = socket.create_connection(("127.0.0.1", 3128), 10); stream.settimeout(10)
    stream.sendall(first.encode()); stream.shutdown(socket.SHUT_WR)
    print("proxy", (stream.recv(64) or b"closed").split(b"\r\n")[0].decode())
END
for socket in /run/channel/gateway.sock /run/secrets/gateway.sock; do test -e $socket && echo "socket $socket"; done
find / -xdev -type s 2>/dev/null | grep -c gateway
"#;

struct Running<'a> {
    home: &'a Home,
    project: Project<'a>,
    neighbour: Neighbour,
}

impl<'a> Running<'a> {
    /// A sandbox that may reach what the manifest's `network` says (`SUBNET` is the servers' network), beside servers.
    fn start(home: &'a Home, prefix: &str, network: &str) -> Self {
        let neighbour = Neighbour::network(home, &["shop.example.test", "other.example.test"]);
        let network = network.replace("SUBNET", &neighbour.subnet);
        let project = Project::new(home, prefix, &format!("image: agent\nnetwork:\n{network}"));
        let running = Self { home, project, neighbour };
        running.sandbox(&["up", running.project.name(), "--detach", "--", "sleep", "600"]);
        let image = text(&docker(&["inspect", "--format", "{{.Image}}", &running.container("agent")]).stdout);
        running.neighbour.serve(image.trim(), &running.container("gateway"), SERVERS);
        running
    }

    fn container(&self, role: &str) -> String {
        format!("sandbox-{}.main-{role}", self.project.name())
    }

    /// Runs the launcher, which must succeed.
    fn sandbox(&self, arguments: &[&str]) -> String {
        let output = self.home.sandbox().args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs a verb of `network` on this project.
    fn network(&self, verb: &str, arguments: &[&str]) -> Value {
        let all = [&["network", verb, self.project.name(), "--format", "json"], arguments].concat();
        serde_json::from_str(&self.sandbox(&all)).unwrap()
    }

    /// What a change is refused with.
    fn refused(&self, arguments: &[&str]) -> String {
        let all = [&["network", "allow", self.project.name()], arguments].concat();
        let output = self.home.sandbox().args(all).output().unwrap();
        assert!(!output.status.success(), "{}", text(&output.stdout));
        text(&output.stderr)
    }

    fn exec(&self, script: &str) -> String {
        let arguments = ["exec", self.project.name(), "--", "bash", "-c", script];
        text(&self.home.sandbox().args(arguments).output().unwrap().stdout)
    }

    /// What a page's server answers, by the proxy.
    fn page(&self, host: &str) -> String {
        self.exec(&format!("curl -sS --max-time 10 http://{host}:8000/x 2>&1"))
    }
}

const SHOP: &str = "  allow:\n    - { host: shop.example.test, port: 8000, allow_private: SUBNET }\n    \
                    - { host: shop.example.test, port: 7000, allow_private: SUBNET }\n";

#[test]
fn a_person_changes_what_a_running_sandbox_may_reach_and_the_agent_does_not() {
    let home = Home::new();
    let running = Running::start(&home, "live", SHOP);
    assert_eq!(running.page("shop.example.test"), "page /x\n");
    assert!(running.page("other.example.test").contains("host not allowed"));
    let log = [&["network", "log", running.project.name(), "--follow", "--denied"][..], &["--format", "json"]].concat();
    let mut follower = home.command().args(log).stdout(Stdio::piped()).spawn().unwrap();
    let mut followed = BufReader::new(follower.stdout.take().unwrap()).lines();

    let refused = "proxy HTTP/1.1 400 Bad Request\n".repeat(3);
    assert_eq!(running.exec(ATTACK), format!("launcher 1\n{refused}0\n"));
    assert!(running.page("other.example.test").contains("host not allowed"));

    let subnet = running.neighbour.subnet.clone();
    let allowed = running.network("allow", &["other.example.test:8000", "--allow-private", &subnet]);
    assert_eq!(allowed["changed"], true);
    let line = format!("- {{ host: other.example.test, port: 8000, allow_private: [\"{subnet}\"] }}");
    assert_eq!(allowed["manifest"], serde_json::json!([line]));
    assert_eq!(running.page("other.example.test"), "page /x\n");
    let direct = "env -u http_proxy curl -sS --max-time 10 http://other.example.test:8000/y 2>&1";
    assert_eq!(running.exec(direct), "page /y\n");
    let again = running.network("allow", &["other.example.test:8000", "--allow-private", &subnet]);
    assert_eq!(again["changed"], false);

    // A gateway that dies comes back with the policy as it is now.
    assert!(docker(&["kill", &running.container("gateway")]).status.success());
    eventually("the gateway's return", Duration::from_secs(20), || running.exec(direct) == "page /y\n");

    // A program of the agent's ends with the command that started it, so that this one goes on.
    let holding = ["exec", running.project.name(), "--", "python3", "-c", HOLD];
    let mut holder = home.command().args(holding).stdin(Stdio::null()).spawn().unwrap();
    eventually("an open connection", Duration::from_secs(10), || running.exec("cat /tmp/held") == "open");
    let denied = running.network("deny", &["shop.example.test:7000"]);
    assert_eq!((&denied["changed"], denied["replaces"][0].as_str()), (&Value::Bool(true), Some("sandbox.yaml:7")));
    eventually("the connection's end", Duration::from_secs(5), || running.exec("cat /tmp/held") == "cut");
    assert!(holder.wait().unwrap().success());
    assert_eq!(running.page("shop.example.test"), "page /x\n", "another port is as before");
    running.network("deny", &["shop.example.test"]);
    assert!(running.page("shop.example.test").contains("host not allowed"));
    assert_eq!(running.exec("getent hosts shop.example.test || echo none"), "none\n");

    for (arguments, code) in [
        (&["meta.example.test", "--allow-private", "169.254.169.254/32"][..], "network-entry"),
        (&["127.0.0.1:80"][..], "network-entry"),
        (&["a.example.test", "GET", "/x"][..], "network-restart"),
        (&["*"][..], "destination"),
    ] {
        let said = running.refused(arguments);
        assert!(said.contains(&format!("error[{code}]")), "{said}");
    }

    let listed = running.network("ls", &[]);
    let other = listed["allow"].as_array().unwrap().iter().find(|row| row["host"] == "other.example.test").unwrap();
    assert_eq!((&other["added"], other["origin"].as_str()), (&Value::Bool(true), Some("added while running")));
    eventually("the counts", Duration::from_secs(5), || {
        let listed = running.network("ls", &[]);
        listed["allow"][2]["connections"].as_u64() >= Some(2) && listed["allow"][2]["received"].as_u64() > Some(0)
    });
    assert_eq!(listed["denied"].as_array().unwrap().len(), 2);
    let entries = followed.by_ref().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    // The probe at the start found no server yet.
    let first = entries.into_iter().find(|entry| entry["reason"] == "unlisted").unwrap();
    assert_eq!((first["host"].as_str(), first["denied"].as_bool()), (Some("other.example.test"), Some(true)));
    follower.kill().unwrap();
    follower.wait().unwrap();
    let learned = running.network("learn", &[]);
    let of =
        |host: &str| learned.as_array().unwrap().iter().find(|line| line["entry"].as_str().unwrap().contains(host));
    assert_eq!(of("other.example.test").unwrap()["status"], "used");
    assert!(of("other.example.test").unwrap()["entry"].as_str().unwrap().contains(&subnet), "{learned:#}");
    assert_eq!(of("port: 7000").unwrap()["status"], "used", "the connection that was cut");
    let log = running.network("log", &[]);
    let actions: Vec<&str> = log.as_array().unwrap().iter().filter_map(|entry| entry["action"].as_str()).collect();
    for action in ["network.allowed", "network.denied", "policy.allowed", "policy.denied"] {
        assert!(actions.contains(&action), "{action} is not in {actions:?}");
    }
}

#[test]
fn a_changed_list_in_the_manifest_is_taken_without_a_restart_and_nothing_else_is() {
    let home = Home::new();
    let running = Running::start(&home, "apply", SHOP);
    let started = text(&docker(&["inspect", "--format", "{{.State.StartedAt}}", &running.container("agent")]).stdout);
    let manifest = running.project.path().join("sandbox.yaml");
    let before = std::fs::read_to_string(&manifest).unwrap();
    let change = |text: &str| {
        std::fs::write(&manifest, text).unwrap();
        running.sandbox(&["trust", "--yes", running.project.path().to_str().unwrap()]);
        home.sandbox().args(["up", running.project.name(), "--detach"]).output().unwrap()
    };
    running.network("deny", &["shop.example.test:7000"]);
    let moved = change(&before.replace("host: shop.example.test, port: 8000", "host: other.example.test, port: 8000"));
    assert!(moved.status.success(), "{}", text(&moved.stderr));
    let said = text(&moved.stderr);
    assert!(said.contains("from now on: other.example.test:8000; no more as before: shop.example.test:8000"), "{said}");
    assert!(said.contains("shop.example.test stays denied"), "{said}");
    assert_eq!(running.page("other.example.test"), "page /x\n");
    assert!(running.page("shop.example.test").contains("host not allowed"));
    let refused = change(&format!("{before}resources: {{ pids: 99 }}\n"));
    let said = text(&refused.stderr);
    assert!(!refused.status.success() && said.contains("needs a restart: resources"), "{said}");
    assert_eq!(running.page("other.example.test"), "page /x\n", "the running sandbox is as before");
    let now = text(&docker(&["inspect", "--format", "{{.State.StartedAt}}", &running.container("agent")]).stdout);
    assert_eq!(now, started, "the agent's container was not restarted");
}

#[test]
fn a_flood_of_names_is_counted_in_a_bounded_table() {
    const FLOOD: &str = r#"
import socket
for number in range(1500):
    stream = socket.create_connection(("127.0.0.1", 3128), 10)
    stream.sendall(b"CONNECT n%d.flood.example:443 HTTP/1.1\r\n\r\n" % number)
    assert stream.recv(12) == b"HTTP/1.1 403"
for again in range(30):
    stream = socket.create_connection(("127.0.0.1", 3128), 10)
    stream.sendall(b"CONNECT n0.flood.example:443 HTTP/1.1\r\n\r\n")
    assert stream.recv(12) == b"HTTP/1.1 403"
print("flooded")
"#;
    let home = Home::new();
    let project = Project::new(&home, "flood", "image: agent\n");
    let up = home.sandbox().args(["up", project.name(), "--detach", "--", "sleep", "600"]).output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    let flood = home.sandbox().args(["exec", project.name(), "--", "python3", "-c", FLOOD]).output().unwrap();
    assert_eq!(text(&flood.stdout), "flooded\n", "{}", text(&flood.stderr));
    let count = |status: &Value, host: &str| {
        let rows = status["denied"].as_array().unwrap();
        rows.iter().find(|row| row["host"] == host).map_or(0, |row| row["count"].as_u64().unwrap())
    };
    eventually("every denial's count", Duration::from_secs(30), || {
        let status = support::status(&home, project.name());
        count(&status, "n0.flood.example") == 31 && count(&status, "(other hosts)") > 900
    });
    let status = support::status(&home, project.name());
    assert!(status["denied"].as_array().unwrap().len() <= 50);
    let first = status["denied"].as_array().unwrap().iter().find(|row| row["host"] == "n0.flood.example").unwrap();
    assert_eq!(first["remedy"], "add `- n0.flood.example` to network.allow");
    assert!(first["last"].as_str().is_some_and(|last| last.ends_with('Z')));
    let log = home.sandbox().args(["audit", "log", "--action", "network.denied", "--format", "json"]).output().unwrap();
    let events = serde_json::from_slice::<Value>(&log.stdout).unwrap().as_array().unwrap().len();
    assert!(events < 700, "{events} events for one flood");
}

/// Goes beyond each limit in turn, and says how each try ended.
const TOO_MUCH: &str = r#"
import socket, time, urllib.request, urllib.error
def post(size):
    try:
        request = urllib.request.Request("http://shop.example.test:8000/up", b"x" * size)
        return urllib.request.urlopen(request, timeout=10).status
    except urllib.error.HTTPError as error:
        return "%d %s" % (error.code, error.read().decode().split("limits.")[1].split(":")[0])
def connect():
    stream = socket.create_connection(("127.0.0.1", 3128), 10)
    stream.sendall(b"CONNECT other.example.test:7000 HTTP/1.1\r\n\r\n")
    return stream, stream.recv(1024).split(b"\r\n")[0].decode()
print("body", post(600 << 10))
print("posts", post(400 << 10), post(400 << 10), post(400 << 10))
held = [connect() for _ in range(4)]
print("connections", [answer.split(" ")[1] for _, answer in held])
begun = time.time()
ended = held[0][0].recv(1)
print("idle", ended, 1 <= time.time() - begun < 8)
for stream, _ in held: stream.close()
time.sleep(0.5)
stream, _ = connect()
try:
    for _ in range(64):
        stream.sendall(b"x" * (32 << 10))
    sent = stream.recv(1)
except OSError:
    sent = b""
print("upload", sent)
print("afterwards", connect()[1].split(" ")[1])
"#;

#[test]
fn too_much_ends_with_a_reason_and_shows_in_the_status() {
    let home = Home::new();
    let limits = "  limits: { upload: 1MiB, request_body: 512KiB, connections: 3, idle: 2s }\n";
    let network =
        format!("{}{limits}", SHOP.replace("shop.example.test, port: 7000", "other.example.test, port: 7000"));
    let running = Running::start(&home, "limits", &network);
    let tried =
        home.sandbox().args(["exec", running.project.name(), "--", "python3", "-c", TOO_MUCH]).output().unwrap();
    let expected = [
        "body 403 request_body",
        "posts 200 200 403 upload",
        "connections ['200', '200', '200', '429']",
        "idle b'' True",
        "upload b''",
        "afterwards 403",
    ];
    assert_eq!(text(&tried.stdout), expected.map(|line| format!("{line}\n")).concat(), "{}", text(&tried.stderr));
    eventually("the limits in the status", Duration::from_secs(10), || {
        let status = support::status(&home, running.project.name());
        let rows = status["denied"].as_array().unwrap().iter().filter_map(|row| row["remedy"].as_str());
        let raised: Vec<&str> = rows.filter(|remedy| remedy.starts_with("raise network.limits.")).collect();
        ["upload", "request_body", "connections", "idle"]
            .iter()
            .all(|key| raised.iter().any(|remedy| remedy.starts_with(&format!("raise network.limits.{key},"))))
    });
}

/// What a session that learns does once its neighbour serves: two pages, a name alone, and a private address.
const LEARNS: &str = r#"
until curl -sS --fail --max-time 5 http://shop.example.test/a/1 >/tmp/page 2>/tmp/why || grep -q 'error: 403' /tmp/why; do sleep 0.2; done
curl -sS --max-time 5 -X POST http://shop.example.test/orders?id=1 >>/tmp/page
getent hosts looked-up.example.test >/dev/null
curl -sS --max-time 5 http://10.11.12.13/ >/dev/null
cat /tmp/page
"#;

/// Runs a session that learns, does something beside it, and gives what it proposes and what it said on standard error.
fn learn(home: &Home, project: &Project<'_>, options: &[&str], meanwhile: impl FnOnce()) -> (Vec<String>, String) {
    let words = [&["network", "learn", project.name(), "--format", "json"], options, &["--", "bash", "-c", LEARNS]];
    let mut command = home.command();
    command.args(words.concat()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let learner = command.spawn().unwrap();
    meanwhile();
    let output = learner.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    // What the command prints comes before the document.
    let said = text(&output.stdout);
    let document: Value = serde_json::from_str(&said[said.find("[\n").unwrap()..]).unwrap();
    let word = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    let line = |line: &Value| format!("{} {}", word(line, "status"), word(line, "entry"));
    (document.as_array().unwrap().iter().map(line).collect(), text(&output.stderr))
}

#[test]
fn a_session_that_learns_opens_nothing_and_one_that_observes_shows_methods_and_paths() {
    let home = Home::new();
    let project = Project::new(&home, "learns", "image: agent\nnetwork:\n  allow: [unused.example.test]\n");
    let (learned, _) = learn(&home, &project, &[], || {});
    let expected = [
        "unused unused.example.test",
        "denied { host: shop.example.test, port: 80 }",
        "denied { host: \"10.11.12.13\", port: 80 }",
        "looked_up looked-up.example.test",
    ];
    assert_eq!(learned, expected);
    // Each decision is recorded once, however the session ends.
    let log = home.sandbox().args(["audit", "log", "--action", "network.denied", "--format", "json"]).output().unwrap();
    let events = serde_json::from_slice::<Value>(&log.stdout).unwrap();
    let private = events.as_array().unwrap().iter().filter(|record| record["event"]["facts"]["host"] == "10.11.12.13");
    assert_eq!(private.count(), 1, "{events:#}");

    let neighbour = Neighbour::public(&home, &["shop.example.test"]);
    let container = |role: &str| format!("sandbox-{}.main-{role}", project.name());
    let inspect = |role: &str, field: &str| {
        text(&docker(&["inspect", "--format", field, &container(role)]).stdout).trim().to_owned()
    };
    let (image, before) = (inspect("agent", "{{.Image}}"), inspect("gateway", "{{.Id}}"));
    let (observed, said) = learn(&home, &project, &["--observe", "--yes"], || {
        eventually("the next session's gateway", Duration::from_secs(30), || {
            inspect("gateway", "{{.State.Running}}") == "true" && inspect("gateway", "{{.Id}}") != before
        });
        neighbour.serve(&image, &container("gateway"), &SERVERS.replace("8000", "80"));
    });
    let expected = [
        "unused unused.example.test",
        "observed { host: shop.example.test, port: 80, rules: [\"GET /a/1\", \"POST /orders\"] }",
        "denied { host: \"10.11.12.13\", port: 80 }",
    ];
    assert_eq!(observed, expected);
    assert!(said.contains("WEAKENED: every public host is open"), "{said}");
}
