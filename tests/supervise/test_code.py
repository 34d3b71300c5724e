"""What a fresh interpreter runs: the daemon's own modules, all of them, and without a trace of the host."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile

import pytest

from runagentd.supervise import code
from runagentd.wire import launch as wire
from tests.runner.driver import ROOT

PACKAGE = ROOT / "runagentd"

_QUESTION = f"""
import sys
sys.path.append({wire.CODE_PATH!r})
import runagentd.launch.fresh
import json
ours = [module for name, module in sys.modules.items() if name.split(".")[0] == "runagentd"]
print(json.dumps([
    sorted(module.__name__ for module in ours),
    sorted({{module.__spec__.origin for module in ours}}),
    runagentd.launch.fresh.main.__code__.co_filename,
]))
"""


def test_a_bare_interpreter_can_import_all_of_it_from_a_descriptor() -> None:
    """With nothing of ours on any path, as inside the jail."""
    descriptor = code.sealed_zip(PACKAGE)
    try:
        os.set_inheritable(descriptor, True)
        place = f"import os, sys; os.dup2({descriptor}, {wire.CODE_DESCRIPTOR})"
        script = f"{place}; os.execve(sys.executable, sys.argv[1:], {{}})"
        bare = [os.path.realpath(sys.executable), "-I", "-S", "-E", "-B", "-X", "frozen_modules=on", "-c", _QUESTION]
        done = subprocess.run(
            [sys.executable, "-c", script, *bare], pass_fds=[descriptor], capture_output=True, text=True, timeout=60,
            cwd="/", check=False,
        )  # fmt: skip
    finally:
        os.close(descriptor)
    assert done.returncode == 0, done.stderr
    modules, origins, filename = json.loads(done.stdout)
    assert {"runagentd.kernel", "runagentd.launch.fresh", "runagentd.runner.main", "runagentd.wire.launch"} < set(
        modules
    )
    assert "runagentd.runner.rehearsal" not in modules
    assert all(origin.startswith(f"{wire.CODE_PATH}/runagentd/") for origin in origins)
    assert filename == "/runagentd/runagentd/launch/fresh.py"


def test_nobody_can_change_it() -> None:
    """It is sealed: not even its maker can (fcntl(2), F_ADD_SEALS)."""
    descriptor = code.sealed_zip(PACKAGE)
    try:
        again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
        with pytest.raises(PermissionError):
            os.write(again, b"x")
        with pytest.raises(PermissionError):
            os.ftruncate(again, 0)
        os.close(again)
    finally:
        os.close(descriptor)


def test_it_says_nothing_of_the_host_and_is_the_same_each_time() -> None:
    """Where the daemon is installed is none of an agent's business."""
    made = code.make_zip(PACKAGE)
    assert str(ROOT).encode() not in made
    assert made == code.make_zip(PACKAGE)
    names = zipfile.ZipFile(io.BytesIO(made)).namelist()
    assert "runagentd/launch/steps.pyc" in names
    assert {name.split("/")[1] for name in names} == {
        "__init__.pyc", "kernel.pyc", "names.pyc", "launch", "runner", "wire",
    }  # fmt: skip
