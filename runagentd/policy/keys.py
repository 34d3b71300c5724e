"""Every key of a policy: one row each, with its kind, default, meaning and where that meaning is written down.

Runs as: the supervisor and runagentctl. Pure.
Reads from strangers: nothing.
The default of each key is the strictest that still starts an agent of the standard library, but for process.spawn and
calls.isolation: their strictest values cost time. docs/policy.md is made from this table; a key that is in
`policy.model` and not here, or the other way round, fails a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from runagentd.policy.kinds import Cores, Count, Duration, Flag, GroupNames, HostFolders, Kind, OneOf, Size
from runagentd.policy.model import CallIsolation, History, NetworkMode, Policy, Runtime, Spawn

T = TypeVar("T")

KIB, MIB, GIB, TIB = 1024, 1024**2, 1024**3, 1024**4
SECOND, MINUTE = 1000, 60 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(Generic[T]):
    """One row. `name` is "table.key", in TOML and in `policy.model` alike; `source` describes its effect."""

    name: str
    kind: Kind[T]
    default: T
    meaning: str
    source: str

    @property
    def table(self) -> str:
        return self.name.partition(".")[0]

    @property
    def field(self) -> str:
        return self.name.partition(".")[2]


def _row(name: str, kind: Kind[T], default: T, meaning: str, source: str) -> Key[T]:
    return Key(name=name, kind=kind, default=default, meaning=meaning, source=source)


def _tmpfs_size() -> Size:
    return Size(least=64 * KIB, most=TIB, pages=True)


def _inodes() -> Count:
    return Count(least=16, most=1_000_000)


_TMPFS = "tmpfs(5)"
_GATEWAY = "the gateway"
_SUPERVISOR = "the supervisor"

# Any: a table of rows of different types. Each row is typed in itself by `_row`.
KEYS: tuple[Key[Any], ...] = (
    _row(
        "files.runtime",
        OneOf((Runtime.PYTHON, Runtime.SYSTEM)),
        Runtime.PYTHON,
        "What of the host's software is mounted, read-only, nosuid and nodev: the interpreter with its standard "
        'library and shared libraries ("python"), or all of /usr ("system").',
        "mount_setattr(2)",
    ),
    _row(
        "files.read",
        HostFolders(),
        (),
        "Files and folders of the host's that are mounted at the same path, read-only, nosuid and nodev, without "
        "the mounts below them; one that is missing stops the start unless it is optional.",
        "open_tree(2), mount_setattr(2)",
    ),
    _row(
        "files.persistent",
        Flag(),
        False,
        "Whether the folders that an agent's configuration names as persistent_folders are kept across its instances, "
        "on the host's disk; files.app_size does not bound them.",
        "mount_setattr(2)",
    ),
    _row(
        "files.app_size",
        _tmpfs_size(),
        64 * MIB,
        "How much an instance may write over its own folder, /app, in a tmpfs that counts as its memory.",
        f"{_TMPFS} size, Documentation/filesystems/overlayfs.rst",
    ),
    _row(
        "files.app_inodes",
        _inodes(),
        8192,
        "How many files and folders an instance may create or change in /app.",
        f"{_TMPFS} nr_inodes",
    ),
    _row(
        "files.tmp_size",
        _tmpfs_size(),
        64 * MIB,
        "The size of /tmp, a tmpfs of the instance's own that counts as its memory.",
        f"{_TMPFS} size",
    ),
    _row("files.tmp_inodes", _inodes(), 4096, "How many files and folders fit in /tmp.", f"{_TMPFS} nr_inodes"),
    _row(
        "files.shm_size",
        _tmpfs_size(),
        16 * MIB,
        "The size of /dev/shm, a tmpfs of the instance's own, which multiprocessing needs.",
        f"{_TMPFS} size, shm_overview(7)",
    ),
    _row("files.shm_inodes", _inodes(), 256, "How many files fit in /dev/shm.", f"{_TMPFS} nr_inodes"),
    _row(
        "process.exec",
        Flag(),
        False,
        "Whether the agent may start programs; false refuses execve and execveat with EPERM, and forks stay possible.",
        "seccomp(2), execve(2)",
    ),
    _row(
        "process.spawn",
        OneOf((Spawn.EXEC, Spawn.FORK)),
        Spawn.FORK,
        'How an instance\'s process is made: a fork of a warm interpreter ("fork"), which takes milliseconds and has '
        'the address layout and hash seed of all others, or a fresh interpreter ("exec"), which has its own and takes '
        "a tenth of a second.",
        "execve(2), PYTHONHASHSEED",
    ),
    _row(
        "process.nofile",
        Count(least=64, most=1_048_576),
        256,
        "How many descriptors a process may have open.",
        "getrlimit(2) RLIMIT_NOFILE",
    ),
    _row(
        "process.fsize",
        Size(least=64 * KIB, most=TIB),
        64 * MIB,
        "How large a file that a process writes may become; beyond it, writing fails with EFBIG, and a program that "
        "does not ignore SIGXFSZ (Python does) ends.",
        "getrlimit(2) RLIMIT_FSIZE",
    ),
    _row(
        "resources.memory_max",
        Size(least=32 * MIB, most=TIB, pages=True, because="a Python process with nothing imported needs about 20MiB"),
        256 * MIB,
        "How much memory the instance may use, its tmpfs included and swap excluded; beyond it, all of the instance "
        "is killed.",
        "cgroup v2 memory.max, v1 memory.limit_in_bytes",
    ),
    _row(
        "resources.pids_max",
        Count(least=16, most=32_768, because="the reaper, the runner and the threads that it needs take some"),
        64,
        "How many processes and threads the instance may have at a time; beyond it, fork and clone fail with EAGAIN.",
        "cgroup v2 and v1 pids.max",
    ),
    _row(
        "resources.cpu_max",
        Cores(least=0.05, most=1024.0),
        1.0,
        "How much processor time the instance may use, in cores, per period of 100 ms; beyond it, it waits.",
        "cgroup v2 cpu.max, v1 cpu.cfs_quota_us",
    ),
    _row(
        "resources.cpu_weight",
        Count(least=1, most=10_000),
        100,
        "The instance's share of a busy processor in proportion to its siblings' weights.",
        "cgroup v2 cpu.weight, v1 cpu.shares",
    ),
    _row(
        "syscalls.groups",
        GroupNames(),
        (),
        "Groups of policies/syscalls.toml that are allowed beyond those that are always on; all else is refused.",
        "seccomp(2)",
    ),
    _row(
        "calls.isolation",
        OneOf((CallIsolation.CALL, CallIsolation.PRINCIPAL, CallIsolation.INSTANCE)),
        CallIsolation.INSTANCE,
        'What calls share: the process of their instance ("instance"), the same with calls of one caller only '
        '("principal"), or nothing ("call"). With "principal" an instance serves the caller of its first call until it '
        "ends; files.persistent is then false, and scaling.instances_min counts those that nobody has called yet. With "
        '"call" each runs in a fork of the process that has imported the agent; after it everything is killed, and '
        "/tmp and /dev/shm are emptied; then /app is read-only, and calls.concurrency is 1.",
        "the gateway; fork(2), the runner",
    ),
    _row(
        "calls.concurrency",
        Count(least=1, most=256),
        1,
        "How many calls run in one instance at a time.",
        _GATEWAY,
    ),
    _row(
        "calls.queue",
        Count(least=0, most=10_000),
        64,
        "How many calls may wait for a free place; the next one is refused at once. "
        "Of an agent that sleeps, one may wait for the instance that it wakes, with 0 too.",
        _GATEWAY,
    ),
    _row(
        "calls.deadline",
        Duration(least=50, most=5 * MINUTE, because="no call runs longer than five minutes"),
        5 * MINUTE,
        "How long a call may take, waiting included; an entrypoint's and a caller's timeout_seconds can only lower it.",
        _GATEWAY,
    ),
    _row(
        "calls.start_timeout",
        Duration(least=500, most=5 * MINUTE),
        10 * SECOND,
        "How long an instance may take from its first line of agent code to being ready; then it is killed.",
        "the supervisor, pidfd_send_signal(2)",
    ),
    _row(
        "calls.cancel_grace",
        Duration(least=50, most=30 * SECOND),
        2 * SECOND,
        "How long a cancelled call may take to stop; then its instance is killed and replaced.",
        f"{_GATEWAY}, pidfd_send_signal(2)",
    ),
    _row(
        "calls.request_bytes",
        Size(least=KIB, most=8 * MIB, because="a frame of the channel holds no more"),
        MIB,
        "How large the body of a call may be.",
        _GATEWAY,
    ),
    _row(
        "calls.result_bytes",
        Size(least=KIB, most=8 * MIB, because="a frame of the channel holds no more"),
        8 * MIB,
        "How large a result, or one chunk of a stream, may be as JSON.",
        f"{_GATEWAY} and the runner",
    ),
    _row(
        "calls.traceback",
        Flag(),
        False,
        "Whether a caller gets the traceback of a function that raised; its type and message always reach the caller.",
        _GATEWAY,
    ),
    _row(
        "calls.log_line_bytes",
        Size(least=80, most=64 * KIB),
        8 * KIB,
        "How long a line that the agent prints may be; the rest of it is dropped.",
        _GATEWAY,
    ),
    _row(
        "calls.log_bytes_per_minute",
        Size(least=KIB, most=GIB),
        MIB,
        "How much the agent may print in a minute; the rest is dropped, and one line says how much that was.",
        _GATEWAY,
    ),
    _row(
        "calls.history",
        OneOf((History.FACTS, History.CONTENT)),
        History.FACTS,
        "What the invocation history keeps of a call: who called what and when, how long it took and what came of it "
        '("facts"), or its arguments and results as well, up to 64 KiB of each ("content").',
        _GATEWAY,
    ),
    _row(
        "network.mode",
        OneOf((NetworkMode.NONE,), hint="other modes are not built yet"),
        NetworkMode.NONE,
        'What the agent can reach: with "none" its network namespace has a loopback interface only, and sockets are '
        "AF_UNIX only.",
        "network_namespaces(7), socket(2)",
    ),
    _row(
        "scaling.instances_min",
        Count(least=0, most=1000),
        1,
        "How many instances the agent has while nobody calls; with 0 the first call starts one, and waits for it.",
        _SUPERVISOR,
    ),
    _row(
        "scaling.instances_max",
        Count(least=1, most=1000),
        1,
        "How many instances the agent may have at a time; each may use all that [resources] says.",
        _SUPERVISOR,
    ),
    _row(
        "scaling.target",
        Count(least=1, most=256),
        1,
        "How many calls at a time each instance is to have before another instance is started.",
        _SUPERVISOR,
    ),
    _row(
        "scaling.idle",
        Duration(least=SECOND, most=24 * 60 * MINUTE),
        15 * MINUTE,
        "How long fewer instances must have been enough before one is ended.",
        _SUPERVISOR,
    ),
    _row(
        "scaling.freeze",
        Duration(least=SECOND, most=24 * 60 * MINUTE),
        5 * MINUTE,
        "How long an instance must have been without a call before it is frozen: nothing of it runs until the next "
        "call. Only where a v2 hierarchy is mounted.",
        "cgroup v2 cgroup.freeze",
    ),
)

BY_NAME: dict[str, Key[Any]] = {key.name: key for key in KEYS}
TABLES: tuple[str, ...] = tuple(dict.fromkeys(key.table for key in KEYS))

NOT_BUILT_TABLES: tuple[str, ...] = ("secrets", "audit")
"""Tables of the design that no version has yet: each key in them is refused by name."""

NOT_BUILT_KEYS: dict[str, str] = {
    "network.allow": 'only network.mode = "none" works in this version',
    "network.deny": 'only network.mode = "none" works in this version',
    "network.services": 'only network.mode = "none" works in this version',
    "network.udp": 'only network.mode = "none" works in this version',
    "resources.io_max": "only memory, tasks and processor time are limited in this version",
    "calls.rate": "calls.concurrency and calls.queue are the limits of this version",
    "calls.cache": "every call is carried out in this version",
}
"""Keys of the design that no version has yet, and what there is instead."""


def value_of(policy: Policy, key: Key[T]) -> T:
    """The value that a policy has for a key."""
    value: T = getattr(getattr(policy, key.table), key.field)
    return value
