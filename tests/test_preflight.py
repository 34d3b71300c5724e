"""What a machine lacks is said in one sentence, with what to do about it, and never as a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
APT = "hint: apt-get install --yes --no-install-recommends ca-certificates git libseccomp2 make python3 python3-venv\n"


def preflight(tmp_path: Path, *arguments: str, **programs: str) -> tuple[int, str]:
    """Run .ci/preflight where `programs` (name → shell script) come before those of the machine; status and stderr."""
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [ROOT / ".ci/preflight", *arguments],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def python_without(word: str) -> str:
    return f'case "$*" in *{word}*) exit 1;; esac; exec {sys.executable} "$@"'


def test_a_machine_that_has_all_is_not_spoken_to(tmp_path: Path) -> None:
    """Status 0 and no output."""
    assert preflight(tmp_path, sys.executable) == (0, "")


def test_another_user_than_root_is_told_why(tmp_path: Path) -> None:
    """Only where root is needed: `make lint` works for everybody."""
    sentence = "this needs root: sandboxes are made with namespaces, cgroups and uids of their own\n"
    hint = "hint: run it with sudo, or as root in a virtual machine\n"
    assert preflight(tmp_path, "--root", sys.executable, id="echo 1000") == (1, sentence + hint)
    assert preflight(tmp_path, sys.executable, id="echo 1000") == (0, "")


@pytest.mark.parametrize(
    ("word", "sentence", "hint"),
    [
        ("version_info", "py is older than Python 3.11\n", "hint: name another one: make PYTHON=python3.11\n"),
        ("ensurepip", "Python's venv module is missing\n", APT),
        ("libseccomp", "libseccomp.so.2 is missing\n", APT),
    ],
)
def test_a_missing_part_is_named_with_its_remedy(tmp_path: Path, word: str, sentence: str, hint: str) -> None:
    """Each is asked for by using it, so that it counts wherever it comes from."""
    assert preflight(tmp_path, "py", py=python_without(word)) == (1, sentence + hint)


def test_a_missing_python_is_named(tmp_path: Path) -> None:
    """The apt-get line of README.md is the remedy."""
    assert preflight(tmp_path, "no-such-python") == (1, "no-such-python is missing\n" + APT)


def test_another_system_than_linux_is_refused(tmp_path: Path) -> None:
    """There are no namespaces elsewhere."""
    sentence = "runagentd needs Linux: its sandbox is made of namespaces, cgroups and seccomp\n"
    assert preflight(tmp_path, sys.executable, uname="echo Darwin") == (1, sentence)
