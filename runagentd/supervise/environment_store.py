"""Environments on the disk: read-only trees named by their contents, and which request each of them answers.

Runs as: the supervisor.
Reads from strangers: nothing; its own files in the 0700 state directory.

    environments/incoming/NAME           being copied, or copied and not adopted yet
    environments/trees/DIGEST            an environment
    environments/requests/DIGEST         a request's digest, in it that of the environment that answers it

All that is there appears and goes by one rename(2): after a kill at any moment a tree is whole or is not there, and
what a start finds in incoming/ is nobody's. A tree that has a lease, or that a deployment names, is never removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Lease:
    """As long as it is held the environment stays; `descriptor` is open on its tree."""

    def __init__(self, store: EnvironmentStore, digest: str, descriptor: int) -> None:
        self.digest = digest
        self.descriptor = descriptor
        self._store = store

    def release(self) -> None:
        """Give it up; later calls do nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
            self._store.released(self.digest)


class EnvironmentStore:
    """The folder environments/ of a state directory."""

    def __init__(self, folder: Path) -> None:
        self._trees, self._requests, self.incoming = folder / "trees", folder / "requests", folder / "incoming"
        for each in (folder, self._trees, self._requests, self.incoming):
            each.mkdir(mode=0o700, exist_ok=True)
        self._leased: Counter[str] = Counter()
        self.on_unused: Callable[[], None] = lambda: None
        """called when the last lease of an environment has ended"""

    def discard_unfinished(self) -> None:
        """Remove what an earlier supervisor had not finished, neither making nor removing it."""
        for path in self.incoming.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()

    def lease(self, digest: str) -> Lease:
        """OSError where there is no such environment."""
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest!r:.80} is not a digest")
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._trees / digest, flags)
        self._leased[digest] += 1
        self._touch(digest)
        return Lease(self, digest, descriptor)

    def released(self, digest: str) -> None:
        """For `Lease` alone."""
        self._leased[digest] -= 1
        self._touch(digest)
        if not self._leased[digest]:
            del self._leased[digest]
            self.on_unused()

    def answer(self, request: str) -> Lease | None:
        """A lease on the environment that answers this request; None where it has to be made."""
        try:
            return self.lease((self._requests / request).read_text("ascii"))
        except (OSError, ValueError):
            return None

    def adopt(self, tree: Path, digest: str, request: str) -> Lease:
        """Take over a finished tree of `incoming`, unless its like is there, as the answer to a request."""
        place = self._trees / digest
        if not place.exists():
            tree.rename(place)
            # What names it is written down with fsync(2) afterwards: after a crash that must not be all that is there.
            _sync(self._trees)
        lease = self.lease(digest)
        unfinished = self.incoming / f"{secrets.token_hex(8)}.request"
        try:
            unfinished.write_text(digest, "ascii")
            unfinished.rename(self._requests / request)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            lease.release()
            raise
        return lease

    def collect(self, keep: Collection[str], *, unused_seconds: float) -> list[Path]:
        """Take away those that nobody has used for so long; the caller removes what is given, at leisure."""
        taken = []
        for tree, seconds in self._unused(keep, unused_seconds):
            if seconds <= 0:
                away = self.incoming / f"{tree.name}.{secrets.token_hex(4)}"
                tree.rename(away)
                taken.append(away)
        there = {tree.name for tree in self._trees.iterdir()} if taken else set()
        for request in self._requests.iterdir() if taken else ():
            if request.read_text("ascii", "replace") not in there:
                request.unlink()
        return taken

    def due(self, keep: Collection[str], *, unused_seconds: float) -> float | None:
        """In how many seconds there will be something to collect, unless it is used; None where nothing is unused."""
        return min((seconds for _, seconds in self._unused(keep, unused_seconds)), default=None)

    def _unused(self, keep: Collection[str], unused_seconds: float) -> Iterator[tuple[Path, float]]:
        """Each that nobody uses, and in how many seconds nobody will have used it for long enough."""
        now = time.time()
        for tree in sorted(self._trees.iterdir()):
            if tree.name in keep or self._leased[tree.name] > 0 or not _DIGEST.fullmatch(tree.name):
                continue
            # Without a time to keep it there is none to wait for, also where the clock was put back since.
            yield tree, tree.stat().st_mtime + unused_seconds - now if unused_seconds > 0 else 0.0

    def _touch(self, digest: str) -> None:
        """When it was used last is when its folder was changed last: nothing else changes it."""
        with contextlib.suppress(OSError):  # a disk that is full or read-only by now: it is only collected earlier
            os.utime(self._trees / digest)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
