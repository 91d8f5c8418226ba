//! What a sandbox reaches of the network on a real engine: the listed hosts and ports by every way that programs take,
//! and nothing else.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::fs;
use std::time::Duration;

use support::{Home, Project, docker, eventually, text};

/// The servers: HTTP on 8000, HTTPS on 8443, a line echoed on 7000, HTTP on 8001 that no rule names.
const SERVERS: &str = r#"
import http.server, socketserver, ssl, subprocess, threading
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = ("%s %s\n" % (self.headers["Host"], self.path)).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"echo " + self.rfile.readline())
servers = [http.server.ThreadingHTTPServer(("", port), Page) for port in (8000, 8001, 8443)]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tls/certificate.pem", "/tls/key.pem")
servers[2].socket = context.wrap_socket(servers[2].socket, server_side=True)
servers.append(socketserver.ThreadingTCPServer(("", 7000), Echo))
for server in servers:
    threading.Thread(target=server.serve_forever).start()
print("serving", flush=True)
"#;

/// A network of the engine with one container of two names, in which the servers run.
struct Neighbour {
    name: String,
    subnet: String,
    certificate: String,
}

impl Neighbour {
    fn network(unique: &str) -> Self {
        let name = format!("test-{unique}");
        assert!(docker(&["network", "create", &name]).status.success());
        let subnet = docker(&["network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", &name]);
        Self { subnet: text(&subnet.stdout).trim().to_owned(), name, certificate: String::new() }
    }

    /// Starts the servers, in an image that has Python, and lets a gateway reach them.
    fn serve(&mut self, image: &str, gateway: &str) {
        let signed = rcgen::generate_simple_self_signed(vec!["shop.example.test".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("certificate.pem"), signed.cert.pem()).unwrap();
        fs::write(folder.path().join("key.pem"), signed.signing_key.serialize_pem()).unwrap();
        self.certificate = signed.cert.pem();
        let program = ["--user", "0", "--entrypoint", "python3", image, "-u", "-c", SERVERS];
        let names = ["--network-alias", "shop.example.test", "--network-alias", "other.example.test"];
        let create = ["create", "--name", &self.name, "--network", &self.name];
        done(&[&create[..], &names[..], &program[..]].concat());
        done(&["cp", folder.path().to_str().unwrap(), &format!("{}:/tls", self.name)]);
        done(&["start", &self.name]);
        eventually("the servers' start", Duration::from_secs(20), || {
            text(&docker(&["logs", &self.name]).stdout).contains("serving")
        });
        done(&["network", "connect", &self.name, gateway]);
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        docker(&["rm", "--force", "--volumes", &self.name]);
        docker(&["network", "rm", &self.name]);
    }
}

fn done(arguments: &[&str]) {
    let output = docker(arguments);
    assert!(output.status.success(), "docker {arguments:?}: {}", text(&output.stderr));
}

/// Asks in the sandbox, once as programs do that know proxies and once as those that do not.
const ASK: &str = r#"
direct() { env -u http_proxy -u https_proxy -u HTTP_PROXY -u HTTPS_PROXY -u all_proxy -u ALL_PROXY "$@"; }
get="curl --silent --show-error --max-time 10 --cacert $HOME/shop.pem"
line='import socket, sys
stream = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
stream.sendall(b"hello\n"); print(stream.makefile().readline().strip() or "closed")'
tell() { name=$1; shift; printf '%s: %s\n' "$name" "$("$@" 2>&1 | tail -n 1)"; }
tell 'http by the proxy' $get http://shop.example.test:8000/a
tell 'http without' direct $get http://shop.example.test:8000/b
tell 'https by the proxy' $get https://shop.example.test:8443/c
tell 'https without' direct $get https://shop.example.test:8443/d
tell 'tcp without' direct python3 -c "$line" shop.example.test 7000
tell 'tcp by CONNECT' $get --proxytunnel telnet://shop.example.test:7000 < <(echo hello; sleep 1)
tell 'another port by the proxy' $get http://shop.example.test:8001/
tell 'another port without' direct $get http://shop.example.test:8001/
tell 'another name by the proxy' $get http://other.example.test:8000/
tell 'another name without' direct $get http://other.example.test:8000/
tell 'another name resolved' sh -c 'getent hosts other.example.test || echo none'
tell 'listed name resolved' sh -c 'getent hosts shop.example.test | grep -c shop'
tell 'its address by the proxy' $get http://ADDRESS:8000/
tell 'its address without' direct $get http://ADDRESS:8000/
tell 'another name in the TLS hello' direct $get --insecure --connect-to other.example.test:8443:shop.example.test:8443 https://other.example.test:8443/
"#;

#[test]
fn programs_reach_the_listed_host_and_port_with_and_without_a_proxy_and_nothing_else() {
    let home = Home::new();
    let mut neighbour = Neighbour::network(&home.path().file_name().unwrap().to_string_lossy().replace('.', ""));
    let rules = [8000, 8443, 7000]
        .map(|port| format!("    - {{ host: shop.example.test, port: {port}, allow_private: {} }}\n", neighbour.subnet))
        .concat();
    let project = Project::new(&home, "hosts", &format!("image: agent\nnetwork:\n  allow:\n{rules}"));
    let up = home.sandbox().args(["up", project.name(), "--detach", "--", "sleep", "600"]).output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    let container = |role: &str| format!("sandbox-{}.main-{role}", project.name());
    let image = text(&docker(&["inspect", "--format", "{{.Image}}", &container("agent")]).stdout);
    neighbour.serve(image.trim(), &container("gateway"));
    let address =
        docker(&["inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", &neighbour.name]);
    let exec = |script: &str, input: &str| {
        let arguments = ["exec", project.name(), "--", "bash", "-c", script];
        text(&home.sandbox().args(arguments).write_stdin(input).output().unwrap().stdout)
    };
    exec("cat > ~/shop.pem", &neighbour.certificate);
    let answers = exec(&ASK.replace("ADDRESS", text(&address.stdout).trim()), "");
    insta::with_settings!({filters => vec![(r"\b172\.\d+\.\d+\.\d+", "ADDRESS")]}, {
        insta::assert_snapshot!(answers);
    });
    let log = text(&home.sandbox().args(["audit", "log", "--format", "json"]).output().unwrap().stdout);
    for fact in ["network.allowed", "\"port\": \"8443\"", "network.denied", "other.example.test", "8001"] {
        assert!(log.contains(fact), "{fact} is not recorded: {log}");
    }
}
