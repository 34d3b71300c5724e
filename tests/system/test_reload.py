"""`serve --reload`: a change serves a moment later, a broken one does not, and no call is lost in between."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runagentd.foreman import admin_client
from runagentd.wire import admin
from runagentd.wire.events import EventKind
from tests.system.ctl import run
from tests.system.daemon import Daemon, serve
from tests.system.folders import agent, policy

pytestmark = [pytest.mark.root, pytest.mark.slow]

FIRST = """
import time

def say() -> str:
    return "first"

def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "first"
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Daemon, Path, Path]]:
    """A daemon that reloads, with its agent's folder and its policy file."""
    folder = agent(tmp_path, "live", FIRST, "say", "nap")
    file = Path(policy(tmp_path, "rules", '[calls]\ndeadline = "20s"\n'))
    with serve([folder], policies=[str(file)], options=["--reload"]) as daemon:
        yield daemon, folder, file


def change(folder: Path, text: str) -> None:
    """As an editor saves a file: a new one in its place."""
    unfinished = folder / ".agent.py.swp"
    unfinished.write_text(text)
    unfinished.rename(folder / "agent.py")


def say(daemon: Daemon) -> str:
    status, value = daemon.call("live", "say")
    assert status == 200, value
    return str(value)


def wait_for(daemon: Daemon, answer: str) -> None:
    end = time.monotonic() + 15
    while say(daemon) != answer:
        assert time.monotonic() < end, daemon.log.read_text()[-2000:]
        time.sleep(0.01)


def test_a_change_serves_and_no_call_fails_while_it_comes(served: tuple[Daemon, Path, Path]) -> None:
    """First one answer, then the other; a call that runs is answered by the code in which it began."""
    daemon, folder, _ = served
    before = daemon.row("live").instance
    late: list[tuple[int, object]] = []
    sleeper = threading.Thread(target=lambda: late.append(daemon.call("live", "nap", {"seconds": 2.0})))
    sleeper.start()
    time.sleep(0.3)
    change(folder, FIRST.replace('"first"', '"second"'))
    # The one instance of the old code is busy: what is asked now waits, and is answered by the new.
    assert say(daemon) == "second"
    assert not late
    sleeper.join()
    assert late == [(200, "first")]
    daemon.wait_for_log("live: reloaded in ")
    end = time.monotonic() + 10
    while any(row.instance == before for row in daemon.instances()):
        assert time.monotonic() < end, "the old instance is still there"
        time.sleep(0.02)
    assert len(daemon.instances()) == 1
    assert [row.last_cause for row in daemon.instances()] == [""], "to be replaced is no failure"


def test_a_burst_of_calls_over_many_changes_loses_none(served: tuple[Daemon, Path, Path]) -> None:
    """Five changes while four clients call."""
    daemon, folder, _ = served
    failures: list[object] = []
    over = threading.Event()

    def client() -> None:
        while not over.is_set():
            status, value = daemon.call("live", "say")
            if status != 200:
                failures.append((status, value))

    clients = [threading.Thread(target=client) for _ in range(4)]
    for each in clients:
        each.start()
    try:
        for number in range(5):
            change(folder, FIRST.replace('"first"', f'"number {number}"'))
            wait_for(daemon, f"number {number}")
    finally:
        over.set()
        for each in clients:
            each.join()
    assert failures == []


def test_a_broken_change_keeps_what_was_and_says_why(served: tuple[Daemon, Path, Path]) -> None:
    """The agent's own traceback is shown; the next change that works is taken."""
    daemon, folder, _ = served
    before = daemon.row("live").instance
    change(folder, "import nothing_of_that_name\n")
    daemon.wait_for_log("goes on as it was before the change")
    text = daemon.log.read_text()
    assert "ModuleNotFoundError: No module named 'nothing_of_that_name'" in text
    assert "hint: live goes on as it was before the change" in text
    told = admin_client.told(
        admin_client.ask(daemon.state_dir / "admin.sock", admin.EventsAsk(life="", after=0, agent="", wait_ms=0)),
        admin.EventsTold,
    )
    assert [event.agent_name for event in told.events if event.kind is EventKind.NOT_DEPLOYED] == ["live"]
    assert say(daemon) == "first"
    assert [row.instance for row in daemon.instances()] == [before]
    (folder / "runagent.config.json").write_text("{")
    daemon.wait_for_log("runagent.config.json")
    assert say(daemon) == "first"
    (folder / "runagent.config.json").write_text(
        json.dumps(
            {
                "agent_name": "live",
                "agent_architecture": {
                    "entrypoints": [{"file": "agent.py", "module": tag, "tag": tag} for tag in ("say", "more")]
                },
            }
        )
    )
    change(folder, 'def say() -> str:\n    return "third"\n\ndef more() -> int:\n    return 7\n')
    wait_for(daemon, "third")
    assert daemon.call("live", "more") == (200, 7)
    assert daemon.call("live", "nap", {"seconds": 0})[0] == 404


def test_a_folder_does_not_become_another_agent(served: tuple[Daemon, Path, Path]) -> None:
    """Tokens and policies name agents: a change of the name is not taken for one of the code."""
    daemon, folder, _ = served
    configuration = json.loads((folder / "runagent.config.json").read_text())
    (folder / "runagent.config.json").write_text(json.dumps({**configuration, "agent_name": "other"}))
    daemon.wait_for_log("is another agent than the folder was before")
    assert say(daemon) == "first"


def test_another_policy_is_taken_over_too(served: tuple[Daemon, Path, Path]) -> None:
    """The file that --policy names; a text that is no policy changes nothing."""
    daemon, _, file = served
    before = daemon.row("live").instance
    file.write_text('version = 1\n[calls]\ndeadline = "7s"\n')
    daemon.wait_for_log("live: reloaded in ")
    assert daemon.request("GET", "/v1/agents/live")[1]["limits"]["deadline_seconds"] == 7
    daemon.wait_until_ready("live", other_than=before)
    assert "wider" not in daemon.log.read_text()
    file.write_text("version = 2\n")
    daemon.wait_for_log("goes on as it was before the change")
    assert say(daemon) == "first"


def test_a_policy_that_becomes_wider_is_taken_over_and_told(served: tuple[Daemon, Path, Path]) -> None:
    """Key by key, on the terminal, in the log and in the events: who works on a folder is not asked, but knows."""
    daemon, _, file = served
    file.write_text('version = 1\n[calls]\ndeadline = "25s"\n[resources]\npids_max = 99\n')
    daemon.wait_for_log('  its policy is wider: calls.deadline = "25s", was "20s"')
    daemon.wait_for_log("  its policy is wider: resources.pids_max = 99, was 64")
    daemon.wait_for_log("a version has a wider policy")
    status, out, _ = run("events", "live", "--json", state=daemon.state_dir)
    assert status == 0
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["detail"] for event in events if event["kind"] == "policy-widened"] == [
        "v2: resources.pids_max = 99, was 64",
        'v2: calls.deadline = "25s", was "20s"',
    ]
    assert daemon.request("GET", "/v1/agents/live")[1]["limits"]["deadline_seconds"] == 25
