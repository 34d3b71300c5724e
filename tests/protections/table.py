"""Every protection, the test that fails without it, and what has to be away too for that test to reach it.

Runs as: the test process. Pure.
Reads from strangers: nothing.
Many protections lie one beneath another. Each is shown alone: with everything in `beneath` taken away it still
holds, and without it nothing does.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass

from tests.protections.checks import (
    CODE_BEFORE_THE_LOOK,
    LATE_MOUNT,
    REAPER_DESCRIPTORS,
    REAPER_IN_USER_NAMESPACE,
    SAME_RANDOM_NUMBERS,
    SAME_SEEDS,
    TWO_CALLERS,
    TWO_GATEWAYS,
    WIDER_VERSION,
    ZYGOTE_CAPABILITIES,
    ZYGOTE_DESCRIPTORS,
    ZYGOTE_JAIL,
    Test,
    attempt,
    egress,
    limit,
    own_namespace,
    reaper,
    siblings,
    two_calls,
    worker,
)
from tests.protections.weakenings import ARGUMENTS, FAMILIES

LOOK, GATE = "look", "gate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """One row. `drop` names the weakening where one weakening stands in several rows under different names."""

    name: str
    test: Test
    beneath: tuple[str, ...] = ()
    policy: str = "base"
    drop: str = ""
    refused_is_held: bool = False
    """that the launch is refused is what the protection does"""
    machine: str = ""
    """the one architecture that has what it is about"""

    @property
    def weakening(self) -> str:
        return self.drop or self.name

    @property
    def is_the_look(self) -> bool:
        """The row is about the look from outside itself, which is therefore on."""
        return self.name in (LOOK, GATE)

    @property
    def held_without(self) -> frozenset[str]:
        """What is away while this protection must hold alone."""
        look = {LOOK} if self.beneath and not self.is_the_look else set()
        return frozenset(self.beneath) | look

    @property
    def gone_without(self) -> frozenset[str]:
        """What is away when its test must fail."""
        look = set() if self.is_the_look else {LOOK}
        return frozenset(self.beneath) | {self.weakening} | look


def _row(
    name: str,
    test: str | Test,
    *beneath: str,
    policy: str = "base",
    drop: str = "",
    refused_is_held: bool = False,
    machine: str = "",
) -> Protection:
    return Protection(
        name=name,
        test=attempt(test) if isinstance(test, str) else test,
        beneath=beneath,
        policy=policy,
        drop=drop,
        refused_is_held=refused_is_held,
        machine=machine,
    )


SPARE = (
    _row("join-cgroups", "use_more_memory"),
    _row("memory_max", "use_more_memory"),
    _row("pids_max", "start_many_threads"),
    _row("cpu_max", "use_more_of_a_processor", policy="slow"),
    _row("oom-score", "learn_our_oom_score"),
    _row("unshare mount", own_namespace("mnt")),
    _row("unshare ipc", siblings("system_v_shmget"), "filter: no System V IPC"),
    _row("unshare uts", own_namespace("uts"), "hostname"),
    _row("unshare network", siblings("abstract_socket"), "landlock"),
    _row("unshare cgroup", "learn_our_control_group"),
    _row("unshare pid", "have_a_pid_of_the_host"),
    _row("new-session", "share_a_session_with_the_host"),
    _row("hostname", "learn_the_hosts_name"),
    _row("reseed", SAME_RANDOM_NUMBERS, "bait: zygote is process 2", "zygote's pid"),
    _row("zygote's pid", SAME_RANDOM_NUMBERS, "bait: zygote is process 2", "reseed", refused_is_held=True),
)
_RLIMIT_NICE = 13
"""setrlimit(2); Python's module has no name for it."""
_SET_UID = ("seccomp", "landlock", "capabilities", "no-new-privs", "host mounts: nosuid", "user-namespace")


def _set_uid(name: str) -> Protection:
    beneath = tuple(layer for layer in _SET_UID if layer != name)
    return _row(name, "become_root_by_a_set_uid_program", *beneath, policy="bait")


INSTANCE = (
    _row("read-only-root", "make_a_folder_in_an_open_root", "landlock", "root's owner"),
    _row("root's owner", "make_a_folder_in_an_open_root", "landlock", "read-only-root"),
    _row("pivot", "climb_above_the_root", "landlock"),
    _row("rlimit NOFILE", "use_up_descriptors"),
    _row("rlimit FSIZE", "make_a_huge_file"),
    _row("rlimit CORE", "have_a_core_limit"),
    _row("rlimit MEMLOCK", "lock_memory_by_mapping"),
    _row("rlimit MSGQUEUE", "make_a_message_queue", "filter: no message queues", "landlock"),
    _row("rlimit SIGPENDING", "use_up_the_hosts_timers"),
    _row("rlimit RTPRIO", limit("be_real_time_for_a_moment", resource.RLIMIT_RTPRIO), "filter: no schedulers"),
    _row("rlimit NICE", limit("raise_our_priority", _RLIMIT_NICE), "filter: group sched"),
    _row("keyring", "find_a_key_of_the_daemon", "filter: no keyrings"),
    _row("clear-groups", "read_a_file_of_the_daemons_group", policy="bait"),
    _set_uid("user-namespace"),
    _row("identity", "read_a_file_of_root", policy="bait"),
    _row("capabilities", "override_permissions"),
    _row("capabilities: bounding set", "find_a_capability"),
    _row("capabilities: securebits", "find_securebits_unlocked"),
    _set_uid("no-new-privs"),
    _row("not-dumpable", "read_our_own_memory", "bait: dumpable"),
    _row(
        "descriptors: close", "use_a_forgotten_descriptor", "bait: descriptor", "descriptors: check", drop="descriptors"
    ),
    _row(
        "descriptors: check",
        "use_a_forgotten_descriptor",
        "bait: descriptor",
        "descriptors: close",
        drop="descriptors",
        refused_is_held=True,
    ),
    _row("landlock: programs", "start_the_interpreter_again", "filter: execve", drop="landlock"),
    _row(
        "landlock: writing", "write_in_a_folder_of_the_host", "host mounts: read-only", policy="bait", drop="landlock"
    ),
    _row("landlock: abstract sockets", siblings("abstract_socket"), "unshare network", drop="landlock"),
    _row("seccomp", "unshare_user"),
    _row("look", "override_permissions", "capabilities", refused_is_held=True),
    _row("gate", CODE_BEFORE_THE_LOOK),
)

FRESH = (
    _row("exec", SAME_SEEDS, policy="fresh"),
    _row("exec: not-dumpable", "read_our_own_memory", policy="fresh"),
    _row(
        "exec: check-descriptors",
        "use_a_forgotten_descriptor",
        "bait: descriptor of the fresh interpreter",
        policy="fresh",
        refused_is_held=True,
    ),
    _row("exec: landlock", "start_the_interpreter_again", "filter: execve", policy="fresh", drop="landlock"),
    _row("exec: seccomp", "start_the_interpreter_again", "landlock", policy="fresh", drop="seccomp"),
)

MOUNTS = (
    _row("host mounts: read-only", "write_in_a_folder_of_the_host", "landlock", policy="bait"),
    _set_uid("host mounts: nosuid"),
    _row("host mounts: nodev", "read_a_device_of_the_host", policy="bait"),
    _row("host mounts: private", LATE_MOUNT, "supervisor's mounts: private", policy="bait"),
    _row("supervisor's mounts: private", LATE_MOUNT, "host mounts: private", policy="bait"),
    _row("host mounts: not recursive", "see_below_a_granted_folder", policy="bait"),
    _row("library mounts: read-only", "change_our_libraries"),
    _row("device mount: read-only", "make_a_folder_in_dev", "landlock", "bait: everyone's device folder"),
    _row("persistent mounts: noexec", "map_code_from_a_kept_folder", policy="kept"),
    _row("/app: noexec", "map_code_from_app"),
    _row("/app: size", "fill_app"),
    _row("/app: inodes", "use_up_inodes_of_app"),
    _row("/tmp: noexec", "map_code_from_tmp"),
    _row("/tmp: size", "fill_tmp"),
    _row("/tmp: inodes", "use_up_inodes_of_tmp"),
    _row("/dev/shm: noexec", "map_code_from_dev_shm"),
    _row("/dev/shm: size", "fill_dev_shm"),
    _row("/dev/shm: inodes", "use_up_inodes_of_dev_shm"),
    _row("/proc: read-only", "write_to_our_own_proc", "landlock", "not-dumpable", "bait: dumpable"),
    _row("/proc: subset", "read_cpuinfo"),
    _row("/proc: hidepid", "see_process_1"),
)

REAPER = (
    _row("reaper: clear-groups", reaper("Groups")),
    _row("reaper: user-namespace", REAPER_IN_USER_NAMESPACE, "reaper: capabilities"),
    _row("reaper: identity", reaper("Uid")),
    _row("reaper: capabilities", reaper("CapEff")),
    _row("reaper: no-new-privs", reaper("NoNewPrivs"), "reaper: capabilities"),
    _row("reaper: not-dumpable", "read_maps_of_process_1", "landlock", "/proc: hidepid", "bait: dumpable reaper"),
    _row("reaper: descriptors", REAPER_DESCRIPTORS),
    _row("reaper: filter", reaper("Seccomp")),
)

ZYGOTE = (
    _row("zygote: capabilities", ZYGOTE_CAPABILITIES),
    _row("zygote: descriptors", ZYGOTE_DESCRIPTORS),
    _row("zygote: read-only jail", ZYGOTE_JAIL),
)

CALLS = (
    _row("caller: choice", TWO_CALLERS, "caller: check", policy="caller"),
    _row("caller: check", TWO_CALLERS, "caller: choice", policy="caller"),
    _row("caller: next gateway", TWO_GATEWAYS, policy="caller"),
    _row("call: kill", two_calls("find_what_a_call_has_started"), "call: alone", policy="call"),
    _row("call: alone", two_calls("find_what_a_call_has_started"), "call: kill", policy="call"),
    _row("call: emptied", two_calls("find_what_a_call_has_written"), policy="call"),
    _row("call: passage", two_calls("find_the_arguments_of_a_call"), policy="call"),
)

_OF_ARGUMENTS = {
    "prctl": "become_dumpable",
    "personality": "call_personality",
    "ioctl": "type_into_a_terminal",
    "open": "open_with_the_set_uid_bit",
    "openat": "create_a_file_with_the_setuid_bit",
    "creat": "creat_with_the_set_uid_bit",
    "chmod": "set_the_setuid_bit",
    "fchmod": "set_the_setgid_bit_of_a_descriptor",
    "fchmodat": "fchmodat_with_the_set_uid_bit",
    "fchmodat2": "fchmodat2_with_the_set_uid_bit",
    "clone": "clone_user",
    "prlimit64": "call_prlimit64_on_ourselves",
    "socket": "tcp",
    "socketpair": "a_pair_of_inet_sockets",
    "setsockopt": "attach_a_filter_to_a_socket",
}
_OF_FAMILIES = {
    "mounting": "mount_from_nowhere",
    "namespaces": "unshare_user",
    "identities": "set_our_own_uid",
    "capset": "read_our_capabilities",
    "chroot": "change_our_root",
    "chown": "chown_our_own_file",
    "mknod": "make_a_fifo",
    "setxattr": "set_an_attribute",
    "keyrings": "call_keyctl",
    "tracing": "read_memory_by_pid",
    "bpf and perf": "call_perf_event_open",
    "userfaultfd": "call_userfaultfd",
    "io_uring and aio": "call_io_setup",
    "modify_ldt": "call_modify_ldt",
    "memory policy": "call_mbind",
    "file handles": "name_a_file_by_its_inode",
    "System V IPC": "call_shmget",
    "message queues": "call_mq_open",
    "filters of its own": "ask_for_an_action_of_seccomp",
    "quotas": "call_quotactl",
    "fanotify": "mark_for_fanotify",
    "host's disks": "call_syncfs",
    "page cache": "call_mincore",
    "membarrier": "call_membarrier",
    "schedulers": "call_ioprio_set",
    "host's clock": "read_how_the_clock_is_adjusted",
}
_BELOW_FAMILIES = {"message queues": ("landlock", "rlimit MSGQUEUE")}
_OF_GROUPS = {
    "inotify": "call_inotify_init1",
    "landlock": "landlock_ourselves",
    "memfd": "make_a_file_in_memory",
    "mlock": "call_mlock",
    "sched": "choose_a_processor",
    "splice": "call_splice",
}

_X86_64 = "x86_64"


def _machine(name: str) -> str:
    """arm64 was made without these."""
    return _X86_64 if name in ("open", "creat", "modify_ldt") else ""


FILTER = (
    _row("filter: default", "unshare_user"),
    _row("filter: newest", "call_a_number_of_the_future"),
    _row("filter: other ABI, prologue", "call_by_interrupt_0x80", "filter: other ABI, libseccomp", machine=_X86_64),
    _row("filter: other ABI, libseccomp", "call_by_interrupt_0x80", "filter: other ABI, prologue", machine=_X86_64),
    *(_row(f"filter: arguments of {call}", _OF_ARGUMENTS[call], machine=_machine(call)) for call in ARGUMENTS),
    _row("filter: openat2", "create_a_setuid_file_with_openat2"),
    _row("filter: clone3", "clone3_user"),
    _row("filter: execve", "start_the_interpreter_again", "landlock"),
    _row("filter: execveat", "start_by_descriptor", "landlock"),
    *(
        _row(f"filter: no {family}", _OF_FAMILIES[family], *_BELOW_FAMILIES.get(family, ()), machine=_machine(family))
        for family in FAMILIES
    ),
    *(_row(f"filter: group {group}", test) for group, test in _OF_GROUPS.items()),
)

EGRESS = (
    _row("egress: identity", egress("read a file of root's", "EACCES")),
    _row("egress: capabilities", egress("read a file of root's", "EACCES")),
    _row("egress: filter", egress("start a process", "EPERM")),
    _row("egress: tasks", egress("start many threads", "EAGAIN")),
    _row("egress: socket families", egress("talk to a socket with a path", "EPERM")),
    _row("egress: no listening", egress("listen", "EPERM")),
    _row("egress: no processes", egress("start a process", "EPERM")),
    _row("egress: no programs", egress("become a program", "EPERM")),
    _row("egress: no namespaces", egress("leave what is shared", "EPERM")),
    _row(
        "egress: public addresses of names",
        egress("fetch from a private address by name", "refused", host="localhost"),
    ),
    _row(
        "egress: public addresses as written",
        egress("fetch from a private address as written", "refused", host="127.0.0.2"),
    ),
)

WORKER = (
    _row("worker: files", worker("find a file of the host's", "ENOENT")),
    _row("worker: identity", worker("signal a process of root's", "EPERM")),
    _row("worker: capabilities", worker("signal a process of root's", "EPERM")),
    _row("worker: filter", worker("make a socket", "EPERM")),
)

DEPLOYING = (_row("widening", WIDER_VERSION),)

PROTECTIONS: tuple[Protection, ...] = (
    *SPARE, *INSTANCE, *FRESH, *MOUNTS, *REAPER, *ZYGOTE, *CALLS, *FILTER, *EGRESS, *WORKER, *DEPLOYING
)  # fmt: skip
