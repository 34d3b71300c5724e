"""`runagentctl events`: what happened to agents and their instances, and what happens; beyond a supervisor's end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.ctl import run
from tests.system.daemon import ROOT, Daemon, serve
from tests.system.folders import agent, policy

pytestmark = [pytest.mark.root, pytest.mark.slow]

SOURCE = """
    import os, time

    def leave() -> None:
        os._exit(3)

    def nap(seconds: float) -> None:
        time.sleep(seconds)
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    config = tmp_path / "runagentd.toml"
    config.write_text("")
    two = policy(tmp_path, "two", "[scaling]\ninstances_max = 2\n")
    folders = [agent(tmp_path, name, SOURCE, "leave", "nap") for name in ("one", "two")]
    with serve(folders, policies=[f"two={two}"], options=["--config", str(config)]) as running:
        yield running


def past(daemon: Daemon, *words: str) -> list[dict[str, Any]]:
    status, out, err = run("events", "--json", *words, state=daemon.state_dir)
    assert (status, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "it did not become so in time"
        time.sleep(0.02)


def test_what_happened_is_told_in_its_order(daemon: Daemon) -> None:
    """From the supervisor's start on: who is served, which instances began and ended, and why."""
    events = past(daemon)
    assert [event["number"] for event in events] == list(range(1, len(events) + 1))
    kinds = [event["kind"] for event in events]
    assert kinds[0] == "supervisor-started"
    assert "gateway-connected" in kinds
    of_one = [event for event in past(daemon, "one") if event["agent_name"] == "one"]
    assert [event["kind"] for event in of_one] == ["served", "instance-started", "instance-ready"]
    assert daemon.call("one", "leave")[0] == 502
    wait_until(lambda: [event["kind"] for event in past(daemon, "one")].count("instance-ready") == 2)
    ended = next(event for event in past(daemon, "one") if event["kind"] == "instance-ended")
    assert (ended["cause"], ended["detail"]) == ("exit", "the agent's process ended itself with status 3")
    assert ended["instance"] == of_one[1]["instance"]


def test_of_an_agent_that_is_not_there_nothing_is_told_and_that_is_said(daemon: Daemon) -> None:
    """Whoever has mistyped a name would take an empty screen for a quiet agent."""
    status, out, err = run("events", "nobody", state=daemon.state_dir)
    assert (status, out) == (0, "")
    assert err.startswith("runagentctl: nothing has happened to an agent with the id or the name 'nobody'\nhint: ")


def test_what_an_operator_does_is_told_as_well(daemon: Daemon) -> None:
    """Restarts, other bounds, keys, settings; and instances that are added for calls."""
    assert run("restart", "one", state=daemon.state_dir)[0] == 0
    assert run("scale", "two", "1:1", state=daemon.state_dir)[0] == 0
    assert run("scale", "two", "1:2", state=daemon.state_dir)[0] == 0
    assert run("token", "revoke", "--subject", "nobody", state=daemon.state_dir)[0] == 0
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_until_ready("two")
    naps = [threading.Thread(target=daemon.call, args=("two", "nap", {"seconds": 0.5})) for _ in range(2)]
    for nap in naps:
        nap.start()
    for nap in naps:
        nap.join()
    wait_until(lambda: "settings-changed" in [event["kind"] for event in past(daemon)])
    kinds = [event["kind"] for event in past(daemon)]
    assert {"restarted", "trust-changed", "settings-changed"} <= set(kinds)
    assert [event["detail"] for event in past(daemon) if event["kind"] == "scaled"] == [
        "an operator wants from 1 to 1 instances",
        "an operator wants from 1 to 2 instances",
        "from 1 instances to 2: calls could use 2",
    ]


def test_the_last_ones_only(daemon: Daemon) -> None:
    """As lines for people."""
    status, out, _ = run("events", "--limit", "1", state=daemon.state_dir)
    assert status == 0
    [line] = out.splitlines()
    assert line.split()[1] == "instance-ready"
    assert run("events", "--limit", "-1", state=daemon.state_dir)[0] == 1


def test_following_goes_on_with_the_next_supervisor_and_says_so(daemon: Daemon) -> None:
    """Nobody has to look whether it still follows."""
    command = [
        sys.executable, "-m", "runagentd.cli.runagentctl", "events", "-f", "--json", "--limit", "0",
        "--state-dir", str(daemon.state_dir),
    ]  # fmt: skip
    follower = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines: list[dict[str, Any]] = []
    complaints: list[str] = []

    def read() -> None:
        for line in follower.stdout or ():
            lines.append(json.loads(line))

    def read_complaints() -> None:
        complaints.extend(follower.stderr or ())

    readers = [threading.Thread(target=read), threading.Thread(target=read_complaints)]
    for reader in readers:
        reader.start()
    try:
        wait_until(lambda: _follows(daemon, lines))
        [supervisor] = [row.pid for row in daemon.listing().daemons if row.name == "supervisor"]
        os.kill(supervisor, signal.SIGKILL)
        wait_until(lambda: [line["kind"] for line in lines].count("instance-ready") >= 2)
        assert "supervisor-started" in [line["kind"] for line in lines]
    finally:
        follower.send_signal(signal.SIGINT)
        for reader in readers:
            reader.join()
        with follower:
            assert follower.wait(20) == 130
    assert any("another supervisor is there" in line for line in complaints)
    assert not any("Traceback" in line for line in complaints)


def _follows(daemon: Daemon, lines: list[dict[str, Any]]) -> bool:
    """Whether what happens now is seen."""
    if not lines:
        run("token", "revoke", "--subject", "nobody", state=daemon.state_dir)
    return bool(lines)
