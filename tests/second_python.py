"""A second runtime of the version that everybody has: the running interpreter, copied with its standard library.

It stands in for another version where there is none: zygotes, mounts, digests and environments are by runtime, and not
by version. `make runtimes` tries real other versions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from runagentd import interpreters

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
_LEFT_OUT = ("test", "tests", "idlelib", "tkinter", "ensurepip", "lib2to3", "pydoc_data", "turtledemo", "config-*",
             "site-packages", "dist-packages")  # fmt: skip


def copy_to(prefix: Path) -> Path:
    """The interpreter, in `prefix`/bin: about 40 MB. What it is linked with stays where it is."""
    library = f"lib/python{VERSION}"
    stdlib = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix}))
    shutil.copytree(stdlib, prefix / library, ignore=shutil.ignore_patterns(*_LEFT_OUT), symlinks=False)
    interpreter = prefix / f"bin/python{VERSION}"
    interpreter.parent.mkdir()
    shutil.copy(interpreters.own(), interpreter)
    found = subprocess.run(
        [interpreter, "-I", "-S", "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if os.path.realpath(found) != os.path.realpath(prefix):
        raise AssertionError(f"a copy of {interpreters.own()} is no runtime of its own: its prefix is {found}")
    return interpreter
