"""A sandbox plan as a value: every step of a launch, in order, with nothing left to decide.

Runs as: the supervisor and runagentctl. Pure.
Reads from strangers: nothing.
A step is a verb and its arguments, both text; `launch.steps` has one function per verb and no other choice to make.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from runagentd.plan.seccomp import SyscallFilter

AGENT_UID = 65532
"""The agent's uid and gid inside its user namespace, and the owner of its files on the disk (mapped by the mounts)."""

APP = "/app"
ENVIRONMENT = "/env"
"""Where an agent's environment lies: libraries from elsewhere, shared by all instances that have the same."""


class Verb(enum.StrEnum):
    """What a launch can do. The first part makes a spare, which knows no policy; the second makes it an agent's."""

    # A spare.
    JOIN_CGROUPS = "join-cgroups"
    OOM_SCORE = "oom-score"
    UNSHARE = "unshare"
    NEW_SESSION = "new-session"
    HOSTNAME = "hostname"
    LOOPBACK = "loopback"
    REAPER = "reaper"
    REHEARSE = "rehearse"
    WAIT_FOR_REAPER = "wait-for-reaper"
    STAND_BY = "stand-by"
    RESEED = "reseed"

    # An instance.
    NEW_ROOT = "new-root"
    DIRECTORY = "directory"
    LINK = "link"
    FILE = "file"
    TMPFS = "tmpfs"
    MOUNT = "mount"
    PROC = "proc"
    READ_ONLY_ROOT = "read-only-root"
    PIVOT = "pivot"
    RLIMIT = "rlimit"
    KEYRING = "keyring"
    CLEAR_GROUPS = "clear-groups"
    USER_NAMESPACE = "user-namespace"
    IDENTITY = "identity"
    CAPABILITIES = "capabilities"
    NO_NEW_PRIVS = "no-new-privs"
    NOT_DUMPABLE = "not-dumpable"
    DESCRIPTORS = "descriptors"
    EXEC = "exec"
    CHECK_DESCRIPTORS = "check-descriptors"
    LANDLOCK = "landlock"
    SECCOMP = "seccomp"
    GATE = "gate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step. `origin` is the policy key that asked for it, or "always"."""

    verb: Verb
    arguments: tuple[str, ...] = ()
    origin: str = "always"

    def describe(self) -> str:
        """One line for `policy explain`."""
        words = " ".join(
            argument if argument and argument.isprintable() else repr(argument) for argument in self.arguments
        )
        return f"{self.verb} {words}".rstrip()


class MountKind(enum.StrEnum):
    """Where a mount comes from that the supervisor makes and sends as a descriptor: the zygote sees no host tree."""

    HOST = "host"
    """a file or folder of the host's, read-only"""
    APP = "app"
    """the agent's snapshot under a bounded tmpfs (overlayfs): writes go to the tmpfs"""
    SNAPSHOT = "snapshot"
    """a folder of the agent's snapshot, read-only; unlike APP native libraries may be loaded from it"""
    ENVIRONMENT = "environment"
    """the agent's environment, read-only; native libraries may be loaded from it"""
    PERSISTENT = "persistent"
    """a folder of the agent's that is kept across instances, writable"""
    DEVICES = "devices"
    """a tmpfs with the device nodes null, zero, full, random and urandom, read-only"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mount for the supervisor to make. `source` is a host path (HOST), or relative to the agent's own folder."""

    kind: MountKind
    source: str
    target: str
    read_only: bool
    noexec: bool
    size: int = 0
    inodes: int = 0
    folders: tuple[str, ...] = ()
    """APP only: folders to make in the tmpfs before anything is mounted on them."""
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is written into the instance's cgroups: bytes, tasks, cores, and a weight from 1 to 10000."""

    memory_max: int
    pids_max: int
    cpu_max: float
    cpu_weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What the supervisor must see of the runner from outside before any agent code runs."""

    status: tuple[tuple[str, str], ...]
    """fields of /proc/PID/status and their exact values"""
    mounts: tuple[tuple[str, str], ...]
    """mount points, with the options that each must have, of the mount and of the file system, joined by commas"""
    command: tuple[str, ...]
    """the arguments of an interpreter of its own, as in /proc/PID/cmdline; () for a fork of the zygote"""
    limits: tuple[tuple[str, str], ...]
    """names as in /proc/PID/limits, and the value that is both the soft and the hard limit"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxPlan:
    """All of one launch. `mounts` are referred to by the MOUNT steps by number."""

    steps: tuple[Step, ...]
    mounts: tuple[Mount, ...]
    limits: Limits
    filter: SyscallFilter
    expected: Expectation

    def describe(self) -> list[str]:
        """One line a step, with the policy key that asked for it."""
        return [f"{step.describe()}  ({step.origin})" for step in self.steps]


def tokens(steps: Iterable[Step]) -> bytes:
    """The steps as the launcher reads them: for each the number of its words, then the words, each ended by NUL."""
    lines = []
    for step in steps:
        parts = (str(step.verb), *step.arguments)
        if any("\0" in part for part in parts):
            raise ValueError(f"a NUL in the arguments of {step.verb}")
        # The count comes first, so that no argument (a file's content has newlines) can pose as the next step.
        lines.append("\0".join((str(len(parts)), *parts, "")))
    return "".join(lines).encode("utf-8")
