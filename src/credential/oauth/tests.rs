//! Against an issuer that is as strict as the best current practice has it: a refresh token is good once, and its second
//! use ends the log-in (RFC 9700, section 4.14.2).

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::credential::{aws, held, vault};
use crate::project::SandboxName;

/// What the issuer knows.
#[derive(Default)]
struct Issuer {
    /// The one refresh token that is good.
    good: String,
    /// Whether a used one came again, after which nothing is good any more.
    stolen: bool,
    refreshes: usize,
    /// What the next requests are answered with in place of the true answer: nothing at all, or a status.
    faults: Vec<Fault>,
    /// How often a device's code is pending, and with what word.
    pending: Vec<&'static str>,
    /// Further members of an answer with tokens.
    further: String,
    /// What a browser's request said, by which a code is redeemed: challenge and way back.
    asked: Option<(String, String)>,
    life: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// It refreshes, and the answer gets lost.
    AnswerLost,
    /// It does nothing, and says so.
    Status(u16),
}

impl Issuer {
    fn tokens(&mut self) -> String {
        self.refreshes += 1;
        self.good = format!("refresh-{}", self.refreshes);
        let (count, life, further) = (self.refreshes, self.life, &self.further);
        format!(
            r#"{{"access_token":"access-{count}","refresh_token":"refresh-{count}","token_type":"Bearer","expires_in":{life}{further}}}"#
        )
    }

    fn answer(&mut self, path: &str, form: &BTreeMap<String, String>) -> (u16, String) {
        assert_eq!(form.get("client_id").map(String::as_str), Some("client"));
        let refused = |word: &str| (400, format!(r#"{{"error":"{word}","error_description":"canary"}}"#));
        if path == "/device" {
            let text = r#"{"device_code":"d1","user_code":"WDJB-MJHT","verification_uri":"https://example.com/device","expires_in":600,"interval":1}"#;
            return (200, text.to_owned());
        }
        match form["grant_type"].as_str() {
            "refresh_token" if self.stolen => refused("invalid_grant"),
            "refresh_token" if form["refresh_token"] == self.good => (200, self.tokens()),
            "refresh_token" => {
                self.stolen = true;
                refused("invalid_grant")
            }
            "authorization_code" => {
                let Some((challenge, redirect)) = self.asked.take() else { return refused("invalid_grant") };
                use base64::Engine as _;
                use sha2::Digest as _;
                let own = sha2::Sha256::digest(form["code_verifier"].as_bytes());
                let own = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(own);
                let good = form["code"] == "a/code" && own == challenge && form["redirect_uri"] == redirect;
                if good { (200, self.tokens()) } else { refused("invalid_grant") }
            }
            "urn:ietf:params:oauth:grant-type:device_code" if form["device_code"] == "d1" => {
                if self.pending.is_empty() { (200, self.tokens()) } else { refused(self.pending.remove(0)) }
            }
            _ => refused("unsupported_grant_type"),
        }
    }
}

/// An issuer on loopback, and the specification that leads to it.
fn issuer(issuer: Issuer) -> (OauthSpec, Arc<Mutex<Issuer>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let shared = Arc::new(Mutex::new(issuer));
    let served = shared.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let served = served.clone();
            std::thread::spawn(move || serve(stream.unwrap(), &served));
        }
    });
    let spec = OauthSpec {
        client_id: "client".to_owned(),
        token_url: format!("{address}/token"),
        device_url: Some(format!("{address}/device")),
        revoke_url: Some(format!("{address}/revoke")),
        scopes: Vec::new(),
        agent: None,
        client_secret: None,
        authorize_url: Some(format!("{address}/authorize")),
        redirect_url: None,
        authorize_parameters: [("access_type".to_owned(), "offline".to_owned())].into(),
        json_requests: false,
    };
    (spec, shared)
}

fn serve(mut stream: TcpStream, issuer: &Mutex<Issuer>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut path, mut length) = (String::new(), 0);
    for line in reader.by_ref().lines() {
        let line = line.unwrap_or_default().to_ascii_lowercase();
        if let Some(rest) = line.strip_prefix("post ") {
            path = rest.split(' ').next().unwrap().to_owned();
        }
        if let Some(number) = line.strip_prefix("content-length:") {
            length = number.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let text = String::from_utf8(body).unwrap();
    let plain = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let form = text.split('&').filter_map(|pair| pair.split_once('=')).map(|(key, value)| (plain(key), plain(value)));
    let form = form.collect();
    let (status, body) = {
        let mut issuer = issuer.lock().unwrap();
        let fault = if issuer.faults.is_empty() { None } else { Some(issuer.faults.remove(0)) };
        match fault {
            Some(Fault::Status(status)) => (status, r#"{"error":"temporarily_unavailable"}"#.to_owned()),
            Some(Fault::AnswerLost) => {
                issuer.answer(&path, &form);
                return;
            }
            None => issuer.answer(&path, &form),
        }
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n");
    let _ = write!(stream, "{head}content-length: {length}\r\n\r\n{body}");
}

/// A developer's machine.
struct Machine {
    root: tempfile::TempDir,
    project: ProjectName,
    name: CredentialName,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self { root, project: "payments".parse().unwrap(), name: "codex".parse().unwrap() }
    }

    fn context<'a>(&'a self, sandbox: &'a SandboxName) -> IssueContext<'a> {
        let root = self.root.path();
        IssueContext {
            project: &self.project,
            project_root: root,
            sandbox,
            actor: "ada",
            store: Store {
                folder: root.join("repository/credentials"),
                recipients: root.join("repository/recipients"),
                identity: crate::credential::store::IdentityPlace::made(root.join("identity.txt")),
                owner: "ada".to_owned(),
            },
            state: root,
            home: root,
            vault: vault::Environment::default(),
            aws: aws::Environment::default(),
            identity: crate::credential::identity::Authority::default(),
            held: held::Held::default(),
            session: None,
            reason: "rotation",
        }
    }

    async fn lend(&self, spec: &OauthSpec) -> Result<String, OauthError> {
        let lent = issue(&self.name, spec, &self.context(&SandboxName::main())).await?;
        Ok(String::from_utf8(lent.token.expose().to_vec()).unwrap())
    }

    /// Logs in with the first refresh token.
    async fn log_in(&self, spec: &OauthSpec, issuer: &Mutex<Issuer>) {
        "refresh-0".clone_into(&mut issuer.lock().unwrap().good);
        let tokens = take_over(spec, None, &Secret::new(b"refresh-0".to_vec())).await.unwrap();
        keep(&self.name, spec, &self.context(&SandboxName::main()), &tokens).await.unwrap();
    }

    async fn expire(&self) {
        expire(&self.name, &self.context(&SandboxName::main())).await.unwrap();
    }
}

fn hour() -> Issuer {
    Issuer { life: 3600, ..Issuer::default() }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sandboxes_at_once_share_one_refresh_and_one_access_token() {
    let (spec, issuer) = issuer(hour());
    let machine = Arc::new(Machine::new());
    machine.log_in(&spec, &issuer).await;
    assert_eq!(machine.lend(&spec).await.unwrap(), "access-1", "the log-in's own token is used up first");
    for round in 2..5 {
        machine.expire().await;
        let lent: Vec<_> = (0..8)
            .map(|_| {
                let (machine, spec) = (machine.clone(), spec.clone());
                tokio::spawn(async move { machine.lend(&spec).await.unwrap() })
            })
            .collect();
        for one in lent {
            assert_eq!(one.await.unwrap(), format!("access-{round}"));
        }
        assert_eq!(issuer.lock().unwrap().refreshes, round);
    }
    assert!(!issuer.lock().unwrap().stolen);
}

#[tokio::test]
async fn a_token_that_is_due_is_refreshed_and_the_one_before_is_not_sent_again() {
    let (spec, issuer) = issuer(Issuer { life: 2, ..Issuer::default() });
    let machine = Machine::new();
    machine.log_in(&spec, &issuer).await;
    for round in 2..4 {
        tokio::time::sleep(Duration::from_millis(1000)).await;
        assert_eq!(machine.lend(&spec).await.unwrap(), format!("access-{round}"));
    }
    assert!(!issuer.lock().unwrap().stolen);
}

#[tokio::test]
async fn an_answer_that_is_lost_ends_in_words_that_say_to_log_in_again() {
    let (spec, issuer) = issuer(hour());
    let machine = Machine::new();
    machine.log_in(&spec, &issuer).await;
    machine.expire().await;
    issuer.lock().unwrap().faults.push(Fault::AnswerLost);
    assert!(matches!(machine.lend(&spec).await, Err(OauthError::Unreachable { sent: true, .. })));
    // The record says that a refresh was begun: what a crash between the answer and the record leaves.
    let over = machine.lend(&spec).await.unwrap_err();
    assert!(matches!(over, OauthError::Over { interrupted: true, .. }), "{over:?}");
    assert!(over.to_string().contains("a refresh before was cut off"), "{over}");
    let advice = crate::commands::credential::advice(&crate::credential::CredentialError::from(over));
    assert_eq!(advice, "log in again with `sandbox credential login codex`");
    // It is not asked for ever.
    issuer.lock().unwrap().faults.push(Fault::Status(503));
    assert!(matches!(machine.lend(&spec).await, Err(OauthError::Over { .. })));
    assert_eq!(issuer.lock().unwrap().faults.len(), 1, "an ended log-in is not sent");
    issuer.lock().unwrap().faults.clear();
    issuer.lock().unwrap().stolen = false;
    machine.log_in(&spec, &issuer).await;
    assert!(machine.lend(&spec).await.unwrap().starts_with("access-"));
}

#[tokio::test]
async fn an_issuer_that_did_nothing_is_asked_again() {
    let (spec, issuer) = issuer(hour());
    let machine = Machine::new();
    machine.log_in(&spec, &issuer).await;
    machine.expire().await;
    issuer.lock().unwrap().faults = vec![Fault::Status(503), Fault::Status(429)];
    assert!(matches!(machine.lend(&spec).await, Err(OauthError::Failed { status: 503, .. })));
    assert!(matches!(machine.lend(&spec).await, Err(OauthError::Failed { status: 429, .. })));
    assert_eq!(machine.lend(&spec).await.unwrap(), "access-2");
}

#[tokio::test]
async fn who_stops_waiting_loses_no_refresh_token() {
    let (spec, issuer) = issuer(hour());
    let machine = Machine::new();
    machine.log_in(&spec, &issuer).await;
    machine.expire().await;
    let waited = tokio::time::timeout(Duration::from_micros(1), machine.lend(&spec)).await;
    assert!(waited.is_err(), "the caller was to stop before the answer");
    assert_eq!(machine.lend(&spec).await.unwrap(), "access-2");
    machine.expire().await;
    assert_eq!(machine.lend(&spec).await.unwrap(), "access-3");
    assert!(!issuer.lock().unwrap().stolen);
}

#[tokio::test]
async fn a_refresh_token_goes_to_no_other_address_and_no_other_client() {
    let (spec, real) = issuer(hour());
    let (thief, stolen) = issuer(hour());
    let machine = Machine::new();
    machine.log_in(&spec, &real).await;
    machine.expire().await;
    let other = OauthSpec { client_id: "other".to_owned(), ..spec.clone() };
    for wrong in [thief, other] {
        assert!(matches!(machine.lend(&wrong).await, Err(OauthError::Elsewhere { .. })));
    }
    assert_eq!(stolen.lock().unwrap().refreshes, 0);
    assert_eq!(machine.lend(&spec).await.unwrap(), "access-2");
}

#[tokio::test]
async fn the_record_is_encrypted_and_outside_of_the_repository() {
    let (spec, issuer) = issuer(hour());
    let machine = Machine::new();
    machine.log_in(&spec, &issuer).await;
    assert!(!machine.root.path().join("repository").exists());
    let found = files(machine.root.path());
    assert!(found.iter().any(|path| path.ends_with("logins/payments/codex.age")), "{found:?}");
    for path in found {
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        assert!(!text.contains("refresh-") && !text.contains("access-"), "{}", path.display());
    }
    let sandbox = SandboxName::main();
    assert!(forget(&machine.name, &machine.context(&sandbox)).await.unwrap());
    assert!(matches!(machine.lend(&spec).await, Err(OauthError::LoggedOut(_))));
}

#[tokio::test]
async fn a_code_is_waited_for_and_more_slowly_when_the_issuer_says_so() {
    let pending = vec!["authorization_pending", "slow_down"];
    let (spec, _issuer) = issuer(Issuer { pending, life: 3600, ..Issuer::default() });
    let device = Device::begin(&spec, spec.device_url.as_ref().unwrap()).await.unwrap();
    assert_eq!((device.user_code.as_str(), device.page.as_str()), ("WDJB-MJHT", "https://example.com/device"));
    let begun = Instant::now();
    let tokens = device.wait(&spec, None).await.unwrap();
    // One second, one second, and then five more.
    assert!(begun.elapsed() >= Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(tokens.access().equals(&Secret::new(b"access-1".to_vec())));
    assert!(!format!("{tokens:?}").contains("access-1"));
}

#[tokio::test]
async fn a_person_can_decline() {
    for (word, declined) in [("access_denied", true), ("expired_token", false)] {
        let (spec, _issuer) = issuer(Issuer { pending: vec![word], life: 3600, ..Issuer::default() });
        let device = Device::begin(&spec, spec.device_url.as_ref().unwrap()).await.unwrap();
        let error = device.wait(&spec, None).await.unwrap_err();
        assert_eq!(matches!(error, OauthError::Declined), declined, "{error}");
        assert_eq!(matches!(error, OauthError::CodeExpired), !declined, "{error}");
    }
}

#[tokio::test]
async fn takes_no_wider_grant_and_no_answer_that_is_none() {
    for (further, wider) in
        [(r#","scope":"read write""#, true), (r#","scope":"read,repo""#, true), (r#","scope":"read""#, false)]
    {
        let (mut spec, issuer) = issuer(Issuer { good: "refresh-0".to_owned(), further: further.to_owned(), ..hour() });
        spec.scopes = vec!["read".to_owned()];
        let taken = take_over(&spec, None, &Secret::new(b"refresh-0".to_vec())).await;
        assert_eq!(matches!(taken, Err(OauthError::Wider)), wider, "{further}: {taken:?}");
        assert_eq!(issuer.lock().unwrap().refreshes, 1);
    }
    let (spec, issuer) = issuer(Issuer { life: 0, good: "refresh-0".to_owned(), ..Issuer::default() });
    assert!(matches!(take_over(&spec, None, &Secret::new(b"refresh-0".to_vec())).await, Err(OauthError::Answer(_))));
    assert!(matches!(take_over(&spec, None, &Secret::new(b"two words".to_vec())).await, Err(OauthError::NotAToken)));
    assert_eq!(issuer.lock().unwrap().refreshes, 1, "what is no token is not sent");
    let refused = take_over(&spec, None, &Secret::new(b"refresh-0".to_vec())).await.unwrap_err();
    assert!(matches!(refused, OauthError::Refused { .. }) && !refused.to_string().contains("canary"), "{refused}");
}

/// What a person's browser does: it sees the page's address, and then asks for a path of the listener.
struct Person {
    query: BTreeMap<String, String>,
}

impl Person {
    fn at(browser: &Browser, issuer: &Mutex<Issuer>) -> Self {
        let page = reqwest::Url::parse(&browser.page).unwrap();
        let query: BTreeMap<String, String> = page.query_pairs().into_owned().collect();
        issuer.lock().unwrap().asked = Some((query["code_challenge"].clone(), query["redirect_uri"].clone()));
        Self { query }
    }

    /// Asks the listener for this, as that host, and gives the status and the page.
    fn goes_to(&self, path: &str, host: Option<&str>) -> std::thread::JoinHandle<String> {
        let url = reqwest::Url::parse(&self.query["redirect_uri"]).unwrap();
        let address = format!("127.0.0.1:{}", url.port().unwrap());
        let host = host.map_or_else(|| format!("{}:{}", url.host_str().unwrap(), url.port().unwrap()), str::to_owned);
        let path = path.replace("STATE", &self.query["state"]);
        std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: */*\r\n\r\n").unwrap();
            let mut text = String::new();
            let _ = stream.read_to_string(&mut text);
            text
        })
    }
}

#[tokio::test]
async fn a_browser_brings_the_code_and_nothing_else_ends_the_log_in() {
    let (mut spec, issuer) = issuer(hour());
    spec.scopes = vec!["openid".to_owned(), "offline_access".to_owned()];
    let browser = Browser::begin(&spec, spec.authorize_url.as_ref().unwrap()).await.unwrap();
    let person = Person::at(&browser, &issuer);
    let mut names: Vec<&str> = person.query.keys().map(String::as_str).collect();
    names.sort_unstable();
    let expected = [
        "access_type",
        "client_id",
        "code_challenge",
        "code_challenge_method",
        "redirect_uri",
        "response_type",
        "scope",
        "state",
    ];
    assert_eq!(names, expected);
    assert_eq!(
        (person.query["scope"].as_str(), person.query["response_type"].as_str()),
        ("openid offline_access", "code")
    );
    assert_eq!(person.query["code_challenge_method"], "S256");
    assert!(browser.page.contains("scope=openid%20offline_access"), "{}", browser.page);
    assert!(person.query["redirect_uri"].starts_with("http://127.0.0.1:"), "{:?}", person.query);
    assert_eq!(person.query["state"].len(), 43);
    // A connection that says nothing, as browsers open some in advance, holds nobody up.
    let idle = TcpStream::connect(person.query["redirect_uri"]["http://".len()..].split('/').next().unwrap()).unwrap();
    let odd = [
        ("/callback?code=a%2Fcode&state=another", None, "400"),
        ("/callback?code=a%2Fcode", None, "400"),
        ("/callback?code=x&state=STATE&state=STATE", None, "400"),
        ("/callback?code=a%2Fcode&state=STATE", Some("evil.example:80"), "400"),
        ("/favicon.ico", None, "404"),
    ];
    let odd: Vec<_> = odd.into_iter().map(|(path, host, status)| (person.goes_to(path, host), status)).collect();
    let waiting = tokio::spawn(async move { browser.wait(&spec, None).await });
    for (page, status) in odd {
        let page = tokio::task::spawn_blocking(|| page.join().unwrap()).await.unwrap();
        assert!(page.starts_with(&format!("HTTP/1.1 {status} ")), "{page}");
    }
    assert!(!waiting.is_finished() && issuer.lock().unwrap().refreshes == 0);
    let page = person.goes_to("/callback?state=STATE&code=a%2Fcode&iss=https%3A%2F%2Fauth.example.com", None);
    let tokens = waiting.await.unwrap().unwrap();
    assert_eq!(tokens.access_token.as_str(), "access-1");
    let page = tokio::task::spawn_blocking(|| page.join().unwrap()).await.unwrap();
    assert!(page.contains("You are logged in") && page.contains("no-store"), "{page}");
    assert!(!page.contains("a/code") && !page.contains("access-1"), "{page}");
    drop(idle);
}

#[tokio::test]
async fn a_refusal_in_the_browser_is_told_and_so_is_a_code_that_is_not_taken() {
    for (query, declined) in [("error=access_denied", true), ("error=server_error%0A", false), ("code=wrong", false)] {
        let (spec, issuer) = issuer(hour());
        let browser = Browser::begin(&spec, spec.authorize_url.as_ref().unwrap()).await.unwrap();
        let person = Person::at(&browser, &issuer);
        let page = person.goes_to(&format!("/callback?{query}&state=STATE"), None);
        let error = browser.wait(&spec, None).await.unwrap_err();
        assert_eq!(matches!(error, OauthError::Declined), declined, "{query}: {error}");
        assert!(!error.to_string().contains("canary") && !error.to_string().contains('\n'), "{error}");
        let page = tokio::task::spawn_blocking(|| page.join().unwrap()).await.unwrap();
        assert!(page.contains("The log-in failed"), "{page}");
    }
}

#[tokio::test]
async fn a_code_comes_back_to_this_machine_alone_and_to_a_port_that_is_free() {
    let (spec, _issuer) = issuer(hour());
    let authorize = spec.authorize_url.clone().unwrap();
    for wrong in ["https://127.0.0.1/x", "http://example.com/x", "http://127.0.0.1/x?y", "http://0.0.0.0/x", "nothing"]
    {
        let spec = OauthSpec { redirect_url: Some(wrong.to_owned()), ..spec.clone() };
        assert!(matches!(Browser::begin(&spec, &authorize).await, Err(OauthError::Address { .. })), "{wrong}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let spec = OauthSpec { redirect_url: Some(format!("http://localhost:{port}/auth/callback")), ..spec };
    let refused = Browser::begin(&spec, &authorize).await.err().unwrap();
    assert!(matches!(refused, OauthError::Listen { port: found, .. } if found == port), "{refused}");
    drop(taken);
    let browser = Browser::begin(&spec, &authorize).await.unwrap();
    assert!(
        browser.page.contains(&format!("redirect_uri=http%3A%2F%2Flocalhost%3A{port}%2Fauth%2Fcallback")),
        "{}",
        browser.page
    );
    assert!(matches!(Browser::begin(&spec, "http://auth.example.com/x").await, Err(OauthError::Address { .. })));
}
