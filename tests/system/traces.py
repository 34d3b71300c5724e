"""What a daemon leaves on a machine, as the kernel tells it: processes, cgroups, mounts, sockets, namespaces.

Nothing here asks the daemon. Everything is found by the state directory, its id, or the pid of the foreman.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


@dataclass(frozen=True, slots=True)
class Process:
    """One process, by a pid that is used again and a start time that is not."""

    pid: int
    started: str

    def is_there(self) -> bool:
        """Also as a zombie: somebody has to reap it."""
        return started(self.pid) == self.started


def stat(pid: int) -> list[str]:
    """/proc/PID/stat from the state on (proc_pid_stat(5), field 3); the name before it may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def started(pid: int) -> str:
    """When a process started, in ticks since boot; "" where there is none."""
    try:
        return stat(pid)[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def below(ancestor: int) -> set[Process]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for pid in pids():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children.setdefault(int(stat(pid)[1]), []).append(pid)
    found = [ancestor]
    for pid in found:
        found += children.get(pid, [])
    return {Process(pid, started(pid)) for pid in found}


def family(foreman: int, state_id: str) -> set[Process]:
    """Every process of a daemon: the foreman's descendants, and whoever is in one of its cgroups."""
    found = below(foreman)
    for pid in pids():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if f"/runagentd-{state_id}/" in Path(f"/proc/{pid}/cgroup").read_text():
                found.add(Process(pid, started(pid)))
    return found


def identity(state_dir: Path) -> str:
    return (state_dir / "id").read_text().strip()


def cgroups(state_id: str) -> list[str]:
    """The directories of a daemon's, in every hierarchy and wherever in it."""
    return [
        os.path.join(path, name)
        for mount in _cgroup_mounts()
        for path, names, _ in os.walk(mount)
        for name in names
        if f"/runagentd-{state_id}/" in f"{path}/{name}/"
    ]


def _cgroup_mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.split()[0] in ("cgroup", "cgroup2"):
            yield left.split()[4]


def mounts(*words: str) -> list[str]:
    """The host's mounts that have one of `words` in their line."""
    return [
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if any(word in line for word in words)
    ]


def sockets(state_dir: Path) -> list[str]:
    """The Unix sockets below a directory, and socket files that nobody listens on any more."""
    bound = [line for line in Path("/proc/net/unix").read_text().splitlines() if str(state_dir) in line]
    return bound + [str(path) for path in state_dir.rglob("*") if path.is_socket()]


def left(state_dir: Path, processes: set[Process]) -> dict[str, list[str]]:
    """What is left of a daemon that had `processes`; empty where nothing is."""
    state_id = identity(state_dir)
    found = {
        "processes": [f"{process.pid} {_name(process.pid)}" for process in processes if process.is_there()],
        "cgroups": cgroups(state_id),
        "mounts": mounts(str(state_dir), state_id),
        "sockets": sockets(state_dir),
    }
    return {what: which for what, which in found.items() if which}


def wait_until_gone(processes: set[Process], seconds: float) -> set[Process]:
    """Wait for the end of `processes`; gives those that are still there after `seconds`."""
    deadline = time.monotonic() + seconds
    while (there := {process for process in processes if process.is_there()}) and time.monotonic() < deadline:
        time.sleep(0.005)
    return there


def namespaces(state_id: str) -> int:
    """How many different namespaces the processes in a daemon's cgroups are in."""
    found = set()
    for pid in pids():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if f"/runagentd-{state_id}/" in Path(f"/proc/{pid}/cgroup").read_text():
                found |= {(kind, os.stat(f"/proc/{pid}/ns/{kind}").st_ino) for kind in NAMESPACES}
    return len(found)


def descriptors(pid: int) -> int:
    """How many files a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def zombies(parent: int) -> list[int]:
    """The dead among the descendants of a process."""
    found = []
    for process in below(parent):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if stat(process.pid)[0] == "Z":
                found.append(process.pid)
    return found


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""
