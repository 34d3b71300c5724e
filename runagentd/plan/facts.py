"""What this machine offers, as a value: the host half of every plan's input.

Runs as: the supervisor and runagentctl. Pure; `supervise.hostfacts` gathers it.
Reads from strangers: nothing.
Which of these a sandbox cannot do without is decided in `plan.build`, not here.
"""

from __future__ import annotations

from dataclasses import dataclass

from runagentd.wire.runtime import PythonRuntime


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """One mounted cgroup hierarchy (cgroups(7)) and where the daemon itself is in it."""

    version: int
    """1 or 2"""
    controllers: tuple[str, ...]
    """whose limits are written here; () for a v2 hierarchy that serves for kill and `populated` only"""
    mount: str
    own: str
    """the directory of the daemon's own cgroup; everything is made below it"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupLayout:
    """The hierarchies that every instance joins, in the order in which it joins them."""

    hierarchies: tuple[Hierarchy, ...]

    def describe(self) -> str:
        """One line for `runagentctl doctor`: `memory,pids on v2; kill on v2`."""
        parts = [f"{','.join(one.controllers) or 'kill'} on v{one.version}" for one in self.hierarchies]
        return "; ".join(parts) or "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """The kernel, and the Python runtime that agents will see read-only."""

    release: tuple[int, int, int]
    machine: str
    last_capability: int
    landlock_abi: int
    """0 where there is none"""
    seccomp_actions: tuple[str, ...]
    """/proc/sys/kernel/seccomp/actions_avail"""
    overlay: bool
    user_namespaces: bool
    idmapped_mounts: bool
    """mount_setattr(2) with MOUNT_ATTR_IDMAP works on the file system that was asked about"""
    yama_ptrace_scope: int | None
    libseccomp: tuple[int, int, int] | None
    """the version that the operator's libseccomp reports, where somebody asked"""
    cgroups: CgroupLayout | None
    """None where a controller is missing; `cgroup_problem` says which"""
    cgroup_problem: str

    python: PythonRuntime
    """the daemon's own; for agents that have asked for another one, that one is in its place"""
