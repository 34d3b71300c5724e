"""How a process is made: forks of one interpreter share its address layout and hash seed, fresh ones share nothing."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runagentd.wire.launch import FRESH_ARGUMENTS
from tests.system.daemon import Daemon, serve
from tests.system.folders import agent, policy

pytestmark = [pytest.mark.root, pytest.mark.slow]

SOURCE = """
    import os, sys

    def seeds() -> dict:
        places = {}
        for line in open("/proc/self/maps"):
            fields = line.split()
            name = fields[-1].rpartition("/")[2]
            if name.startswith(("libc.so", "libc-", "[stack]")):
                places.setdefault(name, fields[0].partition("-")[0])
        return {"hash": hash("a text"), "function": id(len), "object": id(object), **places}

    def start_a_program() -> str:
        pid = os.fork()
        if pid == 0:
            try:
                os.execv(sys.executable or "/usr/bin/python3", ["python3", "-c", "pass"])
            except OSError as error:
                os._exit(error.errno)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def traces() -> dict:
        return {
            "arguments": open("/proc/self/cmdline").read().split("\\0")[1:-1],
            "environment": open("/proc/self/environ").read() if os.access("/proc/self/environ", os.R_OK) else "",
            "argv": sys.argv,
            "orig_argv": sys.orig_argv,
            "path": [entry for entry in [*sys.path, *sys.path_importer_cache] if "/fd/" in entry],
            "modules": sorted(name for name in sys.modules if name.startswith("runagentd")),
            "zip": sorted(sys.modules["zipimport"]._zip_directory_cache) if "zipimport" in sys.modules else [],
            "main": sorted(set(vars(sys.modules["__main__"])) - set(dir(type(sys)("x")))),
            "descriptors": sorted(os.readlink(f"/proc/self/fd/{n}").partition(":")[0]
                                  for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")),
            "mapped": sorted({line.split()[-1] for line in open("/proc/self/maps") if "memfd" in line}),
        }

    def fail() -> None:
        raise ValueError("as it should")
"""
TAGS = ("seeds", "start_a_program", "traces", "fail")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("spawn")
    fresh = policy(place, "fresh", '[process]\nspawn = "exec"\n')
    names = ("forked one", "forked two", "fresh one", "fresh two")
    policies = [f"{name}={fresh}" for name in names if name.startswith("fresh")]
    with serve([agent(place, name, SOURCE, *TAGS) for name in names], policies=policies) as running:
        yield running


def ask(daemon: Daemon, name: str, tag: str) -> Any:
    """The result of a call. Any: JSON."""
    status, answer = daemon.call(name, tag)
    assert status == 200, answer
    return answer


def fixed() -> list[str]:
    """What lies at the same place in every process: the program itself, where it was linked to one (elf(5), ET_EXEC).

    Debian builds its python3 so, and CPython's own data are part of it unless they are in a libpython.
    """
    with open(sys.executable, "rb") as file:
        linked = struct.unpack_from("=H", file.read(18), 16)[0] == 2
    if not linked:
        return []
    # This process runs the same program.
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(address, 16) for address in line.split()[0].split("-"))
        if first <= id(object) < last:
            return ["object"] if line.endswith(str(Path(sys.executable).resolve())) else []
    raise AssertionError("a type lies nowhere")


def test_two_fresh_interpreters_have_nothing_in_common(daemon: Daemon) -> None:
    """Hash seed, stack, C library, and where CPython's own functions lie."""
    one, other = ask(daemon, "fresh one", "seeds"), ask(daemon, "fresh two", "seeds")
    assert len(one) == 5
    assert [key for key in one if one[key] == other[key]] == fixed()


def test_a_fresh_interpreter_of_the_same_agent_is_another_one_each_time(daemon: Daemon) -> None:
    """What leaked from one instance is of no use against the next."""
    before, row = ask(daemon, "fresh one", "seeds"), daemon.row("fresh one")
    daemon.restart("fresh one")
    daemon.wait_until_ready("fresh one", other_than=row.instance)
    after = ask(daemon, "fresh one", "seeds")
    assert [key for key in before if before[key] == after[key]] == fixed()


def test_two_forks_have_it_all_in_common(daemon: Daemon) -> None:
    """The control: without this the two tests above would say nothing."""
    one, other = ask(daemon, "forked one", "seeds"), ask(daemon, "forked two", "seeds")
    assert one == other


def test_it_still_cannot_start_a_program(daemon: Daemon) -> None:
    """It was started by an exec itself; the filter and Landlock came after that."""
    assert ask(daemon, "fresh one", "start_a_program") == 1  # EPERM


def test_nothing_of_how_it_was_started_is_left(daemon: Daemon) -> None:
    """But its arguments, which say nothing of the host."""
    assert ask(daemon, "fresh one", "traces") == {
        "arguments": list(FRESH_ARGUMENTS),
        "environment": "",
        "argv": ["agent.py"],
        "orig_argv": ["python3", "agent.py"],
        "path": [],
        "modules": [],
        "zip": [],
        "main": ["__builtins__"],
        "descriptors": ["/dev/null", "pipe", "pipe", "socket", "socket"],
        "mapped": [],
    }


def test_its_errors_are_the_agents_alone(daemon: Daemon) -> None:
    """A traceback shows none of the frames that led to the function, although those come from no file."""
    assert daemon.call("fresh one", "fail")[1]["exception"] == "ValueError"
    daemon.call("fresh one", "fail")
    logs = list((daemon.state_dir / "gateway" / "logs").glob("*.log"))
    text = "".join(path.read_text() for path in logs)
    assert "as it should" in text
    assert "runagentd" not in text
