"""The newest lines of something, in at most two files.

Runs as: the gateway.
Reads from strangers: nothing; lines are made by others here.
"""

from __future__ import annotations

import os


class RotatingFile:
    """`name`, and `name.1` with what came before; each of about `bytes_max` bytes. `directory` is a descriptor."""

    def __init__(self, directory: int, name: str, *, bytes_max: int, mode: int = 0o640) -> None:
        self._directory = directory
        self._name = name
        self._bytes_max = bytes_max
        self._mode = mode
        self._file = -1
        self._size = 0

    def append(self, lines: bytes) -> None:
        """Whole lines. OSError where the disk does not take them."""
        if self._file < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._name, flags, self._mode, dir_fd=self._directory)
            os.fchmod(self._file, self._mode)  # whatever the umask is, or was
            self._size = os.fstat(self._file).st_size
        if self._size + len(lines) > self._bytes_max and self._size:
            self.close()
            os.rename(self._name, f"{self._name}.1", src_dir_fd=self._directory, dst_dir_fd=self._directory)
            self.append(lines)
            return
        self._size += os.write(self._file, lines)

    def close(self) -> None:
        """Close the file; the next `append` opens it again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
