"""The gateway's own folder, with what the gateway before left in it, given to the uid that the next one has.

Runs as: the foreman, root.
Reads from strangers: no content; but a captured gateway may have put anything into the folder, under any name.

A daemon can come back with other uids: while it was down, another one on this host may have taken its block of them
(`uids`). What it wrote down must outlive that, above all which idempotent calls have run. So regular files change
hands, each by a descriptor that was looked at: only what belonged to the gateway before, under one name only. All else
goes: a chown by path could be led to a file of root's by a link.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

_DEPTH = 1
"""Folders below the gateway's own: that of its logs."""
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def own(folder: Path, uid: int) -> None:
    """Make the folder, or make it `uid`'s."""
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder, _OPEN | os.O_DIRECTORY)
    try:
        before = os.fstat(descriptor).st_uid
        if before != uid:
            _take(descriptor, before, uid, _DEPTH)
    finally:
        os.close(descriptor)


def _take(directory: int, before: int, uid: int, depth: int) -> None:
    # The directory first: from then on, whoever still has the uid before can put nothing else in a name's place.
    os.fchmod(directory, 0o700)
    os.fchown(directory, uid, uid)
    for name in os.listdir(directory):
        if not _taken(directory, name, before, uid, depth):
            _remove(directory, name)


def _taken(directory: int, name: str, before: int, uid: int, depth: int) -> bool:
    """Whether it was something that the gateway before owned, and now is `uid`'s."""
    try:
        descriptor = os.open(name, _OPEN, dir_fd=directory)
    except OSError:  # a symbolic link (ELOOP), a socket (ENXIO), or gone
        return False
    try:
        status = os.fstat(descriptor)
        if before == 0 or status.st_uid != before:
            return False
        if stat.S_ISDIR(status.st_mode) and depth > 0:
            _take(descriptor, before, uid, depth - 1)
            return True
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            return False
        os.fchmod(descriptor, 0o600)
        os.fchown(descriptor, uid, uid)
        return True
    finally:
        os.close(descriptor)


def _remove(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        shutil.rmtree(name, dir_fd=directory)
