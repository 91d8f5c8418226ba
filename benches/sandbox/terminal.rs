//! What a person at a terminal waits for: the echo of a key, and the verbs that start nothing.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;

use crate::measure::{Aim, Quantity, Table, in_turn, time};
use crate::sessions::Running;
use crate::succeed;
use crate::support::{Home, Project};

/// What a key may take longer than over `docker exec -it`, in seconds: less than people notice.
const MORE: f64 = 0.005;
/// How long a verb that starts nothing may take.
const AT_ONCE: Quantity = Quantity::Seconds(0.02);
/// How long a shell says nothing when it has said all.
const QUIET: Duration = Duration::from_millis(400);
/// How long a shell may take to say something.
const LIMIT: Duration = Duration::from_secs(30);

/// A program on a terminal.
struct Typed {
    keys: File,
    screen: mpsc::Receiver<Vec<u8>>,
    child: Child,
}

impl Typed {
    fn start(mut command: Command) -> Self {
        let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        rustix::pty::grantpt(&ours).unwrap();
        rustix::pty::unlockpt(&ours).unwrap();
        let name = rustix::pty::ptsname(&ours, Vec::new()).unwrap();
        let theirs = rustix::fs::open(&*name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let clone = || Stdio::from(theirs.try_clone().unwrap());
        command.env("TERM", "xterm").stdin(clone()).stdout(clone()).stderr(clone());
        let child = command.spawn().unwrap();
        let keys = File::from(ours);
        let mut output = keys.try_clone().unwrap();
        let (shown, screen) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                if shown.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let typed = Self { keys, screen, child };
        typed.screen.recv_timeout(LIMIT).expect("the shell shows a prompt");
        typed.settle();
        typed
    }

    fn settle(&self) {
        while self.screen.recv_timeout(QUIET).is_ok() {}
    }

    /// From a key to its echo.
    fn key(&mut self) -> Duration {
        let begun = Instant::now();
        self.keys.write_all(b"x").unwrap();
        loop {
            let shown = self.screen.recv_timeout(LIMIT).expect("the shell echoes");
            if shown.contains(&b'x') {
                return begun.elapsed();
            }
        }
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A key in `sandbox shell`, against one in `docker exec -it` into the same container.
pub(crate) fn keys(table: &Table) {
    let home = Home::new();
    let running = Running::start(&home, "image: agent\ncommand: [sleep, infinity]\n");
    let mut shell = home.command();
    shell.args(["shell", running.project()]);
    let mut bare = Command::new("docker");
    bare.args(["exec", "-it", &running.container("agent"), "bash", "-l"]);
    let (mut ours, mut peer) = (Typed::start(shell), Typed::start(bare));
    // A line of the terminal's width would be drawn anew.
    let runs = (3 * table.runs).min(60);
    let [ours, peer] = in_turn(runs, || ours.key(), || peer.key());
    let Quantity::Seconds(most) = peer else { unreachable!("times are in seconds") };
    table.compare("shell, a key's echo", ours, "docker exec -it", peer, Aim::AtMost(Quantity::Seconds(most + MORE)));
}

/// Verbs that start nothing, against `docker --help`.
pub(crate) fn at_once(table: &Table) {
    let home = Home::new();
    let project = Project::new(&home, "bench", "image: agent\ncommand: [sleep, infinity]\n");
    let name = project.name();
    // What bash's completion script asks after `sandbox up <tab>`.
    let completing = [("SANDBOX_COMPLETE", "bash"), ("_CLAP_COMPLETE_INDEX", "2"), ("_CLAP_COMPLETE_COMP_TYPE", "9")];
    let cases = [
        ("--help", vec!["--help"], false),
        ("plan", vec!["plan", name], false),
        ("completing a project", vec!["--", "sandbox", "up", ""], true),
    ];
    for (what, arguments, completes) in cases {
        let variables = || completing.into_iter().filter(|_| completes);
        let ours = || time(|| drop(succeed(home.command().args(&arguments).envs(variables()))));
        let peer = || time(|| drop(succeed(Command::new("docker").arg("--help"))));
        let [ours, peer] = in_turn(3 * table.runs, ours, peer);
        table.compare(what, ours, "docker --help", peer, Aim::AtMost(AT_ONCE));
    }
}
