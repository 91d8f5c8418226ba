//! Log-ins of agents across processes: one refresher at a time, whatever dies, and in the sandbox the agent's own file with
//! an access token or what stands for it. The issuer ends a log-in whose refresh token comes a second time.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

#[path = "federation/server.rs"]
mod server;
mod support;

use server::{Request, serve};
use support::{Home, Project, assert_no_canary, eventually, text};

#[derive(Default)]
struct State {
    /// The one refresh token that is good.
    good: String,
    refreshes: usize,
    /// Whether one came a second time, or one that never was.
    stolen: bool,
    /// Whether the next request is taken and not carried out, or carried out and not answered; both once.
    ignore: bool,
    swallow: bool,
    /// How many requests came, whatever became of them.
    requests: usize,
    revoked: bool,
}

#[derive(Clone)]
struct Issuer {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Issuer {
    fn start() -> Self {
        let state = Arc::new(Mutex::new(State { good: "refresh-canary-0".to_owned(), ..State::default() }));
        let kept = Arc::clone(&state);
        let address = serve(move |request| {
            let (status, body, pause) = {
                let mut state = kept.lock().unwrap();
                state.requests += 1;
                let pause = state.ignore || state.swallow;
                if std::mem::take(&mut state.ignore) {
                    (0, Value::Null, pause)
                } else {
                    let (status, body) = answer(request, &mut state);
                    if std::mem::take(&mut state.swallow) { (0, body, pause) } else { (status, body, pause) }
                }
            };
            if pause {
                // Long enough for whoever waits to be killed.
                std::thread::sleep(Duration::from_secs(2));
            }
            (status, body.to_string())
        });
        Self { address, state }
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }
}

fn answer(request: &Request, state: &mut State) -> (u16, Value) {
    assert_eq!(request.method, "POST");
    let form = request.form();
    assert_eq!((form["client_id"].as_str(), form["client_secret"].as_str()), ("client", "secret-of-the-client"));
    if request.path == "/revoke" {
        assert_eq!(form["token"], state.good);
        state.revoked = true;
        return (200, json!({}));
    }
    assert_eq!((request.path.as_str(), form["grant_type"].as_str()), ("/token", "refresh_token"));
    if state.stolen || form["refresh_token"] != state.good {
        state.stolen = true;
        return (400, json!({ "error": "invalid_grant" }));
    }
    state.refreshes += 1;
    state.good = format!("refresh-canary-{}", state.refreshes);
    let claims = json!({ "https://api.openai.com/auth": { "chatgpt_account_id": "account-1" } });
    let token = format!("e30.{}.identity-canary", URL_SAFE_NO_PAD.encode(claims.to_string()));
    (
        200,
        json!({
            "access_token": format!("access-canary-{}", state.refreshes),
            "refresh_token": state.good,
            "id_token": token,
            "token_type": "Bearer",
            "expires_in": 3600,
        }),
    )
}

fn manifest(issuer: &Issuer, deliver: &str) -> String {
    let address = &issuer.address;
    format!(
        "image: agent
command: [bash, -l]
network:
  allow: [chatgpt.example.com]
credentials:
  codex:
    provider: oauth
    agent: codex
    client_id: client
    key_file: ~/client-secret
    token_url: {address}/token
    revoke_url: {address}/revoke
    deliver: {deliver}
"
    )
}

fn with_secret(home: Home) -> Home {
    let secret = home.path().join("client-secret");
    fs::write(&secret, "secret-of-the-client\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    home
}

fn run(home: &Home, words: &[&str], input: &str) -> (i32, String, String) {
    let output = home.sandbox().args(words).env("HOME", home.path()).write_stdin(input).output().unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn good(home: &Home, words: &[&str], input: &str) -> String {
    let (code, said, errors) = run(home, words, input);
    assert_eq!(code, 0, "{words:?}: {errors}{said}");
    said + &errors
}

#[test]
fn many_processes_share_one_refresh() {
    let (issuer, home) = (Issuer::start(), with_secret(Home::without_engine()));
    let project = Project::new(&home, "shared", &manifest(&issuer, "{ file: codex }"));
    good(&home, &["credential", "login", "codex", project.name()], "refresh-canary-0\n");
    assert_eq!(issuer.with(|state| state.refreshes), 1, "a log-in uses its refresh token once");
    good(&home, &["credential", "rotate", "codex", project.name()], "");
    let check = || {
        let mut command = home.command();
        command.args(["credential", "check", project.name(), "--format", "json"]).env("HOME", home.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let processes: Vec<_> = (0..8).map(|_| check()).collect();
    let mut fingerprints = std::collections::BTreeSet::new();
    for process in processes {
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
        fingerprints.insert(rows[0]["fingerprint"].as_str().unwrap().to_owned());
    }
    assert_eq!((issuer.with(|state| (state.refreshes, state.stolen)), fingerprints.len()), ((2, false), 1));
    good(&home, &["credential", "rm", "codex", project.name()], "");
    assert!(issuer.with(|state| state.revoked), "the log-in goes on at its issuer");
}

#[test]
fn a_refresher_that_dies_is_followed_by_the_next_or_its_end_is_said() {
    for answered in [false, true] {
        let (issuer, home) = (Issuer::start(), with_secret(Home::without_engine()));
        let project = Project::new(&home, "dies", &manifest(&issuer, "{ file: codex }"));
        good(&home, &["credential", "login", "codex", project.name()], "refresh-canary-0\n");
        good(&home, &["credential", "rotate", "codex", project.name()], "");
        issuer.with(|state| if answered { state.swallow = true } else { state.ignore = true });
        let before = issuer.with(|state| state.requests);
        let mut command = home.command();
        command.args(["credential", "check", project.name()]).env("HOME", home.path()).stdin(Stdio::null());
        let mut first = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the request", Duration::from_secs(20), || issuer.with(|state| state.requests) > before);
        first.kill().unwrap();
        first.wait().unwrap();
        let (code, said, errors) = run(&home, &["credential", "check", project.name()], "");
        // What the issuer did not do did not happen; what it did, nobody has any more.
        assert_eq!(code, i32::from(answered), "{said}{errors}");
        assert_eq!(said.contains("a refresh before was cut off"), answered, "{said}{errors}");
        assert_eq!(issuer.with(|state| state.stolen), answered);
    }
}

#[test]
fn the_agent_finds_its_own_file_with_a_token_that_renews_nothing() {
    let (issuer, home) = (Issuer::start(), with_secret(Home::new()));
    for (deliver, inside) in [("{ file: codex }", true), ("{ broker: chatgpt.example.com }", false)] {
        // No token comes twice: one project's is not another's.
        let (refresh, before) = issuer.with(|state| (state.good.clone(), state.refreshes));
        let project = Project::new(&home, "agent", &manifest(&issuer, deliver));
        let name = project.name();
        good(&home, &["credential", "login", "codex", name], &refresh);
        good(&home, &["up", "--offline", name, "--detach", "--", "sleep", "300"], "");
        let read = || {
            let output =
                home.sandbox().args(["exec", name, "--", "sh", "-c", "cat ~/.codex/auth.json"]).output().unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
            serde_json::from_slice::<Value>(&output.stdout).unwrap()
        };
        let file = read();
        let token = file["tokens"]["access_token"].as_str().unwrap();
        let access = format!("access-canary-{}", before + 1);
        assert_eq!(token, if inside { access.as_str() } else { "sandbox-brokered" });
        assert_eq!(
            (&file["tokens"]["refresh_token"], &file["tokens"]["account_id"]),
            (&"".into(), &"account-1".into())
        );
        assert!(
            !file.to_string().contains("identity-canary") && !file.to_string().contains("refresh-canary"),
            "{file}"
        );
        let everything = "cat /run/secrets/* 2>/dev/null; env";
        let all = good(&home, &["exec", name, "--", "sh", "-c", everything], "");
        assert!(!all.contains("refresh-canary") && all.contains("access-canary") == inside, "{all}");
        good(&home, &["credential", "rotate", "codex", name], "");
        let rotated =
            || issuer.with(|state| state.refreshes) == before + 2 && read()["last_refresh"] != file["last_refresh"];
        eventually("the renewed file", Duration::from_secs(30), rotated);
        assert!(!read().to_string().contains("refresh-canary"));
        assert_no_canary(&home, name, &["refresh-canary", "identity-canary"]);
        good(&home, &["down", "--discard", name], "");
    }
}
