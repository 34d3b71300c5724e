"""kill -9 of each process in turn, with calls running: no orphan, and the service is back within two seconds.

The kernel is asked what is left; the daemon is only called, as a client would.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from runagentd.errors import HostError
from runagentd.foreman import admin_client
from tests.system import traces
from tests.system.daemon import Daemon, serve
from tests.system.folders import agent, policy

pytestmark = [pytest.mark.root, pytest.mark.slow]

BACK_SECONDS = 2.0
"""On a machine that has nothing else to do; see `in_time`."""

BUSY = """
    import asyncio

    async def nap(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slept"

    def count_stream(to: int):
        import time
        for number in range(to):
            yield number
            time.sleep(0.01)

    def echo(text: str) -> str:
        return text
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """Two agents; one of them is called while something is killed."""
    several = policy(tmp_path, "several", "[calls]\nconcurrency = 8\n")
    folders = [agent(tmp_path, name, BUSY, "nap", "count_stream", "echo") for name in ("busy", "other")]
    with serve(folders, policies=[f"busy={several}"]) as running:
        yield running


class Calls:
    """Calls that are running while something dies; every one of them must come to an end."""

    def __init__(self, daemon: Daemon, number: int, seconds: float) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.broken: list[str] = []
        self._threads = [threading.Thread(target=self._call, args=(daemon, seconds)) for _ in range(number)]
        for thread in self._threads:
            thread.start()
        time.sleep(0.3)

    def _call(self, daemon: Daemon, seconds: float) -> None:
        try:
            self.answers.append(daemon.call("busy", "nap", {"seconds": seconds}, timeout=20))
        except (OSError, HTTPException) as error:
            self.broken.append(type(error).__name__)

    def wait(self) -> None:
        """Until each has its answer, or has lost its connection."""
        for thread in self._threads:
            thread.join(15)
            assert not thread.is_alive(), "a caller waits for ever"

    def causes(self) -> set[tuple[int, str | None]]:
        return {(status, body.get("cause") if isinstance(body, dict) else None) for status, body in self.answers}


def wait_until_it_answers(daemon: Daemon, agent_name: str) -> None:
    """Call until there is an answer, as a client would."""
    began = time.monotonic()
    while time.monotonic() - began < 10:
        with contextlib.suppress(OSError, HTTPException, ValueError):
            if daemon.call(agent_name, "echo", {"text": "there"}, timeout=2) == (200, "there"):
                return
        time.sleep(0.01)
    raise AssertionError(f"no answer after 10 s; {daemon.log} says:\n{daemon.log.read_text()[-3000:]}")


def in_time(seconds: float) -> bool:
    """Whether the service was back soon enough. With n processes for each processor all takes n times as long.

    Two at least, for the tests run in two halves at a time, and the load average comes after the load.
    """
    crowd = os.getloadavg()[0] / (os.cpu_count() or 1)
    return seconds < BACK_SECONDS * max(2.0, crowd)


def no_orphans(daemon: Daemon) -> None:
    """Every process in the daemon's cgroups belongs to an instance that it knows, to the zygote, or to a spare."""
    deadline = time.monotonic() + 3
    while True:
        listing = daemon.listing()
        known = {row.pid for row in listing.daemons} | {row.pid for row in listing.instances}
        known |= {row.reaper_pid for row in listing.instances}
        family = traces.family(daemon.process.pid, traces.identity(daemon.state_dir))
        descendants = traces.below(daemon.process.pid)
        strangers = {process for process in family if process not in descendants}
        # A spare is a reaper, its runner, and for a moment the holder of its user namespace; so is what stands by.
        unknown = {process.pid for process in family if process.pid not in known} - {daemon.process.pid}
        jails = 1 + listing.standbys
        if not strangers and listing.spares == 1 and len(unknown) == 1 + 2 * jails:  # the gateway, and two for each
            return
        assert time.monotonic() < deadline, (strangers, unknown, listing)
        time.sleep(0.05)


def kill_and_look(daemon: Daemon, pid: int, gone: set[traces.Process]) -> float:
    """kill -9; all of `gone` must end, and be reaped. Gives the seconds until then both agents answer."""
    assert pid > 1, "kill(0) would end the test run itself"
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    assert traces.wait_until_gone(gone, 20) == set()
    assert in_time(time.monotonic() - began)
    for name in ("busy", "other"):
        wait_until_it_answers(daemon, name)
    return time.monotonic() - began


def test_the_supervisor(daemon: Daemon) -> None:
    """Its instances end with it, and their callers are told; the next one sweeps and starts afresh."""
    supervisor = next(row.pid for row in daemon.listing().daemons if row.name == "supervisor")
    gone = traces.below(supervisor)
    gateway = daemon.gateway_pid()
    calls = Calls(daemon, 4, 10)
    assert in_time(kill_and_look(daemon, supervisor, gone))
    calls.wait()
    assert calls.broken == []
    assert {status for status, _ in calls.answers} <= {502, 503}
    assert daemon.gateway_pid() == gateway
    no_orphans(daemon)


def test_the_zygote(daemon: Daemon) -> None:
    """Instances live on: nobody who calls notices, and the next instance comes from a new zygote."""
    zygote = next(row.pid for row in daemon.listing().daemons if row.name == "zygote")
    before = {row.agent_name: row.instance for row in daemon.instances()}
    calls = Calls(daemon, 4, 1)
    assert in_time(kill_and_look(daemon, zygote, {traces.Process(zygote, traces.started(zygote))}))
    calls.wait()
    assert (calls.answers, calls.broken) == ([(200, "slept")] * 4, [])
    assert {row.agent_name: row.instance for row in daemon.instances()} == before
    reaper = daemon.row("busy").reaper_pid
    assert in_time(kill_and_look(daemon, reaper, traces.below(reaper)))
    assert daemon.wait_until_ready("busy", other_than=before["busy"]).instance != before["busy"]
    no_orphans(daemon)


def test_the_gateway(daemon: Daemon) -> None:
    """The same instance answers the next call; those that ran are cancelled, for their callers are gone."""
    gateway = daemon.gateway_pid()
    before = {row.agent_name: (row.instance, row.restarts) for row in daemon.instances()}
    calls = Calls(daemon, 4, 10)
    assert in_time(kill_and_look(daemon, gateway, {traces.Process(gateway, traces.started(gateway))}))
    calls.wait()
    assert (calls.answers, len(calls.broken)) == ([], 4)
    assert {row.agent_name: (row.instance, row.restarts) for row in daemon.instances()} == before
    no_orphans(daemon)


@pytest.mark.parametrize("which", ["reaper", "runner"])
def test_an_instance(daemon: Daemon, which: str) -> None:
    """Its callers learn of the signal; the other agent does not notice, and another instance answers."""
    row = daemon.row("busy")
    other = daemon.row("other").instance
    gone = traces.below(row.reaper_pid)
    assert row.pid in {process.pid for process in gone}
    calls = Calls(daemon, 4, 10)
    assert in_time(kill_and_look(daemon, row.reaper_pid if which == "reaper" else row.pid, gone))
    calls.wait()
    assert (calls.causes(), calls.broken) == ({(502, "signal")}, [])
    after = daemon.wait_until_ready("busy", other_than=row.instance)
    assert (after.instance != row.instance, after.last_cause, after.restarts) == (True, "signal", 1)
    assert (daemon.row("other").instance, daemon.row("other").restarts) == (other, 0)
    no_orphans(daemon)


def test_the_foreman(tmp_path: Path) -> None:
    """Every daemon it started ends with it, instances included; the next start takes the state directory over."""
    folder = agent(tmp_path, "busy", BUSY, "nap", "count_stream", "echo")
    with serve([folder]) as daemon:
        family = traces.family(daemon.process.pid, traces.identity(daemon.state_dir))
        calls = Calls(daemon, 2, 10)
        daemon.process.kill()
        daemon.process.wait()
        began = time.monotonic()
        assert traces.wait_until_gone(family, 20) == set()
        assert in_time(time.monotonic() - began)
        calls.wait()
        deadline = time.monotonic() + 10
        while (left := traces.left(daemon.state_dir, family)).keys() - {"sockets"} and time.monotonic() < deadline:
            time.sleep(0.01)
        # A socket's file stays, with nobody behind it: the next start removes it.
        assert left.keys() <= {"sockets"}
        began = time.monotonic()
        with serve([folder], options=["--state-dir", str(daemon.state_dir)]) as again:
            assert again.call("busy", "echo", {"text": "there"}) == (200, "there")
        assert in_time((time.monotonic() - began) / 2.5)
        assert traces.left(daemon.state_dir, family) == {}


def test_a_supervisor_that_is_killed_in_its_first_deploy_leaves_nothing(tmp_path: Path) -> None:
    """`serve` ends then, and perhaps no other one ever starts with this state directory: it sweeps by itself."""
    folder = agent(tmp_path, "slow", "import time\ntime.sleep(30)\ndef say() -> str: return 'x'\n", "say")
    state_dir = tmp_path / "state"
    killed: set[traces.Process] = set()

    def kill() -> None:
        end = time.monotonic() + 20
        while not killed and time.monotonic() < end:
            with contextlib.suppress(HostError):
                listing = admin_client.instances(state_dir / "admin.sock")
                supervisor = next(row.pid for row in listing.daemons if row.name == "supervisor")
                if any(row.pid for row in listing.instances):
                    killed.update(traces.family(supervisor, traces.identity(state_dir)))
                    os.kill(supervisor, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with (
        pytest.raises(AssertionError, match="the supervisor ended before it answered"),
        serve([folder], state_dir=state_dir),
    ):
        pass
    killer.join()
    assert len(killed) > 3, "supervisor, zygote, spare, reaper and runner"
    # Dead at once, and reaped by an init that takes its time.
    assert traces.wait_until_gone(killed, 10) == set()
    assert traces.left(state_dir, killed) == {}
