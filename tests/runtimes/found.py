"""The other versions of CPython on this machine: those that RUNAGENTD_RUNTIMES names, or those in the usual places."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess

from runagentd import interpreters
from runagentd.wire.runtime import VERSION

VARIABLE = "RUNAGENTD_RUNTIMES"
_PLACES = (
    "/usr/local/bin/python3.[0-9]*",
    "/opt/python*/bin/python3",
    "~/.pyenv/versions/3.*/bin/python3",
    "~/.local/share/uv/python/cpython-3.*/bin/python3",
)
_MINORS = range(11, 30)


def candidates() -> list[str]:
    """Paths that may be interpreters."""
    named = os.environ.get(VARIABLE, "")
    if named:
        return named.split(":")
    on_path = [shutil.which(f"python3.{minor}") for minor in _MINORS]
    in_places = [path for pattern in _PLACES for path in sorted(glob.glob(os.path.expanduser(pattern)))]
    return [path for path in (*on_path, *in_places) if path is not None and not path.endswith("-config")]


def find() -> tuple[dict[str, str], list[str]]:
    """One interpreter for each minor version that the daemon does not have itself; and why others are none."""
    own = interpreters.find().version
    found: dict[str, str] = {}
    unfit: list[str] = []
    for path in dict.fromkeys(candidates()):
        version = _version(path)
        if version == own or version in found or not (VERSION.fullmatch(version) or os.environ.get(VARIABLE)):
            continue
        try:
            interpreters.inspect(version, path)
        except interpreters.Unfit as error:
            unfit.append(str(error))
        else:
            found[version] = path
    return dict(sorted(found.items())), unfit


def _version(path: str) -> str:
    """What it says of itself; "" for what says nothing."""
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(
            [path, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=20, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip()
