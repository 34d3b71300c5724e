"""Find a cgroup that is ours to divide: where systemd runs the machine and gave us none, ask it for a scope.

Runs as: root, as the first thing that `serve` and `check` do, before anything is made or opened.
Reads from strangers: nothing.
On cgroup v2 only the owner of a cgroup may make groups in it. A login shell's belongs to systemd, which undoes
what others write there (systemd.io, "Control Group APIs and Delegation", "Two Key Design Rules"). A scope with
Delegate=yes is ours, and a process enters one by exec: same pid, terminal, exit status and Ctrl+C.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runagentd.errors import HostError

MARKER = "RUNAGENTD_SCOPE"
"""In the environment of what is started in a scope: a second time would not help more than the first."""

_LEAF = "supervisor"  # the same word as supervise.cgroup_layout.LEAF, which no foreman imports
_CONTROLLERS = frozenset(("cpu", "memory", "pids"))
_MOUNT = "/sys/fs/cgroup"  # systemd has it nowhere else
_SCOPE_OPTIONS = (
    "--scope",
    "--quiet",
    "--collect",  # a failed scope goes too, instead of staying in the list of units
    "--description=runagentd",
    "--property=Delegate=yes",
    # A scope gets 15 % of the machine's tasks (DefaultTasksMax=); every instance has a limit of its own.
    "--property=TasksMax=infinity",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the decision rests on."""

    self_cgroup: str
    """/proc/self/cgroup"""
    systemd: bool
    """systemd is pid 1 here"""
    delegated: bool
    """systemd marked our own cgroup as one that it leaves to us"""
    alone: bool
    """no other process is in it"""
    started_by_systemd: bool
    """we are the first process of a service"""
    entered: bool
    """we were started in a scope for this very reason"""
    systemd_run: str | None


def needs_scope(here: Surroundings) -> bool:
    """Whether to start again in a scope of our own. HostError where that is needed and cannot help.

    Without systemd the answer is no: the supervisor makes its groups in its own cgroup, or says why it cannot.
    """
    path = own_path(here.self_cgroup)
    if path is None or not here.systemd:
        return False
    # A shell in a delegated scope shares it with all that it starts; a service is what its unit started, and stays.
    if here.delegated and (here.alone or not path.endswith(".scope")):
        return False
    if here.started_by_systemd:
        # The daemon must not leave its unit's cgroup: systemd would take the service for ended.
        raise HostError(
            "the unit that started runagentd has no cgroup of its own to divide",
            "write 'Delegate=yes' in the [Service] section of the unit, then 'systemctl daemon-reload'",
        )
    if here.entered:
        raise HostError(
            "systemd-run did not give runagentd a cgroup of its own to divide",
            f"start it in one, for example by a unit with 'Delegate=yes'; {MARKER} must not be set",
        )
    if here.systemd_run is None:
        raise HostError(
            "runagentd needs a cgroup of its own, and systemd-run, which gives one, is missing",
            "put systemd-run on PATH, or start runagentd by a unit with 'Delegate=yes'",
        )
    return True


def own_path(self_cgroup: str) -> str | None:
    """Our cgroup in the v2 hierarchy, from /proc/self/cgroup; None where no controller that we need is there.

    A controller that a v1 hierarchy has cannot be in the v2 one, and its line says so (cgroups(7)).
    """
    on_v1: set[str] = set()
    path = None
    for line in self_cgroup.splitlines():
        number, controllers, where = line.split(":", 2)
        if number == "0":
            path = where
        else:
            on_v1.update(controllers.split(","))
    return None if on_v1 >= _CONTROLLERS else path


def command(systemd_run: str, interpreter: str, arguments: Sequence[str]) -> list[str]:
    """What to exec: this interpreter with these arguments, in a scope."""
    return [systemd_run, *_SCOPE_OPTIONS, "--", interpreter, *arguments]


def enter() -> None:
    """Come back in a cgroup that is ours to divide. This process image may end here, and start again in a scope."""
    if os.geteuid() != 0:
        return  # what comes next says that root is needed
    here = _look(os.environ)
    os.environ.pop(MARKER, None)
    if not needs_scope(here) or here.systemd_run is None:
        return
    words = command(here.systemd_run, sys.executable, sys.orig_argv[1:])
    sys.stdout.flush()
    try:
        os.execve(here.systemd_run, words, {**os.environ, MARKER: "1"})
    except OSError as error:
        raise HostError(f"{here.systemd_run}: {(error.strerror or '').lower()}") from error


def _look(environment: Mapping[str, str]) -> Surroundings:
    self_cgroup = Path("/proc/self/cgroup").read_text()
    path = own_path(self_cgroup)
    directory = None if path is None else Path(_MOUNT + path)
    return Surroundings(
        self_cgroup=self_cgroup,
        systemd=os.path.isdir("/run/systemd/system"),  # sd_booted(3)
        delegated=directory is not None and _is_delegated(directory),
        alone=directory is not None and _processes(directory) == {os.getpid()},
        # systemd.exec(5); a shell below a service inherits the variable, with a pid that is not its own.
        started_by_systemd=environment.get("SYSTEMD_EXEC_PID") == str(os.getpid()),
        entered=MARKER in environment,
        systemd_run=shutil.which("systemd-run"),
    )


def _is_delegated(directory: Path) -> bool:
    if directory.name == _LEAF:
        directory = directory.parent  # what was delegated is above it
    # The first needs CAP_SYS_ADMIN in the initial user namespace (xattr(7)); the second is there since systemd 251.
    for attribute in ("trusted.delegate", "user.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(directory, attribute) == b"1":
                return True
    return False


def _processes(directory: Path) -> set[int]:
    try:
        return {int(line) for line in (directory / "cgroup.procs").read_text().split()}
    except OSError:
        return set()
