//! A session far longer than the life of any of its credentials: git, requests to a model, calls of AWS and a database go
//! on through many rotations, a supervisor that dies and an issuer that is down, and the session ends when the manifest says so.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::READ;
use crate::moto::{Moto, python};
use crate::server::{Bao, Postgres};
use crate::support::neighbour::Neighbour;
use crate::support::{Home, Project, docker, eventually, status, supervisors, text};

const HOST: &str = include_str!("long_host.py");
const AGENT: &str = include_str!("long_agent.py");
const PATIENCE: Duration = Duration::from_secs(120);

/// A command that issues a token for so many seconds and writes it down, unless there is a file `down`; and one that
/// writes down what it revokes.
fn issuer(home: &Path, name: &str, life: u32) -> String {
    let home = home.display();
    let issue = format!(
        "test ! -e {home}/down-{name} || exit 1; end=$(($(date +%s) + {life})); \
         token={name}-$end-$(od -An -N8 -tx1 /dev/urandom | tr -d ' \\n'); echo $token >> {home}/values-{name}; \
         number=$(wc -l < {home}/values-{name}); echo $number >> {home}/issued-{name}; \
         printf '{{\"value\":\"%s\",\"handle\":\"number-%s\",\"expires_at\":\"%s\"}}' $token $number \
         $(date -u -d @$end +%Y-%m-%dT%H:%M:%SZ)"
    );
    let revoke =
        format!("sed -n 's/.*number-\\([0-9]*\\).*/\\1/p' >> {home}/revoked-{name}; echo >> {home}/revoked-{name}");
    let command = |text: &str| serde_json::to_string(&["/bin/sh", "-c", text]).unwrap();
    format!("provider: exec, command: {}, revoke_command: {}", command(&issue), command(&revoke))
}

fn lines(home: &Home, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(home.path().join(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn work_goes_on_through_many_rotations_and_ends_when_a_credential_ran_out_that_it_must_not_outlive() {
    let (bao, postgres) = (Bao::start(), Postgres::start());
    crate::with_database(&bao, &postgres);
    // Renewed every five seconds, and read anew when the engine gives no more.
    bao.run(&["write", "database/roles/payments", "default_ttl=10s", "max_ttl=45s"]);
    bao.policy("payments", READ);
    let token = bao.token(&["payments"]);
    let home = Home::new();
    let moto = Moto::start_for_all();
    let hosts = ["git.example.test", "model.example.test", "cloud.example.test"];
    let neighbour = Neighbour::certified(&home, &hosts, &hosts);
    let authorities = home.path().join("company.pem");
    std::fs::write(&authorities, &neighbour.certificate).unwrap();
    let configuration = home.path().join("config/sandbox/config.yaml");
    std::fs::create_dir_all(configuration.parent().unwrap()).unwrap();
    std::fs::write(configuration, format!("network: {{ authorities: {} }}\n", authorities.display())).unwrap();
    let allow = hosts.map(|host| format!("    - {{ host: {host}, allow_private: {} }}\n", neighbour.subnet)).concat();
    let manifest = format!(
        "image: agent\ncommand: [bash, -l]\nnetwork:\n  allow:\n{allow}credentials:\n\
         \x20 git: {{ {}, deliver: {{ git: git.example.test }} }}\n\
         \x20 model: {{ {}, deliver: {{ broker: model.example.test, bearer: true }} }}\n\
         \x20 fragile: {{ {}, on_expiry: stop }}\n\
         \x20 database: {{ provider: vault, path: database/creds/payments, fields: [username, password], ttl: 10m }}\n\
         \x20 cloud: {{ provider: aws-sts, address: \"{}\", role: \"arn:aws:iam::123456789012:role/agents\", \
         region: eu-central-1, policy_arns: [\"arn:aws:iam::aws:policy/ReadOnlyAccess\"] }}\n",
        issuer(home.path(), "git", 8),
        issuer(home.path(), "model", 8),
        issuer(home.path(), "fragile", 16),
        moto.address,
    );
    let project = Project::new(&home, "long", &manifest);
    let name = project.name().to_owned();
    let command = |words: &[&str]| {
        let mut command = home.command();
        command.args(words).env("VAULT_ADDR", &bao.address).env("VAULT_TOKEN", &token).env_remove("BAO_ADDR");
        command.env("AWS_ACCESS_KEY_ID", &moto.id).env("AWS_SECRET_ACCESS_KEY", &moto.secret);
        command.env_remove("AWS_SESSION_TOKEN");
        command
    };
    let run = |words: &[&str]| {
        let output = command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    run(&["up", &name, "--offline", "--detach", "--", "sleep", "600"]);
    let container = |role: &str| format!("sandbox-{name}.main-{role}");
    let image = text(&docker(&["inspect", "--format", "{{.Image}}", &container("agent")]).stdout);
    // moto is at this machine's end of the neighbour's network.
    let machine = docker(&["network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", &neighbour.name]);
    let port = moto.address.rsplit(':').next().unwrap();
    let host = HOST.replace("MOTO", &format!("{}:{port}", text(&machine.stdout).trim()));
    neighbour.serve(image.trim(), &container("gateway"), &host);
    // botocore without the services that nobody calls.
    let libraries = home.path().join("aws");
    let copied = python(&moto.address, "libraries").arg(&libraries).output().unwrap();
    assert!(copied.status.success(), "{}", text(&copied.stderr));
    run(&["cp", libraries.to_str().unwrap(), &format!("{name}:/home/agent/aws")]);

    let mut agent = command(&["exec", &name, "--", "python3", "-c", AGENT]);
    let agent = agent.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let role = || serde_json::from_str::<Value>(&run(&["exec", &name, "--", "cat", "/run/secrets/database"])).unwrap();
    let first = role()["username"].as_str().unwrap().to_owned();
    let is_role =
        |user: &str| postgres.query(&format!("SELECT count(*) FROM pg_roles WHERE rolname = '{user}'")) == "1";

    // A lease of ten seconds is renewed, its value stays.
    eventually("six rotations", PATIENCE, || lines(&home, "issued-git").len() > 6);
    assert!(is_role(&first), "the role that was renewed is gone");
    // What was replaced ends, and only that.
    let revoked = lines(&home, "revoked-git");
    let issued = lines(&home, "issued-git");
    assert!(revoked.len() >= 3 && issued.starts_with(&revoked), "{revoked:?} {issued:?}");

    // The supervisor dies; the next `up` takes over before anything has run out.
    let providers = ["git", "model", "fragile"];
    let before = providers.map(|provider| lines(&home, &format!("issued-{provider}")).len());
    let process = rustix::process::Pid::from_raw(supervisors(project.path())[0]).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    run(&["up", &name, "--offline", "--detach", "--", "sleep", "600"]);

    // The issuer is down for longer than half of a life, and back before its end.
    let count = lines(&home, "issued-fragile").len();
    eventually("the next of the longer life", PATIENCE, || lines(&home, "issued-fragile").len() > count);
    std::fs::write(home.path().join("down-fragile"), "").unwrap();
    let failing = || {
        let status = status(&home, &name);
        let all = status["credentials"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|credential| credential["name"] == "fragile").unwrap_or_default()
    };
    eventually("the failure's record", PATIENCE, || failing()["failing_since"].is_string());
    assert!(failing()["name"] == "fragile" && failing()["ends_at"].is_string(), "{}", failing());
    let said = run(&["status", &name]);
    assert!(said.contains("could not be replaced since"), "{said}");
    std::thread::sleep(Duration::from_secs(2));
    std::fs::remove_file(home.path().join("down-fragile")).unwrap();
    eventually("the failure's end", PATIENCE, || failing()["failing_since"].is_null());

    // A session of AWS's lives for a quarter of an hour at least, so it is rotated on request.
    let (mut asked, mut last) = (0, Instant::now());
    eventually("twenty rotations", PATIENCE, || {
        if asked < 25 && last.elapsed() > Duration::from_millis(1500) {
            run(&["credential", "rotate", "cloud", &name]);
            (asked, last) = (asked + 1, Instant::now());
        }
        asked == 25 && lines(&home, "issued-git").len() > 20 && lines(&home, "issued-model").len() > 20
    });
    eventually("the next role", PATIENCE, || role()["username"] != first.as_str());
    run(&["exec", &name, "--", "touch", "/tmp/enough"]);
    let agent = agent.wait_with_output().unwrap();
    let told: Value = serde_json::from_slice(&agent.stdout).unwrap_or_else(|_| panic!("{}", text(&agent.stderr)));
    assert_eq!(told["failed"], serde_json::json!([]), "{told}");
    assert!(told["keys"].as_u64().unwrap() > 20, "{told}");
    assert!(
        ["pushes", "requests", "reads", "calls"].iter().all(|work| told["done"][work].as_u64().unwrap() > 25),
        "{told}"
    );

    // The issuer goes down for good: the session ends when its last value has run out, and leaves nothing behind.
    std::fs::write(home.path().join("down-fragile"), "").unwrap();
    eventually("the session's end", PATIENCE, || status(&home, &name)["condition"] == "stopped");
    let ended = status(&home, &name)["ended"].clone();
    assert_eq!(ended, "the credential fragile ran out, and there was no new one");
    for (provider, before) in providers.into_iter().zip(before) {
        let (issued, revoked) =
            (lines(&home, &format!("issued-{provider}")), lines(&home, &format!("revoked-{provider}")));
        // What an issuer was making at the moment of the crash nobody knew of; it ends by itself.
        let left: Vec<&String> = issued.iter().filter(|number| !revoked.contains(number)).collect();
        let then = [before.to_string(), (before + 1).to_string()];
        assert!(left.len() <= 1 && left.iter().all(|number| then.contains(number)), "{provider}: {left:?}, {before}");
    }
    eventually("the end of all roles", PATIENCE, || {
        postgres.query("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'") == "0"
    });
    let log = run(&["audit", "log", "--format", "json"]);
    for action in ["credential.renewed", "credential.rotated", "credential.rotation_failed", "credential.expired"] {
        assert!(log.contains(action), "{action} is not in the log");
    }
    let secrets: Vec<String> =
        ["git", "model", "fragile"].iter().flat_map(|name| lines(&home, &format!("values-{name}"))).collect();
    assert!(!secrets.iter().any(|secret| log.contains(secret.as_str())), "the log holds a value");
    run(&["down", "--discard", &name]);
}
