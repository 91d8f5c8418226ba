//! The part of GitHub's API that issues and ends tokens of installations, on loopback. It is strict: a request that differs
//! from the documentation is refused as GitHub refuses it, or ends the test.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const APP: &str = "Iv23liTestOfTheApp01";
pub(crate) const INSTALLATION: u64 = 4711;
/// The repositories of the installation.
const REPOSITORIES: [(u64, &str); 3] = [(101, "Payments"), (102, "web"), (103, "secret-plans")];
/// What an owner granted to the app.
const GRANTED: [(&str, &str); 3] = [("contents", "write"), ("pull_requests", "write"), ("metadata", "read")];

/// How the server is.
#[derive(Default)]
pub(crate) struct State {
    /// Tokens that are good.
    pub(crate) good: Vec<String>,
    /// Tokens that were issued, in their order.
    pub(crate) issued: Vec<String>,
    /// Requests: method, path, status.
    pub(crate) log: Vec<String>,
    /// Seconds by which its clock is ahead.
    pub(crate) ahead: i64,
    /// Changes what is granted, after all checks.
    pub(crate) tamper: Option<fn(&mut Value)>,
    /// Answers this status and message to all.
    pub(crate) refuse: Option<(u16, &'static str)>,
    /// Says 204 to a revocation and does nothing.
    pub(crate) keeps_tokens: bool,
    pub(crate) assertions: usize,
}

pub(crate) struct Github {
    pub(crate) address: String,
    pub(crate) state: Arc<Mutex<State>>,
    folder: TempDir,
}

struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

fn openssl(words: &[&str]) -> bool {
    let output = Command::new("openssl").args(words).output().unwrap_or_else(|error| {
        panic!("this test needs `openssl` (Debian package `openssl`): {error}");
    });
    output.status.success()
}

impl Github {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        // PKCS #1, in which GitHub gives keys, and the same in PKCS #8.
        assert!(openssl(&["genrsa", "-traditional", "-out", &path("key.pem"), "2048"]));
        assert!(openssl(&["pkcs8", "-topk8", "-nocrypt", "-in", &path("key.pem"), "-out", &path("key8.pem")]));
        assert!(openssl(&["rsa", "-in", &path("key.pem"), "-pubout", "-out", &path("public.pem")]));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/api/v3", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, public) = (Arc::clone(&state), folder.path().join("public.pem"));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (shared, public) = (Arc::clone(&shared), public.clone());
                thread::spawn(move || serve(stream.unwrap(), &shared, &public));
            }
        });
        Self { address, state, folder }
    }

    /// The app's private key, as GitHub gives it.
    pub(crate) fn key(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("key.pem")).unwrap()
    }

    pub(crate) fn key_in_pkcs8(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("key8.pem")).unwrap()
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    pub(crate) fn good(&self) -> Vec<String> {
        self.state.lock().unwrap().good.clone()
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.state.lock().unwrap().log.clone()
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>, public: &Path) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = read(&mut reader) {
        let mut state = state.lock().unwrap();
        let (status, body) = answer(&request, &mut state, public);
        state.log.push(format!("{} {} {status}", request.method, request.path));
        let date = Timestamp::now() + SignedDuration::from_secs(state.ahead);
        let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT");
        drop(state);
        let body = if status == 204 { String::new() } else { body.to_string() };
        let text = format!(
            "HTTP/1.1 {status} -\r\ndate: {date}\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: \
             {}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        assert!(headers.insert(name.to_ascii_lowercase(), value.to_owned()).is_none(), "{name} stands twice");
    }
    let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body })
}

fn message(status: u16, text: &str) -> (u16, Value) {
    (
        status,
        json!({ "message": text, "documentation_url": "https://docs.github.com/rest", "status": status.to_string() }),
    )
}

fn answer(request: &Request, state: &mut State, public: &Path) -> (u16, Value) {
    let header = |name: &str| request.headers.get(name).map(String::as_str).unwrap_or_default();
    // "All API requests must include a valid User-Agent header."
    if header("user-agent").is_empty() {
        return message(
            403,
            "Request forbidden by administrative rules. Please make sure your request has a User-Agent header",
        );
    }
    if header("accept") != "application/vnd.github+json" || header("x-github-api-version") != "2022-11-28" {
        return message(400, "this server wants what the documentation recommends");
    }
    let Some(token) = header("authorization").strip_prefix("Bearer ") else {
        return message(401, "Requires authentication");
    };
    if let Some((status, text)) = state.refuse {
        return message(status, text);
    }
    let Some(path) = request.path.strip_prefix("/api/v3/") else { return message(404, "Not Found") };
    match (request.method.as_str(), path) {
        ("POST", path) if path.starts_with("app/installations/") => {
            state.assertions += 1;
            if let Err(refused) = check_assertion(token, state.ahead, public) {
                return message(401, refused);
            }
            if path != format!("app/installations/{INSTALLATION}/access_tokens") {
                return message(404, "Not Found");
            }
            assert_eq!(header("content-type"), "application/json");
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            mint(&body, state)
        }
        ("DELETE", "installation/token") => {
            if !state.good.iter().any(|good| good == token) {
                return message(401, "Bad credentials");
            }
            if !state.keeps_tokens {
                state.good.retain(|good| good != token);
            }
            (204, Value::Null)
        }
        ("GET", "installation/repositories?per_page=1") => {
            if !state.good.iter().any(|good| good == token) {
                return message(401, "Bad credentials");
            }
            (200, json!({ "total_count": 1, "repositories": [] }))
        }
        _ => message(404, "Not Found"),
    }
}

/// As GitHub checks it: signature, claims, and the times by its own clock.
fn check_assertion(token: &str, ahead: i64, public: &Path) -> Result<(), &'static str> {
    const UNREADABLE: &str = "A JSON web token could not be decoded";
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts.as_slice() else { return Err(UNREADABLE) };
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| UNREADABLE);
    let folder = tempfile::tempdir().unwrap();
    let (signed, signature_file) = (folder.path().join("signed"), folder.path().join("signature"));
    std::fs::write(&signed, format!("{header}.{claims}")).unwrap();
    std::fs::write(&signature_file, decode(signature)?).unwrap();
    let words =
        ["dgst", "-sha256", "-verify", public.to_str().unwrap(), "-signature", signature_file.to_str().unwrap()];
    if !openssl(&[&words[..], &[signed.to_str().unwrap()]].concat()) {
        return Err(UNREADABLE);
    }
    let header: Value = serde_json::from_slice(&decode(header)?).map_err(|_| UNREADABLE)?;
    assert_eq!(header, json!({ "alg": "RS256", "typ": "JWT" }));
    let claims: Value = serde_json::from_slice(&decode(claims)?).map_err(|_| UNREADABLE)?;
    assert_eq!(claims.as_object().unwrap().len(), 3, "{claims}");
    if claims["iss"] != APP {
        return Err("'Issuer' claim ('iss') must be an Integer");
    }
    let now = Timestamp::now().as_second() + ahead;
    let (Some(made), Some(ends)) = (claims["iat"].as_i64(), claims["exp"].as_i64()) else { return Err(UNREADABLE) };
    if made > now {
        return Err("'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued");
    }
    if ends <= now {
        return Err(
            "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires",
        );
    }
    if ends > now + 600 {
        return Err("'Expiration time' claim ('exp') is too far in the future");
    }
    Ok(())
}

fn mint(asked: &Value, state: &mut State) -> (u16, Value) {
    for key in asked.as_object().unwrap().keys() {
        assert!(["repositories", "repository_ids", "permissions"].contains(&key.as_str()), "{key} is not documented");
    }
    let mut repositories = Vec::new();
    let wanted = asked.get("repositories").or_else(|| asked.get("repository_ids"));
    for one in wanted.and_then(Value::as_array).into_iter().flatten() {
        let found = REPOSITORIES.iter().find(|(id, name)| {
            one.as_u64() == Some(*id) || one.as_str().is_some_and(|asked| asked.eq_ignore_ascii_case(name))
        });
        let Some((id, name)) = found else {
            let text =
                "There is at least one repository that does not exist or is not accessible to the parent installation.";
            return message(422, text);
        };
        repositories.push(json!({ "id": id, "name": name, "full_name": format!("acme/{name}"), "private": true }));
    }
    let mut permissions = json!({ "metadata": "read" });
    let rank = |access: &str| ["read", "write", "admin"].iter().position(|known| *known == access);
    for (name, access) in asked["permissions"].as_object().unwrap() {
        let most = GRANTED.iter().find(|(known, _)| known == name);
        if most.is_none_or(|(_, most)| rank(access.as_str().unwrap()) > rank(most)) {
            return message(422, "The permissions requested are not granted to this installation.");
        }
        permissions[name] = access.clone();
    }
    // Both forms that GitHub documents: forty characters, and some 520 with points in them.
    let number = state.issued.len();
    let token = if number.is_multiple_of(2) {
        format!("ghs_canary{number:030}")
    } else {
        format!("ghs_12345_eyJcanary{}.{}.{}", "a".repeat(60), "b".repeat(350), "c".repeat(80 + number))
    };
    state.issued.push(token.clone());
    state.good.push(token.clone());
    let ends = Timestamp::now() + SignedDuration::from_secs(3600 + state.ahead);
    let mut body = json!({
        "token": token,
        "expires_at": ends.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "permissions": permissions,
        "repository_selection": "selected",
        "repositories": repositories,
    });
    if let Some(tamper) = state.tamper {
        tamper(&mut body);
    }
    (201, body)
}
