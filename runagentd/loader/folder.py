"""The agent's folder as the loader sees it: a few reads, below one descriptor, bounded.

Runs as: the loader, confined.
Reads from strangers: file contents and names; the folder is a snapshot, so it holds files and directories only.
"""

from __future__ import annotations

import os
import stat
from typing import Protocol

from runagentd import kernel

_NAMES_MAX = 10_000


class Folder(Protocol):
    """What `configuration` asks of a folder. Paths are plain and relative."""

    def read(self, path: str, size_max: int) -> bytes | None:
        """The first `size_max` + 1 bytes of a regular file, or None where there is none."""

    def is_file(self, path: str) -> bool: ...

    def is_directory(self, path: str) -> bool: ...

    def names(self, path: str) -> list[str]:
        """What a directory holds, sorted; "" is the folder itself; [] where there is none."""


class OpenFolder:
    """The directory that a descriptor is open on."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, path: str, size_max: int) -> bytes | None:
        descriptor = self._open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        if descriptor is None:
            return None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            pieces, left = [], size_max + 1
            while left and (piece := os.read(descriptor, min(left, 65536))):
                pieces.append(piece)
                left -= len(piece)
            return b"".join(pieces)
        finally:
            os.close(descriptor)

    def is_file(self, path: str) -> bool:
        return stat.S_ISREG(self._mode(path))

    def is_directory(self, path: str) -> bool:
        return stat.S_ISDIR(self._mode(path))

    def names(self, path: str) -> list[str]:
        descriptor = self._open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
        if descriptor is None:
            return []
        try:
            with os.scandir(descriptor) as entries:
                return sorted(entry.name for entry, _ in zip(entries, range(_NAMES_MAX)))
        finally:
            os.close(descriptor)

    def _mode(self, path: str) -> int:
        descriptor = self._open(path, os.O_PATH)
        if descriptor is None:
            return 0
        try:
            return os.fstat(descriptor).st_mode
        finally:
            os.close(descriptor)

    def _open(self, path: str, flags: int) -> int | None:
        try:
            return kernel.openat2(self._descriptor, path, flags | os.O_NOFOLLOW, resolve=kernel.RESOLVE_WITHIN)
        except (OSError, ValueError):  # ValueError: a NUL in the path
            return None
