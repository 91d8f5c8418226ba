//! A real OpenBao on loopback, and a real PostgreSQL, for one test each.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A port that nobody listens on.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wait_for(port: u16, what: &str) {
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what} does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Ends a process when it goes.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program of OpenBao, which `scripts/openbao` puts beside what cargo builds.
fn program() -> PathBuf {
    // With a target of its own, cargo's folder for tests is one level deeper.
    let places = Path::new(env!("CARGO_TARGET_TMPDIR")).ancestors().skip(1).take(2).map(|at| at.join("tools/bao"));
    places.into_iter().find(|path| path.is_file()).expect("OpenBao is missing: run `make packages`")
}

/// A server in memory, unsealed, with a versioned store at `secret/`.
pub(crate) struct Bao {
    _process: Option<Running>,
    _home: TempDir,
    pub(crate) address: String,
    namespace: String,
}

impl Bao {
    pub(crate) const ROOT: &'static str = "root-of-the-test";

    pub(crate) fn start() -> Self {
        Self::start_with("http", &[])
    }

    /// With a certificate of an authority that was made for it.
    pub(crate) fn start_with_tls(folder: &Path) -> Self {
        let folder = format!("-dev-tls-cert-dir={}", folder.display());
        Self::start_with("https", &["-dev-tls", &folder])
    }

    fn start_with(scheme: &str, further: &[&str]) -> Self {
        let (home, port) = (tempfile::tempdir().unwrap(), port());
        let listen = format!("127.0.0.1:{port}");
        let process = Command::new(program())
            .args(["server", "-dev", "-dev-no-store-token"])
            .arg(format!("-dev-root-token-id={}", Self::ROOT))
            .arg(format!("-dev-listen-address={listen}"))
            .args(further)
            .env("HOME", home.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Running(process);
        wait_for(port, "OpenBao");
        let bao = Self {
            _process: Some(process),
            _home: home,
            address: format!("{scheme}://{listen}"),
            namespace: String::new(),
        };
        let start = Instant::now();
        while bao.try_run(&["kv", "list", "secret/"]).contains("no handler")
            || bao.try_run(&["status"]).contains("Error")
        {
            assert!(start.elapsed() < Duration::from_secs(30), "OpenBao does not become ready");
            std::thread::sleep(Duration::from_millis(100));
        }
        bao
    }

    /// The same server, whose commands run in a namespace.
    pub(crate) fn inside(&self, namespace: &str) -> Self {
        Self {
            _process: None,
            _home: tempfile::tempdir().unwrap(),
            address: self.address.clone(),
            namespace: namespace.to_owned(),
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(words).env("BAO_ADDR", &self.address).env("BAO_TOKEN", Self::ROOT).env("NO_PROXY", "127.0.0.1");
        // The certificate is what the launcher looks at; this client only sets the server up.
        command.env("BAO_SKIP_VERIFY", "true");
        if !self.namespace.is_empty() {
            command.env("BAO_NAMESPACE", &self.namespace);
        }
        command
    }

    fn try_run(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// Runs a command of OpenBao's as root.
    pub(crate) fn run(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let output = self.command(words).env("BAO_FORMAT", "json").output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Writes a policy.
    pub(crate) fn policy(&self, name: &str, rules: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), rules).unwrap();
        self.run(&["policy", "write", name, file.path().to_str().unwrap()]);
    }

    /// A token with these policies.
    pub(crate) fn token(&self, policies: &[&str]) -> String {
        let mut words = vec!["token", "create", "-field=token", "-ttl=2h"];
        let policies: Vec<String> = policies.iter().map(|policy| format!("-policy={policy}")).collect();
        words.extend(policies.iter().map(String::as_str));
        self.run(&words)
    }

    /// The accessors of all tokens.
    pub(crate) fn accessors(&self) -> Vec<String> {
        let found = self.json(&["list", "auth/token/accessors"]);
        found.as_array().unwrap().iter().map(|accessor| accessor.as_str().unwrap().to_owned()).collect()
    }
}

/// A cluster in a folder of its own.
pub(crate) struct Postgres {
    _process: Running,
    folder: TempDir,
    bin: PathBuf,
    pub(crate) port: u16,
}

impl Postgres {
    pub(crate) fn start() -> Self {
        let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is missing: run `make packages`");
        let bin = versions.map(|entry| entry.unwrap().path().join("bin")).find(|bin| bin.join("initdb").is_file());
        let bin = bin.expect("PostgreSQL is missing: run `make packages`");
        let (folder, port) = (tempfile::tempdir().unwrap(), port());
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        // It refuses to run as root.
        if rustix::process::getuid().is_root() {
            for path in [folder.path(), &data] {
                std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
            }
        }
        let made = Self::as_nobody(&bin.join("initdb"))
            .args(["--no-sync", "--auth=trust", "--username=owner", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let process = Self::as_nobody(&bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-c", "fsync=off", "-c", "unix_socket_directories="])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Running(process);
        wait_for(port, "PostgreSQL");
        let postgres = Self { _process: process, folder, bin, port };
        let start = Instant::now();
        while !postgres.psql("SELECT 1").status.success() {
            assert!(start.elapsed() < Duration::from_secs(30), "PostgreSQL does not become ready");
            std::thread::sleep(Duration::from_millis(100));
        }
        postgres
    }

    fn as_nobody(program: &Path) -> Command {
        let mut command;
        if rustix::process::getuid().is_root() {
            command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program);
        } else {
            command = Command::new(program);
        }
        command.current_dir("/");
        command
    }

    fn psql(&self, query: &str) -> std::process::Output {
        Command::new(self.bin.join("psql"))
            .args(["-X", "-A", "-t", "-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "owner", "-c", query])
            .arg("postgres")
            .env("HOME", self.folder.path())
            .output()
            .unwrap()
    }

    /// The answer to a query.
    pub(crate) fn query(&self, query: &str) -> String {
        let output = self.psql(query);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}
