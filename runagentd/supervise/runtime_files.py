"""Find the files of the host that a bare Python interpreter needs: what every agent sees read-only.

Runs as: the supervisor and runagentctl, before any agent is served.
Reads from strangers: nothing; the interpreter asked is the daemon's own, without a virtual environment around it.
Found by asking, not assumed to be /usr: an interpreter under a 0700 home works as well as the distribution's.
What is not needed is not named: no site-packages but what lies inside the standard library's own folder (that of an
interpreter built from source), no folder of the distribution's Python packages, nothing below /etc but certificates.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from dataclasses import dataclass

from runagentd.errors import HostError

# Imports every extension module of the standard library that agents use, then tells what the process has mapped.
# _tkinter would bring X11; the others exist for CPython's own tests.
_QUESTION = """
import importlib, json, os, ssl, sys, sysconfig
for folder in [path for path in sys.path if path.endswith("lib-dynload")]:
    for file in sorted(os.listdir(folder)):
        name = file.partition(".")[0]
        if not name.startswith(("_test", "_tkinter", "xx", "_xx", "_ctypes_test")):
            try:
                importlib.import_module(name)
            except ImportError:
                pass
mapped = {line.split(None, 5)[5].rstrip() for line in open("/proc/self/maps") if line.count("/")}
verify = ssl.get_default_verify_paths()
print(json.dumps({
    "version": list(sys.version_info[:2]),
    "stdlib": [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")],
    "multiarch": sysconfig.get_config_var("MULTIARCH") or "",
    "mapped": sorted(path for path in mapped if path.startswith("/")),
    "certificates": [verify.openssl_cafile, verify.openssl_capath],
}))
"""
_QUESTION_SECONDS = 60
_ZONEINFO = "/usr/share/zoneinfo"
_TOP_LEVEL_LINKS = ("/bin", "/lib", "/lib32", "/lib64", "/sbin")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeFiles:
    """See the fields of the same names in `plan.facts.HostFacts`."""

    interpreter: str
    python_version: tuple[int, int]
    paths: tuple[str, ...]
    links: tuple[tuple[str, str], ...]


def find(interpreter: str | None = None) -> RuntimeFiles:
    """The files of `interpreter`, or of the one that this process runs. HostError where it cannot be asked."""
    # _base_executable, undocumented but stable, is the interpreter that a virtual environment was made from.
    interpreter = os.path.realpath(interpreter or getattr(sys, "_base_executable", "") or sys.executable)
    try:
        answer = subprocess.run(
            [interpreter, "-I", "-S", "-E", "-B", "-c", _QUESTION],
            env={}, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=_QUESTION_SECONDS, check=True,
        )  # fmt: skip
        told = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise HostError(f"{interpreter}: the Python interpreter cannot be run: {error}") from error
    links = [(link, os.readlink(link)) for link in _TOP_LEVEL_LINKS if os.path.islink(link)]
    paths = [interpreter, *told["stdlib"]]
    for library in (path for path in told["mapped"] if ".so" in os.path.basename(path)):
        folder = os.path.dirname(library)
        # A folder of libraries for one architecture is bound as a whole: native parts of agents' own packages need
        # their libstdc++ and libgomp too. A general folder (/usr/lib, /usr/local/lib) is not.
        if os.path.basename(folder) == told["multiarch"] or os.path.basename(folder) == "lib64":
            paths.append(folder)
        else:
            paths.append(library)
            links += _names_of(library)
    loader = program_interpreter(interpreter)
    if loader:
        paths.append(os.path.dirname(loader))
    paths += [_ZONEINFO, *_certificates(*told["certificates"])]
    return RuntimeFiles(
        interpreter=interpreter,
        python_version=(told["version"][0], told["version"][1]),
        paths=_reduced(paths),
        links=tuple(dict.fromkeys(links)),
    )


def _reduced(paths: list[str]) -> tuple[str, ...]:
    """The real, existing ones of `paths`, without those that lie below another."""
    real = sorted({os.path.realpath(path) for path in paths if os.path.exists(path)})
    return tuple(path for path in real if not any(path.startswith(f"{other}/") for other in real))


def _certificates(file: str, folder: str) -> list[str]:
    """Where OpenSSL looks for certificate authorities, and where that really is; never a folder with private keys."""
    found = [os.path.realpath(folder), os.path.realpath(file)]
    home = os.path.dirname(file)
    if not os.path.isdir(f"{home}/private") or os.path.islink(f"{home}/private"):
        found.append(home)
    return found


def _names_of(library: str) -> list[tuple[str, str]]:
    """The symbolic links beside a library that lead to it: a program names libx.so.1, the file is libx.so.1.2.3."""
    folder, file = os.path.split(library)
    return [
        (entry.path, file)
        for entry in os.scandir(folder)
        if entry.is_symlink() and ".so." in entry.name and os.path.realpath(entry.path) == library
    ]


def program_interpreter(program: str) -> str:
    """PT_INTERP of an ELF file (elf(5)): the dynamic loader that execve(2) starts; "" where there is none."""
    with open(program, "rb") as file:
        header = file.read(64)
        if header[:4] != b"\x7fELF" or header[4] != 2:
            return ""
        offset: int = struct.unpack_from("<Q", header, 32)[0]
        size, count = struct.unpack_from("<HH", header, 54)
        file.seek(offset)
        table = file.read(size * count)
        for number in range(count):
            kind: int = struct.unpack_from("<I", table, number * size)[0]
            if kind == 3:
                where: int = struct.unpack_from("<Q", table, number * size + 8)[0]
                length: int = struct.unpack_from("<Q", table, number * size + 32)[0]
                file.seek(where)
                return file.read(length).rstrip(b"\0").decode()
    return ""
