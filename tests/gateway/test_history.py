"""Invocation history: what is kept of which call, for how long, and who may see it; and what a bad disk costs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.sync.client import connect

from runagentd.errors import Refusal
from runagentd.gateway.configuration import Configuration
from runagentd.gateway.kept import history
from runagentd.gateway.kept.history import History, Totals
from runagentd.gateway.kept.invocation import CONTENT_BYTES_MAX, Contents, Status, client, text
from runagentd.gateway.requests import CallRecord
from runagentd.log import Form, Log
from runagentd.wire.channel import Frame
from runagentd.wire.control import AgentRemoved
from runagentd.wire.settings import Settings
from tests.fakes_gateway import LIMITS, TRACE, FakeRunner, Gateway, HttpAnswer, answer

RUN = "/api/v1/agents/echo/run"
LIST = "/api/v1/agents/echo/invocations"
STATS = "/api/v1/agents/echo/invocations/stats"
CONTENTS = dataclasses.replace(LIMITS, history_contents=True)
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}")


def body(**more: object) -> bytes:
    return json.dumps({"entrypoint_tag": "say", **more}).encode()


def call(gateway: Gateway, runner: FakeRunner, token: str, value: object = "hi", **fields: str) -> str:
    """The id of a call that went well."""
    asked = gateway.send("POST", RUN, body(input_args=["a"], input_kwargs={"k": 1}), token=token, **fields)
    runner.result(runner.until(Frame.CALL).call, value)
    found: str = answer(asked).json()["request_id"]
    return found


def fail(gateway: Gateway, runner: FakeRunner, token: str) -> str:
    asked = gateway.send("POST", RUN, body(input_args=["secret"]), token=token)
    runner.error(runner.until(Frame.CALL).call, "exception", "secret is wrong", type="ValueError")
    found: str = answer(asked).json()["request_id"]
    return found


def listed(gateway: Gateway, token: str, query: str = "") -> list[dict[str, Any]]:
    """Any: JSON."""
    got = gateway.ask("GET", LIST + query, token=token)
    assert got.status == 200, got.body
    found = got.json()
    assert list(found) == ["agent_id", "invocations", "total_count"]
    assert (found["agent_id"], found["total_count"]) == ("echo-1", len(found["invocations"]))
    rows: list[dict[str, Any]] = found["invocations"]
    return rows


# ---- the shapes


def test_a_call_is_found_under_the_id_of_its_answer(gateway: Gateway) -> None:
    """In the shape of RunAgent's own server, without an envelope; neither arguments nor results are in it."""
    runner = gateway.ready()
    token = gateway.token()
    request_id = call(gateway, runner, token, User_Agent="RunAgent-CLI/1.0")
    got = gateway.ask("GET", f"/api/v1/invocations/{request_id}", token=token)
    found = got.json()
    assert TIMESTAMP.fullmatch(found["request_timestamp"])
    assert found["request_timestamp"] < found["response_timestamp"]
    assert 0 < found["execution_time_ms"] < 60_000
    assert (got.status, got.headers["content-type"]) == (200, "application/json")
    assert found == {
        "invocation_id": request_id,
        "agent_id": "echo-1",
        "input_data": None,
        "output_data": None,
        "error_detail": None,
        "request_timestamp": found["request_timestamp"],
        "response_timestamp": found["response_timestamp"],
        "execution_time_ms": found["execution_time_ms"],
        "status": "completed",
        "entrypoint_tag": "say",
        "sdk_type": "RunAgent-CLI",
        "client_info": {"user_agent": "RunAgent-CLI/1.0"},
    }
    assert listed(gateway, token) == [found]


def test_a_failed_call_says_what_was_wrong_and_quotes_nobody(gateway: Gateway) -> None:
    """The message of an exception may hold an argument; the error's own words do not."""
    runner = gateway.ready()
    token = gateway.token()
    request_id = fail(gateway, runner, token)
    found = gateway.ask("GET", f"/api/v1/invocations/{request_id}", token=token)
    assert found.json()["error_detail"] == "FUNCTION_ERROR: the function raised an exception"
    assert (found.json()["status"], found.json()["client_info"]) == ("failed", None)
    assert b"secret" not in found.body
    gateway.inside(gateway.application._history.flush)
    data = b"".join(path.read_bytes() for path in (gateway.folder / "data").glob("history.db*"))
    assert request_id.encode() in data
    assert b"secret" not in data


def test_refused_calls_are_kept_too(gateway: Gateway) -> None:
    """With the same fields, as far as the caller and the agent were known."""
    gateway.ready()
    token = gateway.token()
    refused = gateway.ask("POST", RUN, b'{"entrypoint_tag":"nay"}', token=token)
    assert gateway.ask("POST", RUN, body(), token="bad").status == 401
    (found,) = listed(gateway, token)
    assert (found["invocation_id"], found["status"]) == (refused.json()["request_id"], "failed")
    assert (found["entrypoint_tag"], found["error_detail"]) == ("nay", "NOT_FOUND: no such entrypoint or path")
    rows = gateway.inside(lambda: gateway.application._history.totals("", ""))
    assert rows == Totals(0, 1, 0)


def test_a_stream_is_found_under_its_invocation_id_and_is_pending_until_its_end(gateway: Gateway) -> None:
    """Pending calls come from memory, and before all others."""
    runner = gateway.ready("say", "say_stream")
    token = gateway.token()
    before = call(gateway, runner, token)
    fields = {"Authorization": f"Bearer {token}"}
    url = f"ws://127.0.0.1:{gateway.port}/api/v1/agents/echo/run-stream"
    with connect(url, additional_headers=fields, compression=None, open_timeout=5, close_timeout=1) as ws:
        ws.send(json.dumps({"entrypoint_tag": "say_stream"}))
        number = runner.until(Frame.CALL).call
        invocation_id = json.loads(ws.recv(timeout=5))["invocation_id"]
        pending, ended = listed(gateway, token)
        assert TIMESTAMP.fullmatch(pending["request_timestamp"])
        assert pending == {
            "invocation_id": invocation_id,
            "agent_id": "echo-1",
            "input_data": None,
            "output_data": None,
            "error_detail": None,
            "request_timestamp": pending["request_timestamp"],
            "response_timestamp": None,
            "execution_time_ms": None,
            "status": "pending",
            "entrypoint_tag": "say_stream",
            "sdk_type": "Python",
            "client_info": pending["client_info"],
        }
        assert ended["invocation_id"] == before
        alone = gateway.ask("GET", f"/api/v1/invocations/{invocation_id}", token=token).json()
        # When it came is reckoned from its age, each time anew: microseconds may differ.
        assert alone == {**pending, "request_timestamp": alone["request_timestamp"]}
        assert [row["status"] for row in listed(gateway, token, "?status=pending")] == ["pending"]
        assert gateway.ask("GET", STATS, token=token).json()["stats"]["pending_invocations"] == 1
        runner.chunk(number, 1)
        runner.end(number, 1)
        while json.loads(ws.recv(timeout=5)).get("status") != "stream_completed":
            pass
        found = gateway.ask("GET", f"/api/v1/invocations/{invocation_id}", token=token).json()
        assert (found["status"], found["entrypoint_tag"]) == ("completed", "say_stream")


def test_statistics_are_numbers_also_of_no_calls(gateway: Gateway) -> None:
    """success_rate in per cent; the average is that of completed calls."""
    runner = gateway.ready()
    token = gateway.token()
    none = {
        "total_invocations": 0,
        "completed_invocations": 0,
        "failed_invocations": 0,
        "pending_invocations": 0,
        "success_rate": 0.0,
        "avg_execution_time_ms": 0.0,
        "agent_id": "echo-1",
    }
    assert gateway.ask("GET", STATS, token=token).json() == {"agent_id": "echo-1", "stats": none}
    for _ in range(2):
        call(gateway, runner, token)
    fail(gateway, runner, token)
    stats = gateway.ask("GET", STATS, token=token).json()["stats"]
    average = stats["avg_execution_time_ms"]
    assert 0 < average < 60_000
    assert stats == {
        **none,
        "total_invocations": 3,
        "completed_invocations": 2,
        "failed_invocations": 1,
        "success_rate": 66.67,
        "avg_execution_time_ms": average,
    }


def test_a_list_is_bounded_and_can_be_of_one_status(gateway: Gateway) -> None:
    """The last one first."""
    runner = gateway.ready()
    token = gateway.token()
    first, second = call(gateway, runner, token), fail(gateway, runner, token)
    third = call(gateway, runner, token)
    assert [row["invocation_id"] for row in listed(gateway, token)] == [third, second, first]
    assert [row["invocation_id"] for row in listed(gateway, token, "?limit=2")] == [third, second]
    assert [row["invocation_id"] for row in listed(gateway, token, "?status=failed&limit=9")] == [second]
    assert [row["invocation_id"] for row in listed(gateway, token, "?status=completed&limit=1")] == [third]
    assert listed(gateway, token, "?status=pending") == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?limit=0", "limit must be a number from 1 to 500"),
        ("?limit=501", "limit must be a number from 1 to 500"),
        ("?limit=-1", "limit must be a number from 1 to 500"),
        ("?limit=%D9%A1", "limit must be a number from 1 to 500"),
        ("?limit=1e2", "limit must be a number from 1 to 500"),
        ("?status=done", "status must be one of pending, completed, failed"),
    ],
)
def test_a_question_that_is_wrong_is_422(gateway: Gateway, query: str, message: str) -> None:
    """In the one error body."""
    gateway.ready()
    got = gateway.ask("GET", LIST + query)
    assert (got.status, got.json()["detail"], got.json()["error"]["code"]) == (422, message, "VALIDATION_ERROR")


@pytest.mark.parametrize("path", [LIST, STATS, f"/api/v1/invocations/{uuid.uuid4()}"])
def test_the_history_is_read_and_not_written(gateway: Gateway, path: str) -> None:
    """GET only, and with a token."""
    for method in ("POST", "DELETE", "HEAD"):
        got = gateway.ask(method, path)
        assert (got.status, got.headers["allow"]) == (405, "GET")
    assert gateway.ask("GET", path, token=None).status == 401
    assert gateway.ask("GET", path, token="bad").status == 401


# ---- who sees what


def without_id(got: HttpAnswer, sent: str) -> tuple[int, Any]:
    """Any: JSON."""
    found = json.loads(got.body.replace(sent.encode(), b"ID"))
    return got.status, {key: value for key, value in found.items() if key not in ("timestamp", "request_id")}


def test_callers_see_their_own_calls_and_others_look_like_none(gateway: Gateway) -> None:
    """Byte for byte but for the id that was asked for; with `audit:read` everybody's are seen."""
    runner = gateway.ready()
    alice, bob = gateway.token(subject="alice"), gateway.token(subject="bob")
    of_alice, of_bob = call(gateway, runner, alice), call(gateway, runner, bob)
    auditor = gateway.token(subject="carol", scopes=("audit:read",))
    nothing = str(uuid.uuid4())
    missing = without_id(gateway.ask("GET", f"/api/v1/invocations/{nothing}", token=bob), nothing)
    assert missing[0] == 404
    assert without_id(gateway.ask("GET", f"/api/v1/invocations/{of_alice}", token=bob), of_alice) == missing
    for token, seen in ((alice, [of_alice]), (bob, [of_bob]), (auditor, [of_bob, of_alice])):
        assert [row["invocation_id"] for row in listed(gateway, token)] == seen
        assert gateway.ask("GET", STATS, token=token).json()["stats"]["total_invocations"] == len(seen)
        statuses = [
            gateway.ask("GET", f"/api/v1/invocations/{each}", token=token).status for each in (of_alice, of_bob)
        ]
        assert statuses == [200 if each in seen else 404 for each in (of_alice, of_bob)]


def test_open_calls_of_others_are_not_seen_either(gateway: Gateway) -> None:
    """Neither listed, nor counted, nor found."""
    runner = gateway.ready()
    alice, bob = gateway.token(subject="alice"), gateway.token(subject="bob")
    asked = gateway.send("POST", RUN, body(), token=alice)
    number = runner.until(Frame.CALL).call
    (pending,) = listed(gateway, alice)
    assert listed(gateway, bob) == []
    assert gateway.ask("GET", STATS, token=bob).json()["stats"]["pending_invocations"] == 0
    assert gateway.ask("GET", f"/api/v1/invocations/{pending['invocation_id']}", token=bob).status == 404
    runner.result(number, 1)
    answer(asked)


def test_an_id_that_another_caller_sends_again_hides_nothing(gateway: Gateway) -> None:
    """X-Request-ID is the caller's to choose: each sees their own call under it."""
    runner = gateway.ready()
    alice, bob = gateway.token(subject="alice"), gateway.token(subject="bob")
    chosen = str(uuid.uuid4())
    assert call(gateway, runner, alice, X_Request_ID=chosen) == chosen
    of_alice = gateway.ask("GET", f"/api/v1/invocations/{chosen}", token=alice).json()
    call(gateway, runner, bob, X_Request_ID=chosen)
    assert gateway.ask("GET", f"/api/v1/invocations/{chosen}", token=alice).json() == of_alice
    of_bob = gateway.ask("GET", f"/api/v1/invocations/{chosen}", token=bob).json()
    assert of_bob["request_timestamp"] > of_alice["request_timestamp"]


def test_an_agent_that_is_not_the_callers_has_no_history_for_them(gateway: Gateway) -> None:
    """Not even with `audit:read`, nor once it is gone; like one that never was."""
    runner = gateway.ready()
    request_id = call(gateway, runner, gateway.token())
    outsider = gateway.token("other", subject="eve", scopes=("audit:read",))
    for path in (LIST, STATS, "/api/v1/agents/none/invocations"):
        got = gateway.ask("GET", path, token=outsider)
        assert (got.status, got.json()["error"]["code"]) == (404, "AGENT_NOT_FOUND")
    assert gateway.ask("GET", f"/api/v1/invocations/{request_id}", token=outsider).status == 404
    gateway.supervisor.send(AgentRemoved(agent="echo-1"))
    gateway.wait_until(lambda: gateway.application.directory.find("echo") is None)
    for path in (LIST, STATS, f"/api/v1/invocations/{request_id}"):
        assert gateway.ask("GET", path).status == 404


# ---- contents


def test_arguments_and_results_are_kept_where_the_policy_asks_for_them(gateway: Gateway) -> None:
    """And the words of an exception."""
    runner = gateway.ready(limits=CONTENTS)
    token = gateway.token()
    request_id = call(gateway, runner, token, {"n": 1.50})
    failed = fail(gateway, runner, token)
    found = gateway.ask("GET", f"/api/v1/invocations/{request_id}", token=token).json()
    assert found["input_data"] == {"input_args": ["a"], "input_kwargs": {"k": 1}}
    assert found["output_data"] == {"n": 1.5}
    bad = gateway.ask("GET", f"/api/v1/invocations/{failed}", token=token).json()
    assert bad["input_data"] == {"input_args": ["secret"], "input_kwargs": {}}
    assert (bad["output_data"], bad["error_detail"]) == (None, "FUNCTION_ERROR: ValueError: secret is wrong")
    assert listed(gateway, token) == [bad, found]


def test_contents_that_are_too_large_are_named_by_their_size(gateway: Gateway) -> None:
    """Half a JSON text would be none."""
    runner = gateway.ready(limits=CONTENTS)
    token = gateway.token()
    fits, too_large = "x" * (CONTENT_BYTES_MAX - 3), "x" * (CONTENT_BYTES_MAX - 2)
    for value, shown in ((fits, fits), (too_large, {"omitted": "65537 bytes"})):
        request_id = call(gateway, runner, token, value)
        found = gateway.ask("GET", f"/api/v1/invocations/{request_id}", token=token).json()
        assert found["output_data"] == shown
    asked = gateway.send("POST", RUN, body(input_args=["y" * CONTENT_BYTES_MAX]), token=token)
    runner.result(runner.until(Frame.CALL).call, 1)
    request_id = answer(asked).json()["request_id"]
    found = gateway.ask("GET", f"/api/v1/invocations/{request_id}", token=token).json()
    assert found["input_data"] == {"omitted": "65545 bytes"}


def test_a_list_shows_contents_up_to_a_bound(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each alone is shown whole."""
    monkeypatch.setattr("runagentd.gateway.doors.history.SHOWN_BYTES_MAX", 100)
    runner = gateway.ready(limits=CONTENTS)
    token = gateway.token()
    for _ in range(2):
        call(gateway, runner, token, "z" * 30)
    assert [row["output_data"] for row in listed(gateway, token)] == ["z" * 30, {"omitted": "32 bytes"}]


@given(st.lists(st.text(max_size=40)), st.booleans())
def test_collected_contents_are_json(values: list[str], single: bool) -> None:
    """Whatever came."""
    contents = Contents(json.dumps([["ü"], {}]).encode(), single=single)
    for value in values:
        contents.delivered(json.dumps(value).encode())
    found = contents.output()
    assert json.loads(contents.input) == {"input_args": ["ü"], "input_kwargs": {}}
    if single:
        assert (None if found is None else json.loads(found)) == (values[0] if values else None)
    else:
        assert found is not None
        assert json.loads(found) == values


@pytest.mark.parametrize(
    ("field", "kept"),
    [
        ("curl/8.1", "curl/8.1"),
        ("", None),
        ("a\x1b[2J", None),
        ("\udcff", None),
        ("m\u00fcller", None),
        ("x" * 300, "x" * 255),
    ],
)
def test_a_user_agent_is_kept_where_it_can_be_shown(field: str, kept: str | None) -> None:
    """Visible ASCII, and not too much of it."""
    assert client(field) == kept


@given(st.text(st.characters(), max_size=400))
def test_any_text_can_be_written_down(value: str) -> None:
    """Also halves of surrogate pairs."""
    found = text(value)
    assert len(found) <= 255
    found.encode("utf-8")


# ---- the file


class Later:
    """An event loop's timers, which a test lets go off."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, Callable[[], None], _Timer]] = []

    def __call__(self, seconds: float, callback: Callable[[], None]) -> _Timer:
        timer = _Timer()
        self.waiting.append((seconds, callback, timer))
        return timer

    def turn(self, seconds: float) -> None:
        """Those that were to go off within so many seconds."""
        due, self.waiting = self.waiting, []
        for after, callback, timer in due:
            if timer.cancelled:
                continue
            if after <= seconds:
                callback()
            else:
                self.waiting.append((after, callback, timer))


class _Timer:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


OPEN: list[Kept] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """No test leaves a database open."""
    yield
    while OPEN:
        OPEN.pop().history.close()


class Kept:
    """A history with its surroundings."""

    def __init__(self, folder: Path, *, keep_seconds: int = 3600, bytes_max: int = 1024**2) -> None:
        self.lines: list[str] = []
        self.later, self.clock = Later(), Clock()
        self.folder = folder
        self.history = History(
            folder,
            Log(self, source="test", form=Form.JSON),  # type: ignore[arg-type] # write and flush are all that Log uses
            keep_seconds=keep_seconds,
            bytes_max=bytes_max,
            later=self.later,
            clock=self.clock,
        )
        OPEN.append(self)

    def write(self, line: str) -> None:
        self.lines.append(json.loads(line)["event"])

    def flush(self) -> None:
        pass

    def add(
        self, principal: str = "p", *, outcome: str = "OK", agent: str = "a", contents: Contents | None = None
    ) -> str:
        request_id = str(uuid.uuid4())
        self.history.add(record(request_id, principal, outcome, agent, self.clock()), contents)
        return request_id

    def ids(self, principal: str | None = None, **more: Any) -> list[str]:
        """Any: what `recent` takes."""
        found = asyncio.run(self.history.recent(None, principal, **{"status": None, "limit": 10**6, **more}))
        return [kept.id for _, kept in found]

    def find(self, request_id: str, principal: str | None = None) -> str | None:
        kept = asyncio.run(self.history.find(request_id, frozenset({"a"}), principal))
        return None if kept is None else kept.id

    def on_disk(self) -> int:
        """Calls that another process would find."""
        with contextlib.closing(sqlite3.connect(self.folder / history.NAME)) as database:
            return int(database.execute("SELECT coalesce(sum(completed + failed), 0) FROM parts").fetchone()[0])

    def prune(self) -> None:
        for _ in range(10_000):
            before = len([each for each in self.later.waiting if each[0] < 1 and not each[2].cancelled])
            self.later.turn(1)
            if not before:
                return
        raise AssertionError("pruning does not end")


def record(request_id: str, principal: str, outcome: str, agent: str, now: float) -> CallRecord:
    return CallRecord(
        request_id=request_id,
        door="native",
        peer="192.0.2.1",
        subject=f"subject of {principal}",
        principal=principal,
        agent=agent,
        tag="say",
        instance="00000000000000a1",
        outcome=outcome,
        cause=None,
        detail=None,
        started_unix=now,
        seconds=0.002,
        queue_seconds=None,
        request_bytes=2,
        result_bytes=3,
        chunks=1,
        client=None,
        trace=TRACE,
    )


def test_calls_are_written_in_batches_by_number_and_by_time(tmp_path: Path) -> None:
    """So many at once, or what came within a quarter of a second."""
    kept = Kept(tmp_path)
    for _ in range(249):
        kept.add()
    assert kept.on_disk() == 0
    kept.add()
    assert kept.on_disk() == 250
    kept.add()
    kept.later.turn(0.2)
    assert kept.on_disk() == 250
    kept.later.turn(0.25)
    assert kept.on_disk() == 251
    kept.add()
    kept.history.close()
    assert kept.on_disk() == 252


def test_contents_make_a_batch_full_sooner(tmp_path: Path) -> None:
    """By their bytes: a large transaction would hold the event loop up."""
    kept = Kept(tmp_path)
    for _ in range(5):
        kept.add(contents=Contents(b'[["' + b"x" * 60_000 + b'"],{}]', single=True))
    assert kept.on_disk() == 5


def test_what_was_written_is_there_in_the_next_process(tmp_path: Path) -> None:
    """Without a goodbye from the one before."""
    kept = Kept(tmp_path)
    request_id = kept.add()
    kept.history.flush()
    kept.add()  # and this one is lost
    again = Kept(tmp_path)
    assert again.ids() == [request_id]
    assert again.history.totals("a", "p") == Totals(1, 0, 2000)
    assert again.find(request_id, "p") == request_id


def test_a_disk_that_fails_costs_history_and_no_call(tmp_path: Path) -> None:
    """One line in the log; what waits is bounded, and written when the disk is back."""
    kept = Kept(tmp_path)
    database = kept.history._database
    assert database is not None
    database.execute("PRAGMA query_only = ON")
    first = kept.add()
    ids = [kept.add() for _ in range(history.WAITING_CALLS_MAX + 5)]
    kept.later.turn(history.RETRY_SECONDS)
    kept.later.turn(history.RETRY_SECONDS)
    assert kept.lines == ["the history of calls cannot be written down: calls go on"]
    assert kept.history.lost == 6
    database.execute("PRAGMA query_only = OFF")
    kept.later.turn(history.RETRY_SECONDS)
    assert kept.lines[1:] == ["the history of calls is written down again"]
    assert sorted(kept.ids()) == sorted(ids[5:])
    assert first not in kept.ids()


def test_a_folder_that_cannot_be_used_is_told_once_and_tried_again(tmp_path: Path) -> None:
    """Calls that wait for it are not lost."""
    folder = tmp_path / "gateway"
    kept = Kept(folder)
    request_id = kept.add()
    kept.later.turn(history.RETRY_SECONDS)
    assert kept.lines == ["the history of calls cannot be written down: calls go on"]
    with pytest.raises(Refusal, match="cannot be read at the moment"):
        kept.ids()
    folder.mkdir()
    kept.later.turn(history.RETRY_SECONDS)
    assert kept.ids() == [request_id]


def test_a_damaged_file_begins_anew(tmp_path: Path) -> None:
    """There is nothing that a later attempt could save."""
    (tmp_path / history.NAME).write_bytes(b"no database at all" * 1000)
    kept = Kept(tmp_path)
    request_id = kept.add()
    kept.later.turn(history.RETRY_SECONDS)
    assert kept.lines[0] == "the history of calls is damaged: it begins anew"
    assert kept.ids() == [request_id]


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    """In steps; sums go with it."""
    kept = Kept(tmp_path, keep_seconds=3600)
    old = kept.add()
    kept.history.flush()
    kept.clock.now += 3000
    young = kept.add("q")
    kept.history.flush()
    kept.clock.now += 601
    kept.later.turn(history.PRUNE_SECONDS)
    assert kept.ids() == [young]
    assert kept.find(old) is None
    assert kept.history.totals("a", "p") == Totals(0, 0, 0)
    assert kept.history.totals("a", None) == Totals(1, 0, 2000)


def test_whoever_fills_it_loses_the_oldest_of_their_own(tmp_path: Path) -> None:
    """A flood of refused strangers does not push out what a caller did."""
    kept = Kept(tmp_path, bytes_max=1024**2)
    mine = [kept.add("me") for _ in range(20)]
    kept.history.flush()
    floods = []
    for _ in range(150):
        floods += [kept.add("", outcome="AUTHENTICATION_ERROR", agent="") for _ in range(100)]
        kept.prune()
    assert kept.ids("me") == mine[::-1]
    left = kept.ids("")
    assert left == floods[::-1][: len(left)]
    assert 1000 < len(left) < len(floods)
    assert (tmp_path / history.NAME).stat().st_size < 1.2 * 1024**2


def test_a_smaller_size_gives_the_disk_back(tmp_path: Path) -> None:
    """Bit by bit, like all pruning."""
    kept = Kept(tmp_path, bytes_max=16 * 1024**2)
    for _ in range(200):
        for _ in range(100):
            kept.add()
    kept.history.configure(keep_seconds=3600, bytes_max=1024**2)
    kept.prune()
    kept.history.close()
    assert (tmp_path / history.NAME).stat().st_size <= 1024**2


def test_contents_go_with_their_call(tmp_path: Path) -> None:
    """Nothing is left of them."""
    kept = Kept(tmp_path)
    kept.add(contents=Contents(b"[[1],{}]", single=True))
    kept.history.flush()
    kept.clock.now += 4000
    kept.later.turn(history.PRUNE_SECONDS)
    assert kept.history._database is not None
    assert kept.history._database.execute("SELECT count(*) FROM contents").fetchone() == (0,)
    assert kept.history._database.execute("SELECT count(*) FROM scopes").fetchone() == (0,)


def test_where_nothing_is_to_be_kept_there_is_no_file(tmp_path: Path) -> None:
    """What was there is gone at once."""
    kept = Kept(tmp_path)
    kept.add()
    kept.history.flush()
    kept.history.configure(keep_seconds=0, bytes_max=1024**2)
    kept.add()
    kept.history.flush()
    assert kept.ids() == []
    assert list(tmp_path.iterdir()) == []
    kept.history.configure(keep_seconds=60, bytes_max=1024**2)
    again = kept.add()
    assert kept.ids() == [again]


@settings(max_examples=30, deadline=None)
@given(
    calls=st.lists(st.tuples(st.sampled_from("pqr"), st.sampled_from(["OK", "SERVER_ERROR"])), max_size=60),
    batch=st.integers(1, 20),
    gone=st.integers(0, 10),
)
def test_sums_are_those_of_the_calls_that_are_there(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, str]], batch: int, gone: int
) -> None:
    """Whatever was added in which batches, and however much of it went."""
    kept = Kept(tmp_path_factory.mktemp("sums"))
    for number, (principal, outcome) in enumerate(calls):
        kept.add(principal, outcome=outcome)
        if number % batch == 0:
            kept.history.flush()
            kept.clock.now += 1
    kept.history.flush()
    kept.clock.now += 3600 - gone
    kept.later.turn(history.PRUNE_SECONDS)
    kept.prune()
    for principal in (*"pqr", None):
        good = len(kept.ids(principal, status=Status.COMPLETED))
        bad = len(kept.ids(principal, status=Status.FAILED))
        assert kept.history.totals("a", principal) == Totals(good, bad, 2000 * good)
        assert len(kept.ids(principal)) == good + bad
    OPEN.pop().history.close()


def test_pages_follow_each_other(tmp_path: Path) -> None:
    """Each begins where the one before ended, also within a batch."""
    kept = Kept(tmp_path)
    ids = [kept.add() for _ in range(250)]

    async def read() -> list[str]:
        found: list[str] = []
        before = history.NEWEST
        while page := await kept.history.recent(None, None, status=None, limit=7, before=before):
            found += [call.id for _, call in page]
            before = page[-1][0]
        return found

    assert asyncio.run(read()) == ids[::-1]


def test_settings_change_what_is_kept(gateway: Gateway) -> None:
    """At once, and calls go on."""
    runner = gateway.ready()
    token = gateway.token()
    call(gateway, runner, token)
    changed = Configuration(Settings(history_seconds=0), {})
    gateway.inside(lambda: gateway.application.configure(changed))
    call(gateway, runner, token)
    assert listed(gateway, token) == []
    assert gateway.ask("GET", STATS, token=token).json()["stats"]["total_invocations"] == 0
