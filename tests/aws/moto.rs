//! moto, a server that behaves as AWS does, and boto3.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// moto on loopback, with a user `ada` and a role `agents`.
pub(crate) struct Moto {
    process: Child,
    pub(crate) address: String,
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The folder of programs that `scripts/moto` puts beside what cargo builds.
pub(crate) fn programs() -> PathBuf {
    // With a target of its own, cargo's folder for tests is one level deeper.
    let places = Path::new(env!("CARGO_TARGET_TMPDIR")).ancestors().skip(1).take(2).map(|at| at.join("tools/moto/bin"));
    places.into_iter().find(|path| path.is_dir()).expect("moto is missing: run `make packages`")
}

pub(crate) fn python(address: &str, word: &str) -> Command {
    let mut command = Command::new(programs().join("python"));
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/aws/moto.py")).arg(word);
    command.env_clear().env("ENDPOINT", address).env("NO_PROXY", "127.0.0.1").env("PATH", "/usr/bin:/bin");
    command
}

impl Moto {
    pub(crate) fn start() -> Self {
        // As many as `set_up` makes; from then on, signatures count.
        Self::start_with(Some("5"))
    }

    /// It looks at no signature. Requests without one are refused otherwise, also where AWS wants none.
    pub(crate) fn start_open() -> Self {
        Self::start_with(None)
    }

    /// It listens on all addresses of this machine, so that containers reach it too.
    pub(crate) fn start_for_all() -> Self {
        Self::start_at("0.0.0.0", Some("5"))
    }

    fn start_with(unsigned: Option<&str>) -> Self {
        Self::start_at("127.0.0.1", unsigned)
    }

    fn start_at(host: &str, unsigned: Option<&str>) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(programs().join("moto_server"))
            .args(["-H", host, "-p", &port.to_string()])
            .envs(unsigned.map(|count| ("INITIAL_NO_AUTH_ACTION_COUNT", count)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = format!("http://127.0.0.1:{port}");
        let mut moto = Self { process, address, id: String::new(), secret: String::new() };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "moto does not listen");
            std::thread::sleep(Duration::from_millis(100));
        }
        let output = python(&moto.address, "set_up").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let key: Value = serde_json::from_slice(&output.stdout).unwrap();
        (moto.id, moto.secret) = (key["id"].as_str().unwrap().to_owned(), key["secret"].as_str().unwrap().to_owned());
        moto
    }
}
