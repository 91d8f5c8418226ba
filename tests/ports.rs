//! Ports of the sandbox on this machine's loopback: what passes, what ends it, and what a hostile server cannot do.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::time::Duration;

use support::{Home, Project, eventually, status, text};

const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of the large file: far more than all buffers on the way.
const LARGE: usize = 40_000_000;

/// A port of this machine that nobody has now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The answer to a request for this path, head and body.
fn get(port: u16, path: &str) -> Option<Vec<u8>> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    write!(socket, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).ok()?;
    answer.starts_with(b"HTTP/1.0 200").then_some(answer)
}

/// `sandbox port`, once it said where the ports are.
fn forward(home: &Home, project: &str, ports: &[&str]) -> (Child, String) {
    let mut command = home.command();
    command.args(["port", project]).args(ports).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said: Vec<String> = ports.iter().map_while(|_| lines.next()?.ok()).collect();
    (child, said.join("\n"))
}

fn serve(home: &Home, project: &Project<'_>, port: u16) {
    let script = format!("head -c {LARGE} /dev/zero > large; exec python3 -m http.server {port}");
    let up = home.sandbox().args(["up", project.name(), "--detach", "--", "sh", "-c", &script]).output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
}

fn audit(home: &Home, project: &str, action: &str) -> String {
    let log = home.sandbox().args(["audit", "log", "--project", project, "--action", action]).output().unwrap();
    text(&log.stdout)
}

#[test]
fn up_forwards_the_ports_of_the_manifest_to_loopback_alone() {
    let home = Home::new();
    let local = free_port();
    fs::create_dir_all(home.path().join("config/sandbox")).unwrap();
    let permitted = format!("ports: {{ local: [\"{local}\"] }}\n");
    fs::write(home.path().join("config/sandbox/config.yaml"), permitted).unwrap();
    let manifest = format!("image: agent\ncommand: [bash, -l]\nports: [\"3000:{local}\"]\n");
    let project = Project::new(&home, "ports", &manifest);
    serve(&home, &project, 3000);
    eventually("the page came", LIMIT, || get(local, "/README.md").is_some());
    assert!(text(&get(local, "/README.md").unwrap()).ends_with("A project.\n"));
    // Browsers that try IPv6 first find the same server at loopback's other address.
    let mut other = TcpStream::connect(("::1", local)).unwrap();
    other.set_read_timeout(Some(LIMIT)).unwrap();
    other.write_all(b"GET /README.md HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("A project.\n"), "{answer}");
    let large = get(local, "/large").unwrap();
    assert!(large.len() > LARGE && large.ends_with(&[0; 1000]), "{} bytes", large.len());
    let shown = status(&home, project.name());
    assert_eq!(shown["ports"][0]["url"], format!("http://{}.localhost:{local}", project.name()));
    assert!(shown["ports"][0]["problem"].is_null(), "{shown}");

    // No other address of this machine answers, though it would be the same port.
    let outward = UdpSocket::bind("0.0.0.0:0").unwrap();
    outward.connect("192.0.2.1:9").unwrap();
    let IpAddr::V4(address) = outward.local_addr().unwrap().ip() else { panic!("no IPv4 address") };
    assert!(!address.is_loopback());
    let refused = TcpStream::connect((address, local)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    // A second sandbox of the project finds the port taken, says so, and runs all the same.
    let second = home.sandbox().args(["up", project.name(), "--name", "two", "--", "true"]).output().unwrap();
    assert!(second.status.success(), "{}", text(&second.stderr));
    assert!(text(&second.stderr).contains("not forwarded: another program has it"), "{}", text(&second.stderr));
    home.sandbox().args(["down", "--discard", project.name(), "--name", "two"]).output().unwrap();

    let down = home.sandbox().args(["down", "--discard", project.name()]).output().unwrap();
    assert!(down.status.success(), "{}", text(&down.stderr));
    eventually("the port was given back", LIMIT, || TcpStream::connect(("127.0.0.1", local)).is_err());
    assert!(audit(&home, project.name(), "port").contains("port.opened"));
}

#[test]
fn a_terminal_forwards_several_ports_until_it_is_interrupted_or_the_session_ends() {
    let home = Home::new();
    let project = Project::new(&home, "terminal", "image: agent\ncommand: [bash, -l]\n");
    let absent = home.sandbox().args(["port", project.name(), "3000"]).output().unwrap();
    assert!(text(&absent.stderr).contains("error[sandbox-absent]"), "{}", text(&absent.stderr));
    serve(&home, &project, 3000);
    let (first, second) = (free_port(), free_port());
    let (mut child, said) = forward(&home, project.name(), &[&format!("3000:{first}"), &format!("3001:{second}")]);
    assert!(said.contains(&format!("http://{}.localhost:{first} is port 3000", project.name())), "{said}");
    eventually("the page came", LIMIT, || get(first, "/README.md").is_some());
    // Nobody listens at the other one: the connection is closed, and the first goes on.
    assert_eq!(get(second, "/"), None);
    assert!(get(first, "/README.md").is_some());
    let taken = home.sandbox().args(["port", project.name(), &format!("3000:{first}")]).output().unwrap();
    assert_eq!(taken.status.code(), Some(1));
    assert!(text(&taken.stderr).contains("error[port-taken]"), "{}", text(&taken.stderr));

    let interrupt = |child: &Child| {
        rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::INT).unwrap();
    };
    interrupt(&child);
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(child.wait().unwrap().success(), "{errors}");
    assert!(errors.contains("port 3001 of the sandbox: ") && errors.contains("refused"), "{errors}");
    assert!(TcpStream::connect(("127.0.0.1", first)).is_err());
    assert!(audit(&home, project.name(), "port").contains("port.closed"));

    let (mut child, _) = forward(&home, project.name(), &[&format!("3000:{first}")]);
    assert!(get(first, "/README.md").is_some());
    let down = home.sandbox().args(["down", "--discard", project.name()]).output().unwrap();
    assert!(down.status.success(), "{}", text(&down.stderr));
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(child.wait().unwrap().success() && errors.contains("the session ended"), "{errors}");
}

#[test]
fn a_flood_of_connections_that_say_nothing_is_bounded_and_leaves_nothing() {
    let home = Home::new();
    let project = Project::new(&home, "flood", "image: agent\ncommand: [bash, -l]\n");
    serve(&home, &project, 3000);
    let local = free_port();
    let (mut child, _) = forward(&home, project.name(), &[&format!("3000:{local}")]);
    eventually("the page came", LIMIT, || get(local, "/README.md").is_some());
    let sessions = || {
        // The brackets keep the pattern from finding this very search.
        let count = ["exec", project.name(), "--", "pgrep", "-fc", "sandbox [s]ession"];
        text(&home.sandbox().args(count).output().unwrap().stdout).trim().parse::<usize>().unwrap()
    };
    let flood: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(("127.0.0.1", local)).unwrap()).collect();
    eventually("the flood arrived", LIMIT * 2, || sessions() >= sandbox::session::ports::CONNECTIONS);
    // The command's, the watchdog's and this search's own are beside them.
    assert!(sessions() <= sandbox::session::ports::CONNECTIONS + 6, "{}", sessions());
    drop(flood);
    eventually("the port answered again", LIMIT, || get(local, "/README.md").is_some());
    eventually("the sessions ended", LIMIT, || sessions() < 20);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_runs_in_the_sandbox_reaches_nothing_of_this_machine_over_a_forwarded_port() {
    let home = Home::new();
    let project = Project::new(&home, "outward", "image: agent\ncommand: [bash, -l]\n");
    serve(&home, &project, 3000);
    let local = free_port();
    let (mut child, _) = forward(&home, project.name(), &[&format!("3000:{local}")]);
    eventually("the page came", LIMIT, || get(local, "/README.md").is_some());
    let canary = TcpListener::bind("127.0.0.1:0").unwrap();
    canary.set_nonblocking(true).unwrap();
    let host = canary.local_addr().unwrap().port();
    let script = "import socket,sys\nfor port in sys.argv[1:]:\n s=socket.socket(); print(s.connect_ex(('127.0.0.1',int(port))))";
    let ports = ["3000", &local.to_string(), &host.to_string()];
    let tried =
        home.sandbox().args(["exec", project.name(), "--", "python3", "-c", script]).args(ports).output().unwrap();
    // Its own server answers, and on this machine's ports ECONNREFUSED (111) is what it sees.
    assert_eq!(text(&tried.stdout), "0\n111\n111\n", "{}", text(&tried.stderr));
    assert_eq!(canary.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    child.kill().unwrap();
    child.wait().unwrap();
}
