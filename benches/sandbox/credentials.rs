//! What credentials cost: a start with five of them, the way of a new value to the agent, and reads while values change.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::measure::{Aim, Quantity, Table, in_turn, median, time};
use crate::sessions::Running;
use crate::succeed;
use crate::support::{Home, Project};

/// How much longer a start may take with five credentials than without any, once their issuers have answered.
const ADDED: Duration = Duration::from_millis(150);
/// How long a new value may take to the agent.
const WAY: Duration = Duration::from_millis(100);

const READER: &str = include_str!("../../tests/support/reads.py");

/// Prints how many nanoseconds each new value was on its way: a value is the time at which it was issued.
const WATCHER: &str = "
import time
last = open('/run/secrets/token').read()
print('watching', flush=True)
while True:
    now = open('/run/secrets/token').read()
    if now != last:
        print(time.time_ns() - int(now), flush=True)
        last = now
";

fn shell(command: &str) -> String {
    serde_json::to_string(&["/bin/sh", "-c", command]).unwrap()
}

pub(crate) fn run(table: &Table) {
    let home = Home::new();
    start(table, &home);
    way(table, &home);
    reads(table, &home);
}

/// A start with credentials of three providers beside one without any.
fn start(table: &Table, home: &Home) {
    let base = "image: agent\ncommand: [sleep, infinity]\n";
    let plain = Project::new(home, "plain", base);
    let five = Project::new(
        home,
        "five",
        &format!(
            "{base}credentials:\n  one: {{ provider: store }}\n  two: {{ provider: store }}\n\
             \x20 three: {{ provider: env-file, path: .env.agent, variable: THREE }}\n\
             \x20 four: {{ provider: exec, command: {0} }}\n  five: {{ provider: exec, command: {0}, deliver: {{ file: five }} }}\n",
            shell("od -An -N16 -tx1 /dev/urandom | tr -d ' \\n'"),
        ),
    );
    secrets(home, &five);
    let up = |project: &Project<'_>| {
        let took = time(|| drop(succeed(home.command().args(["up", project.name(), "--", "true"]))));
        succeed(home.command().args(["down", "--discard", project.name()]));
        took
    };
    let [with, without] = in_turn(table.runs, || up(&five), || up(&plain));
    table.compare("up with five credentials of three providers", with, "up without any", without, Aim::None);
    let added = (with.number() - without.number()).max(0.0);
    table.single("what the five add", Quantity::Seconds(added), Aim::AtMost(ADDED.into()));
}

fn secrets(home: &Home, project: &Project<'_>) {
    use std::os::unix::fs::PermissionsExt as _;
    let file = project.path().join(".env.agent");
    std::fs::write(&file, "THREE=value-of-the-benchmark-three\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(project.path().join(".git/info/exclude"), ".env.agent\n").unwrap();
    for name in ["one", "two"] {
        let value = project.path().join(".git").join(name);
        std::fs::write(&value, format!("value-of-the-benchmark-{name}")).unwrap();
        let input = std::fs::File::open(&value).unwrap();
        let set = home.command().args(["credential", "set", name, project.name()]).stdin(input).output().unwrap();
        assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    }
}

/// A sandbox with one credential that a command issues.
fn running<'a>(home: &'a Home, command: &str) -> Running<'a> {
    let credential = format!("token: {{ provider: exec, command: {}, deliver: {{ file: token }} }}", shell(command));
    Running::start(home, &format!("image: agent\ncommand: [sleep, infinity]\ncredentials:\n  {credential}\n"))
}

fn way(table: &Table, home: &Home) {
    let running = running(home, "printf %s $(date +%s%N)");
    let mut watcher = running.exec().args(["python3", "-u", "-c", WATCHER]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watcher.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "watching");
    // The first is not counted.
    let mut ways = Vec::new();
    for _ in 0..=table.runs {
        succeed(home.command().args(["credential", "rotate", "token", running.project()]));
        ways.push(lines.next().unwrap().unwrap().parse::<f64>().unwrap() / 1e9);
    }
    let _ = watcher.kill();
    let _ = watcher.wait();
    let way = Quantity::Seconds(median(ways.split_off(1)));
    table.single("a new value's way to the agent", way, Aim::AtMost(WAY.into()));
}

fn reads(table: &Table, home: &Home) {
    let counter = home.path().join("counter");
    std::fs::write(&counter, "100").unwrap();
    let running = running(home, &count(&counter));
    let mut reader = running.exec().args(["python3", "-c", READER]).stdout(Stdio::piped()).spawn().unwrap();
    while reader.try_wait().unwrap().is_none() {
        succeed(home.command().args(["credential", "rotate", "token", running.project()]));
        std::thread::sleep(Duration::from_millis(150));
    }
    let said = String::from_utf8(reader.wait_with_output().unwrap().stdout).unwrap();
    let numbers: Vec<f64> = said.split_whitespace().map(|word| word.parse().unwrap()).collect();
    table.single("reads that failed over 30 rotations", Quantity::Count(numbers[1]), Aim::AtMost(Quantity::Count(0.0)));
    table.remark(&format!("of {} reads over {} rotations, {} a second", numbers[0], numbers[2] - 1.0, numbers[3]));
}

fn count(counter: &Path) -> String {
    let counter = counter.display();
    format!("n=$(($(cat {counter}) + 1)); echo $n > {counter}; for i in $(seq 40); do printf 'v%s ' $n; done")
}
