//! The system call filter, in the engine's JSON format (moby `profiles/seccomp/seccomp.go`; the numbers are those of
//! `linux/sched.h`, `linux/socket.h` and `linux/netlink.h`).
//!
//! It is an allow list of our own, since the engine's default depends on its version: 20.10 lets through io_uring,
//! AF_VSOCK, AF_ALG and 32-bit calls. The engine's `defaultErrnoRet` is ignored by 20.10, so the calls whose callers
//! fall back only on ENOSYS get rules of their own.

use serde::Serialize;

/// The calls that are permitted whatever their arguments.
const ALLOWED: &str = include_str!("../../profiles/syscalls.txt");

/// The C library, node and others probe these and fall back when the kernel says that it does not have them.
const ABSENT: &[&str] = &["clone3", "io_uring_enter", "io_uring_register", "io_uring_setup"];

/// `ENOSYS`.
const NO_SUCH_CALL: u32 = 38;
/// `EPERM`.
const NOT_PERMITTED: u32 = 1;

/// Every namespace flag of `clone`: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (`linux/sched.h`),
/// and NEWTIME, whose bit means an exit signal here and is left out, as in the engine's own profile.
const NAMESPACES: u64 = 0x7e02_0000;

/// Personalities: PER_LINUX, PER_LINUX32, UNAME26, both together, and the query.
const PERSONALITIES: &[u64] = &[0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Address families whose every protocol is permitted: AF_UNIX, AF_INET, AF_INET6.
const FAMILIES: &[u64] = &[1, 2, 10];
/// `AF_NETLINK`, of which `NETLINK_ROUTE` alone is permitted: `getifaddrs` needs it.
const NETLINK: u64 = 16;
/// `NETLINK_ROUTE`.
const ROUTE: u64 = 0;

/// A profile in the engine's format.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    default_action: &'static str,
    default_errno_ret: u32,
    architectures: Vec<&'static str>,
    syscalls: Vec<Rule>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno_ret: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Condition>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    index: u32,
    value: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_two: Option<u64>,
    op: &'static str,
}

/// The filter for an architecture (`x86_64`, `aarch64`), with further calls permitted and some closed.
pub fn filter(architecture: &str, allow: &[String], deny: &[String]) -> Filter {
    let mut names: Vec<String> = ALLOWED
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_ascii_whitespace)
        .map(str::to_owned)
        .chain(allow.iter().cloned())
        .collect();
    names.sort();
    names.dedup();
    names.retain(|name| !deny.contains(name));
    let mut syscalls = vec![
        permit(names, vec![]),
        permit(
            vec!["clone".to_owned()],
            vec![Condition { index: 0, value: NAMESPACES, value_two: Some(0), op: "SCMP_CMP_MASKED_EQ" }],
        ),
        Rule {
            names: ABSENT.iter().map(|&name| name.to_owned()).collect(),
            action: "SCMP_ACT_ERRNO",
            errno_ret: Some(NO_SUCH_CALL),
            args: vec![],
        },
    ];
    syscalls.extend(PERSONALITIES.iter().map(|&value| permit(vec!["personality".to_owned()], vec![equal(0, value)])));
    syscalls.extend(FAMILIES.iter().map(|&family| permit(vec!["socket".to_owned()], vec![equal(0, family)])));
    syscalls.push(permit(vec!["socket".to_owned()], vec![equal(0, NETLINK), equal(2, ROUTE)]));
    Filter {
        default_action: "SCMP_ACT_ERRNO",
        default_errno_ret: NOT_PERMITTED,
        // No sub-architecture: 32-bit calls have other numbers and a history of their own.
        architectures: vec![if architecture == "aarch64" { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" }],
        syscalls,
    }
}

fn permit(names: Vec<String>, args: Vec<Condition>) -> Rule {
    Rule { names, action: "SCMP_ACT_ALLOW", errno_ret: None, args }
}

fn equal(index: u32, value: u64) -> Condition {
    Condition { index, value, value_two: None, op: "SCMP_CMP_EQ" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_permits_what_leads_out_of_the_container() {
        let filter = filter("x86_64", &[], &[]);
        let open = &filter.syscalls[0].names;
        for name in [
            "mount",
            "umount2",
            "fsopen",
            "move_mount",
            "open_tree",
            "pivot_root",
            "chroot",
            "unshare",
            "setns",
            "clone",
            "clone3",
            "keyctl",
            "add_key",
            "request_key",
            "userfaultfd",
            "io_uring_setup",
            "bpf",
            "perf_event_open",
            "open_by_handle_at",
            "name_to_handle_at",
            "kexec_load",
            "init_module",
            "socket",
            "personality",
            "socketcall",
            "fanotify_init",
            "quotactl",
            "reboot",
            "swapon",
            "syslog",
            "settimeofday",
            "clock_settime",
            "iopl",
            "ioperm",
        ] {
            assert!(!open.iter().any(|open| open == name), "{name}");
        }
    }

    #[test]
    fn has_the_engines_format() {
        let json = serde_json::to_value(filter("x86_64", &[], &[])).unwrap();
        assert_eq!(json["defaultAction"], "SCMP_ACT_ERRNO");
        assert_eq!(json["architectures"], serde_json::json!(["SCMP_ARCH_X86_64"]));
        assert_eq!(
            json["syscalls"][1]["args"],
            serde_json::json!([{"index": 0, "value": 0x7e02_0000_u64, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}])
        );
        assert_eq!(json["syscalls"][2]["errnoRet"], 38);
        let aarch64 = serde_json::to_value(filter("aarch64", &[], &[])).unwrap();
        assert_eq!(aarch64["architectures"], serde_json::json!(["SCMP_ARCH_AARCH64"]));
    }
}
