"""Notices that something in a folder has changed: inotify(7) on it and on the folders below.

Runs as: the foreman.
Reads from strangers: names of folders in an agent's folder, which are only opened again; no link is followed.
What has changed does not matter: a new snapshot is taken of all of it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from runagentd import kernel

DIRECTORIES_MAX = 4096
"""Watches of one folder: each costs the kernel about 1 KiB (fs.inotify.max_user_watches bounds all)."""
UNWATCHED = frozenset({".git", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"})
"""Folders in which tools write, and nothing that an agent is made of."""

_MASK = (
    kernel.IN_CLOSE_WRITE | kernel.IN_MOVED_FROM | kernel.IN_MOVED_TO | kernel.IN_CREATE | kernel.IN_DELETE
    | kernel.IN_ONLYDIR | kernel.IN_DONT_FOLLOW
)  # fmt: skip
_EVENT_BYTES = 64 * 1024


class Watch:
    """One folder. `descriptor` is readable when something has changed."""

    def __init__(self, folder: Path, *, below: bool = True) -> None:
        """OSError where the kernel has no more watches to give. `below`: with all folders in it."""
        self._folder = folder
        self._below = below
        self.complete = True
        """whether all of it is watched"""
        self.descriptor = kernel.inotify()
        try:
            self.renew()
        except BaseException:
            os.close(self.descriptor)
            raise

    def renew(self) -> None:
        """Watch what has come since as well; what was watched already stays so."""
        count = 0
        for directory in self._directories():
            count += 1
            if count > DIRECTORIES_MAX:
                self.complete = False
                return
            try:
                kernel.inotify_add_watch(self.descriptor, directory, _MASK)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.ENOMEM):
                    raise
                continue  # it has gone meanwhile, and that is an event of the folder above

    def taken(self) -> bool:
        """Take what has happened off the descriptor; whether there was anything."""
        found = False
        while True:
            try:
                found = bool(os.read(self.descriptor, _EVENT_BYTES)) or found
            except BlockingIOError:
                return found

    def close(self) -> None:
        """Watch no more."""
        os.close(self.descriptor)

    def _directories(self) -> Iterator[str]:
        waiting = [str(self._folder)]
        while waiting:
            directory = waiting.pop()
            yield directory
            if not self._below:
                return
            try:
                with os.scandir(directory) as entries:
                    waiting += [
                        entry.path
                        for entry in entries
                        if entry.name not in UNWATCHED and entry.is_dir(follow_symlinks=False)
                    ]
            except OSError:
                continue
