//! Whatever happens to a session and in whatever order, no credential is left that nobody revokes, none is delivered that
//! the audit log does not have, and none is recorded as revoked that its issuer did not end.
//!
//! The rotation and the end of a session are those of the program. The issuer is a command with a ledger of its own, and the
//! engine a socket behind which a gateway remembers what it was ever given. A crash is the end of the rotation's future at
//! any of the points where it waits.

use std::future::poll_fn;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::json;

use super::tests::Scene;
use super::*;
use crate::audit::AuditLog;
use crate::audit::event::AuditEvent;
use crate::credential::secret::Secret;
use crate::engine::{Endpoint, Engine};
use crate::gateway::protocol::{Action, Command, Event};
use crate::session::teardown::{self, EndContext};

/// What may happen to a session.
#[derive(Debug, Clone)]
enum Happening {
    /// The supervisor works for a while, and is told to end.
    Works,
    /// The supervisor dies at the so many-th point where it waits.
    Crashes(usize),
    Asks(&'static str),
    TakesAway(&'static str),
    IssuerIsDown(bool),
    GatewayIsDown(bool),
}

const NAMES: [&str; 2] = ["long", "short"];

fn happening() -> impl Strategy<Value = Happening> {
    let name = prop_oneof![Just(NAMES[0]), Just(NAMES[1])];
    prop_oneof![
        2 => Just(Happening::Works),
        3 => (1_usize..40).prop_map(Happening::Crashes),
        3 => name.clone().prop_map(Happening::Asks),
        1 => name.prop_map(Happening::TakesAway),
        1 => any::<bool>().prop_map(Happening::IssuerIsDown),
        1 => any::<bool>().prop_map(Happening::GatewayIsDown),
    ]
}

/// An engine with one container, the gateway's.
#[derive(Default)]
struct Gateway {
    files: BTreeMap<String, String>,
    /// Every value that it was ever given.
    seen: BTreeSet<String>,
}

impl Gateway {
    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Secrets(files) => {
                self.files.clear();
                self.put(files);
            }
            Action::UpdateSecrets(files) => self.put(files),
            Action::RemoveSecrets(names) => self.files.retain(|name, _| !names.contains(name)),
            _ => {}
        }
    }

    fn put(&mut self, files: Vec<crate::gateway::protocol::SecretFile>) {
        for file in files {
            let content = serde_json::to_value(&file).unwrap()["content"].as_str().unwrap().to_owned();
            let value = String::from_utf8(STANDARD.decode(content).unwrap()).unwrap();
            self.seen.insert(value.clone());
            self.files.insert(file.name, value);
        }
    }
}

fn serve(socket: &Path, gateway: &Arc<Mutex<Gateway>>, down: &Arc<AtomicBool>) {
    let listener = UnixListener::bind(socket).unwrap();
    let (gateway, down) = (Arc::clone(gateway), Arc::clone(down));
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (gateway, down) = (Arc::clone(&gateway), Arc::clone(&down));
            std::thread::spawn(move || answer(connection.unwrap(), &gateway, &down));
        }
    });
}

fn answer(mut connection: UnixStream, gateway: &Mutex<Gateway>, down: &AtomicBool) -> Option<()> {
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    let mut say = |status: u16, body: &str| {
        let head = "Content-Type: application/json\r\nConnection: close";
        write!(connection, "HTTP/1.1 {status} X\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).ok()
    };
    if first.contains("/version") {
        return say(200, r#"{"Version":"20.10.24","ApiVersion":"1.41","MinAPIVersion":"1.12","Arch":"amd64"}"#);
    }
    if !first.contains("-gateway/attach") || down.load(Ordering::SeqCst) {
        return say(404, r#"{"message":"no such container"}"#);
    }
    connection.write_all(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n").ok()?;
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        if down.load(Ordering::SeqCst) {
            return None;
        }
        let Command { id, action } = serde_json::from_slice(&line).unwrap();
        gateway.lock().unwrap().carry_out(action);
        let mut text = serde_json::to_vec(&Event::Acknowledged { id, error: None }).unwrap();
        text.push(b'\n');
        let mut frame = vec![1, 0, 0, 0];
        frame.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(&text);
        connection.write_all(&frame).ok()?;
    }
}

struct World {
    scene: Scene,
    engine: Engine,
    audit: AuditLog,
    journal: Journal,
    gateway: Arc<Mutex<Gateway>>,
    gateway_down: Arc<AtomicBool>,
    crashes: usize,
}

impl World {
    async fn new() -> Self {
        let scene = Scene::new();
        let (gateway, gateway_down) = (Arc::default(), Arc::default());
        let socket = scene.path().join("engine.sock");
        serve(&socket, &gateway, &gateway_down);
        let engine = Engine::connect(Endpoint::Unix(socket)).await.unwrap();
        let audit = AuditLog::open(scene.path()).unwrap();
        let journal = scene.journal(&[]);
        let world = Self { scene, engine, audit, journal, gateway, gateway_down, crashes: 0 };
        world.launch().await;
        world
    }

    /// A command that answers with the next number for so many seconds, and writes down what it gave; and one that writes
    /// down what it ended. Both fail while there is a file `down`.
    fn spec(&self, name: &str) -> CredentialSpec {
        let life = if name == "short" { 2 } else { 3600 };
        let issue = format!(
            "test ! -e down || exit 1; exec 9>ledger.lock; flock 9; n=$(($(wc -l < issued) + 1)); echo $n >> issued; \
             printf '{{\"value\":\"token-%s-of-{name}\",\"handle\":\"h%s\",\"expires_at\":\"%s\"}}' $n $n \
             $(date -u -d @$(($(date +%s) + {life})) +%Y-%m-%dT%H:%M:%SZ)"
        );
        let revoke =
            "test ! -e down || exit 1; sed -n 's/.*\"handle\":\"h\\([0-9]*\\)\".*/\\1/p' >> ended; echo >> ended";
        serde_json::from_value(json!({
            "provider": {
                "provider": "exec",
                "command": ["/bin/sh", "-c", issue],
                "revoke_command": ["/bin/sh", "-c", revoke]
            },
            "deliver": { "file": { "name": name } },
            "on_expiry": "warn"
        }))
        .unwrap()
    }

    fn input(&self) -> SuperviseInput<'_> {
        SuperviseInput {
            engine: &self.engine,
            state: self.scene.path(),
            journal: self.journal.clone(),
            actor: "ada",
            audit: &self.audit,
            issue: self.scene.issue(),
            proxy_log_in: None,
        }
    }

    /// As `up` leaves it.
    async fn launch(&self) {
        std::fs::write(self.path("issued"), "").unwrap();
        let (input, record) = (self.input(), self.record());
        for name in NAMES {
            let (name, spec) = (name.parse::<CredentialName>().unwrap(), self.spec(name));
            let issued = credential::issue(&name, &spec, &input.issue).await.unwrap();
            let kept = lease(spec.clone(), &issued);
            self.journal.update(|record| drop(record.leases.insert(name.clone(), kept))).unwrap();
            let facts = issued_facts(&issued, &spec);
            let facts: Vec<(&str, &str)> = facts.iter().map(|(name, value)| (*name, value.as_str())).collect();
            note(&input, &record, "credential.issued", "ok", &facts);
            hand_out(&input, &record, &spec, issued).await.unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scene.path().join(name)
    }

    fn record(&self) -> Record {
        self.journal.read().unwrap().unwrap()
    }

    fn numbers(&self, file: &str) -> Vec<u32> {
        let text = std::fs::read_to_string(self.path(file)).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn down(&self, down: bool) {
        if down {
            std::fs::write(self.path("down"), "").unwrap();
        } else {
            let _ = std::fs::remove_file(self.path("down"));
        }
    }

    async fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::IssuerIsDown(down) => self.down(*down),
            Happening::GatewayIsDown(down) => self.gateway_down.store(*down, Ordering::SeqCst),
            Happening::Asks(name) => {
                credential::rotation::request(self.journal.folder(), &name.parse().unwrap()).unwrap();
            }
            Happening::TakesAway(name) => {
                credential::rotation::request_revocation(self.journal.folder(), &name.parse().unwrap()).unwrap();
            }
            Happening::Works => {
                let (input, steering) = (self.input(), Steering::new());
                let end = async {
                    tokio::time::sleep(TICK * 4).await;
                    steering.end();
                };
                tokio::join!(rotate_until_the_end(&input, &steering), end);
            }
            Happening::Crashes(points) => {
                let (input, steering) = (self.input(), Steering::new());
                let mut rotating = Box::pin(rotate_until_the_end(&input, &steering));
                let mut left = *points;
                let working = poll_fn(|context| {
                    left = left.saturating_sub(1);
                    if left == 0 { Poll::Ready(()) } else { rotating.as_mut().poll(context).map(|_| ()) }
                });
                // It may be waiting for nothing but the next tick, of which there are ten a second.
                let _ = tokio::time::timeout(TICK * 5, working).await;
                drop(rotating);
                self.crashes += 1;
            }
        }
    }

    async fn end(&self) {
        self.down(false);
        self.gateway_down.store(false, Ordering::SeqCst);
        let input = self.input();
        let context =
            EndContext { state: self.scene.path(), actor: "ada", audit: &self.audit, issue: input.issue.clone() };
        let mut record = self.record();
        let complaints = teardown::stop(&self.engine, &self.journal, &mut record, "down", &context).await;
        assert!(complaints.is_empty(), "{complaints:?}");
    }

    /// The number of a value's fingerprint, for what was issued.
    fn fingerprints(&self) -> BTreeMap<String, u32> {
        let mut found = BTreeMap::new();
        for number in self.numbers("issued") {
            for name in NAMES {
                let value = Secret::new(format!("token-{number}-of-{name}").into_bytes());
                let print = crate::credential::fingerprint::of(self.scene.path(), &value).unwrap();
                found.insert(print.to_string(), number);
            }
        }
        found
    }

    fn check(&self) {
        assert!(!self.record().owes(), "{:?}", self.record());
        assert!(self.gateway.lock().unwrap().files.is_empty(), "the sandbox still has its files");
        let (issued, ended, numbers) = (self.numbers("issued"), self.numbers("ended"), self.fingerprints());
        let events = self.audit.events().unwrap();
        let of = |event: &AuditEvent| numbers.get(event.facts.get("fingerprint")?).copied();
        let told = |action: &str| -> BTreeSet<u32> {
            events.iter().filter(|event| event.action == action && event.outcome == "ok").filter_map(of).collect()
        };
        let (recorded, revoked) = (told("credential.issued"), told("credential.revoked"));
        for number in &recorded {
            assert!(ended.contains(number), "{number} was issued and not ended: {issued:?} {ended:?}");
            assert!(revoked.contains(number), "the end of {number} is not in the log");
        }
        assert!(revoked.iter().all(|number| ended.contains(number)), "{revoked:?} were not all ended: {ended:?}");
        let delivered = self.gateway.lock().unwrap().seen.clone();
        for value in delivered {
            let number: u32 = value.split('-').nth(1).unwrap().parse().unwrap();
            assert!(recorded.contains(&number), "{value} was delivered without a record");
        }
        // Of what an issuer was making at the moment of a crash nobody knew.
        let lost = issued.iter().filter(|number| !recorded.contains(number)).count();
        assert!(lost <= self.crashes * NAMES.len(), "{lost} were lost in {} crashes", self.crashes);
        assert_eq!(self.audit.verify().unwrap().sequence, events.len() as u64);
    }
}

/// Each takes a second: eight by default, 150 with `PROPTEST_CASES=4800`.
fn cases() -> u32 {
    ProptestConfig::default().cases / 32
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_credential_is_undelivered_unrevoked_or_unaudited(happenings in proptest::collection::vec(happening(), 1..10)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for happening in &happenings {
                world.happen(happening).await;
            }
            world.end().await;
            world.check();
        });
    }
}

#[tokio::test]
async fn what_ran_out_while_the_machine_slept_is_replaced_and_ends_no_session() {
    let world = World::new().await;
    let name: CredentialName = "short".parse().unwrap();
    world
        .journal
        .update(|record| {
            let lease = record.leases.get_mut(&name).unwrap();
            lease.spec.on_expiry = OnExpiry::Stop;
            // The clock on the wall went on for hours.
            lease.expires_at = Some(Timestamp::now() - Duration::from_secs(7200));
            lease.issued_at = Timestamp::now() - Duration::from_secs(7260);
        })
        .unwrap();
    let (input, steering) = (world.input(), Steering::new());
    let end = async {
        for _ in 0..100 {
            tokio::time::sleep(TICK).await;
            if world.record().leases[&name].ends_at() > Some(Timestamp::now()) {
                break;
            }
        }
        steering.end();
    };
    let (reason, ()) = tokio::join!(rotate_until_the_end(&input, &steering), end);
    assert_eq!(reason, TOLD);
    assert_ne!(world.gateway.lock().unwrap().files["short"], "token-2-of-short");

    // With the issuer away, it ends the session.
    world.down(true);
    world.journal.update(|record| record.leases.get_mut(&name).unwrap().expires_at = Some(Timestamp::now())).unwrap();
    let steering = Steering::new();
    let reason = tokio::time::timeout(Duration::from_secs(30), rotate_until_the_end(&input, &steering)).await.unwrap();
    assert!(reason.contains("short ran out"), "{reason}");
    world.end().await;
    world.check();
}

#[tokio::test]
async fn an_issuer_that_hangs_keeps_nobody_waiting() {
    let world = World::new().await;
    let (long, short): (CredentialName, CredentialName) = ("long".parse().unwrap(), "short".parse().unwrap());
    world
        .journal
        .update(|record| {
            let lease = record.leases.get_mut(&long).unwrap();
            if let crate::credential::spec::ProviderSpec::Exec { command, .. } = &mut lease.spec.provider {
                *command = ["sleep", "20"].map(str::to_owned).to_vec();
            }
        })
        .unwrap();
    credential::rotation::request(world.journal.folder(), &long).unwrap();
    let (input, steering) = (world.input(), Steering::new());
    let work = async {
        tokio::time::sleep(TICK * 3).await;
        let begun = Instant::now();
        credential::rotation::request(world.journal.folder(), &short).unwrap();
        while world.gateway.lock().unwrap().files["short"] == "token-2-of-short" {
            tokio::time::sleep(TICK / 10).await;
        }
        credential::rotation::request_revocation(world.journal.folder(), &short).unwrap();
        while world.gateway.lock().unwrap().files.contains_key("short") {
            tokio::time::sleep(TICK / 10).await;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    };
    tokio::select! {
        reason = rotate_until_the_end(&input, &steering) => panic!("{reason}"),
        () = work => {}
    }
}

#[test]
fn a_clock_that_is_put_back_lets_no_replaced_value_live_on() {
    let scene = Scene::new();
    let later = Timestamp::now() + GRACE * 10;
    let record = scene.journal(&[("old", later)]).read().unwrap().unwrap();
    let mut over = Over::default();
    over.look(&record);
    assert!(!over.is(&record.retiring[0]));
    let long_ago = Instant::now().checked_sub(GRACE).unwrap();
    over.seen.values_mut().for_each(|seen| *seen = long_ago);
    assert!(over.is(&record.retiring[0]));
    // What was put off after a failure waits anew.
    let put_off = RetiringLease { end_at: later + GRACE, ..record.retiring[0].clone() };
    assert!(!over.is(&put_off));
}
