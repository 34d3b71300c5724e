"""Invocation history on a real daemon: it outlives its gateway and its daemon, and runagentctl shows it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from runagentd import uids
from tests.system.daemon import ROOT, Daemon, serve
from tests.system.folders import agent, policy

pytestmark = [pytest.mark.root, pytest.mark.slow]

SOURCE = """
    def greet(name: str) -> str:
        if name == "nobody":
            raise ValueError(name)
        return f"Hello {name}!"
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("history")
    keeping = policy(place, "keeping", '[calls]\nhistory = "content"\n')
    folders = [agent(place, name, SOURCE, "greet") for name in ("plain", "kept")]
    with serve(folders, policies=[f"kept={keeping}"]) as running:
        yield running


def ctl(daemon: Daemon, *words: str) -> tuple[int, str, str]:
    """`runagentctl calls WORDS`: exit status, stdout, stderr."""
    command = [sys.executable, "-m", "runagentd.cli.runagentctl", "calls", *words, "--state-dir", str(daemon.state_dir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def rows(daemon: Daemon, *words: str) -> list[dict[str, Any]]:
    """Any: JSON."""
    status, out, err = ctl(daemon, *words, "--json")
    assert (status, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


def run(daemon: Daemon, name: str, agent: str = "plain") -> dict[str, Any]:
    """A call through RunAgent's door. Any: JSON."""
    body = {"entrypoint_tag": "greet", "input_kwargs": {"name": name}}
    status, found = daemon.request("POST", f"/api/v1/agents/{agent}/run", body=body)
    assert status == 200
    answered: dict[str, Any] = found
    return answered


def wait_until_written(daemon: Daemon, request_id: str) -> None:
    """Until another process could read it."""
    end = time.monotonic() + 10
    path = daemon.state_dir / "gateway" / "history.db"
    while True:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            if database.execute("SELECT 1 FROM parts WHERE instr(ids, ?)", (request_id,)).fetchone() is not None:
                return
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_was_written_survives_a_gateway_that_is_killed(daemon: Daemon) -> None:
    """Up to the last batch, which is a quarter of a second at most."""
    request_id = run(daemon, "you")["request_id"]
    wait_until_written(daemon, request_id)
    killed = daemon.gateway_pid()
    assert killed > 1
    os.kill(killed, signal.SIGKILL)
    end = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError, HTTPException, StopIteration, ValueError):
            status, found = daemon.request("GET", f"/api/v1/invocations/{request_id}", timeout=5)
            if status == 200:
                break
        assert time.monotonic() < end, daemon.log.read_text()[-2000:]
        time.sleep(0.02)
    assert daemon.gateway_pid() != killed
    assert (found["status"], found["invocation_id"]) == ("completed", request_id)


def test_the_history_is_there_after_a_restart_of_the_daemon(tmp_path: Path) -> None:
    """Also the very last calls: they are written when the daemon ends."""
    folder = agent(tmp_path / "agents", "plain", SOURCE, "greet")
    state = tmp_path / "state"
    with serve([folder], state_dir=state) as first:
        ids = [run(first, name)["request_id"] for name in ("you", "nobody")]
    with serve([folder], state_dir=state) as second:
        for request_id, expected in zip(ids, ("completed", "failed"), strict=True):
            status, found = second.request("GET", f"/api/v1/invocations/{request_id}")
            assert (status, found["status"]) == (200, expected)
        assert [row["request_id"] for row in rows(second)] == ids


def test_the_history_is_there_where_the_daemon_comes_back_with_other_uids(tmp_path: Path) -> None:
    """While it was down, another daemon may have taken its block of them."""
    folder = agent(tmp_path / "agents", "plain", SOURCE, "greet")
    state = tmp_path / "state"
    with serve([folder], state_dir=state) as first:
        request_id = run(first, "you")["request_id"]
    before = (state / "gateway").stat().st_uid
    with taken(before), serve([folder], state_dir=state) as second:
        assert (state / "gateway").stat().st_uid != before
        status, found = second.request("GET", f"/api/v1/invocations/{request_id}")
        assert (status, found["status"]) == (200, "completed")
        assert run(second, "you")["success"] is True


@contextlib.contextmanager
def taken(uid: int) -> Iterator[None]:
    """As if another daemon had the block of this uid; perhaps one has."""
    with open(Path(uids.DIRECTORY, f"block-{(uid - uids.UID_BASE) // uids.BLOCK:03d}"), "rb") as lock:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def test_only_the_agent_whose_policy_asks_for_it_has_contents_kept(daemon: Daemon) -> None:
    """Neither the file nor the answer has those of the other."""
    plain, kept = run(daemon, "a name of mine"), run(daemon, "another name", "kept")
    failed = run(daemon, "nobody")
    found = daemon.request("GET", f"/api/v1/invocations/{kept['request_id']}")[1]
    assert found["input_data"] == {"input_args": [], "input_kwargs": {"name": "another name"}}
    assert found["output_data"] == "Hello another name!"
    found = daemon.request("GET", f"/api/v1/invocations/{plain['request_id']}")[1]
    assert (found["input_data"], found["output_data"]) == (None, None)
    found = daemon.request("GET", f"/api/v1/invocations/{failed['request_id']}")[1]
    assert found["error_detail"] == "FUNCTION_ERROR: the function raised an exception"
    for answered in (plain, kept, failed):
        wait_until_written(daemon, answered["request_id"])
    data = b"".join(path.read_bytes() for path in (daemon.state_dir / "gateway").glob("history.db*"))
    assert b"another name" in data
    assert b"a name of mine" not in data
    assert b"nobody" not in data


def test_calls_are_shown_as_a_table(daemon: Daemon) -> None:
    """The last one last; who, what, what came of it, how long it took."""
    good = run(daemon, "you")["request_id"]
    run(daemon, "nobody")
    status, out, err = ctl(daemon, "plain", "--limit", "2")
    assert (status, err) == (0, "")
    header, first, last = out.splitlines()
    assert re.split(r" {2,}", header) == [
        "TIME", "AGENT", "TAG", "SUBJECT", "OUTCOME", "MS", "QUEUE MS", "IN", "OUT", "REQUEST ID",
    ]  # fmt: skip
    cells = re.split(r" {2,}", first)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", cells[0])
    assert cells[1:5] == ["plain", "greet", "serve", "OK"]
    assert float(cells[5]) > 0 <= float(cells[6])
    assert cells[7:] == ["20", "12", good]
    assert re.split(r" {2,}", last)[4] == "FUNCTION_ERROR"


def test_calls_can_be_chosen(daemon: Daemon) -> None:
    """By agent, status and age."""
    good, bad = run(daemon, "you")["request_id"], run(daemon, "nobody")["request_id"]
    other = run(daemon, "you", "kept")["request_id"]
    assert [row["request_id"] for row in rows(daemon, "--limit", "3")] == [good, bad, other]
    assert [row["request_id"] for row in rows(daemon, "plain", "--limit", "2")] == [good, bad]
    assert [row["request_id"] for row in rows(daemon, "--status", "failed", "--limit", "1")] == [bad]
    agent_id = next(each["id"] for each in daemon.agents if each["name"] == "kept")
    assert [row["request_id"] for row in rows(daemon, agent_id, "--since", "1h", "--limit", "1")] == [other]
    assert rows(daemon, "--status", "pending") == []


def test_more_calls_than_a_message_holds_are_shown_page_by_page(daemon: Daemon) -> None:
    """In their order, each once."""
    ids = [run(daemon, "you")["request_id"] for _ in range(230)]
    assert [row["request_id"] for row in rows(daemon, "plain", "--limit", "230")] == ids


def test_nothing_that_a_caller_wrote_moves_the_cursor(daemon: Daemon) -> None:
    """A tag is any text; it is shown in escapes."""
    path = "/v1/agents/plain/entrypoints/%1B%5B2J%0Aforged:invoke"
    assert daemon.request("POST", path, body={})[0] == 404
    status, out, _ = ctl(daemon, "plain", "--limit", "1")
    assert status == 0
    assert len(out.splitlines()) == 2
    assert "\x1b" not in out
    assert "\\x1b[2J\\nforged" in out


def test_wrong_use_is_told(daemon: Daemon, tmp_path: Path) -> None:
    """In one clear sentence."""
    status, out, err = ctl(daemon, "--since", "yesterday")
    assert (status, out) == (1, "")
    assert '"yesterday" is not a duration' in err
    assert ctl(daemon, "--limit", "0")[2] == "runagentctl: --limit: must be from 1 to 100000, not 0\n"
    status, out, err = ctl(daemon, "none")
    assert (status, len(out.splitlines())) == (0, 1)
    assert "no agent has the id or the name none now" in err
    command = [sys.executable, "-m", "runagentd.cli.runagentctl", "calls", "--state-dir"]
    folder = agent(tmp_path / "agents", "plain", SOURCE, "greet")
    with serve([folder], state_dir=tmp_path / "state"):
        pass
    done = subprocess.run([*command, str(tmp_path / "state")], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"runagentctl: no daemon answers on {tmp_path / 'state' / 'admin.sock'}\n")
