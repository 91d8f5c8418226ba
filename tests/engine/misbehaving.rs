//! Engines that a real one cannot be made into: a script of answers behind a socket, and what was asked of it.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use sandbox::engine::container::{ContainerSpec, Limits, Network, User};
use sandbox::engine::{Endpoint, Engine, EngineError};

/// A socket that answers every request by `answer(method, path)`: a status and a JSON document.
struct Scripted {
    endpoint: Endpoint,
    asked: Arc<Mutex<Vec<String>>>,
    _folder: tempfile::TempDir,
}

impl Scripted {
    fn new(answer: impl Fn(&str, &str) -> (u16, String) + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let record = asked.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let Some((method, path)) = request(&mut connection) else { continue };
                record.lock().unwrap().push(format!("{method} {path}"));
                let (status, body) = answer(&method, &path);
                let head = format!(
                    "HTTP/1.1 {status} Scripted\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(body.as_bytes()));
            }
        });
        Self { endpoint: Endpoint::Unix(path), asked, _folder: folder }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Reads a request with its body; nothing when the connection was only tried.
fn request(connection: &mut UnixStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = connection.read(&mut piece).ok().filter(|&read| read > 0)?;
        bytes.extend_from_slice(&piece[..read]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        if bytes.len() >= end + 4 + length.unwrap_or_default() {
            let first = String::from_utf8_lossy(&bytes[..end]).lines().next()?.to_owned();
            let mut words = first.split(' ');
            return Some((words.next()?.to_owned(), words.next()?.to_owned()));
        }
    }
}

const VERSION: &str = r#"{"Version":"20.10.24","ApiVersion":"1.41","MinAPIVersion":"1.12","Arch":"amd64"}"#;

fn spec() -> ContainerSpec {
    ContainerSpec {
        name: "sandbox-demo-agent".into(),
        image: "sha256:00".into(),
        command: vec!["/helper".into()],
        user: User { uid: 1000, gid: 1000 },
        groups: Vec::new(),
        environment: Default::default(),
        working_directory: "/".into(),
        hostname: None,
        labels: Default::default(),
        network: Network::None,
        dns: Vec::new(),
        mounts: Vec::new(),
        tmpfs: Vec::new(),
        limits: Limits { memory: 1 << 30, millicpus: 1000, pids: 64, open_files: 64, file_size: 1 << 20, shm: 1 << 20 },
        seccomp: None,
        masked_paths: Vec::new(),
        readonly_paths: Vec::new(),
        open_stdin: false,
    }
}

/// An engine that creates with this answer and inspects with that one.
fn creating(created: &'static str, inspected: &'static str) -> Scripted {
    Scripted::new(move |method, path| match (method, path) {
        (_, "/version") => (200, VERSION.into()),
        ("GET", path) if path.contains("/images/") => (200, r#"{"Id":"sha256:00","Config":{}}"#.into()),
        ("POST", _) => (201, created.into()),
        ("GET", path) if path.contains("/containers/") => (200, inspected.into()),
        ("DELETE", _) => (204, String::new()),
        _ => (500, r#"{"message":"not in the script"}"#.into()),
    })
}

#[tokio::test]
async fn every_request_names_the_version_that_was_agreed_on() {
    let scripted = Scripted::new(|_, path| match path {
        "/version" => (200, VERSION.into()),
        _ => (404, r#"{"message":"no such thing"}"#.into()),
    });
    let engine = Engine::connect(scripted.endpoint.clone()).await.unwrap();
    assert!(engine.inspect_volume("v").await.unwrap().is_none());
    assert!(engine.attach("c").await.unwrap_err().is_not_found());
    assert!(engine.containers(&["dev.sandbox.project=x".into()]).await.is_err());
    let asked = scripted.asked();
    assert_eq!(asked[0], "GET /version");
    assert_eq!(asked.len(), 4);
    for request in &asked[1..] {
        assert!(request.contains(" /v1.41/"), "{asked:?}");
    }
}

#[tokio::test]
async fn a_warning_on_creation_is_an_error_and_removes_the_container() {
    let scripted = creating(r#"{"Id":"abc","Warnings":["Your kernel does not support swap limit"]}"#, "{}");
    let engine = Engine::connect(scripted.endpoint.clone()).await.unwrap();
    let error = engine.create_container(&spec()).await.unwrap_err();
    assert!(matches!(error, EngineError::Warnings { ref warnings, .. } if warnings.len() == 1), "{error:?}");
    assert!(scripted.asked().iter().any(|request| request.starts_with("DELETE /v1.41/containers/abc")));
}

#[tokio::test]
async fn a_limit_that_is_missing_is_an_error_that_names_it_and_removes_the_container() {
    let scripted = creating(r#"{"Id":"abc","Warnings":[]}"#, r#"{"Id":"abc","HostConfig":{"Memory":0}}"#);
    let engine = Engine::connect(scripted.endpoint.clone()).await.unwrap();
    let error = engine.create_container(&spec()).await.unwrap_err();
    assert!(matches!(error, EngineError::LimitMissing { ref limit, .. } if limit == "Memory"), "{error:?}");
    assert!(scripted.asked().iter().any(|request| request.starts_with("DELETE /v1.41/containers/abc")));
}

#[tokio::test]
async fn an_engine_before_20_10_is_refused_by_name() {
    let old = r#"{"Version":"19.03.15","ApiVersion":"1.40","MinAPIVersion":"1.12"}"#;
    let scripted = Scripted::new(move |_, _| (200, old.into()));
    let error = Engine::connect(scripted.endpoint.clone()).await.unwrap_err();
    assert!(matches!(error, EngineError::TooOld { ref version, .. } if version == "19.03.15"), "{error:?}");
}

#[tokio::test]
async fn another_server_is_not_taken_for_an_engine() {
    let scripted = Scripted::new(|_, _| (200, "<html>".into()));
    let error = Engine::connect(scripted.endpoint.clone()).await.unwrap_err();
    assert!(matches!(error, EngineError::NotAnEngine { .. }), "{error:?}");
}

#[tokio::test]
async fn the_words_of_an_engine_are_cut_and_made_harmless() {
    let scripted = Scripted::new(|_, path| match path {
        "/version" => (200, VERSION.into()),
        _ => (500, format!(r#"{{"message":"\u001b[2J{}"}}"#, "x".repeat(100_000))),
    });
    let engine = Engine::connect(scripted.endpoint.clone()).await.unwrap();
    match engine.start_container("c").await.unwrap_err() {
        EngineError::Api { status: 500, source, .. } => {
            assert!(source.as_str().len() < 2100 && !source.as_str().contains('\u{1b}'));
        }
        error => panic!("{error:?}"),
    }
}
