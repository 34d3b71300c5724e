"""Find the files of the host that a bare Python interpreter needs, by asking it: what every agent sees read-only.

Runs as: the supervisor, the foreman and runagentctl, before any agent is served. Runs interpreters, as root.
Reads from strangers: nothing; the interpreters are the daemon's own and those that the operator has named.
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
from typing import Any

from runagentd import changeable
from runagentd.errors import HostError
from runagentd.wire.runtime import OLDEST, PythonRuntime, RuntimeLink

# Imports every extension module of the standard library that agents use, then tells what the process has mapped.
# _tkinter would bring X11; the others exist for CPython's own tests.
_QUESTION = """
import importlib, json, os, platform, sys, sysconfig
found = {
    "implementation": sys.implementation.name,
    "version": list(sys.version_info[:2]),
    "release": platform.python_version(),
    "build": sys.version,
    "prefix": sys.prefix,
    "abi": " ".join((
        sys.implementation.cache_tag or "", platform.python_version(), platform.machine(),
        "-".join(platform.libc_ver()),
    )),
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "missing": [],
}
for name in %r:
    try:
        importlib.import_module(name)
    except ImportError:
        found["missing"].append(name)
for folder in [path for path in sys.path if path.endswith("lib-dynload")]:
    for file in sorted(os.listdir(folder)):
        name = file.partition(".")[0]
        if not name.startswith(("_test", "_tkinter", "xx", "_xx", "_ctypes_test")):
            try:
                importlib.import_module(name)
            except ImportError:
                pass
mapped = {line.split(None, 5)[5].rstrip() for line in open("/proc/self/maps") if line.count("/")}
found["stdlib"] = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
found["multiarch"] = sysconfig.get_config_var("MULTIARCH") or ""
found["mapped"] = sorted(path for path in mapped if path.startswith("/"))
found["certificates"] = []
if "ssl" not in found["missing"]:
    import ssl
    verify = ssl.get_default_verify_paths()
    found["certificates"] = [verify.openssl_cafile, verify.openssl_capath]
print(json.dumps(found))
"""
_MODULES = ("ctypes", "sqlite3", "ssl")
"""What the zygote cannot do without, and a build of CPython may lack, where a library was missing when it was made."""
_SECONDS = 60
NAMED_SECONDS = 20.0
"""For all that an operator names together: whoever waits for it minds nothing else."""
SANDBOXES_OWN = ("/app", "/dev", "/env", "/new", "/proc", "/runagentd", "/stage", "/tmp", "/uv", "/wheels")
"""Where a sandbox, a builder or the zygote's jail has something of its own, which would cover what lies there."""
_ZONEINFO = "/usr/share/zoneinfo"
_TOP_LEVEL_LINKS = ("/bin", "/lib", "/lib32", "/lib64", "/sbin")


class Unfit(Exception):
    """Agents cannot run on an interpreter that the operator has named: one sentence about it, and hints."""

    def __init__(self, what: str, *hints: str) -> None:
        super().__init__(what)
        self.hints = hints


def find() -> PythonRuntime:
    """The runtime of the interpreter that this process runs. HostError where it cannot be asked."""
    interpreter = own()
    try:
        return _runtime(interpreter, _told(interpreter, _SECONDS))
    except Unfit as unfit:
        raise HostError(str(unfit), *unfit.hints) from unfit


def own() -> str:
    """The real path of the interpreter that this process runs, without a virtual environment around it."""
    # _base_executable, undocumented but stable, is the interpreter that a virtual environment was made from.
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def inspect(version: str, path: str, *, seconds: float = NAMED_SECONDS) -> PythonRuntime:
    """What the interpreter at `path` is, which an operator has named as the CPython `version`: `Unfit` where it is not.

    It is run, as root, and at most for so many seconds.
    """
    interpreter = os.path.realpath(path)
    try:
        kind = _kind(interpreter)
    except OSError as error:
        raise Unfit(f"{path}: {(error.strerror or 'cannot be opened').lower()}") from error
    if kind is None:
        raise Unfit(f"{path} is a script or another file that is no program", "name the interpreter that it starts")
    if kind != _kind(own()):
        raise Unfit(f"{path} is a program for another kind of processor, or of 32 bits")
    if changer := _changeable(interpreter):
        raise _foreign(changer)
    told = _told(interpreter, seconds)
    if told["implementation"] != "cpython":
        raise Unfit(f"{path} is {told['implementation']!s:.40}, and agents run on CPython")
    is_version = ".".join(map(str, told["version"]))
    if tuple(told["version"]) < OLDEST:
        raise Unfit(f"{path} is Python {is_version}, and agents run on {'.'.join(map(str, OLDEST))} or newer")
    if is_version != version:
        raise Unfit(f"{path} is Python {is_version}", f'name it as "{is_version}"')
    if told["free_threaded"]:
        raise Unfit(f"{path} is a free-threaded build, on which no agent was ever tried", "name a usual build")
    if told["missing"]:
        raise Unfit(
            f"{path} was built without {', '.join(told['missing'])}",
            "install what these modules need (libffi, SQLite, OpenSSL), and build it again",
        )
    try:
        runtime = _runtime(interpreter, told)
    except OSError as error:
        raise Unfit(f"{path}: what it needs cannot be read: {error}") from error
    for place in runtime.paths:
        if changer := _changeable(place):
            raise _foreign(changer)
        if any(place == covered or place.startswith(f"{covered}/") for covered in SANDBOXES_OWN):
            raise Unfit(f"{place} is covered in every sandbox, which has a place of its own there", "move it elsewhere")
    return runtime


# Any: JSON of our own question.
def _told(interpreter: str, seconds: float) -> dict[str, Any]:
    command = [interpreter, "-I", "-S", "-E", "-B", "-c", _QUESTION % (_MODULES,)]
    try:
        answer = subprocess.run(
            command, env={}, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
        told = json.loads(answer.stdout)
    except subprocess.TimeoutExpired as error:
        raise Unfit(f"{interpreter}: the Python interpreter cannot be run: it did not end in {seconds:g} s") from error
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise Unfit(f"{interpreter}: the Python interpreter cannot be run: {words}") from error
    except ValueError as error:
        said = answer.stderr.decode("utf-8", "replace").strip().splitlines()
        words = said[-1][:200] if said else f"it ended with status {answer.returncode}"
        raise Unfit(f"{interpreter}: the Python interpreter cannot be run: {words}") from error
    if not isinstance(told, dict) or "certificates" not in told:
        raise Unfit(f"{interpreter}: the Python interpreter cannot be run: it answers something else")
    return told


def _runtime(interpreter: str, told: dict[str, Any]) -> PythonRuntime:
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
    paths += [_ZONEINFO, *(_certificates(*told["certificates"]) if told["certificates"] else ())]
    return PythonRuntime(
        version=".".join(map(str, told["version"])),
        release=told["release"],
        build=told["build"],
        abi=told["abi"],
        prefix=told["prefix"],
        interpreter=interpreter,
        paths=_reduced(paths),
        links=tuple(RuntimeLink(path=path, target=target) for path, target in dict.fromkeys(links)),
    )


def _foreign(path: str) -> Unfit:
    return Unfit(
        f"{path} can be changed by others than root, and root runs what is there",
        f"chown root {path} and chmod go-w {path}, or install it elsewhere",
    )


def _changeable(path: str) -> str:
    """The file, or the first folder on the way to it, that others than root can change; "" where nobody else can."""
    if changeable.by(os.stat(path), (0,), sticky=True):
        return path
    return changeable.on_the_way(path, (0,))[0]


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


def _kind(program: str) -> tuple[int, int] | None:
    """EI_CLASS and e_machine of an ELF file (elf(5)); None for any other file. OSError where it cannot be read."""
    with open(program, "rb") as file:
        header = file.read(64)
    if len(header) < 64 or header[:4] != b"\x7fELF":
        return None
    return header[4], struct.unpack_from("<H", header, 18)[0]


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
