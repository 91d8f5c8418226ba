//! Paths of `/proc` and `/sys` that tell of the host or reach into it.

/// Hidden: the engine's own list (moby `oci/defaults.go`), since the field replaces it, and what tells which machine
/// this is.
pub(super) const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/kallsyms",
    "/proc/modules",
    "/sys/class/dmi",
    "/sys/devices/virtual/dmi",
    "/sys/class/powercap",
];

/// Read-only: the engine's own list.
pub(super) const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
