"""Compile what was installed, for an environment is read-only: nobody could keep bytecode in it later.

Runs as: the builder, confined.
Reads from strangers: source text of packages. Compiling runs none of it; what cannot be compiled stays source.
Equal sources give equal bytes: an environment is named by its contents, and those that are equal are to be one. So the
order, the shares and the hash seed are fixed, and what a file says of its source is a hash, not a time (PEP 552).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

_SHARES = 4
_PROGRAM = """
import compileall, py_compile, sys, warnings
warnings.simplefilter("ignore")
site, seen_at, files = sys.argv[1], sys.argv[2], sys.stdin.read().split("\\0")
for file in files:
    try:
        compileall.compile_file(
            file, stripdir=site, prependdir=seen_at, force=True, quiet=2,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
    except (Exception, RecursionError):
        pass
"""


def compile_all(site: str, *, seen_at: str) -> None:
    """Each .py file below `site` gets its bytecode, which says that it lies below `seen_at`."""
    files = sorted(
        os.path.join(folder, name)
        for folder, _, names in os.walk(site)
        for name in names
        if name.endswith(".py") and not os.path.islink(os.path.join(folder, name))
    )
    running = []
    for share in range(_SHARES):
        process = subprocess.Popen(
            # Not -I: that would ignore the hash seed.
            [sys.executable, "-P", "-s", "-S", "-B", "-c", _PROGRAM, site, seen_at],
            env={"PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        running.append(process)
        if process.stdin is not None:
            with contextlib.suppress(OSError), process.stdin as names:
                names.write(os.fsencode("\0".join(files[share::_SHARES])))
    for process in running:
        process.wait()
