"""The code of a fresh interpreter: the launcher's and the runner's modules as a zip that nobody can change.

Runs as: the supervisor.
Reads from strangers: nothing; the daemon's own modules.
A sandbox has no mount of the daemon's package, and its interpreter is exec'd without one: it is given this descriptor,
imports from it, and closes it before it carries out a step.
"""

from __future__ import annotations

import importlib.util
import io
import marshal
import os
import subprocess
import types
import zipfile
from importlib.machinery import SourceFileLoader
from pathlib import Path

from runagentd import kernel
from runagentd.errors import HostError

_PACKAGES = ("", "launch", "runner", "wire")
_TOP_LEVEL = ("__init__.py", "kernel.py", "names.py")
_ROOT = "/runagentd"
"""What tracebacks and code objects say of where the code lies: as in a fork of the zygote, and nowhere on the host."""

# PEP 552: the bytecode is never compared with a source, of which there is none.
_UNCHECKED = 0b01
_HEAD = importlib.util.MAGIC_NUMBER + _UNCHECKED.to_bytes(4, "little") + bytes(8)


_ELSEWHERE = (
    "import sys; sys.path.append(sys.argv[1]); from pathlib import Path; from runagentd.supervise import code; "
    "sys.stdout.buffer.write(code.make_zip(Path(sys.argv[2])))"
)
_ELSEWHERE_SECONDS = 60


def sealed_zip(package: Path, interpreter: str = "") -> int:
    """A descriptor of a sealed memfd with the modules of `package`, compiled for this very Python, or for another.

    HostError where `interpreter` does not do that; it takes a second at most, and blocks.
    """
    return kernel.sealed_memfd("code", _made_by(interpreter, package) if interpreter else make_zip(package))


def _made_by(interpreter: str, package: Path) -> bytes:
    """Bytecode is one version's own: what has to run it makes it, with this very module."""
    command = [interpreter, "-I", "-S", "-E", "-B", "-c", _ELSEWHERE, str(package.parent), str(package)]
    try:
        done = subprocess.run(
            command, env={}, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=_ELSEWHERE_SECONDS,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{interpreter}: the Python interpreter cannot be run: {error}") from error
    # Not its exit status: the supervisor's own reaping may have been faster.
    if not zipfile.is_zipfile(io.BytesIO(done.stdout)):
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise HostError(f"{interpreter} does not compile the runner: {words[-1][:200] if words else 'no word of it'}")
    return done.stdout


def make_zip(package: Path) -> bytes:
    """The zip itself: the same for the same modules."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for source in _sources(package):
            name = "/".join(("runagentd", *source.relative_to(package).parts))
            code = _renamed(_compiled(source), f"{_ROOT}/{name}")
            archive.writestr(zipfile.ZipInfo(f"{name}c"), _HEAD + marshal.dumps(code))
    return file.getvalue()


def _sources(package: Path) -> list[Path]:
    found = []
    for part in _PACKAGES:
        names = _TOP_LEVEL if not part else sorted(name for name in os.listdir(package / part) if name.endswith(".py"))
        found += [package / part / name for name in names]
    return found


def _compiled(source: Path) -> types.CodeType:
    # The loader takes what lies in __pycache__: to compile all of it takes half a second.
    code = SourceFileLoader(source.stem, str(source)).get_code(source.stem)
    if code is None:
        raise ImportError(f"{source} has no code", path=str(source))
    return code


def _renamed(code: types.CodeType, filename: str) -> types.CodeType:
    constants = tuple(
        _renamed(constant, filename) if isinstance(constant, types.CodeType) else constant
        for constant in code.co_consts
    )
    return code.replace(co_filename=filename, co_consts=constants)
