"""Find policies on this machine: those that runagentd ships, and an operator's files. The one part here with effects.

Runs as: the supervisor and runagentctl.
Reads from strangers: nothing, and makes sure of it: a policy that somebody else could have written, or put in its
place, is refused (`changeable`).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from runagentd import changeable
from runagentd.policy.load import Place, Unreadable, load
from runagentd.policy.model import Policy
from runagentd.policy.unfit import did_you_mean

FILE_BYTES_MAX = 64 * 1024

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_folder() -> Path:
    """Where the shipped policies and syscalls.toml are: in the wheel, or at the top of a checkout."""
    packaged = _PACKAGE / "_policies"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "policies"


def shipped_names(folder: Path | None = None) -> tuple[str, ...]:
    """The names of the shipped policies, in order of the alphabet."""
    found = (folder or shipped_folder()).glob("*.toml")
    return tuple(sorted(path.stem for path in found if path.stem != "syscalls"))


def find(spec: str, *, known_groups: Collection[str] | None = None) -> Policy:
    """The effective policy of a shipped name or of a file's path; raises ConfigurationError with every problem."""
    return load(spec, read, known_groups=known_groups)


def read(place: Place) -> bytes:
    """The bytes of a policy; raises `Unreadable`. This is the `Reader` of `policy.load` for the real machine."""
    if place.shipped is not None:
        return _read_shipped(place.shipped)
    return _read_file(place.path)


def _read_shipped(name: str) -> bytes:
    # As trustworthy as the code beside it, so neither owner nor mode is looked at: a checkout may be its user's.
    names = shipped_names()
    if name not in names:
        hint = f"the shipped policies are {', '.join(names)}; write ./{name} for a file"
        raise Unreadable("no such shipped policy", *did_you_mean(name, names), hint)
    return (shipped_folder() / f"{name}.toml").read_bytes()


def _read_file(path: PurePosixPath) -> bytes:
    caller = os.geteuid()

    def judge(status: os.stat_result) -> None:
        refusal = untrusted(status, caller=caller)
        if refusal is not None:
            raise refusal

    try:
        data = changeable.read(path, (0, caller), bytes_max=FILE_BYTES_MAX, judge=judge)
    except changeable.Exchangeable as error:
        raise Unreadable(f"{error}: others could change what a sandbox allows", error.hint) from error
    except OSError as error:
        raise Unreadable(_cannot_open(error)) from error
    if len(data) > FILE_BYTES_MAX:
        raise _too_large()
    return data


def untrusted(status: os.stat_result, *, caller: int) -> Unreadable | None:
    """Why a policy with this status must not be used by a process of uid `caller`; None where it may."""
    if not stat.S_ISREG(status.st_mode):
        return Unreadable("not a regular file")
    if status.st_uid not in (0, caller):
        return Unreadable(
            f"belongs to uid {status.st_uid}, who could change what a sandbox allows",
            f"read it, then run chown {caller} on it",
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return Unreadable(
            "others than its owner may write it, and so change what a sandbox allows",
            "read it, then run chmod go-w on it",
        )
    if status.st_size > FILE_BYTES_MAX:
        return _too_large()
    return None


def _too_large() -> Unreadable:
    return Unreadable(f"larger than {FILE_BYTES_MAX // 1024}KiB, the most here")


def _cannot_open(error: OSError) -> str:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return "no such file"
        case errno.EISDIR:
            return "not a regular file"
        case _:
            return f"cannot be opened: {os.strerror(error.errno or 0).lower()}"
