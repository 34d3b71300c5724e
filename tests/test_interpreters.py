"""The runtime that agents see is complete, and is not more than that: tried in a root that has nothing else."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import runagentd
from runagentd import interpreters
from runagentd.builder.jail import INSTALLER, WHEELS
from runagentd.launch import base_jail
from runagentd.launch.steps import NEW_ROOT
from runagentd.plan.model import APP, ENVIRONMENT
from runagentd.wire.build import STAGE
from runagentd.wire.runtime import PythonRuntime
from tests import second_python

OWN = f"{sys.version_info.major}.{sys.version_info.minor}"

# Runs as root in namespaces of its own: an empty root with the runtime bound into it, then the interpreter there.
_JAIL = """
import os, sys
sys.path.append(sys.argv[1])
from runagentd import kernel
root, interpreter, code, *rest = sys.argv[2:]
split = rest.index("--")
kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWNET)
kernel.mount("none", "/", "none", kernel.MS_REC | kernel.MS_PRIVATE)
kernel.mount("root", root, "tmpfs", 0, "size=1m")
for path in rest[:split]:
    target = root + path
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        open(target, "x").close()
    kernel.mount(path, target, "none", kernel.MS_BIND)
for link in rest[split + 1:]:
    name, _, target = link.partition("=")
    os.makedirs(os.path.dirname(root + name), exist_ok=True)
    os.symlink(target, root + name)
os.chroot(root)
os.chdir("/")
os.execve(interpreter, [interpreter, "-I", "-S", "-E", "-B", "-c", code], {})
"""

_IMPORTS = """
import asyncio, bz2, ctypes, datetime, hashlib, importlib, json, lzma, os, sqlite3, ssl, sys, uuid, zlib, zoneinfo
import multiprocessing.shared_memory, readline, curses, decimal, unicodedata, xml.parsers.expat
print(datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset())
print(sqlite3.connect(":memory:").execute("select 6 * 7").fetchone()[0])
print(bz2.decompress(bz2.compress(lzma.decompress(lzma.compress(zlib.compress(b"x"))))) == zlib.compress(b"x"))
print(ctypes.CDLL(None).getpid() == os.getpid(), len(hashlib.sha3_256(b"").hexdigest()), len(ssl.RAND_bytes(4)))
print(asyncio.run(asyncio.sleep(0, "slept")))
"""

_SEES = """
import os
found = []
for folder, folders, files in os.walk("/", onerror=None):
    found += [os.path.join(folder, file) for file in files]
for path in found:
    print(path)
"""


def known() -> list[str]:
    running = os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)
    distribution = shutil.which("python3.11", path="/usr/bin")
    return sorted({running, os.path.realpath(distribution or running)})


def run_in_jail(files: PythonRuntime, code: str, tmp_path: Path) -> str:
    root = tmp_path / "root"
    root.mkdir()
    package = str(Path(str(runagentd.__path__[0])).parent)
    bound = [*files.paths, "--", *(f"{link.path}={link.target}" for link in files.links)]
    command = [sys.executable, "-I", "-S", "-c", _JAIL, package, str(root), files.interpreter, code, *bound]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.root
@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("interpreter", known())
def test_the_whole_standard_library_works_with_nothing_else_in_the_root(interpreter: str, tmp_path: Path) -> None:
    output = run_in_jail(interpreters.inspect(OWN, interpreter), _IMPORTS, tmp_path)
    assert output.splitlines() == ["2:00:00", "42", "True", "True 64 4", "slept"]


@pytest.mark.root
@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("interpreter", known())
def test_of_the_host_nothing_is_seen_but_the_runtime(interpreter: str, tmp_path: Path) -> None:
    files = interpreters.inspect(OWN, interpreter)
    seen = run_in_jail(files, _SEES, tmp_path).splitlines()
    assert len(seen) > 500
    links = {link.path for link in files.links}
    roots = tuple(f"{path}/" for path in files.paths)
    outside = [path for path in seen if path not in links and path not in files.paths and not path.startswith(roots)]
    assert outside == []
    forbidden = ("/etc/passwd", "/etc/shadow", "/etc/ssl/private", "/home/", "/var/", "/run/", "/usr/lib/python3/")
    assert [path for path in seen if path.startswith(forbidden)] == []


@pytest.mark.parametrize("interpreter", known())
def test_paths_are_real_and_none_lies_below_another(interpreter: str) -> None:
    files = interpreters.inspect(OWN, interpreter)
    assert files.interpreter == interpreter
    assert files.version == OWN
    for path in files.paths:
        assert os.path.realpath(path) == path
        assert not any(path.startswith(f"{other}/") for other in files.paths)


def unfit(path: str | Path, version: str = OWN) -> tuple[str, tuple[str, ...]]:
    with pytest.raises(interpreters.Unfit) as caught:
        interpreters.inspect(version, str(path))
    return str(caught.value), caught.value.hints


def test_an_interpreter_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    assert unfit(tmp_path / "python") == (f"{tmp_path}/python: no such file or directory", ())


def test_a_script_that_starts_an_interpreter_is_not_one(tmp_path: Path) -> None:
    """As the shims of pyenv are: in a sandbox there is no shell, and nothing else that they would find."""
    (tmp_path / "python").write_text('#!/bin/sh\nexec python3 "$@"\n')
    assert unfit(tmp_path / "python") == (
        f"{tmp_path}/python is a script or another file that is no program", ("name the interpreter that it starts",),
    )  # fmt: skip


@pytest.mark.parametrize(("place", "byte"), [(4, b"\x01"), (18, b"\x08")], ids=["32 bits", "MIPS"])
def test_a_program_for_another_machine_is_not_started(tmp_path: Path, place: int, byte: bytes) -> None:
    header = bytearray(Path(sys.executable).read_bytes()[:64])
    header[place : place + 1] = byte
    (tmp_path / "python").write_bytes(header)
    assert unfit(tmp_path / "python")[0] == (
        f"{tmp_path}/python is a program for another kind of processor, or of 32 bits"
    )


@pytest.mark.root
@pytest.mark.parametrize(("owner", "mode"), [(65534, 0o755), (0, 0o775), (0, 0o757)])
@pytest.mark.parametrize("part", ["bin", "bin/python"])
def test_what_others_than_root_can_change_is_never_run(tmp_path: Path, part: str, owner: int, mode: int) -> None:
    """The interpreter is run as root, and every zygote is one."""
    folder = tmp_path / "bin"
    folder.mkdir(mode=0o755)
    shutil.copyfile(interpreters.own(), folder / "python")
    (folder / "python").chmod(0o755)
    changed = tmp_path / part
    os.chown(changed, owner, 0)
    changed.chmod(mode)
    assert unfit(folder / "python") == (
        f"{changed} can be changed by others than root, and root runs what is there",
        (f"chown root {changed} and chmod go-w {changed}, or install it elsewhere",),
    )


@pytest.mark.root
def test_a_program_that_is_no_python_is_told_in_its_own_words(tmp_path: Path) -> None:
    true = os.path.realpath("/bin/true")
    assert unfit(true)[0] == f"{true}: the Python interpreter cannot be run: it ended with status 0"


@pytest.mark.root
def test_an_interpreter_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreters, "_QUESTION", "import time; time.sleep(3600)  # %r")
    with pytest.raises(interpreters.Unfit, match=r"it did not end in 0\.1 s"):
        interpreters.inspect(OWN, interpreters.own(), seconds=0.1)


@pytest.mark.root
@pytest.mark.parametrize(
    ("told", "version", "problem"),
    [
        ({"implementation": "pypy"}, OWN, "is pypy, and agents run on CPython"),
        ({"version": [3, 10]}, "3.10", "is Python 3.10, and agents run on 3.11 or newer"),
        ({"version": [3, 14]}, "3.13", "is Python 3.14"),
        ({"free_threaded": True}, OWN, "is a free-threaded build, on which no agent was ever tried"),
        ({"missing": ["sqlite3", "ssl"]}, OWN, "was built without sqlite3, ssl"),
    ],
)
def test_what_agents_cannot_run_on_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, object], version: str, problem: str
) -> None:
    """As other interpreters answer."""
    answer = interpreters._told(interpreters.own(), 60)
    monkeypatch.setattr(interpreters, "_told", lambda interpreter, seconds: {**answer, **told})
    assert unfit(interpreters.own(), version)[0] == f"{interpreters.own()} {problem}"


@pytest.mark.root
def test_it_says_what_agents_and_packages_can_tell_it_by() -> None:
    found = interpreters.inspect(OWN, interpreters.own())
    assert (found.release, found.build) == (platform.python_version(), sys.version)
    assert found.abi.startswith(f"{sys.implementation.cache_tag} {found.release} {platform.machine()} ")
    assert found.prefix == sys.base_prefix
    assert found == interpreters.find()


@pytest.mark.root
@pytest.mark.slow
def test_what_a_sandbox_would_cover_is_no_place_for_a_runtime(tmp_path: Path) -> None:
    """An interpreter below /tmp is gone once an agent has its own /tmp."""
    assert tmp_path.is_relative_to("/tmp")
    interpreter = second_python.copy_to(tmp_path / "python")
    assert unfit(interpreter)[0] == (f"{interpreter} is covered in every sandbox, which has a place of its own there")


def test_the_places_that_are_covered_are_those_that_sandboxes_have() -> None:
    places = (APP, ENVIRONMENT, NEW_ROOT, STAGE, INSTALLER, WHEELS, base_jail._PACKAGE_FOLDER, "/dev", "/proc", "/tmp")
    assert sorted(places) == list(interpreters.SANDBOXES_OWN)
