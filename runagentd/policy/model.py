"""A policy as a value: everything an operator decides about one agent's sandbox, with nothing left open.

Runs as: the supervisor and runagentctl. Pure.
Reads from strangers: nothing; `policy.load` makes these from an operator's TOML.
Every field has one row in `policy.keys`, with its default, kernel meaning and order; docs/policy.md is made from those.
Sizes are bytes, times milliseconds.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Runtime(enum.StrEnum):
    """What of the host's software an agent sees, always read-only."""

    PYTHON = "python"
    """the interpreter, its standard library, the shared libraries that these load"""
    SYSTEM = "system"
    """all of /usr as well, so that its programs can be started where process.exec allows it"""


class History(enum.StrEnum):
    """What is kept of a call."""

    FACTS = "facts"
    """who, what, when, how long, and what came of it"""
    CONTENT = "content"
    """its arguments and results as well"""


class Spawn(enum.StrEnum):
    """How the process of an instance is made, in the same jail either way."""

    EXEC = "exec"
    """a fresh interpreter, with an address layout and a hash seed of its own"""
    FORK = "fork"
    """a fork of the zygote"""


class CallIsolation(enum.StrEnum):
    """What the calls of one agent share."""

    CALL = "call"
    """nothing: each runs in a process of its own, forked after the import"""
    PRINCIPAL = "principal"
    """the process, with calls of one caller only"""
    INSTANCE = "instance"
    """the process, as long as the instance lives"""


class NetworkMode(enum.StrEnum):
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFolder:
    """A file or folder of the host's that the agent may read, at the same path."""

    path: str
    optional: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesPolicy:
    runtime: Runtime
    read: tuple[HostFolder, ...]
    persistent: bool
    """whether `persistent_folders` of the agent's configuration are kept across instances"""
    app_size: int
    app_inodes: int
    tmp_size: int
    tmp_inodes: int
    shm_size: int
    shm_inodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPolicy:
    exec: bool
    spawn: Spawn
    nofile: int
    fsize: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourcesPolicy:
    memory_max: int
    pids_max: int
    cpu_max: float
    """in cores: 1.0 is all the time of one"""
    cpu_weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SyscallsPolicy:
    groups: tuple[str, ...]
    """names of groups in policies/syscalls.toml, beyond those that are always on"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsPolicy:
    isolation: CallIsolation
    concurrency: int
    queue: int
    deadline: int
    start_timeout: int
    cancel_grace: int
    request_bytes: int
    result_bytes: int
    traceback: bool
    log_line_bytes: int
    log_bytes_per_minute: int
    history: History

    @property
    def one_caller(self) -> bool:
        """Whether each instance serves one caller only."""
        return self.isolation is CallIsolation.PRINCIPAL


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPolicy:
    instances_min: int
    """0 lets the agent sleep: no instance while nobody calls, and one as soon as somebody does"""
    instances_max: int
    target: int
    """calls at a time in each instance before another is wanted"""
    idle: int
    """how long fewer instances must have been enough before one goes"""
    freeze: int
    """how long an instance must have been without a call before nothing of it runs until the next one"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPolicy:
    mode: NetworkMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One effective policy. `origins` tells for each key ("resources.memory_max") which file set it, or "default"."""

    name: str
    files: FilesPolicy
    process: ProcessPolicy
    resources: ResourcesPolicy
    syscalls: SyscallsPolicy
    calls: CallsPolicy
    network: NetworkPolicy
    scaling: ScalingPolicy
    origins: tuple[tuple[str, str], ...]
