"""`runagentctl describe` and `top` against a real daemon, on a pipe and on a terminal."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from runagentd.cli import describe_commands
from runagentd.wire import record, traffic
from runagentd.wire.figures import Count
from tests.system.ctl import run
from tests.system.daemon import ROOT, Daemon, serve
from tests.system.folders import agent, policy
from tests.wire.messages import DESCRIBED, MANIFEST, TRAFFIC

SOURCE = """
    import time

    def nap(seconds: float) -> None:
        time.sleep(seconds)

    def fail() -> None:
        raise ValueError("no")
"""
HOSTILE = "\x1b[2J\r\nroot# "


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("seeing")
    two = policy(place, "two", "[scaling]\ninstances_max = 2\n[calls]\ndeadline = '30s'\n")
    with serve([agent(place, "napper", SOURCE, "nap", "fail")], policies=[f"napper={two}"]) as running:
        yield running


@pytest.mark.root
@pytest.mark.slow
def test_describe_is_one_screen(daemon: Daemon) -> None:
    """What it is and may have, its instances and entrypoints with what was called, and how the last ones ended."""
    assert daemon.call("napper", "nap", {"seconds": 0.03})[0] == 200
    assert daemon.call("napper", "fail")[0] == 502
    before = daemon.wait_until_ready("napper")
    assert run("restart", "napper", state=daemon.state_dir)[0] == 0
    row = daemon.wait_until_ready("napper", other_than=before.instance)
    status, out, err = run("describe", "napper", state=daemon.state_dir)
    assert (status, err) == (0, "")
    assert out.count("\n") <= 24
    assert f"  id         {row.agent}\n" in out
    assert re.search(r"^  version    v1 [0-9a-f]{64} \(default\)$", out, re.MULTILINE)
    assert re.search(r"^  policy     \S*two\S*  [0-9a-f]{12}$", out, re.MULTILINE)
    assert "  sandbox    256 MiB, 1 CPU, 64 tasks; made by fork, calls apart by instance\n" in out
    assert "  calls      1 at a time in an instance, 64 may wait, deadline 30 s, 2 s to stop\n" in out
    assert "  instances  from 1 to 2, another beyond 1 call each, one fewer after " in out
    assert re.search(r"^  so far     2 calls in \d+s, of those 1 FUNCTION_ERROR$", out, re.MULTILINE)
    assert re.search(rf"^{row.instance}  ready  {row.pid} +{row.uid} ", out, re.MULTILINE)
    assert re.search(r"^nap +agent\.py:nap +30 s +- +1 +0 +\d+\.\d ms ", out, re.MULTILINE)
    assert re.search(r"^fail +agent\.py:fail +30 s +- +1 +1 ", out, re.MULTILINE)
    assert re.search(rf"^\S+Z +{before.instance} +\S+ m?s +operator +an operator ended", out, re.MULTILINE)


@pytest.mark.root
@pytest.mark.slow
def test_describe_as_json_has_all_of_it(daemon: Daemon) -> None:
    """For scripts."""
    status, out, _ = run("describe", "napper", "--json", state=daemon.state_dir)
    told = json.loads(out)
    assert status == 0
    assert [entry["tag"] for entry in told["manifest"]["entrypoints"]] == ["nap", "fail"]
    assert told["bounds"]["deadline"] == 30_000
    assert told["traffic"]["agents"][0]["agent"] == told["agent"]


@pytest.mark.root
@pytest.mark.slow
def test_describe_of_an_agent_that_is_not_there_is_one_sentence(daemon: Daemon) -> None:
    """With where to look."""
    assert run("describe", "nobody", state=daemon.state_dir) == (
        1,
        "",
        "runagentctl: no agent has the id or the unique name 'nobody'\nhint: 'runagentctl ps' lists the agents\n",
    )


def test_nothing_that_others_wrote_can_move_the_cursor() -> None:
    """An agent's author, and a gateway that is captured, have put control characters wherever there is a text."""
    [calls] = TRAFFIC.agents
    told = dataclasses.replace(
        TRAFFIC, agents=(dataclasses.replace(calls, state=HOSTILE, outcomes=(Count(name=HOSTILE, count=1),)),)
    )
    [entrypoint] = MANIFEST.entrypoints
    manifest = dataclasses.replace(
        MANIFEST,
        agent_name="chat",
        description=HOSTILE,
        framework=HOSTILE,
        version=HOSTILE,
        entrypoints=(dataclasses.replace(entrypoint, tag=HOSTILE, module=HOSTILE),),
        persistent_folders=(f"x{HOSTILE}",),
    )
    reply = dataclasses.replace(DESCRIBED, ends=(dataclasses.replace(DESCRIBED.ends[0], detail=HOSTILE),))
    lines = describe_commands.screen(reply, manifest, told)
    assert [line for line in lines if not line.isprintable()] == []
    assert sum(r"\x1b[2J\r\nroot#" in line for line in lines) == 7


def test_a_page_with_histograms_that_do_not_fit_is_refused() -> None:
    """The gateway may be captured, and what reads it is root."""
    [calls] = TRAFFIC.agents
    short = dataclasses.replace(calls, times=traffic.Times(buckets=(1,), microseconds=1))
    with pytest.raises(record.RecordError, match="another number of buckets"):
        traffic.parse(record.encode(dataclasses.replace(TRAFFIC, agents=(short,))))


@pytest.mark.root
@pytest.mark.slow
def test_top_once_is_a_table_for_scripts(daemon: Daemon) -> None:
    """Without a control character; a call that runs is seen."""
    nap = threading.Thread(target=daemon.call, args=("napper", "nap", {"seconds": 4}))
    nap.start()
    status, out, err = run("top", "--once", state=daemon.state_dir)
    nap.join()
    assert (status, err) == (0, "")
    heading, _, columns, row, *_ = out.splitlines()
    assert re.match(r"\d\d:\d\d:\d\d  1 agent  1 instance  ", heading)
    assert re.split(r" {2,}", columns)[:7] == ["AGENT", "CALLS/S", "FAIL/S", "P50", "P99", "OPEN", "WAIT"]
    assert re.split(r" {2,}", row)[0] == "napper"
    assert re.split(r" {2,}", row)[5:8] == ["1", "0", "1/2"]
    assert "\x1b" not in out


@pytest.mark.root
@pytest.mark.slow
def test_top_on_a_pipe_goes_on_in_lines_until_it_is_told_to_end(daemon: Daemon) -> None:
    """As JSON, one line a second; Ctrl+C is how one leaves, and no failure."""
    command = [
        sys.executable, "-m", "runagentd.cli.runagentctl", "top", "--json", "--state-dir", str(daemon.state_dir),
    ]  # fmt: skip
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        lines = [(running.stdout or sys.stdin).readline() for _ in range(2)]
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=20)
    assert [row["name"] for line in lines for row in json.loads(line)["agents"]] == ["napper", "napper"]
    assert (running.returncode, err) == (0, "")


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("how", ["Ctrl+C", "q", "SIGTERM"])
def test_top_on_a_terminal_leaves_it_as_it_was(daemon: Daemon, how: str) -> None:
    """On the other screen, without a cursor; then everything back, and status 0."""
    with _top_on_a_terminal(daemon) as (running, ours, theirs, before):
        seen = _read_until(ours, b"napper")
        assert seen.startswith(b"\x1b[?1049h\x1b[?25l")
        assert not termios.tcgetattr(theirs)[3] & termios.ECHO
        if how == "SIGTERM":
            running.send_signal(signal.SIGTERM)
        else:
            os.write(ours, b"\x03" if how == "Ctrl+C" else b"q")
        seen = _read_until(ours, b"\x1b[?25h\x1b[?1049l")
        assert running.wait(20) == 0
        assert seen.endswith(b"\x1b[?25h\x1b[?1049l")
        assert termios.tcgetattr(theirs) == before


@pytest.mark.root
@pytest.mark.slow
def test_top_that_is_stopped_gives_the_terminal_back_for_so_long(daemon: Daemon) -> None:
    """Ctrl+Z, and `fg`: the shell has the screen it knows meanwhile."""
    with _top_on_a_terminal(daemon) as (running, ours, theirs, before):
        _read_until(ours, b"napper")
        os.write(ours, b"\x1a")
        _read_until(ours, b"\x1b[?25h\x1b[?1049l")
        stopped = os.waitid(os.P_PID, running.pid, os.WSTOPPED)
        assert stopped is not None
        assert stopped.si_status == signal.SIGSTOP
        assert termios.tcgetattr(theirs) == before
        running.send_signal(signal.SIGCONT)
        _read_until(ours, b"\x1b[?1049h\x1b[?25l")
        _read_until(ours, b"napper")
        os.write(ours, b"q")
        assert running.wait(20) == 0
        assert termios.tcgetattr(theirs) == before


@contextlib.contextmanager
def _top_on_a_terminal(daemon: Daemon) -> Iterator[tuple[subprocess.Popen[bytes], int, int, list[Any]]]:
    """`top`, both ends of its terminal, and what that was set to before. Any: see termios.tcgetattr."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    command = [sys.executable, "-m", "runagentd.cli.runagentctl", "top", "--state-dir", str(daemon.state_dir)]
    running = subprocess.Popen(
        command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=_take_terminal,
    )  # fmt: skip
    try:
        yield running, ours, theirs, before
    finally:
        running.kill()
        running.wait()
        os.close(ours)
        os.close(theirs)


def _take_terminal() -> None:
    """The session is a new one: its terminal is the one on standard input, which then sends SIGINT for Ctrl+C."""
    import fcntl

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _read_until(descriptor: int, wanted: bytes) -> bytes:
    seen, end = b"", time.monotonic() + 20
    while wanted not in seen:
        assert time.monotonic() < end, seen
        if select.select([descriptor], [], [], 1.0)[0]:
            seen += os.read(descriptor, 65536)
    return seen
