//! Keeps what this process holds out of files and out of reach of other processes.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Has the kernel write no core of this process, and let no other process of the same user trace it or read its memory
/// and environment ("PR_SET_DUMPABLE", prctl(2)). Programs that it starts can be dumped again, but begin with a limit of
/// 0, which they may raise: a command that issues credentials holds them as well ("RLIMIT_CORE", getrlimit(2)).
///
/// Neither can fail for a process of its own; where a sandbox around the launcher refuses it, the launcher works on.
pub(super) fn keep_private() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "this process's memory may be dumped");
    }
    let maximum = getrlimit(Resource::Core).maximum;
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum }) {
        tracing::warn!(%error, "programs that this process starts may be dumped");
    }
}
