"""Who but its owner decides what lies at a path: every folder on the way to it, as for sshd's StrictModes.

Runs as: root, or whoever asks.
Reads from strangers: nothing; folders and links on the way may be anybody's, and that is the question.

A file is opened once and judged by its descriptor, never by its name; then the folders on the way to it are.
A file that only root can write is whoever's who can rename one of the folders that it lies in, or lead a link of the
path elsewhere. So each folder has to be one in which nobody else can exchange an entry: its owner's alone to write, or
sticky (inode(7)), where others may add entries of their own and touch no other's. What lies at the path itself is the
caller's to judge.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections.abc import Callable, Collection

_LINKS_MAX = 40
"""As the kernel follows (path_resolution(7))."""


class Exchangeable(Exception):
    """Others could put another file in the place of one: in which folder, or by which link, why, and what to do."""

    def __init__(self, place: str, why: str) -> None:
        super().__init__(f"the way to it leads through {place}, which {why}")
        # chown(1) follows links, to whatever their owner has chosen.
        self.hint = (
            "name the file itself, and not by this link"
            if os.path.islink(place)
            else f"run chown root and chmod go-w on {shlex.quote(place)}, or keep the file elsewhere"
        )


def read(
    path: str | os.PathLike[str],
    owners: Collection[int],
    *,
    bytes_max: int,
    judge: Callable[[os.stat_result], None],
) -> bytes:
    """The content of a file, and one byte more than `bytes_max` at most, for it may grow after fstat(2).

    `judge` raises where what is open must not be used. `Exchangeable` where somebody but `owners` decides what lies at
    the path, OSError where nothing can be read, ValueError for a path with a NUL in it.
    """
    # Non-blocking, for a FIFO would keep us waiting in open(2) before it could be told apart.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        judge(os.fstat(descriptor))
        # Joined and not made shorter: what ".." leads to depends on the links before it.
        place, why = on_the_way(os.path.join(os.getcwd(), path), owners)
        if place:
            raise Exchangeable(place, why)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(bytes_max + 1)
    finally:
        os.close(descriptor)


def by(status: os.stat_result, owners: Collection[int], *, sticky: bool = False) -> str:
    """By whom but `owners` this can be changed, in words; "" where by nobody. `sticky` folders count as unchanged."""
    if status.st_uid not in owners:
        return f"belongs to uid {status.st_uid}"
    shared = sticky and stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not shared:
        return "can be written by others than its owner"
    return ""


def on_the_way(path: str, owners: Collection[int]) -> tuple[str, str]:
    """The first folder on the way to an absolute path in which others than `owners` can exchange an entry, and why.

    ("", "") where there is none. Links are followed, the last one too: what they lead through is on the way. OSError
    where the way does not lead to the end.
    """
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    place, links = "/", 0
    while todo:
        if why := by(os.lstat(place), owners, sticky=True):
            return place, why
        part = todo.pop()
        if part == "..":
            place = os.path.dirname(place)
            continue
        entry = os.path.join(place, part)
        status = os.lstat(entry)
        if not stat.S_ISLNK(status.st_mode):
            place = entry
            continue
        # In a sticky folder others may have links of their own, and lead them elsewhere at any time.
        if status.st_uid not in owners:
            return entry, f"belongs to uid {status.st_uid}"
        links += 1
        if links > _LINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        target = os.readlink(entry)
        todo += [part for part in reversed(target.split("/")) if part not in ("", ".")]
        if target.startswith("/"):
            place = "/"
    return "", ""
