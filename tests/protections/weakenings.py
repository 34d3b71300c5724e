"""Each way in which a sandbox is made weaker, by name: what is taken out of a plan that was right.

Runs as: the test process and the weakened supervisor. Pure.
Reads from strangers: nothing.
Nothing in runagentd knows of these. `weakened` applies them where the product has decided, before it acts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from runagentd.kernel import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY
from runagentd.plan.model import Mount, MountKind, Step, Verb
from runagentd.plan.seccomp import ALLOW, Rule, SyscallFilter
from runagentd.plan.syscalls import shipped_table

Steps = tuple[Step, ...]

_GIB = 1024**3
_MANY = "1000000"


def _same_steps(steps: Steps) -> Steps:
    return steps


def _same_mount(mount: Mount) -> Mount:
    return mount


def _same_filter(filter: SyscallFilter) -> SyscallFilter:
    return filter


@dataclass(frozen=True, slots=True, kw_only=True)
class Weakening:
    """What is done to a launch. `marks` are for what is not part of a plan: see `weakened`."""

    spare: Callable[[Steps], Steps] = _same_steps
    steps: Callable[[Steps], Steps] = _same_steps
    mount: Callable[[Mount], Mount] = _same_mount
    filter: Callable[[SyscallFilter], SyscallFilter] = _same_filter
    lost_attributes: tuple[tuple[MountKind, int], ...] = ()
    """MOUNT_ATTR_ bits that mounts of a kind do not get; of the host's own folders only the bait is ever weakened"""
    unlimited: frozenset[str] = frozenset()
    """names of `plan.model.Limits` that are not written"""
    marks: frozenset[str] = frozenset()
    launcher: tuple[tuple[str, str, str], ...] = ()
    """changes of the launcher's own text: a file of runagentd/launch, what stands there once, what takes its place"""
    whole: bool = False
    """it concerns all of a daemon, not one agent"""


def _step(verb: str, *arguments: str) -> Step:
    # A weakened launcher knows verbs that the product's enumeration does not.
    return Step(verb=verb, arguments=arguments)  # type: ignore[arg-type]


def _is(step: Step, verb: Verb, first: tuple[str, ...]) -> bool:
    return step.verb == verb and step.arguments[: len(first)] == first


def without(verb: Verb, *first: str) -> Callable[[Steps], Steps]:
    """Drop the steps of `verb` whose arguments begin with `first`."""
    return lambda steps: tuple(step for step in steps if not _is(step, verb, first))


def instead(
    verb: Verb, *first: str, by: Callable[[tuple[str, ...]], Step | tuple[Step, ...]]
) -> Callable[[Steps], Steps]:
    """Replace the steps of `verb` whose arguments begin with `first`."""

    def change(steps: Steps) -> Steps:
        changed: list[Step] = []
        for step in steps:
            made = by(step.arguments) if _is(step, verb, first) else step
            changed.extend(made if isinstance(made, tuple) else (made,))
        return tuple(changed)

    return change


def allow(*calls: str) -> Callable[[SyscallFilter], SyscallFilter]:
    """Allow `calls` whatever their arguments are."""

    def change(filter: SyscallFilter) -> SyscallFilter:
        kept = tuple(rule for rule in filter.rules if rule.call not in calls)
        return dataclasses.replace(filter, rules=kept + tuple(_allowed(call) for call in calls))

    return change


def _allowed(call: str) -> Rule:
    numbers = {entry.name: entry.number for group in shipped_table().groups for entry in group.entries}
    return Rule(call=call, action=ALLOW, number=numbers.get(call), optional=True)


def grant(group: str) -> Callable[[SyscallFilter], SyscallFilter]:
    """Allow every call of a group that the policy did not name."""
    found = next(one for one in shipped_table().groups if one.name == group)
    return allow(*(entry.name for entry in found.entries if not entry.alternatives))


def allow_by_default(filter: SyscallFilter) -> SyscallFilter:
    """A filter that forbids what is named, and nothing else."""
    return dataclasses.replace(filter, default=ALLOW, rules=tuple(r for r in filter.rules if r.action != ALLOW))


def look_at_everything(filter: SyscallFilter) -> SyscallFilter:
    """No call is too new to be known."""
    return dataclasses.replace(filter, newest=dataclasses.replace(filter.newest, number=0x3FFFFFFF))


def _of(kind: MountKind, **changes: int) -> Callable[[Mount], Mount]:
    return lambda mount: dataclasses.replace(mount, **changes) if mount.kind is kind else mount  # type: ignore[arg-type]


def _tmpfs(path: str, flags: str, **changes: str) -> Callable[[Steps], Steps]:
    def by(arguments: tuple[str, ...]) -> Step:
        _, size, inodes, mode, owner = arguments
        return _step(
            "flagged-tmpfs", flags, path, changes.get("size", size), changes.get("inodes", inodes), mode, owner
        )

    return instead(Verb.TMPFS, path, by=by)


def _reaper(*parts: str) -> Weakening:
    return Weakening(
        spare=instead(Verb.REAPER, by=lambda words: (_step("reaper-without", *parts), _step("reaper", *words)))
    )


def _descriptors(*parts: str) -> Callable[[Steps], Steps]:
    return instead(Verb.DESCRIPTORS, by=lambda _: _step("descriptors-without", *parts))


_ALL_FLAGS = "nosuid,nodev,noexec"
_PROC_FLAGS = "ro," + _ALL_FLAGS
_PROC_OPTIONS = "subset=pid,hidepid=ptraceable"


def _proc(flags: str, options: str) -> Weakening:
    return Weakening(spare=instead(Verb.PROC, by=lambda words: _step("flagged-proc", flags, options, *words)))


def _lost(kind: MountKind, attribute: int) -> Weakening:
    return Weakening(lost_attributes=((kind, attribute),))


def _drop(verb: Verb, *first: str) -> Weakening:
    return Weakening(steps=without(verb, *first))


def _drop_spare(verb: Verb, *first: str) -> Weakening:
    return Weakening(spare=without(verb, *first))


def _mark(name: str, *, whole: bool = False) -> Weakening:
    return Weakening(marks=frozenset({name}), whole=whole)


def _capabilities(part: str) -> Weakening:
    return Weakening(steps=instead(Verb.CAPABILITIES, by=lambda words: _step("capabilities-without", part, *words)))


STEPS: dict[str, Weakening] = {
    "join-cgroups": _drop_spare(Verb.JOIN_CGROUPS),
    "memory_max": Weakening(unlimited=frozenset({"memory_max"})),
    "pids_max": Weakening(unlimited=frozenset({"pids_max"})),
    "cpu_max": Weakening(unlimited=frozenset({"cpu_max"})),
    "oom-score": _drop_spare(Verb.OOM_SCORE),
    "unshare mount": Weakening(spare=without(Verb.UNSHARE, "mount"), whole=True),
    "unshare ipc": _drop_spare(Verb.UNSHARE, "ipc"),
    # Without the step `hostname` too, always: it would rename the host.
    "unshare uts": Weakening(spare=lambda steps: without(Verb.UNSHARE, "uts")(without(Verb.HOSTNAME)(steps))),
    "unshare network": _drop_spare(Verb.UNSHARE, "network"),
    "unshare cgroup": _drop_spare(Verb.UNSHARE, "cgroup"),
    "unshare pid": _mark("no pid namespace"),
    "new-session": _drop_spare(Verb.NEW_SESSION),
    "hostname": _drop_spare(Verb.HOSTNAME),
    "reseed": _drop_spare(Verb.RESEED),
    "zygote's pid": Weakening(launcher=(("zygote.py", "if os.getpid() <= 2:", "if False:"),), whole=True),
    "read-only-root": _drop(Verb.READ_ONLY_ROOT),
    "root's owner": Weakening(
        spare=instead(Verb.NEW_ROOT, by=lambda words: _step("flagged-new-root", _ALL_FLAGS, "0777", *words))
    ),
    "pivot": Weakening(steps=instead(Verb.PIVOT, by=lambda words: _step("pivot-and-keep-the-old-root", *words))),
    "keyring": _drop(Verb.KEYRING),
    "clear-groups": _drop(Verb.CLEAR_GROUPS),
    "user-namespace": _drop(Verb.USER_NAMESPACE),
    "identity": _drop(Verb.IDENTITY),
    "capabilities": _drop(Verb.CAPABILITIES),
    "capabilities: bounding set": _capabilities("bounding-set"),
    "capabilities: securebits": _capabilities("securebits"),
    "no-new-privs": _drop(Verb.NO_NEW_PRIVS),
    "not-dumpable": _drop(Verb.NOT_DUMPABLE),
    "descriptors: close": Weakening(steps=_descriptors("close")),
    "descriptors: check": Weakening(steps=_descriptors("check")),
    "descriptors": Weakening(steps=_descriptors("close", "check")),
    "landlock": _drop(Verb.LANDLOCK),
    "seccomp": _drop(Verb.SECCOMP),
    "gate": Weakening(steps=instead(Verb.GATE, by=lambda _: _step("gate-without-waiting"))),
    "look": _mark("no look"),
    **{
        f"rlimit {name}": _drop(Verb.RLIMIT, name)
        for name in ("NOFILE", "FSIZE", "CORE", "MEMLOCK", "MSGQUEUE", "SIGPENDING", "RTPRIO", "NICE")
    },
}
"""A launch without one of its steps."""


def _not_dumpable_after_exec(steps: Steps) -> Steps:
    last = max((number for number, step in enumerate(steps) if step.verb == Verb.NOT_DUMPABLE), default=len(steps))
    return steps[:last] + steps[last + 1 :]


FRESH: dict[str, Weakening] = {
    "exec": Weakening(
        steps=lambda steps: without(Verb.EXEC)(instead(Verb.DESCRIPTORS, by=lambda _: _step("descriptors"))(steps))
    ),
    "exec: not-dumpable": Weakening(steps=_not_dumpable_after_exec),
    "exec: check-descriptors": _drop(Verb.CHECK_DESCRIPTORS),
}
"""A launch that becomes a fresh interpreter, without one of the steps that only such a launch has."""

MOUNTS: dict[str, Weakening] = {
    "host mounts: read-only": _lost(MountKind.HOST, MOUNT_ATTR_RDONLY),
    "host mounts: nosuid": _lost(MountKind.HOST, MOUNT_ATTR_NOSUID),
    "host mounts: nodev": _lost(MountKind.HOST, MOUNT_ATTR_NODEV),
    "host mounts: private": _mark("clones propagate"),
    "host mounts: not recursive": _mark("clones are recursive"),
    "supervisor's mounts: private": _mark("the supervisor's mounts propagate", whole=True),
    "library mounts: read-only": _lost(MountKind.SNAPSHOT, MOUNT_ATTR_RDONLY),
    "device mount: read-only": _lost(MountKind.DEVICES, MOUNT_ATTR_RDONLY),
    "persistent mounts: noexec": _lost(MountKind.PERSISTENT, MOUNT_ATTR_NOEXEC),
    "/app: noexec": _lost(MountKind.APP, MOUNT_ATTR_NOEXEC),
    "/app: size": Weakening(mount=_of(MountKind.APP, size=_GIB)),
    "/app: inodes": Weakening(mount=_of(MountKind.APP, inodes=1_000_000)),
    "/tmp: noexec": Weakening(steps=_tmpfs("/tmp", "nosuid,nodev")),
    "/tmp: size": Weakening(steps=_tmpfs("/tmp", _ALL_FLAGS, size="1g")),
    "/tmp: inodes": Weakening(steps=_tmpfs("/tmp", _ALL_FLAGS, inodes=_MANY)),
    "/dev/shm: noexec": Weakening(steps=_tmpfs("/dev/shm", "nosuid,nodev")),
    "/dev/shm: size": Weakening(steps=_tmpfs("/dev/shm", _ALL_FLAGS, size="1g")),
    "/dev/shm: inodes": Weakening(steps=_tmpfs("/dev/shm", _ALL_FLAGS, inodes=_MANY)),
    "/proc: read-only": _proc(_ALL_FLAGS, _PROC_OPTIONS),
    "/proc: subset": _proc(_PROC_FLAGS, "hidepid=ptraceable"),
    "/proc: hidepid": _proc(_PROC_FLAGS, "subset=pid"),
}
"""A launch whose mounts lack one property."""

REAPER: dict[str, Weakening] = {
    "reaper: clear-groups": _reaper("clear_groups"),
    "reaper: user-namespace": _reaper("user_namespace"),
    "reaper: identity": _reaper("identity"),
    "reaper: capabilities": _reaper("capabilities"),
    "reaper: no-new-privs": _reaper("no_new_privs"),
    "reaper: not-dumpable": _reaper("not_dumpable"),
    "reaper: descriptors": _reaper("descriptors"),
    "reaper: filter": _reaper("filter"),
}
"""Pid 1 without one of its own steps."""


def _jail(there: str, by: str = "") -> Weakening:
    return Weakening(launcher=(("base_jail.py", there, by),), whole=True)


ZYGOTE: dict[str, Weakening] = {
    "zygote: capabilities": _jail("    kernel.keep_capabilities(_CAPABILITIES, last)\n"),
    "zygote: descriptors": _jail("    kernel.close_all_but({0, 1, 2, int(control)})\n"),
    "zygote: read-only jail": _jail("kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NODEV", "kernel.MOUNT_ATTR_NODEV"),
}
"""The process that instances are forked from, with more than it needs."""


def _runner(there: str, by: str) -> Weakening:
    return Weakening(launcher=(("../runner/isolated.py", there, by),), whole=True)


CHOOSES_ANY, CHECKS_NOBODY = "the gateway chooses any instance", "the gateway checks no caller"
GATEWAY = frozenset({CHOOSES_ANY, CHECKS_NOBODY})
"""Marks that concern the gateway."""

CALLS: dict[str, Weakening] = {
    "caller: choice": _mark(CHOOSES_ANY, whole=True),
    "caller: check": _mark(CHECKS_NOBODY, whole=True),
    "caller: next gateway": _mark("instances go to the next gateway", whole=True),
    "call: kill": _runner("        _kill_all()\n        # Nothing", "        os.kill(fork.pid, 9)\n        # Nothing"),
    "call: alone": _runner("while not _is_alone():", "while False:"),
    "call: emptied": _runner("            scratch.empty()\n", "            pass\n"),
    "call: passage": _runner("        self._memory.madvise(mmap.MADV_DONTFORK)\n", ""),
}
"""Calls that are less apart than their policy says."""

FAMILIES: dict[str, tuple[str, ...]] = {
    "mounting": ("mount", "umount2", "pivot_root", "open_tree", "move_mount", "fsopen", "fspick", "mount_setattr"),
    "namespaces": ("unshare", "setns"),
    "identities": ("setuid", "setgid", "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid"),
    "capset": ("capset", "capget"),
    "chroot": ("chroot",),
    "chown": ("chown", "fchown", "lchown", "fchownat"),
    "mknod": ("mknod", "mknodat"),
    "setxattr": ("setxattr", "lsetxattr", "fsetxattr", "removexattr"),
    "keyrings": ("keyctl", "add_key", "request_key"),
    "tracing": ("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp"),
    "bpf and perf": ("bpf", "perf_event_open"),
    "userfaultfd": ("userfaultfd",),
    "io_uring and aio": ("io_uring_setup", "io_uring_enter", "io_uring_register", "io_setup", "io_submit"),
    "modify_ldt": ("modify_ldt",),
    "memory policy": ("mbind", "set_mempolicy", "migrate_pages", "move_pages"),
    "file handles": ("name_to_handle_at", "open_by_handle_at"),
    "System V IPC": ("shmget", "shmat", "shmctl", "semget", "semctl", "msgget", "msgctl"),
    "message queues": ("mq_open", "mq_unlink"),
    "filters of its own": ("seccomp",),
    "quotas": ("quotactl",),
    "fanotify": ("fanotify_init", "fanotify_mark"),
    "host's disks": ("sync", "syncfs"),
    "page cache": ("mincore", "cachestat"),
    "membarrier": ("membarrier",),
    "schedulers": ("sched_setscheduler", "sched_setparam", "sched_setattr", "ioprio_set"),
    "host's clock": ("settimeofday", "clock_settime", "adjtimex", "clock_adjtime"),
}
"""What no policy grants, by what it would be for: the list in the head of policies/syscalls.toml."""

ARGUMENTS = (
    "prctl", "personality", "ioctl", "open", "openat", "creat", "chmod", "fchmod", "fchmodat", "fchmodat2", "clone",
    "prlimit64", "socket", "socketpair", "setsockopt",
)  # fmt: skip
"""Calls that are allowed with some arguments only."""

FILTER: dict[str, Weakening] = {
    "filter: default": Weakening(filter=allow_by_default),
    "filter: newest": Weakening(filter=look_at_everything),
    "filter: other ABI, prologue": _mark("no prologue"),
    "filter: other ABI, libseccomp": _mark("libseccomp lets other ABIs in"),
    **{f"filter: arguments of {call}": Weakening(filter=allow(call)) for call in ARGUMENTS},
    "filter: openat2": Weakening(filter=allow("openat2")),
    "filter: clone3": Weakening(filter=allow("clone3")),
    "filter: execve": Weakening(filter=allow("execve")),
    "filter: execveat": Weakening(filter=allow("execveat")),
    **{f"filter: no {family}": Weakening(filter=allow(*calls)) for family, calls in FAMILIES.items()},
    **{f"filter: group {group}": Weakening(filter=grant(group)) for group in sorted(shipped_table().selectable())},
}
"""A filter that lets in one kind of call more."""

DEPLOYING: dict[str, Weakening] = {"widening": _mark("no look at what a version widens", whole=True)}
"""What stands between an operator's mistake and a version that may do more."""

BAITS: dict[str, Weakening] = {
    "bait: descriptor": Weakening(
        steps=instead(Verb.PIVOT, by=lambda words: (_step("plant-descriptor"), _step("pivot", *words)))
    ),
    "bait: descriptor of the fresh interpreter": Weakening(
        steps=instead(Verb.CHECK_DESCRIPTORS, by=lambda _: (_step("plant-descriptor"), _step("check-descriptors")))
    ),
    "bait: everyone's device folder": _mark("everyone's device folder", whole=True),
    "bait: dumpable": Weakening(
        steps=instead(Verb.IDENTITY, by=lambda words: (_step("identity", *words), _step("set-dumpable")))
    ),
    "bait: dumpable reaper": _reaper("dumpable"),
    # As if the zygote were started in a container of its own: its random generators are those of every instance.
    "bait: zygote is process 2": Weakening(
        marks=frozenset({"the zygote is process 2"}),
        whole=True,
    ),
    "bait: slow look": _mark("slow look"),
}
"""No protection is taken away, but there is something to be had, or time to have it."""

EGRESS: dict[str, Weakening] = dict.fromkeys(
    (
        "egress: identity", "egress: capabilities", "egress: filter", "egress: tasks", "egress: socket families",
        "egress: no listening", "egress: no processes", "egress: no programs", "egress: no namespaces",
        "egress: public addresses of names", "egress: public addresses as written",
    ),
    Weakening(),
)  # fmt: skip
"""The process that connects, without one of its own protections: nothing of a launch, so `egress` does it."""

WORKER: dict[str, Weakening] = dict.fromkeys(
    ("worker: files", "worker: identity", "worker: capabilities", "worker: filter"), Weakening()
)
"""A process that reads HTTP for the gateway, likewise: `worker` does it."""

WEAKENINGS: dict[str, Weakening] = {
    **STEPS,
    **FRESH,
    **MOUNTS,
    **REAPER,
    **ZYGOTE,
    **CALLS,
    **FILTER,
    **EGRESS,
    **WORKER,
    **DEPLOYING,
    **BAITS,
}

SEPARATOR = " + "
NOTHING = "nothing"


def agent_name(drops: frozenset[str], number: int) -> str:
    """The name of an agent whose launches are weakened by `drops`."""
    return f"{number}: {SEPARATOR.join(sorted(drops)) or NOTHING}"


def drops_of(name: str) -> tuple[Weakening, ...]:
    """What `agent_name` named; KeyError for a weakening that there is not."""
    _, _, drops = name.partition(": ")
    return tuple(WEAKENINGS[drop] for drop in drops.split(SEPARATOR) if drop not in ("", NOTHING))
