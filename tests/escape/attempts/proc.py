"""Attempts on /proc: kernel variables, other processes, and what a process may set about itself.

Runs as: see `frame`.
Reads from strangers: nothing.
Opening for writing is the attempt; nothing is written, because outside it would count.
"""

from __future__ import annotations

import os

from tests.escape.attempts.files import can_open
from tests.escape.attempts.frame import Function, Nothing, attempt, attempts

AREA = "proc"


def _opener(path: str, flags: int) -> Function:
    return lambda: can_open(path, flags)


attempts(
    AREA,
    "ENOENT EROFS EACCES",
    [
        (f"set_{path.rpartition('/')[2].replace('-', '_')}", idea, _opener(f"/proc/{path}", os.O_WRONLY))
        for path, idea in (
            ("sys/kernel/core_pattern", "a program that the kernel starts as root"),
            ("sys/kernel/modprobe", "another one"),
            ("sys/kernel/hostname", "who this machine is"),
            ("sys/kernel/randomize_va_space", "address randomisation for everybody"),
            ("sys/kernel/dmesg_restrict", "who may read the kernel's log"),
            ("sys/kernel/ns_last_pid", "which pid comes next"),
            ("sys/vm/drop_caches", "slow the machine down"),
            ("sys/vm/overcommit_memory", "how much memory is promised"),
            ("sys/fs/file-max", "how many files may be open"),
            ("sys/fs/binfmt_misc", "interpreters for foreign formats, run with the host's rights"),
            ("sys/net/ipv4/ip_forward", "become a router"),
        )
    ],
    sees="open EISDIR",
    # Each is there if the kernel was built with it; ns_last_pid wants CONFIG_CHECKPOINT_RESTORE.
    lacks="ENOENT",
)
attempts(
    AREA,
    "ENOENT",
    [
        (f"read_{path.replace('/', '_')}", idea, _opener(f"/proc/{path}", os.O_RDONLY))
        for path, idea in (
            ("kallsyms", "addresses of the kernel"),
            ("kcore", "the kernel's memory"),
            ("kmsg", "the kernel's log"),
            ("cmdline", "how the kernel was started"),
            ("config.gz", "how the kernel was built"),
            ("version", "which kernel it is"),
            ("modules", "what is loaded into it"),
            ("cpuinfo", "whose neighbours may be spied upon"),
            ("meminfo", "how much the neighbours use"),
            ("stat", "how busy they are, processor by processor"),
            ("uptime", "since when"),
            ("loadavg", "how many processes there are on the host"),
            ("interrupts", "keystrokes of others"),
            ("timer_list", "addresses of the kernel"),
            ("partitions", "which disks there are"),
            ("keys", "keys of others"),
            ("sysvipc/shm", "shared memory of others"),
            ("bus/pci/devices", "hardware"),
            ("acpi/wakeup", "hardware that can be written"),
            ("fs/ext4", "the host's file systems"),
        )
    ],
    lacks="ENOENT",
)


@attempt(AREA, "ENOENT", lacks="ENOENT")
def press_the_magic_key() -> str:
    """One letter into sysrq-trigger restarts the machine."""
    return can_open("/proc/sysrq-trigger", os.O_WRONLY)


# ---- process 1 and the parent


attempts(
    AREA,
    "ENOENT EACCES EPERM",
    [
        (f"read_{what.replace('/', '_')}_of_process_1", idea, _opener(f"/proc/1/{what}", os.O_RDONLY))
        for what, idea in (
            ("environ", "secrets travel in environments: bubblewrap's pid 1 showed the caller's"),
            ("mem", "the launcher's memory"),
            ("maps", "its address layout, which every instance may share"),
            ("auxv", "its stack canary's neighbour"),
            ("fd", "its descriptors"),
            ("cwd", "its folder"),
            ("exe", "its program"),
            ("ns/mnt", "its mounts"),
            ("stack", "where in the kernel it is"),
            ("syscall", "what it is doing"),
        )
    ],
    lacks="ENOENT",
)


def _of_the_parent(what: str) -> Function:
    return lambda: can_open(f"/proc/{os.getppid()}/{what}", os.O_RDONLY)


attempts(
    AREA,
    "ENOENT EACCES EPERM",
    [
        (f"read_{what}_of_the_runner", idea, _of_the_parent(what))
        for what, idea in (
            ("mem", "a child reads the runner, of the same uid, which must not be dumpable"),
            ("environ", "a child reads what the runner was started with"),
        )
    ],
)


# ---- ourselves


def _open_own(name: str) -> Function:
    return lambda: can_open(f"/proc/self/{name}", os.O_WRONLY)


attempts(
    AREA,
    "ENOENT EROFS EACCES EPERM",
    [
        (f"write_own_{name.replace('/', '_')}", idea, _open_own(name))
        for name, idea in (
            ("uid_map", "become somebody else in our user namespace"),
            ("gid_map", "the same for groups"),
            ("setgroups", "allow groups again"),
            ("oom_score_adj", "let another process die in our place"),
            ("loginuid", "who the audit log says we are"),
            ("attr/current", "another security label"),
            ("timerslack_ns", "a better clock for spying"),
            ("coredump_filter", "what a core file holds"),
            ("clear_refs", "watch which pages are touched"),
        )
    ],
    sees="open EINVAL",
    lacks="ENOENT",
)


def visible_processes() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


@attempt(AREA, "nothing", shares="pid")
def see_other_processes() -> str:
    """Other people's command lines have passwords in them."""
    strangers = visible_processes() - {1, os.getpid(), os.getppid()}
    if not strangers:
        raise Nothing("only ourselves and our parents")
    return f"{len(strangers)} others, for example {min(strangers)}"


@attempt(AREA, "nothing", no_control="a control group's path outside depends on where the tests are started")
def learn_our_control_group() -> str:
    """The path of the group tells how the host is organised, and how to name a neighbour."""
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        paths = {line.strip().split(":", 2)[2] for line in file}
    if paths <= {"/"}:
        raise Nothing("every path is /")
    return ", ".join(sorted(paths))


@attempt(AREA, "nothing", control=lambda: _words_in("/proc/self/mountinfo", ("upper",)))
def learn_where_the_daemon_keeps_its_state() -> str:
    """The mount table may show where on the host a mount comes from."""
    return _words_in("/proc/self/mountinfo", ("runagentd", "snapshot"))


def _words_in(path: str, words: tuple[str, ...]) -> str:
    with open(path, encoding="utf-8") as file:
        found = [line.strip() for line in file if any(word in line for word in words)]
    if not found:
        raise Nothing("no such word")
    return found[0]


@attempt(AREA, "nothing", shares="pid net")
def read_the_hosts_network_tables() -> str:
    """/proc/self/net shows the network namespace: addresses, neighbours, sockets of the host."""
    with open("/proc/self/net/dev", encoding="utf-8") as file:
        interfaces = [line.split(":")[0].strip() for line in file if ":" in line]
    with open("/proc/self/net/unix", encoding="utf-8") as file:
        named = [line.split()[7] for line in file if len(line.split()) > 7 and line[0] != "N"]
    if interfaces == ["lo"] and not named:
        raise Nothing("only lo, and no socket with a name")
    return f"interfaces {interfaces}, sockets {named[:5]}"
