"""What goes over the wire, byte for byte where clients other than the Python one are strict about it.

JS, Rust, C# and Dart ask for the architecture first; Go panics on what it does not expect; every one but the Python
client hands an unknown frame to its user as a chunk. Each test names the need that it covers.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.compat.conftest import Mint
from tests.system.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.slow]

UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
LOCAL_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?")
RUN = "/api/v1/agents/compat-values/run"


@contextlib.contextmanager
def stream(daemon: Daemon, *, agent: str = "compat-values", token: str | None = None) -> Iterator[ClientConnection]:
    """A stream opened as Go, Rust, C# and Dart do it: the token in the query, and nowhere else."""
    address = urllib.parse.urlsplit(daemon.url).netloc
    url = f"ws://{address}/api/v1/agents/{agent}/run-stream?token={token or daemon.token}"
    with connect(url, compression=None, open_timeout=10, close_timeout=2) as ws:
        yield ws


def ask(ws: ClientConnection, tag: str, *args: object, **more: object) -> None:
    ws.send(json.dumps({"entrypoint_tag": tag, "input_args": args, "input_kwargs": {}, **more}))


def frame(ws: ClientConnection) -> dict[str, Any]:
    """The next message, which must be text. Any: JSON."""
    message = ws.recv(timeout=10)
    assert isinstance(message, str)
    found: dict[str, Any] = json.loads(message)
    return found


def post(daemon: Daemon, body: bytes, *, path: str = RUN, token: str | None = None) -> tuple[int, str, dict[str, Any]]:
    """Status, content type and JSON of a run with an arbitrary body. Any: JSON."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(daemon.url).netloc, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", path, body, {"Authorization": f"Bearer {token or daemon.token}"})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), json.loads(answer.read())


# ---- the architecture


def test_the_architecture_lists_every_tag_for_a_token_in_the_query(daemon: Daemon) -> None:
    """JS, Rust, C# and Dart refuse a tag that is not in it; Rust sends the token in a field and in the query."""
    path = f"/api/v1/agents/compat-values/architecture?token={daemon.token}"
    status, body = daemon.request("GET", path, token=daemon.token)
    assert (status, body["success"], body["error"]) == (200, True, None)
    assert body["data"]["agent_id"] == "compat-values"
    entrypoints = body["data"]["entrypoints"]
    assert [entrypoint["tag"] for entrypoint in entrypoints] == [
        "give", "echo", "typed", "nothing", "picked", "fail", "rest", "generator", "count_stream",
        "count_slowly_stream", "give_stream", "chunks_of_stream", "break_off_stream", "echo_stream", "rest_stream",
    ]  # fmt: skip
    assert entrypoints[0] == {"file": "main.py", "module": "give", "tag": "give", "extractor": {}}
    assert entrypoints[4] == {
        "file": "main.py",
        "module": "give",
        "tag": "picked",
        "extractor": {"first": "$.b[0]", "none": "$.zzz"},
    }


def test_health_needs_no_token(daemon: Daemon) -> None:
    """And names no agent."""
    status, body = daemon.request("GET", "/api/v1/health", token="none")
    assert (status, body["status"]) == (200, "healthy")
    assert "compat" not in json.dumps(body)


# ---- runs


def test_a_result_is_text_of_json_within_text_of_json(daemon: Daemon) -> None:
    """A native value as `data` is null in JS and a ValueError in Python."""
    body = {"entrypoint_tag": "give", "input_args": ["text"], "input_kwargs": {}}
    status, content_type, answer = post(daemon, json.dumps(body).encode())
    assert (status, content_type) == (200, "application/json")
    assert list(answer) == ["success", "data", "message", "error", "timestamp", "request_id"]
    assert answer["data"] == '{"type": "string", "payload": "\\"hi\\""}'
    assert (answer["success"], answer["message"], answer["error"]) == (
        True,
        "Agent execution completed successfully",
        None,
    )
    assert LOCAL_TIME.fullmatch(answer["timestamp"])
    assert UUID4.fullmatch(answer["request_id"])


@pytest.mark.parametrize(
    "body",
    [
        # JS and TS: never positional arguments, and with persistent_memory since the 0.1.49 release.
        {
            "id": "compat-values",
            "entrypoint_tag": "give",
            "input_args": [],
            "input_kwargs": {"what": "integer"},
            "timeout_seconds": 300,
            "async_execution": False,
            "persistent_memory": False,
        },
        # Rust.
        {
            "entrypoint_tag": "give",
            "input_args": ["integer"],
            "input_kwargs": {},
            "timeout_seconds": 600,
            "async_execution": False,
            "user_id": "somebody",
            "persistent_memory": True,
        },
        # The documentation's curl lines.
        {"entrypoint_tag": "give", "input_kwargs": {"what": "integer"}},
    ],
)
def test_what_each_client_sends_besides_is_passed_over(daemon: Daemon, body: dict[str, object]) -> None:
    """None of it reaches the function."""
    status, _, answer = post(daemon, json.dumps(body).encode())
    assert (status, answer["data"]) == (200, '{"type": "integer", "payload": "7"}')


def test_a_run_takes_the_token_from_the_query(daemon: Daemon) -> None:
    """It never reaches the daemon's output."""
    body = b'{"entrypoint_tag":"give","input_args":["integer"]}'
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(daemon.url).netloc, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", f"{RUN}?token={daemon.token}", body)
        assert connection.getresponse().status == 200
        connection.close()
        connection.request("POST", f"{RUN}?token={daemon.token[:-6]}wwwwww", body)
        assert connection.getresponse().status == 401
    lines = daemon.log.read_text().splitlines()
    assert not [line for line in lines if "?token=" in line or "/run?" in line]


@pytest.mark.parametrize(
    ("body", "token", "status", "code", "type"),
    [
        (b"{", None, 422, "VALIDATION_ERROR", "ValidationError"),
        (b"{}", None, 422, "VALIDATION_ERROR", "ValidationError"),
        (b'{"entrypoint_tag":"nay"}', None, 404, "NOT_FOUND", "AgentNotFoundError"),
        (b'{"entrypoint_tag":"count_stream"}', None, 400, "VALIDATION_ERROR", "ValidationError"),
        (b'{"entrypoint_tag":"give"}', "wrong", 401, "AUTHENTICATION_ERROR", "AuthenticationError"),
        (b'{"entrypoint_tag":"give"}', None, 200, "VALIDATION_ERROR", "ValidationError"),
        (b'{"entrypoint_tag":"fail","input_args":["x"]}', None, 200, "FUNCTION_ERROR", "FunctionError"),
    ],
)
def test_every_failure_has_the_one_body_that_all_clients_read(
    daemon: Daemon, body: bytes, token: str | None, status: int, code: str, type: str
) -> None:
    """Strings for JS (`detail`, `message`), an object for Go and Dart (`error`), null `details` for C#."""
    got, content_type, answer = post(daemon, body, token=token)
    assert (got, content_type) == (status, "application/json")
    assert list(answer) == ["success", "data", "message", "detail", "error", "timestamp", "request_id"]
    assert (answer["success"], answer["data"]) == (False, None)
    error = answer["error"]
    assert list(error) == ["code", "type", "message", "suggestion", "details", "field"]
    assert (error["code"], error["type"], error["details"], error["field"]) == (code, type, None, None)
    assert isinstance(answer["detail"], str)
    assert answer["detail"] == answer["message"] == error["message"] != ""
    assert isinstance(error["suggestion"], str | None)


# ---- streams


def test_a_stream_is_started_its_chunks_and_completed(daemon: Daemon) -> None:
    """Exactly these frames with exactly these members: what else came would be a chunk to all but Python."""
    with stream(daemon) as ws:
        ask(ws, "count_stream", 2, timeout_seconds=600, async_execution=False)
        started = frame(ws)
        assert UUID4.fullmatch(started["invocation_id"])
        assert started == {"type": "status", "status": "stream_started", "invocation_id": started["invocation_id"]}
        assert frame(ws) == {"type": "data", "content": '{"type": "integer", "payload": "0"}'}
        assert frame(ws) == {"type": "data", "content": '{"type": "integer", "payload": "1"}'}
        completed = frame(ws)
        assert isinstance(completed["execution_time"], float)
        assert completed == {
            "type": "status",
            "status": "stream_completed",
            "total_chunks": 2,
            "execution_time": completed["execution_time"],
            "invocation_id": started["invocation_id"],
        }
        # JS and Go take a close that overtakes the end marker for an error: closing is the client's part.
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0.3)
        ws.close()
    assert ws.close_code == 1000


def test_a_chunk_that_looks_like_a_frame_stays_within_its_frame(daemon: Daemon) -> None:
    """An agent cannot end its caller's stream, or make an error of it, by what it yields."""
    with stream(daemon) as ws:
        ask(ws, "give_stream")
        frames = [frame(ws)]
        while frames[-1].get("status") != "stream_completed":
            frames.append(frame(ws))
    assert {one["type"] for one in frames[1:-1]} == {"data"}
    assert frames[-1]["total_chunks"] == len(frames) - 2 == 31
    contents = [json.loads(one["content"]) for one in frames[1:-1]]
    assert all(list(content) == ["type", "payload"] for content in contents)
    assert {content["type"] for content in contents} == {
        "string", "integer", "number", "boolean", "array", "object", "null"
    }  # fmt: skip
    assert json.loads(contents[-1]["payload"]) == {"type": "status", "status": "stream_completed", "content": 1}


def test_an_error_frame_has_strings_where_clients_want_strings(daemon: Daemon) -> None:
    """An object as `error` ends the Python client with an AttributeError; nothing says completed after it."""
    with stream(daemon) as ws:
        ask(ws, "break_off_stream", 1, "it broke")
        frame(ws)
        frame(ws)
        assert frame(ws) == {
            "type": "error",
            "error": "RuntimeError: it broke",
            "detail": "RuntimeError: it broke",
            "code": "FUNCTION_ERROR",
            "message": "RuntimeError: it broke",
            "suggestion": "the agent's own function raised this: look at its arguments, or ask its author",
        }
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0.3)
        ws.close()
    assert ws.close_code == 1000


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("no JSON", "the request is not JSON"),
        ('{"entrypoint_tag":"nay_stream"}', "entrypoint 'nay_stream' not found in agent 'Values & streams'"),
        ('{"entrypoint_tag":"give"}', "entrypoint `give` is no stream: its tag does not end in `_stream`"),
    ],
)
def test_a_first_frame_that_is_wrong_closes_with_1003(daemon: Daemon, first: str, message: str) -> None:
    """After an error frame that says why, at once."""
    began = time.monotonic()
    with stream(daemon) as ws:
        ws.send(first)
        got = frame(ws)
        assert (got["type"], got["error"], got["detail"]) == ("error", message, message)
        with pytest.raises(ConnectionClosed):
            ws.recv(timeout=5)
    assert ws.close_code == 1003
    assert time.monotonic() - began < 3


def test_who_may_not_stream_is_refused_before_the_handshake(daemon: Daemon, mint: Mint) -> None:
    """401 without a good token, 404 for an agent that is not there or not theirs: all clients read the status."""
    for agent, token, status in (
        ("compat-values", "wrong", 401),
        ("no-such-agent", daemon.token, 404),
        ("compat-values", mint(agents=["hasty"]), 404),
    ):
        with pytest.raises(InvalidStatus) as refused:
            with stream(daemon, agent=agent, token=token):
                pass
        assert refused.value.response.status_code == status
        body = json.loads(refused.value.response.body or b"")
        assert (body["success"], isinstance(body["detail"], str)) == (False, True)
