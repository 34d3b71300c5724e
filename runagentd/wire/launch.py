"""What the supervisor, the zygote, a spare and a reaper say to each other while an instance is made and when it ends.

Runs as: the supervisor, the zygote and its children. Pure, standard library only.
Reads from strangers: the exit record may have been written by an instance that was taken over: it is 64 bytes of
fixed form, and what it says of a status is a claim. All else is written before any agent code runs.

    supervisor ──REQUEST + descriptors──► zygote ──REPLY + pidfd──► supervisor
    spare, if it is made in advance ──LaunchReport──► supervisor
    supervisor ──ASSIGN + descriptors──► spare ──LaunchReport──► supervisor ──OPEN──► runner
    reaper ──EXIT record──► supervisor
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

REQUEST = struct.Struct("!4sBBBBQ16x")
"""magic, kind (FORK or HOLD), 1 if a new pid namespace is wanted, 1 if there is a v2 cgroup to be born in, the number
of v1 cgroups, token.

FORK, a spare: with SPARE_DESCRIPTORS, then the v2 cgroup's directory where there is one, then the `tasks` file of each
v1 cgroup, then the mounts of its root in their order. HOLD, a process that does nothing but hold a new user namespace:
with the lifeline that it waits on.
"""
REQUEST_MAGIC = b"RAZ2"
FORK, HOLD = 1, 2
SPARE_DESCRIPTORS = ("steps", "socket", "lifeline", "exit", "user_namespace", "reaper_filter")

REPLY = struct.Struct("!4siQi12x")
"""magic, errno (0: made), token, pid of what was forked. With its pidfd."""
REPLY_MAGIC = b"RAR2"

ASSIGN = b"RAA1" + bytes(28)
"""A spare becomes an instance. With ASSIGN_DESCRIPTORS, then the plan's mounts in their order."""
ASSIGN_DESCRIPTORS = (
    "steps",
    "filter",
    "channel",
    "supply",
    "stdout",
    "stderr",
    "ready",
    "job",
)
ASSIGN_FRESH = b"RAF1" + bytes(28)
"""The same, where the spare is to become a fresh interpreter on the way: `then` are the steps that follow the exec,
`code` is a zip of the runner's modules."""
ASSIGN_FRESH_DESCRIPTORS = (*ASSIGN_DESCRIPTORS, "then", "code")

CODE_DESCRIPTOR, THEN_DESCRIPTOR, DONE_DESCRIPTOR = 9, 10, 11
"""On which numbers a fresh interpreter finds its code, its steps, and what was done before it."""
CODE_PATH = f"/proc/self/fd/{CODE_DESCRIPTOR}"
FRESH_ARGUMENTS = (
    "-I", "-S", "-E", "-B", "-X", "frozen_modules=on",
    "-c", f"import sys; sys.path.append({CODE_PATH!r}); from runagentd.launch.fresh import main; main()",
)  # fmt: skip
"""What stands behind the interpreter's path in the arguments of such an interpreter: an agent can read it, and it says
nothing of the host."""

OPEN = b"O"
"""The supervisor has looked from outside and lets the agent's code run."""
READY = b"R"
"""The agent is imported: one byte on the ready pipe."""

REPORT_BYTES_MAX = 16 * 1024
JOB_BYTES_MAX = 96 * 1024


class Stage(enum.StrEnum):
    SPARE = "spare"
    GATE = "gate"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One step that was carried out: its position, verb, and how long it took."""

    verb: str
    nanoseconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchReport:
    """How far a launch came. REFUSED: `verb` was refused by the kernel with `errno`; nothing was run."""

    stage: Stage
    steps: tuple[StepReport, ...]
    verb: str
    errno: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the runner is to do: the manifest's record, and the limits that the runner itself keeps."""

    manifest: bytes
    concurrency: int
    result_bytes: int
    cancel_grace_ms: int
    traceback: bool
    isolated: bool
    environment: str = ""
    """the folder of libraries that were installed for it; empty for none"""


EXIT = struct.Struct("!4sBxHiQQQ28x")
"""magic, kind, reserved, status or signal, user and system CPU in microseconds, peak memory in bytes: 64 bytes."""
EXIT_MAGIC = b"RAX1"


class ExitKind(enum.IntEnum):
    EXITED = 0
    SIGNALLED = 1
    LIFELINE = 2
    """the supervisor was gone"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """How the runner ended, as its reaper saw it."""

    kind: ExitKind
    status: int
    user_microseconds: int
    system_microseconds: int
    memory_peak: int


def pack_exit(record: ExitRecord) -> bytes:
    """The 64 bytes of an exit record."""
    return EXIT.pack(
        EXIT_MAGIC,
        record.kind,
        0,
        record.status,
        record.user_microseconds,
        record.system_microseconds,
        record.memory_peak,
    )


def parse_exit(data: bytes) -> ExitRecord | None:
    """The record, or None where the bytes are not one: then only the kernel's word counts."""
    if len(data) != EXIT.size:
        return None
    magic, kind, _, status, user, system, peak = EXIT.unpack(data)
    if magic != EXIT_MAGIC or kind not in ExitKind._value2member_map_:
        return None
    return ExitRecord(
        kind=ExitKind(kind), status=status, user_microseconds=user, system_microseconds=system, memory_peak=peak
    )
