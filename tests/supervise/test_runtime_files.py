"""The runtime that agents see is complete, and is not more than that: tried in a root that has nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import runagentd
from runagentd.errors import HostError
from runagentd.supervise import runtime_files

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


def interpreters() -> list[str]:
    running = os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)
    distribution = shutil.which("python3.11", path="/usr/bin")
    return sorted({running, os.path.realpath(distribution or running)})


def run_in_jail(files: runtime_files.RuntimeFiles, code: str, tmp_path: Path) -> str:
    root = tmp_path / "root"
    root.mkdir()
    package = str(Path(str(runagentd.__path__[0])).parent)
    bound = [*files.paths, "--", *(f"{link}={target}" for link, target in files.links)]
    command = [sys.executable, "-I", "-S", "-c", _JAIL, package, str(root), files.interpreter, code, *bound]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.root
@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("interpreter", interpreters())
def test_the_whole_standard_library_works_with_nothing_else_in_the_root(interpreter: str, tmp_path: Path) -> None:
    output = run_in_jail(runtime_files.find(interpreter), _IMPORTS, tmp_path)
    assert output.splitlines() == ["2:00:00", "42", "True", "True 64 4", "slept"]


@pytest.mark.root
@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("interpreter", interpreters())
def test_of_the_host_nothing_is_seen_but_the_runtime(interpreter: str, tmp_path: Path) -> None:
    files = runtime_files.find(interpreter)
    seen = run_in_jail(files, _SEES, tmp_path).splitlines()
    assert len(seen) > 500
    links = {link for link, _ in files.links}
    roots = tuple(f"{path}/" for path in files.paths)
    outside = [path for path in seen if path not in links and path not in files.paths and not path.startswith(roots)]
    assert outside == []
    forbidden = ("/etc/passwd", "/etc/shadow", "/etc/ssl/private", "/home/", "/var/", "/run/", "/usr/lib/python3/")
    assert [path for path in seen if path.startswith(forbidden)] == []


@pytest.mark.parametrize("interpreter", interpreters())
def test_paths_are_real_and_none_lies_below_another(interpreter: str) -> None:
    files = runtime_files.find(interpreter)
    assert files.interpreter == interpreter
    assert files.python_version >= (3, 11)
    for path in files.paths:
        assert os.path.realpath(path) == path
        assert not any(path.startswith(f"{other}/") for other in files.paths)


def test_an_interpreter_that_cannot_be_run_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="the Python interpreter cannot be run"):
        runtime_files.find(str(tmp_path / "python"))
