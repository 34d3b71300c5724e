"""Attempts to fill what can be written: bytes, names, one huge file.

Runs as: see `frame`.
Reads from strangers: nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile

from tests.escape.attempts.files import AREA, MIB
from tests.escape.attempts.frame import Function, attempt, attempts


def _fill(folder: str, mebibytes: int) -> Function:
    def fill() -> str:
        piece = bytes(MIB)
        # In files of 32 MiB, so that it is the mount that says no, and not the limit of one file.
        names = [os.path.join(folder, f"full-{number}") for number in range(mebibytes // 32 + 1)]
        try:
            for name in names:
                with open(name, "wb", buffering=0) as file:
                    for _ in range(32):
                        if file.write(piece) != MIB:
                            raise OSError(28, "a short write")
        finally:
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)
        return f"{len(names) * 32} MiB"

    return fill


def _litter(folder: str, count: int) -> Function:
    def litter() -> str:
        place = tempfile.mkdtemp(dir=folder)
        try:
            for number in range(count):
                os.close(os.open(os.path.join(place, str(number)), os.O_WRONLY | os.O_CREAT))
        finally:
            shutil.rmtree(place)
        return f"{count} files"

    return litter


attempts(
    AREA,
    "ENOSPC",
    [
        ("fill_tmp", "64 MiB are ours", _fill("/tmp", 64)),
        ("fill_dev_shm", "16 MiB are ours", _fill("/dev/shm", 32)),
        ("fill_app", "64 MiB are ours", _fill("/app", 64)),
        ("use_up_inodes_of_tmp", "4,096 names are ours", _litter("/tmp", 4200)),
        ("use_up_inodes_of_dev_shm", "256 names are ours", _litter("/dev/shm", 300)),
        ("use_up_inodes_of_app", "8,192 names are ours", _litter("/app", 8400)),
    ],
)


@attempt(AREA, "EFBIG")
def make_a_huge_file() -> str:
    """A sparse file of a gibibyte costs nothing at first."""
    with tempfile.TemporaryFile() as file:
        os.ftruncate(file.fileno(), 1024 * MIB)
    return "1 GiB"
