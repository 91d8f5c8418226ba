//! Which processes belong to a command, and how they end.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::GRACE;

/// Whether any process but this one is alive, as seen in `/proc`.
pub(super) fn others_exist() -> bool {
    let own = rustix::process::getpid();
    list().any(|process| process.pid != own)
}

/// Ends every process of the command's group and session: `first` and SIGTERM, two seconds, SIGKILL.
///
/// A process that left both (a daemon that called `setsid`) stays with the container's PID 1.
pub(super) async fn end(leader: Pid, first: Option<Signal>) {
    let deadline = tokio::time::Instant::now() + GRACE;
    let mut signals = first.into_iter().chain([Signal::TERM]).collect::<Vec<_>>();
    while signal_members(leader, &signals) {
        // A stopped process acts on SIGTERM only when it continues.
        signals = vec![Signal::CONT];
        if tokio::time::Instant::now() >= deadline {
            signal_members(leader, &[Signal::KILL]);
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Signals each member; whether there was one.
fn signal_members(leader: Pid, signals: &[Signal]) -> bool {
    let mut found = false;
    for process in list().filter(|process| process.belongs_to(leader)) {
        found = true;
        for signal in signals {
            let _ = kill_process(process.pid, *signal);
        }
    }
    found
}

/// A living process. Group and session are plain numbers: either is 0 where its leader lives outside this PID namespace
/// (`pid_namespaces(7)`), and there is no `Pid` for that.
struct Process {
    pid: Pid,
    group: i32,
    session: i32,
}

impl Process {
    fn belongs_to(&self, leader: Pid) -> bool {
        let leader = leader.as_raw_nonzero().get();
        self.group == leader || self.session == leader
    }
}

fn list() -> impl Iterator<Item = Process> {
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
    folders.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        parse(pid, &String::from_utf8_lossy(&fs::read(entry.path().join("stat")).ok()?))
    })
}

/// Reads one line of `/proc/PID/stat`; none for a process that has ended and only waits to be reaped.
fn parse(pid: i32, stat: &str) -> Option<Process> {
    // The name, in parentheses, may itself hold spaces and parentheses; the last one closes it (proc(5)).
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    let mut number = || fields.next()?.parse().ok();
    let (_parent, group, session): (i32, i32, i32) = (number()?, number()?, number()?);
    Some(Process { pid: Pid::from_raw(pid)?, group, session })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_group_and_session_behind_a_hostile_name() {
        let process = parse(7, "7 (a) Z 1 (b) S 1 5 6 0 -1").unwrap();
        assert_eq!((process.group, process.session), (5, 6));
    }

    #[test]
    fn finds_the_members_of_a_group_whose_session_began_outside_the_namespace() {
        let leader = Pid::from_raw(5).unwrap();
        assert!(parse(7, "7 (sh) S 1 5 0 0 -1").unwrap().belongs_to(leader));
        assert!(parse(7, "7 (sh) S 1 7 5 0 -1").unwrap().belongs_to(leader));
        assert!(!parse(7, "7 (sh) S 1 0 0 0 -1").unwrap().belongs_to(leader));
    }

    #[test]
    fn does_not_count_a_zombie_as_alive() {
        assert!(parse(7, "7 (sh) Z 1 5 6 0 -1").is_none());
    }
}
