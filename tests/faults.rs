//! The engine fails at any request of a launch, or the launcher dies there: the next command mends it, and nothing is
//! left that nobody knows.
//!
//! A proxy on the engine's socket counts requests. `SANDBOX_TEST_FULL=1` goes through every request; otherwise a sample.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use support::{Home, Project, docker, objects, status, text};

/// What happens at one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The connection ends before the engine sees the request.
    Lost,
    /// The engine does it, and its answer is lost.
    Unanswered,
    /// The engine says that it failed.
    Refused,
    /// The launcher is killed before the engine sees the request.
    Killed,
    /// The launcher is killed after the engine did it.
    KilledAfter,
}

const FAULTS: [Fault; 5] = [Fault::Lost, Fault::Unanswered, Fault::Refused, Fault::Killed, Fault::KilledAfter];

/// Stands before the engine's socket.
struct Proxy {
    _folder: tempfile::TempDir,
    socket: PathBuf,
    shared: Arc<Shared>,
}

struct Shared {
    engine: PathBuf,
    fault: Option<(usize, Fault)>,
    requests: AtomicUsize,
    /// Whom [`Fault::Killed`] kills.
    launcher: AtomicI32,
    seen: Mutex<Vec<String>>,
}

impl Proxy {
    fn start(fault: Option<(usize, Fault)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("engine.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let shared = Arc::new(Shared {
            engine: engine_socket(),
            fault,
            requests: AtomicUsize::new(0),
            launcher: AtomicI32::new(0),
            seen: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || shared.serve(client));
            }
        });
        Self { _folder: folder, socket, shared }
    }

    fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

impl Shared {
    fn serve(&self, mut client: UnixStream) {
        let Ok(mut engine) = UnixStream::connect(&self.engine) else { return };
        let (mut back, mut from) = (client.try_clone().unwrap(), engine.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut back);
            let _ = back.shutdown(Shutdown::Write);
        });
        let mut bytes = vec![0; 256 << 10];
        while let Ok(count @ 1..) = client.read(&mut bytes) {
            let chunk = &bytes[..count];
            let fault = request_line(chunk).and_then(|line| self.count(line));
            match fault {
                Some(Fault::Lost) => break,
                Some(Fault::Refused) => {
                    let answer = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n\
                                  Content-Length: 26\r\nConnection: close\r\n\r\n{\"message\":\"broken disk\"}\r\n";
                    let _ = client.write_all(answer.as_bytes());
                    break;
                }
                Some(Fault::Killed) => {
                    self.kill();
                    break;
                }
                Some(Fault::Unanswered | Fault::KilledAfter) => {
                    // The answer goes nowhere; that the engine closes after it says that it is done.
                    let head = String::from_utf8_lossy(chunk).replacen("\r\n", "\r\nConnection: close\r\n", 1);
                    let mut again = UnixStream::connect(&self.engine).unwrap();
                    let _ = again.write_all(head.as_bytes());
                    let _ = again.set_read_timeout(Some(std::time::Duration::from_secs(3)));
                    let _ = std::io::copy(&mut again, &mut std::io::sink());
                    if fault == Some(Fault::KilledAfter) {
                        self.kill();
                    }
                    break;
                }
                None if engine.write_all(chunk).is_err() => break,
                None => {}
            }
        }
        let _ = engine.shutdown(Shutdown::Write);
        if self.fault.is_some_and(|(at, _)| self.requests.load(Ordering::SeqCst) == at) {
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    /// Counts a request and says whether it is the one with the fault.
    fn count(&self, line: String) -> Option<Fault> {
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        self.seen.lock().unwrap().push(line);
        self.fault.filter(|(at, _)| *at == number).map(|(_, fault)| fault)
    }

    fn kill(&self) {
        if let Some(launcher) = Pid::from_raw(self.launcher.load(Ordering::SeqCst)) {
            let _ = kill_process(launcher, Signal::KILL);
        }
    }
}

/// The method and path, when these bytes begin a request: the client writes each request's head at once.
fn request_line(bytes: &[u8]) -> Option<String> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let line = std::str::from_utf8(&bytes[..end]).ok()?.strip_suffix(" HTTP/1.1")?;
    let method = line.split(' ').next()?;
    ["GET", "HEAD", "POST", "PUT", "DELETE"].contains(&method).then(|| line.to_owned())
}

fn engine_socket() -> PathBuf {
    let host = docker(&["context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]);
    let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| text(&host.stdout).trim().to_owned());
    Path::new(host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock")).to_owned()
}

fn up(home: &Home, project: &Project<'_>, proxy: &Proxy) -> Output {
    let mut command = home.command();
    command.args(["--engine", &proxy.address(), "up", project.name(), "--", "true"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    proxy.shared.launcher.store(i32::try_from(child.id()).unwrap(), Ordering::SeqCst);
    child.wait_with_output().unwrap()
}

#[test]
fn whatever_fails_at_any_request_of_a_launch_the_next_command_mends() {
    let home = Home::new();
    let manifest = "image: agent\ncredentials:\n  token: { provider: store }\n";
    let project = Project::new(&home, "faults", manifest);
    let set =
        home.sandbox().args(["credential", "set", "token", project.name()]).write_stdin("value").output().unwrap();
    assert!(set.status.success(), "{}", text(&set.stderr));
    // The first builds the image and loads the launcher; the second is the launch whose requests are counted.
    for _ in 0..2 {
        let counting = Proxy::start(None);
        let whole = up(&home, &project, &counting);
        assert!(whole.status.success(), "{}", text(&whole.stderr));
        down(&home, &project);
    }
    let counting = Proxy::start(None);
    assert!(up(&home, &project, &counting).status.success());
    down(&home, &project);
    let seen = counting.shared.seen.lock().unwrap().clone();
    assert!(seen.len() > 30, "{seen:#?}");

    let full = std::env::var_os("SANDBOX_TEST_FULL").is_some();
    let mut tried = 0;
    for at in 1..=seen.len() {
        for (index, fault) in FAULTS.into_iter().enumerate() {
            // The sample takes each request at most once and each fault as often as the others.
            if !full && (at % 4 != 0 || (at / 4) % FAULTS.len() != index) {
                continue;
            }
            let what = format!("{fault:?} at request {at}, `{}`", seen[at - 1]);
            let proxy = Proxy::start(Some((at, fault)));
            let faulty = up(&home, &project, &proxy);
            let said = text(&faulty.stderr);
            tried += 1;
            assert!(!said.contains("panicked"), "{what}: {said}");
            if faulty.status.code() == Some(125) {
                assert!(said.contains("error[") && said.contains("next:"), "{what}: {said}");
            }
            let again =
                home.sandbox().args(["up", project.name(), "--", "cat", "/run/secrets/token"]).output().unwrap();
            assert_eq!(text(&again.stdout), "value", "{what}: {said}\nthen: {}", text(&again.stderr));
            assert!(again.status.success(), "{what}: {}", text(&again.stderr));
            let after = status(&home, project.name());
            assert_eq!(after["condition"], "stopped", "{what}: {after}");
            down(&home, &project);
            assert_eq!(objects(project.name()), Vec::<String>::new(), "{what}");
            assert_eq!(support::supervisors(project.path()).len(), 0, "{what}");
        }
    }
    assert!(tried >= 10, "{tried} faults");
    let verified = home.sandbox().args(["audit", "verify"]).output().unwrap();
    assert!(verified.status.success(), "{}", text(&verified.stderr));
}

fn down(home: &Home, project: &Project<'_>) {
    let down = home.sandbox().args(["down", "--discard", project.name()]).output().unwrap();
    assert!(down.status.success(), "{}", text(&down.stderr));
}
