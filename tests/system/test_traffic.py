"""`runagentctl traffic`: calls go to several versions, and one that fails gets none any more."""

from __future__ import annotations

import collections
import json
import time
from pathlib import Path

import pytest

from tests.system.ctl import ctl, kill_supervisor, run, states, versions
from tests.system.daemon import Daemon
from tests.system.folders import agent, policy

pytestmark = [pytest.mark.root, pytest.mark.slow]

SOURCE = """
    import os
    import threading
    import time

    WORD = "one"

    def say(text: str = "") -> str:
        if text == "raise":
            raise RuntimeError(text)
        return WORD

    def nap(seconds: float) -> str:
        time.sleep(seconds)
        return WORD

    def compute() -> str:
        import hashlib
        hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 30_000_000)  # hears of no signal until it is done
        return WORD
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return agent(tmp_path, "chat", SOURCE, "say", "nap", "compute")


@pytest.fixture
def daemon(daemon: Daemon, place: Path) -> Daemon:
    """A daemon with an agent of which v1 serves."""
    ctl(daemon, "deploy", place)
    return daemon


def second(daemon: Daemon, place: Path, old: str = "", new: str = "") -> None:
    """Deploy v2, and have v1 serve again."""
    file = place / "agent.py"
    text = file.read_text().replace('WORD = "one"', 'WORD = "two"')
    assert old in text
    file.write_text(text.replace(old, new) if old else text)
    ctl(daemon, "deploy", place)
    ctl(daemon, "rollback", "chat")


def answers(daemon: Daemon, number: int, text: str = "") -> collections.Counter[object]:
    """What so many calls give: the word of a version, or a status."""
    found: collections.Counter[object] = collections.Counter()
    for _ in range(number):
        status, value = daemon.call("chat", "say", {"text": text})
        found[value if status == 200 else status] += 1
    return found


def percents(daemon: Daemon) -> dict[int, int]:
    return {number: row["percent"] for number, row in versions(daemon).items()}


def wait_until(daemon: Daemon, expected: dict[int, int]) -> None:
    end = time.monotonic() + 20
    while percents(daemon) != expected:
        assert time.monotonic() < end, (percents(daemon), daemon.log.read_text()[-2000:])
        time.sleep(0.05)


def test_calls_are_divided_as_they_are_to_be_also_after_a_kill(daemon: Daemon, place: Path) -> None:
    """70 to 30 of 400; none is lost when it ends, and nothing of the other version stays."""
    second(daemon, place)
    assert answers(daemon, 20) == {"one": 20}
    assert ctl(daemon, "traffic", "chat", "v1=70", "v2=30").startswith("chat: v1 70 %, v2 30 %\n")
    found = answers(daemon, 400)
    assert set(found) == {"one", "two"}
    assert 80 <= found["two"] <= 160  # four standard deviations around 120
    assert percents(daemon) == {1: 70, 2: 30}
    assert states(daemon) == {1: "serving", 2: "shares"}
    kill_supervisor(daemon)
    daemon.wait_until_ready("chat")
    end = time.monotonic() + 15
    while "two" not in answers(daemon, 10):
        assert time.monotonic() < end, "v2 gets no call after the kill"
    assert percents(daemon) == {1: 70, 2: 30}
    assert "v2 gets 30 % of the calls" in run("remove", "chat", "v2", state=daemon.state_dir)[2]
    ctl(daemon, "traffic", "chat", "v1=100")
    assert answers(daemon, 50) == {"one": 50}
    end = time.monotonic() + 10
    while len(daemon.instances()) != 1:
        assert time.monotonic() < end, daemon.instances()
        time.sleep(0.05)
    assert ctl(daemon, "remove", "chat", "v2") == "chat: v2 is forgotten\n"


def test_a_version_that_fails_gets_no_more_calls(daemon: Daemon, place: Path) -> None:
    """Said in the events, with figures; the version that serves never stopped."""
    second(daemon, place, 'if text == "raise":', "if True:")
    ctl(daemon, "traffic", "chat", "v1=50", "v2=50")
    found = answers(daemon, 60)
    assert found[502] > 10
    wait_until(daemon, {1: 100, 2: 0})
    assert answers(daemon, 30) == {"one": 30}
    said = ctl(daemon, "events", "chat")
    assert "rolled-back" in said
    assert "v2 gets no calls any more: " in said
    assert "calls failed within 60 s, more than 5 %, and 0 of" in said
    assert "a version was rolled back" in daemon.log.read_text()
    kill_supervisor(daemon)
    daemon.wait_until_ready("chat")
    assert percents(daemon) == {1: 100, 2: 0}


def test_what_callers_do_ends_no_share(daemon: Daemon, place: Path) -> None:
    """Wrong arguments, deadlines of their own, and calls that fail in both versions alike."""
    second(daemon, place)
    ctl(daemon, "traffic", "chat", "v1=50", "v2=50")
    assert set(answers(daemon, 100, "raise")) == {502}
    for _ in range(60):
        assert daemon.call("chat", "say", {"nonsense": 1})[0] == 422
    ctl(daemon, "alias", "chat", "canary", "v2")
    for _ in range(60):
        assert daemon.call("chat@canary", "say", {"text": "raise"})[0] == 502
    time.sleep(2)
    assert percents(daemon) == {1: 50, 2: 50}


def test_who_chooses_a_version_and_gives_it_no_time_ends_no_share(daemon: Daemon, tmp_path: Path, place: Path) -> None:
    """A call that does not stop costs the instance, and each caller chooses when it is told to."""
    strict = policy(tmp_path, "strict", '[calls]\ncancel_grace = "100ms"\n')
    ctl(daemon, "deploy", place, "--policy", strict)
    second(daemon, place)
    numbers = sorted(versions(daemon))
    ctl(daemon, "traffic", "chat", f"v{numbers[-2]}=50", f"v{numbers[-1]}=50")
    ctl(daemon, "alias", "chat", "canary", f"v{numbers[-1]}")
    path, ends = "/v1/agents/chat@canary/entrypoints/compute:invoke", 0
    while ends < 4 and daemon.request("POST", path, body={}, headers={"Runagent-Timeout": "1ms"})[0] in (503, 504):
        ends = ctl(daemon, "events", "chat").count("a call did not stop within its grace")
    assert percents(daemon) == {**dict.fromkeys(numbers, 0), numbers[-2]: 50, numbers[-1]: 50}


def test_a_version_whose_instances_die_gets_no_more_calls(daemon: Daemon, place: Path) -> None:
    """Whether somebody calls or not."""
    dying = 'threading.Timer(0.4, os._exit, (1,)).start()\nWORD = "two"'
    second(daemon, place, 'WORD = "two"', dying)
    ctl(daemon, "traffic", "chat", "v1=90", "v2=10")
    wait_until(daemon, {1: 100, 2: 0})
    assert "of its instances ended by themselves within 60 s" in ctl(daemon, "events", "chat")
    assert answers(daemon, 20) == {"one": 20}


def test_a_promoted_version_takes_all_calls(daemon: Daemon, place: Path) -> None:
    """And a call that runs on the way out ends where it began."""
    second(daemon, place)
    ctl(daemon, "traffic", "chat", "v1=50", "v2=50")
    assert len(answers(daemon, 40)) == 2
    ctl(daemon, "promote", "chat", "v2")
    assert percents(daemon) == {1: 0, 2: 100}
    assert answers(daemon, 30) == {"two": 30}


def test_a_wider_policy_is_named_when_calls_go_to_its_version(daemon: Daemon, tmp_path: Path, place: Path) -> None:
    """It was accepted at its own deploy, perhaps long before the narrower one that serves now."""
    narrow = policy(tmp_path, "narrow", 'extends = "base"\n[resources]\npids_max = 32\n[calls]\nqueue = 3\n')
    ctl(daemon, "deploy", place, "--policy", narrow)
    said = ctl(daemon, "traffic", "chat", "v2=90", "v1=10")
    words = "  the policy of v1 is wider than that of the version that serves: "
    assert [line for line in said.splitlines() if line.startswith(words)] == [
        f"{words}resources.pids_max = 64, was 32",
        f"{words}calls.queue = 64, was 3",
    ]
    wider = json.loads(ctl(daemon, "traffic", "chat", "v2=80", "v1=20", "--json"))["wider"]
    assert wider == {"v1": ["resources.pids_max = 64, was 32", "calls.queue = 64, was 3"]}
    events = [line.split("  ", 1)[1] for line in ctl(daemon, "events", "chat").splitlines()]
    assert sum(line.startswith("policy-widened") for line in events) == 2, "once for each key, and not for each change"
    assert daemon.log.read_text().count("a version has a wider policy") == 2
    ctl(daemon, "traffic", "chat", "v2=100")
    assert "wider" not in ctl(daemon, "traffic", "chat", "v2=100")


def test_an_alias_can_be_called_and_allows_nobody_more(daemon: Daemon, place: Path) -> None:
    """AGENT@ALIAS is that version of the agent, on both doors, for who may call the agent and for nobody else."""
    second(daemon, place)
    ctl(daemon, "alias", "chat", "stable", "v1")
    ctl(daemon, "alias", "chat", "canary", "v2")
    assert daemon.call("chat@stable", "say") == (200, "one")
    assert daemon.call("chat@canary", "say")[0] == 404, "no instance of it is there"
    ctl(daemon, "traffic", "chat", "v1=100", "v2=0")
    assert states(daemon) == {1: "serving", 2: "shares"}
    agent_id = daemon.row("chat").agent
    for _ in range(5):
        assert daemon.call("chat@canary", "say") == (200, "two")
        assert daemon.call(f"{agent_id}@canary", "say") == (200, "two")
        assert daemon.call("chat", "say") == (200, "one")
        assert daemon.call("chat@stable", "say") == (200, "one")
    body = {"entrypoint_tag": "say", "input_args": [], "input_kwargs": {}}
    status, answer = daemon.request("POST", f"/api/v1/agents/{agent_id}%40canary/run", body=body)
    assert (status, answer["success"], "two" in answer["data"]) == (200, True, True)
    assert daemon.call("chat@nothing", "say")[0] == 404
    assert daemon.call("nobody@canary", "say")[0] == 404
    for agents in (["other"], ["chat@canary"], [f"{agent_id}@canary"]):
        words = [word for agent_ in agents for word in ("--agent", agent_)]
        status, out, note = run("token", "create", "--subject", "eve", *words, state=daemon.state_dir)
        assert (status, note.startswith("note: no agent 'other' is served")) == (0, agents == ["other"])
        token = out.strip()
        path = "/v1/agents/chat%40canary/entrypoints/say:invoke"
        assert daemon.request("POST", path, body={}, token=token)[0] == 404
    token = ctl(daemon, "token", "create", "--subject", "bob", "--agent", "chat").strip()
    assert daemon.request("POST", path, body={}, token=token) == (200, "two")
    ctl(daemon, "traffic", "chat", "v1=50", "v2=50")
    assert {daemon.call("chat@stable", "say") for _ in range(20)} == {(200, "one")}
    ctl(daemon, "alias", "chat", "canary", "v1")
    assert {daemon.call("chat@canary", "say") for _ in range(20)} == {(200, "one")}
    ctl(daemon, "alias", "chat", "canary")
    assert daemon.call("chat@canary", "say")[0] == 404


def test_no_agent_can_be_taken_for_an_alias(daemon: Daemon, place: Path) -> None:
    """Nor can an alias be taken for a number or a digest."""
    status, _, err = run("deploy", place, "--name", "chat@canary", state=daemon.state_dir)
    assert status == 1
    assert "'chat@canary' could be taken for an alias of 'chat'" in err
    for wrong in ("v2", "2", "beef", "Canary", "a b", "@", "x" * 64):
        assert run("alias", "chat", wrong, "v1", state=daemon.state_dir)[0] == 1
        assert run("deploy", place, "--alias", wrong, state=daemon.state_dir)[0] == 1
    assert versions(daemon)[1]["aliases"] == []


def test_what_cannot_be_divided_is_refused(daemon: Daemon, place: Path) -> None:
    """Each with what is wrong; nothing changes."""
    second(daemon, place)
    for shares, words in (
        (["v1=90"], "must add up to 100"),
        (["v2=100"], "v1 that serves among them"),
        (["v1=0", "v2=100"], "promote another version"),
        (["v1=50", "v1=50"], "v1 is named twice"),
        (["v1=50", "v9=50"], "is no version of this agent"),
        (["v1=fifty", "v2=50"], "is not a number from 0 to 100"),
        (["v1"], "is not VERSION=PERCENT"),
    ):
        status, out, err = run("traffic", "chat", *shares, state=daemon.state_dir)
        assert status != 0
        assert out == ""
        assert words in err
    assert percents(daemon) == {1: 100, 2: 0}
