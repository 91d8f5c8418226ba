use std::io::Cursor;
use std::path::Path;
use std::process::{Command as Git, Stdio};
use std::time::Duration;

use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::*;

type Client = SessionClient<ChildStdout, ChildStdin>;

/// The program's binary stands two folders above a unit test's: `debug/deps/sandbox-…` and `debug/sandbox`.
fn session() -> (Child, Client) {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("sandbox");
    let mut child = Command::new(&program)
        .arg("session")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{} must be built: {error}", program.display()));
    let (read, write) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
    (child, SessionClient::new(read, write, Duration::from_secs(20)))
}

fn request(command: &[&str]) -> RunRequest {
    RunRequest {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        environment: [("GREETING".to_owned(), "hello".to_owned())].into(),
        secret_environment: Default::default(),
        links: Default::default(),
        directory: "/".into(),
        terminal: None,
        log: false,
    }
}

fn on_terminal(command: &[&str]) -> RunRequest {
    RunRequest { terminal: Some(TerminalSize { rows: 33, columns: 77 }), ..request(command) }
}

async fn run(client: &mut Client, request: RunRequest, inputs: Vec<CommandInput>) -> (u8, Vec<u8>, Vec<u8>) {
    let (sender, input) = mpsc::channel(1000);
    for input in inputs {
        sender.send(input).await.unwrap();
    }
    let (mut output, mut errors) = (Cursor::new(Vec::new()), Cursor::new(Vec::new()));
    let streams = CommandStreams { input, output: &mut output, errors: &mut errors };
    let code = timeout(Duration::from_secs(30), client.run(request, streams)).await.unwrap().unwrap();
    (code, output.into_inner(), errors.into_inner())
}

#[tokio::test]
async fn passes_exit_codes_signals_and_both_streams_of_commands_in_a_row() {
    let (_child, mut client) = session();
    let (code, output, errors) =
        run(&mut client, request(&["sh", "-c", "echo $GREETING; echo oops >&2; exit 7"]), vec![]).await;
    assert_eq!((code, &output[..], &errors[..]), (7, &b"hello\n"[..], &b"oops\n"[..]));
    assert_eq!(run(&mut client, request(&["sh", "-c", "kill -9 $$"]), vec![]).await.0, 137);
    assert_eq!(run(&mut client, request(&["sleep", "60"]), vec![CommandInput::Signal(15)]).await.0, 143);
}

#[tokio::test]
async fn tells_a_missing_command_from_one_that_is_not_executable() {
    let (_child, mut client) = session();
    for (command, code) in [("no-such-command", 127), ("/etc/passwd", 126)] {
        let (_sender, input) = mpsc::channel(1);
        let streams = CommandStreams { input, output: tokio::io::sink(), errors: tokio::io::sink() };
        assert_eq!(client.run(request(&[command]), streams).await.unwrap_err().exit_code(), Some(code));
    }
}

#[tokio::test]
async fn ends_the_input_of_pipes_and_terminals() {
    let (_child, mut client) = session();
    let inputs = vec![CommandInput::Data(Bytes::from_static(b"typed\n")), CommandInput::End];
    assert_eq!(run(&mut client, request(&["cat"]), inputs.clone()).await, (0, b"typed\n".to_vec(), vec![]));
    let (code, output, _) = run(&mut client, on_terminal(&["cat"]), inputs).await;
    assert_eq!((code, String::from_utf8(output).unwrap().as_str()), (0, "typed\r\ntyped\r\n"));
}

#[tokio::test]
async fn gives_a_terminal_its_size_and_its_changes() {
    let (_child, mut client) = session();
    let (code, output, _) = run(&mut client, on_terminal(&["stty", "size"]), vec![]).await;
    assert_eq!((code, String::from_utf8(output).unwrap().as_str()), (0, "33 77\r\n"));
    let script = "until [ \"$(stty size)\" = '10 20' ]; do sleep 0.02; done; stty size </dev/tty";
    let resize = CommandInput::Resize(TerminalSize { rows: 10, columns: 20 });
    let (code, output, _) = run(&mut client, on_terminal(&["sh", "-c", script]), vec![resize]).await;
    assert_eq!((code, String::from_utf8(output).unwrap().as_str()), (0, "10 20\r\n"));
}

#[tokio::test]
async fn shows_what_looks_like_a_frame_as_output() {
    let (_child, mut client) = session();
    let printf = ["printf", r"\001\000\000\000\377\377\377\377"];
    let expected = b"\x01\0\0\0\xff\xff\xff\xff".to_vec();
    assert_eq!(run(&mut client, request(&printf), vec![]).await, (0, expected.clone(), vec![]));
    assert_eq!(run(&mut client, on_terminal(&printf), vec![]).await, (0, expected, vec![]));
}

#[tokio::test]
async fn carries_fifty_megabytes_unharmed() {
    let (_child, mut client) = session();
    let bytes = 50 << 20;
    let script = format!("head -c {bytes} /dev/zero | tr '\\0' x; printf end");
    for request in [request(&["sh", "-c", &script]), on_terminal(&["sh", "-c", &script])] {
        let (code, output, _) = run(&mut client, request, vec![]).await;
        assert_eq!((code, output.len()), (0, bytes + 3));
        assert!(output[..bytes].iter().all(|byte| *byte == b'x') && output.ends_with(b"end"));
    }
}

#[tokio::test]
async fn ends_what_a_command_leaves_behind() {
    let (_child, mut client) = session();
    for request in [request(&["sh", "-c", "sleep 1234 & echo $!"]), on_terminal(&["sh", "-c", "sleep 1234 & echo $!"])]
    {
        let (code, output, _) = run(&mut client, request, vec![]).await;
        assert_eq!(code, 0);
        assert!(gone(String::from_utf8(output).unwrap().trim()).await);
    }
}

#[tokio::test]
async fn does_not_outlive_its_launcher_even_when_signals_are_ignored() {
    for terminal in [None, Some(TerminalSize { rows: 24, columns: 80 })] {
        let (mut child, client) = session();
        let script = "trap '' HUP TERM INT; echo $$; while :; do sleep 0.1; done";
        let mut client = client;
        let (sender, input) = mpsc::channel(1);
        let (mut read, output) = tokio::io::duplex(1000);
        let running = tokio::spawn(async move {
            let request = RunRequest { terminal, ..request(&["sh", "-c", script]) };
            client.run(request, CommandStreams { input, output, errors: tokio::io::sink() }).await
        });
        let mut buffer = [0; 100];
        let count = read.read(&mut buffer).await.unwrap();
        let pid = String::from_utf8(buffer[..count].to_vec()).unwrap();
        assert!(Path::new("/proc").join(pid.trim()).exists());
        running.abort();
        drop(sender);
        let _ = running.await;
        timeout(Duration::from_secs(8), child.wait()).await.expect("the session ends").unwrap();
        assert!(gone(pid.trim()).await);
    }
}

async fn gone(pid: &str) -> bool {
    for _ in 0..50 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgSign=false"];
    let output = Git::new("git").arg("-C").arg(folder).args(identity).args(arguments).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn clone_request(directory: &Path, shallow: Vec<String>) -> CloneRequest {
    CloneRequest {
        directory: directory.to_str().unwrap().into(),
        branch: "main".into(),
        shallow,
        config: vec![("user.name".into(), "agent[bot]".into()), ("user.email".into(), "agent@example.org".into())],
        remotes: [("origin".to_owned(), "https://example.org/x.git".to_owned())].into(),
        sparse: Vec::new(),
        detached: false,
    }
}

fn make_source(folder: &Path) -> String {
    git(folder, &["init", "-q", "-b", "main"]);
    for text in ["one", "two"] {
        std::fs::write(folder.join("file"), text).unwrap();
        git(folder, &["add", "file"]);
        git(folder, &["commit", "-qm", text]);
    }
    git(folder, &["bundle", "create", "-q", ".git/out", "main"]);
    git(folder, &["rev-parse", "main"])
}

#[tokio::test]
async fn clones_a_bundle_joins_it_and_sends_new_commits_back() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tip = make_source(source.path());
    let (_child, mut client) = session();
    let bundle = std::fs::read(source.path().join(".git/out")).unwrap();
    for _first_then_joined in 0..2 {
        let head = client.clone_bundle(clone_request(target.path(), vec![]), &bundle[..]).await.unwrap();
        assert_eq!(head.as_ref(), Some(&tip));
    }
    assert_eq!(std::fs::read_to_string(target.path().join("file")).unwrap(), "two");
    assert_eq!(git(target.path(), &["status", "--porcelain"]), "");
    assert_eq!(git(target.path(), &["config", "remote.origin.url"]), "https://example.org/x.git");

    let request = |base: &str, limit| BundleRequest {
        directory: target.path().to_str().unwrap().into(),
        branch: "main".into(),
        base: Some(base.into()),
        limit,
    };
    let mut back = Cursor::new(Vec::new());
    assert_eq!(client.bundle(request(&tip, 1 << 20), &mut back).await.unwrap(), None);
    std::fs::write(target.path().join("file"), "three").unwrap();
    git(target.path(), &["commit", "-qam", "three"]);
    let new = git(target.path(), &["rev-parse", "main"]);
    assert!(client.bundle(request(&tip, 10), &mut tokio::io::sink()).await.is_err());
    assert_eq!(client.bundle(request(&tip, 1 << 20), &mut back).await.unwrap(), Some(new.clone()));
    std::fs::write(source.path().join(".git/back"), back.into_inner()).unwrap();
    git(source.path(), &["fetch", "-q", ".git/back", "main:refs/sandbox/main"]);
    assert_eq!(git(source.path(), &["rev-parse", "refs/sandbox/main"]), new);
    let missing = BundleRequest { branch: "other".into(), ..request(&tip, 1 << 20) };
    let error = client.bundle(missing, &mut tokio::io::sink()).await.unwrap_err();
    assert!(matches!(error, SessionError::Failed { kind: FailureKind::Git, .. }), "{error}");
}

#[tokio::test]
async fn every_commit_names_its_session_however_it_is_made() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_source(source.path());
    let (_child, mut client) = session();
    let bundle = std::fs::read(source.path().join(".git/out")).unwrap();
    client.clone_bundle(clone_request(target.path(), vec![]), &bundle[..]).await.unwrap();
    let commit = |session: &str, arguments: &[&str], editor: &str| {
        let output = Git::new("git")
            .args(["commit", "--quiet", "--allow-empty"])
            .args(arguments)
            .current_dir(target.path())
            .envs([("SANDBOX_SESSION", session), ("GIT_EDITOR", editor)])
            .output()
            .unwrap();
        let trailers = git(target.path(), &["log", "-1", "--format=%(trailers:key=Sandbox-Session,valueonly)"]);
        (output.status.success(), trailers)
    };
    assert_eq!(commit("first", &["-m", "plain"], "false"), (true, "first".into()));
    assert_eq!(commit("first", &["-m", "quick", "--no-verify"], "false"), (true, "first".into()));
    assert_eq!(commit("first", &[], "sh -c 'echo written > $0'"), (true, "first".into()));
    assert_eq!(commit("second", &["--amend", "--no-edit"], "false"), (true, "first\nsecond".into()));
    assert_eq!(commit("second", &["--amend", "--no-edit"], "false"), (true, "first\nsecond".into()));
    // Nothing written is still nothing: git gives up.
    assert!(!commit("third", &[], "true").0);
    assert_eq!(commit("", &["-m", "no session"], "false"), (true, String::new()));
    // Whose agent it is stands there too, once, also when a commit is changed.
    for words in [&["-m", "with Ada"][..], &["--amend", "--no-edit"]] {
        let made = Git::new("git")
            .args(["commit", "--quiet", "--allow-empty"])
            .args(words)
            .current_dir(target.path())
            .envs([("SANDBOX_SESSION", "fourth"), ("SANDBOX_PERSON", "Ada Lovelace <ada@example.com>")])
            .status()
            .unwrap();
        assert!(made.success());
        let people = git(target.path(), &["log", "-1", "--format=%(trailers:key=Co-authored-by,valueonly)"]);
        assert_eq!(people, "Ada Lovelace <ada@example.com>");
    }
}

#[tokio::test]
async fn clones_a_cut_history_and_an_empty_one() {
    let folders = tempfile::tempdir().unwrap();
    let path = |name: &str| {
        let path = folders.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    let tip = make_source(&path("source"));
    let url = format!("file://{}", path("source").display());
    git(folders.path(), &["clone", "-q", "--depth=1", &url, "cut"]);
    git(&path("cut"), &["bundle", "create", "-q", ".git/out", "main"]);
    let bundle = std::fs::read(path("cut").join(".git/out")).unwrap();
    let (_child, mut client) = session();
    let head = client.clone_bundle(clone_request(&path("target"), vec![tip.clone()]), &bundle[..]).await.unwrap();
    assert_eq!(head, Some(tip));
    assert_eq!(git(&path("target"), &["rev-list", "--count", "main"]), "1");
    let head = client.clone_bundle(clone_request(&path("empty"), vec![]), &b""[..]).await.unwrap();
    assert_eq!(head, None);
    assert_eq!(git(&path("empty"), &["symbolic-ref", "HEAD"]), "refs/heads/main");
}

#[tokio::test]
async fn refuses_garbage_and_frames_that_are_too_long() {
    for answer in [&b"\x01\x7f\xff\xff\xff"[..], b"\x09\0\0\0\0", b"\x02\0\0\0\x01x", b"", b"\x01\0\0\0\x02{}"] {
        let mut client = SessionClient::new(answer, tokio::io::sink(), Duration::from_secs(1));
        let (_sender, input) = mpsc::channel(1);
        let streams = CommandStreams { input, output: tokio::io::sink(), errors: tokio::io::sink() };
        client.run(request(&["true"]), streams).await.unwrap_err();
    }
}

#[tokio::test]
async fn gives_up_on_a_session_that_does_not_answer() {
    let (read, _held) = tokio::io::duplex(10);
    let mut client = SessionClient::new(read, tokio::io::sink(), Duration::from_millis(20));
    let (_sender, input) = mpsc::channel(1);
    let streams = CommandStreams { input, output: tokio::io::sink(), errors: tokio::io::sink() };
    assert!(matches!(client.run(request(&["true"]), streams).await, Err(SessionError::Timeout(_))));
}

#[test]
fn takes_terminal_escapes_out_of_messages() {
    assert_eq!(sanitise("a\u{1b}]0;x\u{7}b\nc"), "a ]0;x b c");
}

/// What a server on this loopback does with its one connection.
async fn server<F: Future<Output = ()> + Send + 'static>(
    serve: impl FnOnce(tokio::net::TcpStream) -> F + Send + 'static,
) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { serve(listener.accept().await.unwrap().0).await });
    port
}

/// Says this to the port, ends its side, and gives what came back.
async fn talk(client: &mut Client, say: Vec<u8>, silence: Duration) -> Result<Vec<u8>, SessionError> {
    let (near, far) = tokio::io::duplex(64 << 10);
    let (far_read, far_write) = tokio::io::split(far);
    let (mut near_read, mut near_write) = tokio::io::split(near);
    let counters = (AtomicU64::new(0), AtomicU64::new(0));
    let said = say.len() as u64;
    let mut heard = Vec::new();
    let speak = async {
        let _ = near_write.write_all(&say).await;
        let _ = near_write.shutdown().await;
        std::future::pending::<()>().await;
    };
    let pass = async {
        let passed = client.pass(far_read, far_write, silence, (&counters.0, &counters.1)).await;
        assert!(passed.is_err() || counters.0.load(Ordering::Relaxed) == said);
        passed
    };
    tokio::select! {
        passed = async { tokio::join!(pass, near_read.read_to_end(&mut heard)).0 } => passed?,
        () = speak => {}
    }
    Ok(heard)
}

#[tokio::test]
async fn a_connection_passes_all_bytes_and_both_ends_and_the_session_serves_the_next() {
    let (_child, mut client) = session();
    for _ in 0..2 {
        let echo = server(|mut socket| async move {
            let (mut read, mut write) = socket.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        });
        client.connect(echo.await).await.unwrap();
        let bytes: Vec<u8> = (0..9_000_000_u32).map(|number| (number % 251) as u8).collect();
        assert!(talk(&mut client, bytes.clone(), Duration::from_secs(20)).await.unwrap() == bytes);
    }
    // And the requests of other kinds still stand where they belong.
    assert_eq!(run(&mut client, request(&["true"]), vec![]).await.0, 0);
}

#[tokio::test]
async fn a_port_without_a_server_is_told_and_the_session_goes_on() {
    let (_child, mut client) = session();
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let refused = client.connect(free).await.unwrap_err();
    assert!(matches!(&refused, SessionError::Failed { message, .. } if message.contains("refused")), "{refused}");
    assert_eq!(run(&mut client, request(&["true"]), vec![]).await.0, 0);
}

#[tokio::test]
async fn a_server_that_keeps_a_connection_whose_client_has_gone_loses_it() {
    let (_child, mut client) = session();
    let silent = server(|socket| async move {
        std::future::pending::<()>().await;
        drop(socket);
    });
    client.connect(silent.await).await.unwrap();
    let begun = Instant::now();
    let given_up = talk(&mut client, b"hello".to_vec(), Duration::from_millis(400)).await;
    assert!(matches!(given_up, Err(SessionError::Timeout(_))), "{given_up:?}");
    assert!(begun.elapsed() >= Duration::from_millis(400));
}

#[tokio::test]
async fn a_server_that_reads_nothing_holds_back_what_it_is_sent() {
    let (_child, mut client) = session();
    let silent = server(|socket| async move {
        std::future::pending::<()>().await;
        drop(socket);
    });
    client.connect(silent.await).await.unwrap();
    // Far more than all buffers on the way; that it times out shows that it was not swallowed.
    let given_up = talk(&mut client, vec![0; 64 << 20], Duration::from_millis(600)).await;
    assert!(matches!(given_up, Err(SessionError::Timeout(_))), "{given_up:?}");
}
