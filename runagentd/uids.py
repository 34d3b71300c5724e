"""Lease numeric uids that belong to nobody else on this host: one for each instance and each daemon.

Runs as: the foreman and the supervisor, root.
Reads from strangers: nothing; the directory is root's alone, and what it holds is checked all the same.

65,536 uids in blocks of 256. Every block has a lock file, whose flock(2) a daemon holds as long as it lives and whose
content is the state id of its last owner. Daemons of other state directories so never share a uid.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections import deque
from pathlib import Path

from runagentd.errors import HostError

UID_BASE = 1879048192
"""0x70000000: above what useradd, systemd (DynamicUser=, nspawn), podman and LXD hand out by default."""
UID_COUNT = 65536
BLOCK = 256
DIRECTORY = "/run/runagentd/uids"

_STATE_ID_BYTES_MAX = 200


class Leases:
    """The uids of one daemon. Released ones are leased again last, so that a stale use of one shows."""

    def __init__(self, directory: int, state_id: str, *, uid_base: int, uid_count: int, proc: Path) -> None:
        self._directory = directory
        self._state_id = state_id
        self._uid_base = uid_base
        self._blocks = uid_count // BLOCK
        self._proc = proc
        self._locks: dict[int, int] = {}
        self._free: deque[int] = deque()
        self._leased: set[int] = set()

    @classmethod
    def open(
        cls,
        state_id: str,
        *,
        directory: str = DIRECTORY,
        uid_base: int = UID_BASE,
        uid_count: int = UID_COUNT,
        accounts: Path = Path("/etc"),
        proc: Path = Path("/proc"),
    ) -> Leases:
        """Take a first block. HostError where the range is somebody else's, or no block is free."""
        _refuse_overlap(accounts, uid_base, uid_count)
        leases = cls(_open_directory(directory), state_id, uid_base=uid_base, uid_count=uid_count, proc=proc)
        try:
            leases._take_block()
        except BaseException:
            leases.close()
            raise
        return leases

    def lease(self) -> int:
        """A uid that no process has; a further block is taken where this daemon's are used up."""
        if not self._free:
            self._take_block()
        uid = self._free.popleft()
        self._leased.add(uid)
        return uid

    def release(self, uid: int) -> None:
        """Give a uid back: its reaper is reaped, its cgroups are removed, its private data is deleted."""
        if uid not in self._leased:
            raise ValueError(f"uid {uid} is not leased")
        self._leased.remove(uid)
        self._free.append(uid)

    def close(self) -> None:
        """Give up all blocks; for tests, since the end of the process does the same."""
        for lock in self._locks.values():
            os.close(lock)
        self._locks.clear()
        self._free.clear()
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def _take_block(self) -> None:
        """One more block: one of our own earlier life, or else the first that nobody uses."""
        in_use = _uids_in_use(self._proc)
        # One lock at a time: a daemon that starts at the same moment must not find every block locked.
        if not any(self._take(number, in_use, only_own=True) for number in range(self._blocks)):
            if not any(self._take(number, in_use, only_own=False) for number in range(self._blocks)):
                raise HostError(
                    f"no uid is free: each of the {self._blocks} blocks from {self._uid_base} on is in use",
                    f"{DIRECTORY} holds one lock file per block; fuser(1) tells which daemons hold them",
                )

    def _take(self, number: int, in_use: set[int], *, only_own: bool) -> bool:
        if number in self._locks:
            return False
        lock = self._lock(number, create=not only_own)
        if lock is None:
            return False
        owner = os.pread(lock, _STATE_ID_BYTES_MAX, 0).decode("ascii", "replace").strip()
        free = [uid for uid in self._uids(number) if uid not in in_use]
        # Whoever had the block before may have left processes behind: none of their uids must become ours. Of our own
        # earlier life something may still be dying: those uids wait for the next start.
        usable = bool(free) if owner == self._state_id else not only_own and len(free) == BLOCK
        if not usable:
            os.close(lock)
            return False
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{self._state_id}\n".encode("ascii"), 0)
        self._locks[number] = lock
        self._free.extend(free)
        return True

    def _uids(self, number: int) -> range:
        first = self._uid_base + number * BLOCK
        return range(first, first + BLOCK)

    def _lock(self, number: int, *, create: bool) -> int | None:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        try:
            descriptor = os.open(f"block-{number:03d}", flags, 0o600, dir_fd=self._directory)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor


def _open_directory(path: str) -> int:
    """The directory, made 0700 where it is missing. Each part is opened without following a symbolic link."""
    current = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in Path(path).parts[1:]:
            try:
                below = _open_below(current, name)
            except FileNotFoundError:
                try:
                    os.mkdir(name, 0o700, dir_fd=current)
                except FileExistsError:
                    pass  # another daemon was faster
                below = _open_below(current, name)
            os.close(current)
            current = below
        status = os.fstat(current)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise HostError(f"{path}: must belong to uid {os.geteuid()} with mode 0700", f"remove it: rm -r {path}")
    except OSError as error:
        os.close(current)
        raise HostError(f"{path}: cannot open the directory of uid leases: {error.strerror}") from error
    except BaseException:
        os.close(current)
        raise
    return current


def _open_below(directory: int, name: str) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)


def _refuse_overlap(accounts: Path, uid_base: int, uid_count: int) -> None:
    """HostError where an account, a group or a subordinate range (subuid(5)) lies in our range."""
    end = uid_base + uid_count
    for file, column, counted in (("passwd", 2, False), ("group", 2, False), ("subuid", 1, True), ("subgid", 1, True)):
        try:
            lines = (accounts / file).read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            fields = line.split(":")
            try:
                first = int(fields[column])
                count = int(fields[2]) if counted else 1
            except (IndexError, ValueError):
                continue
            if first < end and first + count > uid_base:
                raise HostError(
                    f"{accounts / file}: {fields[0]!r} has ids from {first} on, which instances need "
                    f"({uid_base} to {end - 1})",
                    "give that account or range other ids",
                )


def _uids_in_use(proc: Path) -> set[int]:
    """Every uid that any process has, of whatever kind (proc_pid_status(5))."""
    found: set[int] = set()
    for entry in os.scandir(proc):
        if not entry.name.isdecimal():
            continue
        try:
            status = Path(entry.path, "status").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it has just ended
        for line in status.splitlines():
            if line.startswith(("Uid:", "Gid:")):
                found.update(int(number) for number in line.split()[1:])
    return found
