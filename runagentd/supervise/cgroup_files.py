"""The five operations on a cgroup file system that `supervise.cgroup` is built from.

Runs as: the supervisor, root.
Reads from strangers: nothing.
A seam: the fake of tests/conformance/test_cgroup.py does what a v2 kernel would do, on a plain directory.
"""

from __future__ import annotations

import os


class CgroupFiles:
    """Names are relative to a directory that is open."""

    def make(self, directory: int, name: str) -> None:
        os.mkdir(name, 0o755, dir_fd=directory)

    def remove(self, directory: int, name: str) -> None:
        os.rmdir(name, dir_fd=directory)

    def exists(self, directory: int, name: str) -> bool:
        return os.access(name, os.F_OK, dir_fd=directory)

    def read(self, directory: int, name: str) -> str:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            pieces = []
            while piece := os.read(descriptor, 65536):
                pieces.append(piece)
            return b"".join(pieces).decode("ascii")
        finally:
            os.close(descriptor)

    def write(self, directory: int, name: str, text: str) -> None:
        """One write(2): each is one command to the kernel. OSError names the file."""
        # O_TRUNC means nothing to a cgroup file, and everything to the plain file of a test.
        descriptor = os.open(name, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.write(descriptor, text.encode("ascii"))
        except OSError as error:
            raise OSError(error.errno, f"cgroup file {name}, writing {text!r}: {error.strerror}") from error
        finally:
            os.close(descriptor)
