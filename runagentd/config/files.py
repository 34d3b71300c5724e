"""runagentd.toml and the files that it names: read as root, so that no daemon needs a path to them.

Runs as: the foreman and runagentctl.
Reads from strangers: nothing, and makes sure of it: what decides limits, roles, issuers and keys is refused where
somebody else than root, or who asks, could have written it or put it in its place.
A file is opened once and judged by its descriptor, never by its name; then the folders on the way to it are.
"""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from cryptography import x509

from runagentd import changeable
from runagentd.config.table import Table

FILE_BYTES_MAX = 256 * 1024


class Unusable(Exception):
    """A file that is not to be used: what is wrong with it, without its name, and what to do."""

    def __init__(self, what: str, *hints: str) -> None:
        super().__init__(what)
        self.what = what
        self.hints = hints


def is_authority(content: bytes) -> bool:
    """Whether it is one certificate or more, in PEM."""
    try:
        return bool(x509.load_pem_x509_certificates(content))
    except ValueError:
        return False


def read(table: Table, key: str, path: Path, *, secret: bool) -> bytes | None:
    """What is in the file that `key` names; None where it cannot be used, which is a problem of the table's then."""
    try:
        return contents(path, bytes_max=FILE_BYTES_MAX, secret=secret)
    except Unusable as unusable:
        table.problem(key, f"{path}: {unusable.what}", *unusable.hints)
        return None


def contents(path: Path, *, bytes_max: int, secret: bool = False) -> bytes:
    """The bytes of a file that nobody but root and our own user can change; `Unusable` for any other.

    A `secret` one nobody else can read either.
    """
    try:
        # Non-blocking, for a FIFO would keep us waiting in open(2) before it could be told apart.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            _check(os.fstat(descriptor), path, secret=secret)
            with open(descriptor, "rb", closefd=False) as file:
                # One byte more, for a file may grow after fstat(2).
                content = file.read(bytes_max + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Unusable((error.strerror or "cannot be read").lower()) from error
    except ValueError as error:
        raise Unusable("is no path") from error  # a NUL in it
    if len(content) > bytes_max:
        raise Unusable(f"is larger than {bytes_max} bytes")
    return content


def _check(status: os.stat_result, path: Path, *, secret: bool) -> None:
    """`Unusable` where others can change what is open, put another file in its place, or read what is secret."""
    owners = (0, os.geteuid())
    if not stat.S_ISREG(status.st_mode):
        raise Unusable("is not a regular file")
    if why := changeable.by(status, owners):
        # The owner is told first: who owns a file can give it any mode.
        command = "chmod go-w" if status.st_uid in owners else "chown root"
        raise Unusable(
            f"{why}: others could change what the daemon trusts",
            f"read it, then run {command} {shlex.quote(str(path))}",
        )
    if secret and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Unusable("can be read by others than its owner", f"chmod 0600 {shlex.quote(str(path))}")
    # Joined and not made shorter: what ".." leads to depends on the links before it.
    place, why = changeable.on_the_way(os.path.join(os.getcwd(), path), owners)
    if place:
        # chown(1) follows links, to whatever their owner has chosen.
        mend = (
            "name the file itself, and not by this link"
            if os.path.islink(place)
            else (f"run chown root and chmod go-w on {shlex.quote(str(place))}, or keep the file elsewhere")
        )
        raise Unusable(
            f"the way to it leads through {place}, which {why}: others could change what the daemon trusts", mend
        )
