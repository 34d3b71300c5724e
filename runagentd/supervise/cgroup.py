"""The cgroups of instances: made, limited, read, killed and removed, on v1 hierarchies and on v2.

Runs as: the supervisor, root.
Reads from strangers: nothing; agents do not see a cgroup file system.
All that is made here lies in `<own cgroup>/runagentd-<state id>/` of each hierarchy; nothing else is ever touched.
Paths are relative to the descriptors of those directories, so that a cgroup of an instance costs no descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runagentd.errors import HostError
from runagentd.plan.facts import CgroupLayout, Hierarchy
from runagentd.supervise import psi
from runagentd.supervise.cgroup_delegation import delegate, descends_from
from runagentd.supervise.cgroup_files import CgroupFiles
from runagentd.supervise.cgroup_layout import detect

_PERIOD_US = 100_000
_STATE_ID = re.compile(r"[0-9A-Za-z]{1,64}")
_PRESSED_FOR = ("cpu", "memory", "io")
_GROUP_NAME = re.compile(r"[0-9a-z-]{1,64}")
_FROZEN = "frozen"
_MOVES_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Our directory in one hierarchy, open."""

    hierarchy: Hierarchy
    path: str
    directory: int

    def has(self, controller: str) -> bool:
        return controller in self.hierarchy.controllers


class CgroupHost:
    """Our own part of each hierarchy. `files` is the seam for tests; see tests/conformance/test_cgroup.py."""

    def __init__(
        self, layout: CgroupLayout, state_id: str, *, files: CgroupFiles | None = None, is_ours: Callable[[int], bool]
    ) -> None:
        """Make our directory in each hierarchy. `is_ours(pid)` says which processes may be moved within our own cgroup.

        HostError where a directory cannot be made, or where v2 controllers cannot be enabled in it.
        """
        if not _STATE_ID.fullmatch(state_id):
            raise ValueError(f"{state_id!r} is not a state id")
        self._files = files or CgroupFiles()
        self.state_id = state_id
        self.name = f"runagentd-{state_id}"
        self._places: list[_Place] = []
        try:
            for hierarchy in layout.hierarchies:
                self._places.append(self._open(hierarchy, is_ours))
        except BaseException:
            self.close()
            raise

    def _open(self, hierarchy: Hierarchy, is_ours: Callable[[int], bool]) -> _Place:
        try:
            own = os.open(hierarchy.own, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(f"{hierarchy.own}: cannot open our own cgroup: {error.strerror}") from error
        try:
            if hierarchy.version == 2 and hierarchy.controllers:
                delegate(self._files, own, hierarchy, is_ours)
            try:
                self._files.make(own, self.name)
            except FileExistsError:
                pass
            except OSError as error:
                # Root does not mean that a cgroup file system is writable: containers mount it read-only.
                raise HostError(
                    f"{hierarchy.own}: cannot make a cgroup here: {error.strerror}",
                    "run on the host itself, or in a container with a writable /sys/fs/cgroup",
                ) from error
            directory = os.open(self.name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=own)
        finally:
            os.close(own)
        place = _Place(hierarchy=hierarchy, path=f"{hierarchy.own}/{self.name}", directory=directory)
        if hierarchy.version == 2 and hierarchy.controllers:
            enable = " ".join(f"+{name}" for name in hierarchy.controllers)
            self._files.write(directory, "cgroup.subtree_control", enable)
        return place

    @property
    def freezes(self) -> bool:
        """Whether groups can be frozen. Not on v1: what is frozen there cannot be killed (freezer-subsystem.rst)."""
        return any(place.hierarchy.version == 2 for place in self._places)

    def create(self, name: str) -> Group:
        """A new, empty, unlimited group. OSError where the kernel refuses; nothing of it is left then."""
        if not _GROUP_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a group")
        made: list[_Place] = []
        try:
            for place in self._places:
                self._files.make(place.directory, name)
                made.append(place)
        except BaseException:
            for place in made:
                self._files.remove(place.directory, name)
            raise
        return Group(name, tuple(self._places), self._files)

    def groups(self) -> list[Group]:
        """What there is of ours now, in any hierarchy."""
        names = {name for place in self._places for name in _children(place.directory)}
        return [Group(name, tuple(self._places), self._files) for name in sorted(names)]

    def sweep(self) -> list[str]:
        """Kill and remove what an earlier supervisor of this state directory left; gives what could not be removed.

        An earlier one may have run elsewhere (another login session, another unit): every directory of our own name,
        anywhere in the hierarchies, is ours, for a state id is random and its directory is locked.
        """
        left = [group.name for group in self.groups() if not group.end()]
        for place in self._places:
            for path in _find(place.hierarchy.mount, self.name):
                if path != place.path:
                    left += self._sweep_elsewhere(place.hierarchy, path)
        return left

    def _sweep_elsewhere(self, hierarchy: Hierarchy, path: str) -> list[str]:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            place = _Place(hierarchy=hierarchy, path=path, directory=directory)
            groups = [Group(name, (place,), self._files) for name in _children(directory)]
            left = [f"{path}/{group.name}" for group in groups if not group.end()]
        finally:
            os.close(directory)
        if not left:
            parent = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _removed(self._files, parent, self.name)
            finally:
                os.close(parent)
        return left

    def remove(self) -> bool:
        """Remove our directories and close them; False where groups are left in one."""
        empty = True
        for place in self._places:
            parent = os.open(place.hierarchy.own, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                empty = _removed(self._files, parent, self.name) and empty
            finally:
                os.close(parent)
        self.close()
        return empty

    def close(self) -> None:
        """Close the directories; what was made stays."""
        for place in self._places:
            os.close(place.directory)
        self._places.clear()


class Group:
    """The cgroups of one instance, one in each hierarchy, under one name."""

    def __init__(self, name: str, places: tuple[_Place, ...], files: CgroupFiles) -> None:
        self.name = name
        self._places = places
        self._files = files

    def write_limits(self, *, memory_max: int, pids_max: int, cpu_max: float, cpu_weight: int) -> None:
        """Write all limits; on a group with processes too. OSError where the kernel refuses one."""
        quota = max(1000, round(cpu_max * _PERIOD_US))  # the kernel's smallest quota is 1 ms
        for place in self._places:
            if place.has("memory"):
                self._limit_memory(place, memory_max)
            if place.has("pids"):
                self._write(place, "pids.max", str(pids_max))
            if place.has("cpu") and place.hierarchy.version == 2:
                self._write(place, "cpu.max", f"{quota} {_PERIOD_US}")
                self._write(place, "cpu.weight", str(cpu_weight))
            elif place.has("cpu"):
                self._write(place, "cpu.cfs_period_us", str(_PERIOD_US))
                self._write(place, "cpu.cfs_quota_us", str(quota))
                # The kernel's own equivalence of the two scales: weight 100 is 1024 shares; 2 is the smallest share.
                self._write(place, "cpu.shares", str(max(2, cpu_weight * 1024 // 100)))

    def _limit_memory(self, place: _Place, memory_max: int) -> None:
        if place.hierarchy.version == 2:
            # No memory.high below it: without swap there is little to reclaim, and the kernel then puts the process to
            # sleep for up to 2 s after each few pages (mm/memcontrol.c, mem_cgroup_handle_over_high). Measured on Linux
            # 6.1 with high at 90 %: after 30 s a process that wanted twice its limit was neither served nor killed.
            self._write(place, "memory.max", str(memory_max))
            if self._has(place, "memory.swap.max"):  # absent where the kernel does not account swap
                self._write(place, "memory.swap.max", "0")
            self._write(place, "memory.oom.group", "1")
            return
        # memory.memsw may never be below memory.limit: raise it first, lower it last (cgroup-v1/memory.rst, 2.4).
        accounts_swap = self._has(place, "memory.memsw.limit_in_bytes")
        if accounts_swap:
            self._write(place, "memory.memsw.limit_in_bytes", "-1")
        self._write(place, "memory.limit_in_bytes", str(memory_max))
        if accounts_swap:
            self._write(place, "memory.memsw.limit_in_bytes", str(memory_max))
        else:
            self._write(place, "memory.swappiness", "0")

    def entrances(self) -> tuple[list[int], int | None]:
        """The files to join by, open for writing, and the v2 directory to be born in; None where no v2 is mounted.

        A process of one thread that writes "0" to each file has joined all v1 hierarchies. The file is `tasks`: the
        kernel takes the writer alone and need not wait for a grace period of all processors, as it does for whole
        processes (`cgroup.procs`, 5 to 7 ms on a machine at rest).
        """
        files: list[int] = []
        directory = None
        try:
            for place in self._places:
                if place.hierarchy.version == 2:
                    directory = os.open(self.name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place.directory)
                else:
                    files.append(os.open(f"{self.name}/tasks", os.O_WRONLY | os.O_CLOEXEC, dir_fd=place.directory))
        except BaseException:
            for descriptor in files:
                os.close(descriptor)
            raise
        return files, directory

    def procs_fds(self) -> list[int]:
        """cgroup.procs of each hierarchy, open for writing: a process that writes "0" to each has joined."""
        opened: list[int] = []
        try:
            for place in self._places:
                path = f"{self.name}/cgroup.procs"
                opened.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=place.directory))
        except BaseException:
            for descriptor in opened:
                os.close(descriptor)
            raise
        return opened

    def holds(self, pid: int) -> bool:
        """Whether the kernel says of process `pid` that it is in this group in every hierarchy (cgroups(7))."""
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
            ends = [f"/{os.path.basename(place.path)}/{self.name}" for place in self._places]
            return sum(line.rstrip("\n").endswith(ends[0]) for line in file) >= len(ends)

    def oom_kills(self) -> int:
        """How many processes the kernel has killed here for want of memory."""
        for place in self._places:
            if place.has("memory"):
                file = "memory.events" if place.hierarchy.version == 2 else "memory.oom_control"
                return _field(self._read(place, file), "oom_kill")
        return 0

    def oom_event(self) -> int | None:
        """An eventfd that is readable after the kernel ran out of memory here; None on v2, which needs none.

        There memory.oom.group ends the whole instance. On v1 the kernel kills one process of its choice, and the
        supervisor has to end the rest (cgroup-v1/memory.rst, section 10).
        """
        for place in self._places:
            if place.has("memory") and place.hierarchy.version == 1 and self._has(place, "cgroup.event_control"):
                event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                try:
                    path = f"{self.name}/memory.oom_control"
                    control = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=place.directory)
                    try:
                        self._write(place, "cgroup.event_control", f"{event} {control}")
                    finally:
                        os.close(control)
                except BaseException:
                    os.close(event)
                    raise
                return event
        return None

    def memory_current(self) -> int:
        """Bytes in use."""
        return self._number("memory", "memory.current", "memory.usage_in_bytes")

    def pids_current(self) -> int:
        """Processes and threads."""
        return self._number("pids", "pids.current", "pids.current")

    def cpu_seconds(self) -> float:
        """Processor time used so far; 0.0 where no hierarchy accounts it."""
        for place in self._places:
            if place.has("cpu") and place.hierarchy.version == 2:
                return _field(self._read(place, "cpu.stat"), "usage_usec") / 1e6
            if place.has("cpuacct"):
                return int(self._read(place, "cpuacct.usage")) / 1e9
        return 0.0

    def pressure(self) -> dict[str, int]:
        """Microseconds in which some process here waited for cpu, memory or io; empty where no account is kept.

        Every group of a v2 hierarchy has one, whatever its controllers are (psi.rst, Linux 4.20).
        """
        found: dict[str, int] = {}
        for place in self._places:
            if place.hierarchy.version != 2:
                continue
            for resource in _PRESSED_FOR:
                if self._has(place, f"{resource}.pressure"):
                    total = psi.some(self._read(place, f"{resource}.pressure")).get("total")
                    if total is not None:
                        found[resource] = int(total)
        return found

    def populated(self) -> bool:
        """Whether a process is left in any hierarchy. A zombie does not count: its reaping is its parent's business."""
        return any(self._populated(place) for place in self._places)

    def kill(self) -> None:
        """SIGKILL to every process in the group: at once where a v2 hierarchy has cgroup.kill (Linux 5.14).

        Without one, new tasks are refused first, or a fork bomb could outrun the loop; then each process is killed.
        """
        for place in self._places:
            if place.hierarchy.version == 2 and self._exists(place) and self._has(place, "cgroup.kill"):
                self._write(place, "cgroup.kill", "1")
        for place in self._places:
            if place.has("pids") and self._exists(place) and self._populated(place):
                self._write(place, "pids.max", "0")
        for place in self._places:
            # Also where cgroup.kill was written: a process may have died on its way into the hierarchies.
            for pid in self._processes(place) | self._processes(place, _FROZEN):
                self._kill_one(place, pid)

    def freeze(self, *, keep: int) -> None:
        """Stop every process but `keep` where a v2 hierarchy is mounted; SIGKILL still ends them (cgroup-v2.rst).

        They move to a group below for that: the reaper has to go on watching its lifeline. To move costs milliseconds,
        so it is done when there is time, and once: what they fork is born there.
        """
        for place in self._places:
            if place.hierarchy.version == 2:
                if not self._has(place, _FROZEN):
                    self._files.make(place.directory, f"{self.name}/{_FROZEN}")
                for _ in range(_MOVES_MAX):
                    # A process may fork while it is on its way: its child is found in the next round.
                    outside = self._processes(place) - {keep}
                    if not outside:
                        break
                    for pid in outside:
                        # Again, just before: the moves of others took milliseconds each, and in some hundred of them
                        # agents can use up all pids that there are, so that this one is a process of the host's by now.
                        if pid in self._processes(place):
                            with contextlib.suppress(ProcessLookupError):
                                self._write(place, f"{_FROZEN}/cgroup.procs", str(pid))
                self._write(place, f"{_FROZEN}/cgroup.freeze", "1")

    def thaw(self) -> None:
        """Let them go on."""
        for place in self._places:
            if place.hierarchy.version == 2 and self._has(place, _FROZEN):
                self._write(place, f"{_FROZEN}/cgroup.freeze", "0")

    def remove(self) -> bool:
        """Remove the group from each hierarchy; False where one is still busy: call again a little later."""
        for place in self._places:
            if place.hierarchy.version == 2 and not _removed(self._files, place.directory, f"{self.name}/{_FROZEN}"):
                return False
        gone = [_removed(self._files, place.directory, self.name) for place in self._places]
        return all(gone)

    def end(self, attempts: int = 200) -> bool:
        """Kill, wait for the end, remove; blocks up to some 2 s, so only before and after the event loop."""
        for attempt in range(attempts):
            self.kill()
            if self.remove():
                return True
            # The end of a process is not immediate (0.7 to 1.1 ms measured); no event tells of it on v1.
            time.sleep(0.001 if attempt < 20 else 0.01)
        return False

    def _kill_one(self, place: _Place, pid: int) -> None:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            # Only now is the pid pinned: were it another process's by now, that one would not be in this group.
            if pid in self._processes(place) | self._processes(place, _FROZEN):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)

    def _processes(self, place: _Place, below: str = "") -> set[int]:
        try:
            text = self._read(place, f"{below}/cgroup.procs" if below else "cgroup.procs")
        except (FileNotFoundError, OSError) as error:
            if isinstance(error, FileNotFoundError) or error.errno == errno.ENODEV:
                return set()
            raise
        # 0 is a process of a pid namespace that we do not see: not ours to kill.
        return {int(line) for line in text.split()} - {0}

    def _populated(self, place: _Place) -> bool:
        if place.hierarchy.version == 2:
            try:
                return _field(self._read(place, "cgroup.events"), "populated") != 0
            except FileNotFoundError:
                return False
        return bool(self._processes(place))

    def _number(self, controller: str, v2: str, v1: str) -> int:
        for place in self._places:
            if place.has(controller):
                return int(self._read(place, v2 if place.hierarchy.version == 2 else v1))
        return 0

    def _exists(self, place: _Place) -> bool:
        return self._files.exists(place.directory, self.name)

    def _has(self, place: _Place, file: str) -> bool:
        return self._files.exists(place.directory, f"{self.name}/{file}")

    def _read(self, place: _Place, file: str) -> str:
        return self._files.read(place.directory, f"{self.name}/{file}")

    def _write(self, place: _Place, file: str, text: str) -> None:
        self._files.write(place.directory, f"{self.name}/{file}", text)


def open_host(state_id: str, *, foreman: int | None = None) -> CgroupHost:
    """Our part of this host's hierarchies, as the calling process sees them. HostError names what is missing.

    `foreman` is the process that, with all it started, may be moved to a leaf on v2; the caller's parent by default, or
    the caller alone where that is an init that is not our foreman.
    """
    root = os.getppid() if foreman is None else foreman
    # The first process of a container may be the foreman, and everything else there is then below it. Any other init
    # is not to be moved; systemd, which starts the supervisor itself in production, is in another cgroup anyway.
    if root == 0 or (root == 1 and not _is_our_interpreter(1)):
        root = os.getpid()
    return CgroupHost(own_layout(), state_id, is_ours=lambda pid: descends_from(pid, root))


def _is_our_interpreter(pid: int) -> bool:
    try:
        return os.path.samefile(f"/proc/{pid}/exe", "/proc/self/exe")
    except OSError:
        return False


def own_layout() -> CgroupLayout:
    """The hierarchies that the calling process sees. HostError names a missing controller."""
    return detect(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())


def _children(directory: int) -> Iterator[str]:
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return iter(name for name in names if _GROUP_NAME.fullmatch(name))


def _find(mount: str, name: str) -> list[str]:
    return [f"{path}/{name}" for path, folders, _ in os.walk(mount) if name in folders]


def _field(text: str, key: str) -> int:
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0


def _removed(files: CgroupFiles, directory: int, name: str) -> bool:
    try:
        files.remove(directory, name)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return False
        raise
    return True
