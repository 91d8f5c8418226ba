//! What a sandbox reaches of the network on a real engine: the listed hosts and ports by every way that programs take,
//! and nothing else.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::fs;
use std::time::Duration;

use support::neighbour::Neighbour;
use support::{Home, Project, docker, eventually, text};

/// The servers: HTTP on 8000, HTTPS on 8443, a line echoed on 7000, HTTP on 8001 that no rule names.
const SERVERS: &str = r#"
import http.server, socketserver, ssl, subprocess, threading
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        length = int(self.headers.get("Content-Length") or 0)
        with open("/dev/shm/keys", "a") as keys:
            keys.write("%s\n" % self.headers.get("X-Api-Key"))
        body = ("%s %s %s\n" % (self.command, self.headers["Host"], self.path)).encode() + self.rfile.read(length)
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
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
    let neighbour = Neighbour::network(&home, &["shop.example.test", "other.example.test"]);
    let rules = [8000, 8443, 7000]
        .map(|port| format!("    - {{ host: shop.example.test, port: {port}, allow_private: {} }}\n", neighbour.subnet))
        .concat();
    let project = Project::new(&home, "hosts", &format!("image: agent\nnetwork:\n  allow:\n{rules}"));
    let up = home.sandbox().args(["up", project.name(), "--detach", "--", "sleep", "600"]).output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    let container = |role: &str| format!("sandbox-{}.main-{role}", project.name());
    let image = text(&docker(&["inspect", "--format", "{{.Image}}", &container("agent")]).stdout);
    neighbour.serve(image.trim(), &container("gateway"), SERVERS);
    let address =
        docker(&["inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", &neighbour.name]);
    let exec = |script: &str, input: &str| {
        let arguments = ["exec", project.name(), "--", "bash", "-c", script];
        text(&home.sandbox().args(arguments).write_stdin(input).output().unwrap().stdout)
    };
    exec("cat > ~/shop.pem", &neighbour.certificate);
    let answers = exec(&ASK.replace("ADDRESS", text(&address.stdout).trim()), "");
    insta::with_settings!({filters => vec![(r"after \d+ ms", "after N ms")]}, {
        insta::assert_snapshot!(answers.replace(text(&address.stdout).trim(), "ADDRESS"));
    });
    let log = text(&home.sandbox().args(["audit", "log", "--format", "json"]).output().unwrap().stdout);
    for fact in ["network.allowed", "\"port\": \"8443\"", "network.denied", "other.example.test", "8001"] {
        assert!(log.contains(fact), "{fact} is not recorded: {log}");
    }
}

/// Asks a host with rules by the programs that agents use, each with its own way to certificate authorities.
const ASK_BY_RULES: &str = r#"
url=https://shop.example.test:8443
tell() { name=$1; shift; printf '%s: %s\n' "$name" "$("$@" 2>&1 | tail -n 1)"; }
tell 'curl' curl -sS --max-time 10 $url/open/a
tell 'curl without a proxy' env -u https_proxy -u HTTPS_PROXY curl -sS --max-time 10 $url/open/b
tell 'curl with a body' curl -sS --max-time 10 --data 'text' $url/items
tell 'python' python3 -c "import urllib.request as r; print(r.urlopen('$url/open/c').read().decode().strip())"
tell 'node' node -e "fetch('$url/open/d').then(r => r.text()).then(t => console.log(t.trim()))"
tell 'git' git ls-remote $url/open/e.git
tell 'git by ssh' git ls-remote git@other.example.test:x.git
tell 'git by a url of ssh' git ls-remote ssh://git@other.example.test:22/x.git
tell 'another path' curl -sS --max-time 10 $url/closed
tell 'another method' curl -sS --max-time 10 -X POST $url/open/a
tell 'dots' curl -sS --max-time 10 --path-as-is $url/open/../closed
tell 'another host' curl -sS --max-time 10 -H 'Host: other.example.test' $url/open/a
tell 'plain http' curl -sS --max-time 10 http://shop.example.test:8000/closed
"#;

#[test]
fn a_host_with_rules_answers_the_allowed_requests_to_every_program() {
    let home = Home::new();
    let neighbour = Neighbour::network(&home, &["shop.example.test", "other.example.test"]);
    let authorities = home.path().join("company.pem");
    fs::write(&authorities, &neighbour.certificate).unwrap();
    let configuration = home.path().join("config/sandbox/config.yaml");
    fs::create_dir_all(configuration.parent().unwrap()).unwrap();
    fs::write(configuration, format!("network: {{ authorities: {} }}\n", authorities.display())).unwrap();
    let rules = [8000, 8443]
        .map(|port| {
            let requests = "[GET /open/**, POST /items]";
            let private = &neighbour.subnet;
            format!("    - {{ host: shop.example.test, port: {port}, allow_private: {private}, rules: {requests} }}\n")
        })
        .concat();
    // Its address is a private one, so that git is refused; the address that it asks for is what counts.
    let rules = format!("{rules}    - other.example.test\n");
    let project = Project::new(&home, "rules", &format!("image: agent\nnetwork:\n  allow:\n{rules}"));
    let up = home.sandbox().args(["up", project.name(), "--detach", "--", "sleep", "600"]).output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    let container = |role: &str| format!("sandbox-{}.main-{role}", project.name());
    let image = text(&docker(&["inspect", "--format", "{{.Image}}", &container("agent")]).stdout);
    neighbour.serve(image.trim(), &container("gateway"), SERVERS);
    let exec = |script: &str| {
        text(&home.sandbox().args(["exec", project.name(), "--", "bash", "-c", script]).output().unwrap().stdout)
    };
    insta::assert_snapshot!("by_rules", exec(ASK_BY_RULES));
    // A gateway that is started again has another authority, which the next command's programs trust.
    assert!(docker(&["kill", &container("gateway")]).status.success());
    eventually("the gateway's return", Duration::from_secs(20), || {
        exec("curl -sS --max-time 5 https://shop.example.test:8443/open/again").contains("/open/again")
    });
    let log = text(&home.sandbox().args(["audit", "log", "--format", "json"]).output().unwrap().stdout);
    for fact in ["request.allowed", "request.denied", "/closed", "POST /items"] {
        assert!(log.contains(fact), "{fact} is not recorded: {log}");
    }
}

#[test]
fn a_brokered_key_reaches_its_host_and_never_the_agent() {
    let home = Home::new();
    let neighbour = Neighbour::network(&home, &["shop.example.test", "other.example.test"]);
    let authorities = home.path().join("company.pem");
    fs::write(&authorities, &neighbour.certificate).unwrap();
    let configuration = home.path().join("config/sandbox/config.yaml");
    fs::create_dir_all(configuration.parent().unwrap()).unwrap();
    fs::write(configuration, format!("network: {{ authorities: {} }}\n", authorities.display())).unwrap();
    let manifest = format!(
        "image: agent\nnetwork:\n  allow:\n    - {{ host: shop.example.test, port: 8443, allow_private: {} }}\n\
         credentials:\n  shop:\n    provider: store\n    \
         deliver: {{ broker: shop.example.test, header: x-api-key, environment: SHOP_KEY }}\n",
        neighbour.subnet
    );
    let project = Project::new(&home, "broker", &manifest);
    let (first, second) = ("canary-3c1d77e0-first", "canary-8a52f9b4-second");
    let give = |verb: &str, value: &str| {
        let given =
            home.sandbox().args(["credential", verb, "shop", project.name()]).write_stdin(value).output().unwrap();
        assert!(given.status.success(), "{}", text(&given.stderr));
    };
    give("set", first);
    let up = home.sandbox().args(["up", project.name(), "--detach", "--", "sleep", "600"]).output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    let container = |role: &str| format!("sandbox-{}.main-{role}", project.name());
    let image = text(&docker(&["inspect", "--format", "{{.Image}}", &container("agent")]).stdout);
    neighbour.serve(image.trim(), &container("gateway"), SERVERS);
    let exec = |script: &str| {
        text(&home.sandbox().args(["exec", project.name(), "--", "bash", "-c", script]).output().unwrap().stdout)
    };
    let ask = r#"curl -sS --max-time 5 -H "x-api-key: $SHOP_KEY" https://shop.example.test:8443/v1"#;
    let keys = || text(&docker(&["exec", &neighbour.name, "cat", "/dev/shm/keys"]).stdout);
    assert_eq!(exec("printenv SHOP_KEY"), "sandbox-brokered\n");
    assert!(exec(ask).contains("/v1"));
    assert_eq!(keys(), format!("{first}\n"));
    let why = |request: &[&str]| {
        let output =
            home.sandbox().args(["why", project.name(), "shop.example.test:8443"]).args(request).output().unwrap();
        text(&output.stdout)
    };
    let proved = "proved       the gateway puts that value into the field `x-api-key`; nothing was sent";
    assert!(why(&["GET", "/v1"]).contains(proved), "{}", why(&["GET", "/v1"]));
    assert!(!why(&[]).contains("proved"), "{}", why(&[]));
    assert_eq!(keys(), format!("{first}\n"), "the proof was sent to the host");
    give("rotate", second);
    eventually("the new key's use", Duration::from_secs(10), || {
        exec(ask);
        keys().ends_with(&format!("{second}\n"))
    });
    assert!(why(&["GET", "/v1"]).contains(proved), "{}", why(&["GET", "/v1"]));
    // What a gateway that died held in memory is issued anew.
    assert!(docker(&["kill", &container("gateway")]).status.success());
    let before = keys();
    eventually("the key's return", Duration::from_secs(20), || {
        exec(ask);
        keys().len() > before.len()
    });
    assert!(!keys().contains("sandbox-brokered") && keys().ends_with(&format!("{second}\n")), "{}", keys());
    let search =
        "grep -rlas canary- /run /home /workspace /tmp /proc/[0-9]*/environ /proc/[0-9]*/cmdline /dev/shm; true";
    assert_eq!(exec(&search.replace("canary-", "canary-[38]")), "", "the agent can see the key");
    support::assert_no_canary(&home, project.name(), &[first, second]);
    let withdrawn = home.sandbox().args(["credential", "rm", "shop", project.name()]).output().unwrap();
    assert!(withdrawn.status.success(), "{}", text(&withdrawn.stderr));
}
