"""Empty a folder in which hostile code has written, and see that nothing is left of it.

Runs as: the runner, in the sandbox, between two calls; no other process is there then.
Reads from strangers: names, kinds and modes of files that a call has made; nothing is opened but folders.
With a handful of descriptors and no recursion, however deep the folders lie in each other: each is moved up to where
it can be taken apart.
"""

from __future__ import annotations

import os
import time

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE = 0o700
_ROUNDS_MAX = 100_000
"""More than any number of inodes that a policy allows in rounds of this loop; a bound all the same."""
_LOOKS = 50
_BETWEEN_LOOKS = 0.002


class NotEmpty(Exception):
    """Something is left."""


class Scratch:
    """A small file system of the instance's own that must be empty before each call."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._folder = os.open(path, _OPEN_FOLDER)
        self._free = self._room()

    def names(self) -> list[str]:
        """What lies in it."""
        return sorted(os.listdir(self._folder))

    def empty(self) -> None:
        """Remove all there is; NotEmpty or OSError where that cannot be done."""
        os.fchmod(self._folder, _MODE)
        empty(self._folder)
        # What was deleted and is still held, by a descriptor on its way through a socket, takes room and has no name.
        # The kernel may need a moment to let go of it (unix(7), garbage collection of what is in flight).
        for _ in range(_LOOKS):
            if self._room() == self._free:
                return
            time.sleep(_BETWEEN_LOOKS)
        raise NotEmpty(f"{self.path} has {self._free} blocks and inodes free where it is empty, and {self._room()} now")

    def close(self) -> None:
        os.close(self._folder)

    def _room(self) -> tuple[int, int]:
        found = os.fstatvfs(self._folder)
        return found.f_bfree, found.f_ffree


def empty(folder: int) -> None:
    """Remove everything in the folder that is open at `folder`, whatever modes its owner has given it."""
    number = 0
    for _ in range(_ROUNDS_MAX):
        names = os.listdir(folder)
        if not names:
            return
        for name in names:
            if not _remove(folder, name):
                number = _raise_children(folder, name, number)
    raise NotEmpty("a folder does not become empty")


def _remove(folder: int, name: str) -> bool:
    """Whether it is gone: a file, or an empty folder."""
    try:
        os.unlink(name, dir_fd=folder)
        return True
    except IsADirectoryError:
        pass
    try:
        os.rmdir(name, dir_fd=folder)
        return True
    except OSError:  # it is not empty, or cannot be read yet
        return False


def _raise_children(folder: int, name: str, number: int) -> int:
    """Take a folder apart: its files go, its folders move up beside it, under names that nothing has."""
    os.chmod(name, _MODE, dir_fd=folder)
    inner = os.open(name, _OPEN_FOLDER, dir_fd=folder)
    try:
        for child in os.listdir(inner):
            if _remove(inner, child):
                continue
            os.chmod(child, _MODE, dir_fd=inner)  # to move a folder is to write to it
            while True:
                number += 1
                try:
                    os.rename(child, f".{number}", src_dir_fd=inner, dst_dir_fd=folder)
                    break
                except OSError:
                    if not os.access(f".{number}", os.F_OK, dir_fd=folder, follow_symlinks=False):
                        raise
    finally:
        os.close(inner)
    return number
