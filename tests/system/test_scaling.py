"""Instances come with the calls and go with their absence, in a real daemon; nobody's flood keeps others out."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.system import traces
from tests.system.daemon import ROOT, Daemon, serve
from tests.system.folders import agent, policy

pytestmark = [pytest.mark.root, pytest.mark.slow]

WORK = """
    import os, time

    WHO = os.urandom(8).hex()

    def nap(seconds: float) -> str:
        time.sleep(seconds)
        return WHO
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One agent that sleeps when nobody calls, one with up to four instances, one with a single place."""
    place = tmp_path_factory.mktemp("scaling")
    sleeper = policy(place, "sleeper", '[scaling]\ninstances_min = 0\ninstances_max = 2\nidle = "1s"\n')
    four = policy(place, "four", '[scaling]\ninstances_max = 4\nidle = "1s"\n')
    one = policy(place, "one", "[calls]\nqueue = 4\n")
    folders = [agent(place, name, WORK, "nap") for name in ("sleeper", "four", "one")]
    with serve(folders, policies=[f"sleeper={sleeper}", f"four={four}", f"one={one}"]) as running:
        yield running


def alive(daemon: Daemon, name: str) -> int:
    """How many instances an agent has, or is about to have."""
    rows = [row for row in daemon.instances() if row.agent_name == name]
    return sum(row.state in ("starting", "importing", "ready") for row in rows)


def wait_until(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not become so in time"
        time.sleep(0.02)


def at_once(daemon: Daemon, name: str, seconds: float, count: int, **more: Any) -> list[tuple[int, Any]]:
    """The answers to `count` naps that were asked for at the same time."""
    answers: list[tuple[int, Any]] = []

    def one() -> None:
        answers.append(daemon.call(name, "nap", {"seconds": seconds}, **more))

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def control(daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    """`runagentctl …` on this daemon."""
    return subprocess.run(
        [sys.executable, "-m", "runagentd.cli.runagentctl", *words, "--state-dir", str(daemon.state_dir)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_calls_that_would_wait_get_instances_of_their_own_and_these_go_again(daemon: Daemon) -> None:
    """Four calls of a second at once, in four sandboxes; a second after the last, one is left."""
    began = time.monotonic()
    answers = at_once(daemon, "four", 1.0, 4)
    assert [status for status, _ in answers] == [200] * 4
    assert len({who for _, who in answers}) == 4
    assert time.monotonic() - began < 3.5, "one after the other would take four seconds"
    wait_until(lambda: alive(daemon, "four") == 1)
    ended = daemon.log.read_text()
    assert "scale-down" in ended
    assert daemon.call("four", "nap", {"seconds": 0})[0] == 200


def test_there_are_never_more_than_the_policy_allows(daemon: Daemon) -> None:
    """Twelve calls at once are answered by four instances, each its share."""
    answers = at_once(daemon, "four", 0.3, 12)
    assert [status for status, _ in answers] == [200] * 12
    assert len({who for _, who in answers}) <= 4


def test_an_agent_that_nobody_calls_goes_to_sleep_and_a_call_wakes_it(daemon: Daemon) -> None:
    """No process, no cgroup; and the caller who wakes it has an answer and not an error."""
    wait_until(lambda: alive(daemon, "sleeper") == 0)
    row = daemon.row("sleeper")
    assert (row.state, row.instance, row.pid) == ("asleep", "", 0)
    assert daemon.request("GET", "/v1/agents/sleeper")[1]["state"] == "asleep"
    answers = at_once(daemon, "sleeper", 0.01, 20)
    assert [status for status, _ in answers] == [200] * 20
    assert len({who for _, who in answers}) <= 2


def test_an_operator_can_have_instances_before_they_are_called(daemon: Daemon) -> None:
    """`warm` makes them, for the idle time of the policy and within its maximum."""
    wait_until(lambda: alive(daemon, "sleeper") == 0)
    done = control(daemon, "warm", "sleeper", "5")
    said = "sleeper: 2 instances for the idle time of its policy, no more may be (scale, scaling.instances_max: 2)\n"
    assert (done.returncode, done.stdout) == (0, said)
    wait_until(lambda: sum(row.state == "ready" for row in daemon.instances() if row.agent_name == "sleeper") == 2)
    wait_until(lambda: alive(daemon, "sleeper") == 0)


def test_an_operator_can_change_the_bounds_within_the_policy(daemon: Daemon) -> None:
    """`scale` holds from then on; what the policy does not allow is refused, and so is what is no bounds."""
    done = control(daemon, "scale", "four", "2:3")
    assert done.stdout == "four: from 2 to 3 instances, until the daemon starts again\n"
    wait_until(lambda: alive(daemon, "four") == 2)
    assert len({who for _, who in at_once(daemon, "four", 0.5, 6)}) <= 3
    refused = control(daemon, "scale", "four", "1:9")
    assert refused.returncode == 1
    assert "at most 4 (scaling.instances_max)" in refused.stderr
    wrong = control(daemon, "scale", "four", "many")
    assert wrong.returncode == 2
    assert "'many' is not MIN:MAX" in wrong.stderr
    assert control(daemon, "scale", "four", "1:4").returncode == 0
    wait_until(lambda: alive(daemon, "four") == 1)


def test_a_call_that_cannot_meet_its_deadline_is_told_so_at_once(daemon: Daemon) -> None:
    """Known to take half a second each, behind others: 503 now and not 504 later."""
    for _ in range(3):
        assert daemon.call("one", "nap", {"seconds": 0.5})[0] == 200
    threads = [threading.Thread(target=daemon.call, args=("one", "nap", {"seconds": 0.5})) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    began = time.monotonic()
    status, problem = daemon.request(
        "POST", "/api/v1/agents/one/run",
        body={"entrypoint_tag": "nap", "input_kwargs": {"seconds": 0.5}, "timeout_seconds": 0.6},
    )  # fmt: skip
    assert time.monotonic() - began < 0.4
    assert (status, problem["error"]["code"]) == (503, "OVERLOADED")
    assert "could not meet its deadline" in problem["detail"]
    for thread in threads:
        thread.join()


def test_a_callers_flood_does_not_keep_another_out(daemon: Daemon) -> None:
    """Six callers' worth of one fill the queue; the other's only call is not refused, and waits for one of them."""
    other = control(daemon, "token", "create", "--subject", "other", "--agent", "one", "--ttl", "1h").stdout.strip()
    over = threading.Event()

    def flood() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                daemon.call("one", "nap", {"seconds": 0.1})

    threads = [threading.Thread(target=flood) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.5)
        took = []
        for _ in range(5):
            began = time.monotonic()
            path = "/v1/agents/one/entrypoints/nap:invoke"
            status, _ = daemon.request("POST", path, body={"seconds": 0.1}, token=other)
            took.append(time.monotonic() - began)
            assert status == 200
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert sorted(took)[2] < 0.45, "in the order of arrival it would wait for four others"


def test_a_new_gateway_finds_every_instance(daemon: Daemon) -> None:
    """Three instances, kill -9 of the gateway: the same three answer."""
    assert control(daemon, "warm", "four", "3").returncode == 0
    ready: Callable[[], set[str]] = lambda: {  # noqa: E731
        row.instance for row in daemon.instances() if row.agent_name == "four" and row.state == "ready"
    }
    wait_until(lambda: len(ready()) == 3)
    before, known = ready(), at_once(daemon, "four", 0.3, 3)
    os.kill(daemon.gateway_pid(), signal.SIGKILL)
    with contextlib.suppress(OSError):
        at_once(daemon, "four", 0.2, 3)
    answers = at_once(daemon, "four", 0.3, 3)
    assert [status for status, _ in answers] == [200] * 3
    assert {who for _, who in answers} <= {who for _, who in known}
    assert ready() == before


TICKING = """
    import threading, time

    TICKS = []

    def tick():
        while True:
            TICKS.append(time.monotonic())
            time.sleep(0.01)

    threading.Thread(target=tick, daemon=True).start()

    def longest_pause() -> float:
        ticks = list(TICKS)
        return max(b - a for a, b in zip(ticks, ticks[1:]))
"""


@pytest.fixture
def ticking(tmp_path: Path) -> Iterator[Daemon]:
    """An agent that does something all the time, and is frozen after a second without a call."""
    quick = policy(tmp_path, "quick", '[scaling]\nfreeze = "1s"\n')
    with serve([agent(tmp_path, "ticking", TICKING, "longest_pause")], policies=[quick]) as running:
        yield running


def frozen(daemon: Daemon) -> bool:
    return daemon.row("ticking").state == "frozen"


def test_an_idle_instance_does_nothing_and_answers_the_next_call(ticking: Daemon) -> None:
    """Its own clock shows a hole, and its pid is the same as before."""
    before = ticking.wait_until_ready("ticking")
    wait_until(lambda: frozen(ticking))
    time.sleep(0.5)
    assert ticking.call("ticking", "longest_pause")[0] == 200
    # The call may be answered before the thread that watches the clock has had its turn.
    wait_until(lambda: ticking.call("ticking", "longest_pause")[1] > 0.4)
    after = ticking.row("ticking")
    assert (after.pid, after.state, after.restarts) == (before.pid, "ready", 0)
    wait_until(lambda: frozen(ticking))


def test_a_frozen_instance_is_found_by_a_new_gateway_and_ends_with_its_supervisor(ticking: Daemon) -> None:
    """kill -9 of one, then of the other: it answers, and then nothing of it is left."""
    wait_until(lambda: frozen(ticking))
    before = ticking.row("ticking")
    os.kill(ticking.gateway_pid(), signal.SIGKILL)
    wait_until(lambda: answers(ticking))
    assert ticking.row("ticking").pid == before.pid
    wait_until(lambda: frozen(ticking))
    row = ticking.row("ticking")
    gone = {traces.Process(pid, traces.started(pid)) for pid in (row.pid, row.reaper_pid)}
    supervisor = next(each.pid for each in ticking.listing().daemons if each.name == "supervisor")
    os.kill(supervisor, signal.SIGKILL)
    assert traces.wait_until_gone(gone, 20) == set()
    wait_until(lambda: answers(ticking))


def answers(daemon: Daemon) -> bool:
    with contextlib.suppress(OSError, HTTPException, ValueError):
        return daemon.call("ticking", "longest_pause", timeout=5)[0] == 200
    return False
