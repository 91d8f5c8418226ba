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
    for process in list().filter(|process| process.group == leader || process.session == leader) {
        found = true;
        for signal in signals {
            let _ = kill_process(process.pid, *signal);
        }
    }
    found
}

struct Process {
    pid: Pid,
    group: Pid,
    session: Pid,
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
    // Kernel threads have session 0, for which there is no `Pid`.
    Some(Process { pid: Pid::from_raw(pid)?, group: Pid::from_raw(group)?, session: Pid::from_raw(session)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_group_and_session_behind_a_hostile_name() {
        let process = parse(7, "7 (a) Z 1 (b) S 1 5 6 0 -1").unwrap();
        assert_eq!((process.group.as_raw_nonzero().get(), process.session.as_raw_nonzero().get()), (5, 6));
    }

    #[test]
    fn does_not_count_a_zombie_as_alive() {
        assert!(parse(7, "7 (sh) Z 1 5 6 0 -1").is_none());
    }
}
