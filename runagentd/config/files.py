"""runagentd.toml and the files that it names: read as root, so that no daemon needs a path to them.

Runs as: the foreman and runagentctl.
Reads from strangers: nothing, and makes sure of it: what decides limits, roles, issuers and keys is refused where
somebody else than root, or who asks, could have written it or put it in its place (`changeable`).
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Collection
from pathlib import Path

from cryptography import x509

from runagentd import changeable
from runagentd.config.table import Table

FILE_BYTES_MAX = 256 * 1024
_HARM = "others could change what the daemon trusts"


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
    owners = (0, os.geteuid())

    def judge(status: os.stat_result) -> None:
        _check(status, path, owners, secret=secret)

    try:
        content = changeable.read(path, owners, bytes_max=bytes_max, judge=judge)
    except changeable.Exchangeable as error:
        raise Unusable(f"{error}: {_HARM}", error.hint) from error
    except OSError as error:
        raise Unusable((error.strerror or "cannot be read").lower()) from error
    except ValueError as error:
        raise Unusable("is no path") from error  # a NUL in it
    if len(content) > bytes_max:
        raise Unusable(f"is larger than {bytes_max} bytes")
    return content


def _check(status: os.stat_result, path: Path, owners: Collection[int], *, secret: bool) -> None:
    """`Unusable` where others can change what is open, or read what is secret."""
    if not stat.S_ISREG(status.st_mode):
        raise Unusable("is not a regular file")
    if why := changeable.by(status, owners):
        # The owner is told first: who owns a file can give it any mode.
        command = "chmod go-w" if status.st_uid in owners else "chown root"
        raise Unusable(f"{why}: {_HARM}", f"read it, then run {command} {shlex.quote(str(path))}")
    if secret and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Unusable("can be read by others than its owner", f"chmod 0600 {shlex.quote(str(path))}")
