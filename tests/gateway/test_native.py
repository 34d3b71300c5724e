"""The native door, over real sockets."""

from __future__ import annotations

import dataclasses
import json
import socket

import pytest

from runagentd.gateway import describe
from runagentd.gateway.describe import Parameter
from runagentd.wire.channel import Frame
from runagentd.wire.control import Cause
from tests.fakes_gateway import LIMITS, Gateway, HttpAnswer, abort, answer

INVOKE = "/v1/agents/echo-1/entrypoints/say:invoke"


def problem(got: HttpAnswer) -> dict[str, object]:
    """The members of a problem that a test states; the others are checked here, once for all."""
    assert got.headers["content-type"] == "application/problem+json"
    members: dict[str, object] = got.json()
    request_id = got.headers["x-request-id"]
    assert members.pop("request_id") == request_id
    assert members.pop("instance") == f"urn:uuid:{request_id}"
    assert members.pop("status") == got.status
    code = members["code"]
    assert members.pop("type") == f"urn:runagentd:problem:{str(code).lower().replace('_', '-')}"
    return members


def test_a_call_reaches_the_function_with_its_keyword_arguments_and_returns_the_bare_result(gateway: Gateway) -> None:
    """The body's JSON text goes through unchanged, and so does the result's."""
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b'{"text": "hi",  "n": 1.50}')
    call = runner.expect(Frame.CALL)
    assert call.body == b'[[],{"text": "hi",  "n": 1.50}]'
    header = json.loads(call.header)
    assert 4000 < header.pop("deadline_ms") <= 5000
    assert len(header.pop("principal")) == 32
    request_id = header.pop("request_id")
    assert header.pop("traceparent").startswith(f"00-{request_id.replace('-', '')}-")
    assert header == {"tag": "say", "mode": "single", "credits": 0}
    runner.send(Frame.RESULT, call.call, {"type": "object"}, b'{"said":  "hi"}')
    got = answer(asked)
    assert (got.status, got.headers["content-type"], got.body) == (200, "application/json", b'{"said":  "hi"}')
    assert got.headers["x-request-id"] == request_id
    assert len(request_id) == 36
    assert got.headers["cache-control"] == "no-store"
    assert got.headers["server"] == "runagentd"


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
def test_large_arguments_and_results_go_there_and_back_whole(gateway: Gateway, accept: str) -> None:
    """They are not joined with what stands before them."""
    runner = gateway.ready()
    text = json.dumps("x" * 200_000)
    asked = gateway.send("POST", INVOKE, b'{"text":' + text.encode() + b"}", Accept=accept)
    call = runner.expect(Frame.CALL)
    assert call.body == b'[[],{"text":' + text.encode() + b"}]"
    runner.result(call.call, "x" * 200_000)
    got = answer(asked)
    assert (got.status, text.encode() in got.body) == (200, True)
    assert accept != "*/*" or (got.body, got.headers["content-length"]) == (text.encode(), "200002")


def test_an_agent_is_found_by_its_name_and_names_may_hold_anything(gateway: Gateway) -> None:
    """A percent-encoded slash belongs to the name; a tag may hold colons; the verb is the last part."""
    gateway.supervisor.serve(agent="a/1", name="my agent/ü", tags=("x:y/z",))
    runner = gateway.supervisor.offer(agent="a/1")
    runner.ready("x:y/z")
    gateway.supervisor.receive()
    for name in ("my%20agent%2F%C3%BC", "a%2F1"):
        asked = gateway.send("POST", f"/v1/agents/{name}/entrypoints/x:y%2Fz:invoke")
        call = runner.expect(Frame.CALL)
        assert call.body == b"[[],{}]"
        runner.result(call.call, name)
        assert answer(asked).json() == name


def test_the_caller_may_bring_the_deadline_nearer_and_not_further(gateway: Gateway) -> None:
    """Runagent-Timeout lowers what the policy allows."""
    runner = gateway.ready()
    for field, low, high in (("2s", 1000, 2000), ("1500ms", 500, 1500), ("5m", 4000, 5000)):
        asked = gateway.send("POST", INVOKE, b"{}", Runagent_Timeout=field)
        call = runner.expect(Frame.CALL)
        assert low < json.loads(call.header)["deadline_ms"] <= high
        runner.result(call.call, None)
        assert answer(asked).body == b"null"


@pytest.mark.parametrize(
    ("entrypoint", "caller", "low", "high"),
    [(1500, None, 500, 1500), (1500, "1s", 0, 1000), (1500, "4s", 500, 1500), (60_000, None, 4000, 5000)],
)
def test_the_nearest_of_policy_entrypoint_and_caller_is_the_deadline(
    gateway: Gateway, entrypoint: int, caller: str | None, low: int, high: int
) -> None:
    """The policy here allows 5 seconds: an author cannot have more than that, nor a caller more than the author."""
    runner = gateway.ready(timeout_ms=entrypoint)
    asked = gateway.send("POST", INVOKE, b"{}", **({} if caller is None else {"Runagent_Timeout": caller}))
    call = runner.expect(Frame.CALL)
    assert low < json.loads(call.header)["deadline_ms"] <= high
    runner.result(call.call, None)
    assert answer(asked).body == b"null"


def test_an_entrypoints_deadline_ends_its_call_and_is_shown(gateway: Gateway) -> None:
    """504 in time, and the number stands where the entrypoint is described."""
    runner = gateway.ready(timeout_ms=60)
    got = gateway.ask("POST", INVOKE, b"{}")
    assert (got.status, got.json()["code"], got.json()["cause"]) == (504, "TIMEOUT_ERROR", "deadline")
    assert runner.until(Frame.CANCEL).header == b'{"reason":"deadline"}'
    shown = gateway.ask("GET", "/v1/agents/echo").json()
    assert (shown["entrypoints"][0]["deadline_seconds"], shown["limits"]["deadline_seconds"]) == (0.06, 5.0)
    operation = gateway.ask("GET", "/openapi.json").json()["paths"]["/v1/agents/echo-1/entrypoints/say:invoke"]["post"]
    assert operation["x-runagentd-limits"]["deadline_seconds"] == 0.06


def test_a_request_id_of_the_caller_is_kept_where_it_is_a_uuid_or_a_ulid(gateway: Gateway) -> None:
    """Anything else gets a new one, so that no text of a stranger's is copied into answers and logs."""
    for sent in ("7d444840-9dc0-11d1-b245-5ffdce74fad2", "01ARZ3NDEKTSV4RRFFQ69G5FAV"):
        assert gateway.ask("GET", "/livez", X_Request_ID=sent).headers["x-request-id"] == sent
    got = gateway.ask("GET", "/livez", X_Request_ID="my-id").headers["x-request-id"]
    assert got != "my-id"
    assert len(got) == 36


@pytest.mark.parametrize(
    ("body", "headers", "status", "code", "detail"),
    [
        (
            b"[1]",
            {},
            422,
            "VALIDATION_ERROR",
            "the body must be one JSON object, whose members are the function's keyword arguments",
        ),
        (
            b'"x"',
            {},
            422,
            "VALIDATION_ERROR",
            "the body must be one JSON object, whose members are the function's keyword arguments",
        ),
        (b'{"a":', {}, 400, "VALIDATION_ERROR", "the body is not JSON in UTF-8"),
        (b'{"a":1}{}', {}, 400, "VALIDATION_ERROR", "the body is not JSON in UTF-8"),
        (b'{"a":NaN}', {}, 400, "VALIDATION_ERROR", "the body is not JSON in UTF-8"),
        (b'{"a":"\xff"}', {}, 400, "VALIDATION_ERROR", "the body is not JSON in UTF-8"),
        (
            b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            {},
            400,
            "VALIDATION_ERROR",
            "the body is not JSON in UTF-8",
        ),
        (
            b"{}",
            {"Content_Type": "text/plain"},
            415,
            "UNSUPPORTED_MEDIA_TYPE",
            "the body must be application/json and not 'text/plain'",
        ),
        (b"{}", {"Content_Encoding": "gzip"}, 415, "UNSUPPORTED_MEDIA_TYPE", "the body must not be compressed"),
        (b"{}", {"Runagent_Timeout": "soon"}, 400, "VALIDATION_ERROR", "the header Runagent-Timeout is not a duration"),
        (b"{}", {"Runagent_Timeout": "0s"}, 400, "VALIDATION_ERROR", "the header Runagent-Timeout is not a duration"),
    ],
)
def test_a_body_that_is_no_object_is_refused_with_its_reason(
    gateway: Gateway, body: bytes, headers: dict[str, str], status: int, code: str, detail: str
) -> None:
    """Before anything reaches a runner."""
    gateway.ready()
    got = gateway.ask("POST", INVOKE, body, **headers)
    assert got.status == status
    members = problem(got)
    assert (members["code"], members["detail"], members["retryable"]) == (code, detail, False)


def test_a_body_that_is_too_large_is_refused_whether_or_not_its_size_was_declared(gateway: Gateway) -> None:
    """The limit is that of the agent's policy."""
    gateway.ready(limits=dataclasses.replace(LIMITS, request_bytes=100))
    body = json.dumps({"text": "x" * 200}).encode()
    expected = "the request is larger than the 100 bytes that the agent takes"
    declared = gateway.ask("POST", INVOKE, body)
    assert (declared.status, problem(declared)["detail"]) == (413, expected)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw:
        fields = f"Host: x\r\nAuthorization: Bearer {gateway.token()}\r\nTransfer-Encoding: chunked\r\n"
        head = f"POST {INVOKE} HTTP/1.1\r\n{fields}\r\n"
        raw.sendall(head.encode() + b"%x\r\n%b\r\n" % (len(body), body))
        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("kind", "more", "status", "members"),
    [
        (
            "argument",
            {"pointer": "/input_kwargs/rows/3"},
            422,
            {
                "title": "an argument does not fit the function",
                "detail": "said by the runner",
                "code": "VALIDATION_ERROR",
                "retryable": False,
                "errors": [{"pointer": "/rows/3", "detail": "said by the runner"}],
            },
        ),
        (
            "exception",
            {"type": "KeyError"},
            502,
            {
                "title": "the function raised an exception",
                "detail": "said by the runner",
                "code": "FUNCTION_ERROR",
                "retryable": False,
                "exception": "KeyError",
            },
        ),
        (
            "unserialisable",
            {},
            502,
            {
                "title": "the result has no JSON form",
                "detail": "said by the runner",
                "code": "UNSERIALISABLE_RESULT",
                "retryable": False,
                "hint": "return str, int, float, bool, None, list, dict, or an object with model_dump or to_dict",
            },
        ),
        (
            "too_large",
            {},
            502,
            {
                "title": "the result is larger than the policy allows",
                "detail": "said by the runner",
                "code": "RESULT_TOO_LARGE",
                "retryable": False,
                "hint": "return less, stream it, or raise the policy's calls.result_bytes",
            },
        ),
        (
            "streams",
            {"hint": "call another tag"},
            406,
            {
                "title": "this entrypoint answers with a stream",
                "detail": "said by the runner",
                "code": "VALIDATION_ERROR",
                "retryable": False,
                "hint": "send 'Accept: text/event-stream'",
            },
        ),
    ],
)
def test_what_goes_wrong_in_the_function_has_its_status_and_its_words(
    gateway: Gateway, kind: str, more: dict[str, str], status: int, members: dict[str, object]
) -> None:
    """Type and message of the exception reach the caller; a traceback does not, unless the policy says so."""
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b"{}")
    call = runner.expect(Frame.CALL)
    runner.error(call.call, kind, "said by the runner", b"Traceback of the agent", **more)
    got = answer(asked)
    assert got.status == status
    assert problem(got) == members


def test_a_traceback_reaches_the_caller_where_the_policy_says_so(gateway: Gateway) -> None:
    """calls.traceback."""
    runner = gateway.ready(limits=dataclasses.replace(LIMITS, traceback=True))
    asked = gateway.send("POST", INVOKE, b"{}")
    runner.error(runner.expect(Frame.CALL).call, "exception", "no", b"Traceback \xff", type="ValueError")
    assert problem(answer(asked))["traceback"] == "Traceback \ufffd"


def test_an_agent_that_a_token_may_not_call_looks_exactly_like_none(gateway: Gateway) -> None:
    """Neither status nor words tell whether it exists (conventions, section 2)."""
    gateway.ready()
    token = gateway.token("another")
    hidden = gateway.ask("POST", INVOKE, b"{}", token=token)
    absent = gateway.ask("POST", INVOKE.replace("echo-1", "nobody"), b"{}", token=token)
    assert hidden.status == absent.status == 404
    assert problem(hidden)["detail"] == "there is no agent 'echo-1' that this token may call"
    assert {**problem(hidden), "detail": ""} == {**problem(absent), "detail": ""}
    assert gateway.ask("GET", "/v1/agents/echo-1", token=token).status == 404
    assert gateway.ask("GET", "/v1/agents", token=token).json() == {"agents": []}


def test_a_token_may_name_an_agent_by_its_id_or_by_its_name(gateway: Gateway) -> None:
    """Whoever makes a token need not know the id."""
    gateway.ready()
    for name in ("echo-1", "echo"):
        token = gateway.token(name)
        assert [row["id"] for row in gateway.ask("GET", "/v1/agents", token=token).json()["agents"]] == ["echo-1"]


def test_a_name_that_two_agents_have_is_none(gateway: Gateway) -> None:
    """Otherwise the second to come could take over the calls and the tokens of the first."""
    gateway.supervisor.serve(agent="one", name="twin")
    gateway.supervisor.serve(agent="two", name="twin")
    gateway.wait_until(lambda: len(gateway.application.directory.all()) == 2)
    assert gateway.ask("GET", "/v1/agents/twin").status == 404
    assert gateway.ask("GET", "/v1/agents/one").status == 200
    assert gateway.ask("GET", "/v1/agents/one", token=gateway.token("twin")).status == 404


def test_no_token_and_a_bad_token_are_told_apart(gateway: Gateway) -> None:
    """RFC 6750, section 3: the challenge names an error only where there was a token."""
    none = gateway.ask("POST", INVOKE, b"{}", token=None)
    assert (none.status, none.headers["www-authenticate"]) == (401, 'Bearer realm="runagentd"')
    assert problem(none)["detail"] == "no token was sent"
    bad = gateway.ask("POST", INVOKE, b"{}", token="x.y.z")
    assert (bad.status, bad.headers["www-authenticate"]) == (401, 'Bearer realm="runagentd", error="invalid_token"')
    query = gateway.ask("POST", f"{INVOKE}?token={gateway.token()}", b"{}", token=None)
    assert query.status == 401, "this door takes no token in the query"


def test_paths_and_methods_that_are_not_there(gateway: Gateway) -> None:
    """404 with a problem, 405 with Allow."""
    gateway.ready()
    for path in (
        "/",
        "/v1",
        "/v1/agents/echo/entrypoints/say",
        "/v1/agents/echo/entrypoints/:invoke",
        "/v2/agents",
        "/v1/%ff",
    ):
        got = gateway.ask("GET", path)
        assert (got.status, problem(got)["code"]) == (404, "NOT_FOUND"), path
    got = gateway.ask("GET", INVOKE)
    assert (got.status, got.headers["allow"], problem(got)["code"]) == (405, "POST", "METHOD_NOT_ALLOWED")
    got = gateway.ask("DELETE", "/v1/agents")
    assert (got.status, got.headers["allow"]) == (405, "GET")
    got = gateway.ask("POST", "/v1/agents/echo/entrypoints/nay:invoke", b"{}")
    assert (got.status, problem(got)["detail"]) == (404, "entrypoint 'nay' not found in agent 'echo'")


def test_what_is_no_http_is_answered_without_a_word_about_the_parser(gateway: Gateway) -> None:
    """400, and the connection is closed."""
    for junk in (b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20000 + b"\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw:
            raw.sendall(junk)
            got = b""
            try:
                while piece := raw.recv(4096):
                    got += piece
            except ConnectionResetError:
                pass
        head, _, body = got.partition(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
        assert b"application/problem+json" in head
        assert json.loads(body)["detail"] == "the request cannot be read"


def test_an_agent_shows_its_entrypoints_with_what_the_runner_found_out(gateway: Gateway) -> None:
    """Parameters, documentation, limits and state."""
    gateway.ready()
    got = gateway.ask("GET", "/v1/agents/echo").json()
    assert got == {
        "id": "echo-1",
        "name": "echo",
        "description": "says it again",
        "framework": "default",
        "version": "1.2.3",
        "digest": "d" * 64,
        "policy": "base",
        "state": "ready",
        "tags": ["say"],
        "entrypoints": [
            {
                "tag": "say",
                "description": "",
                "deadline_seconds": 5.0,
                "doc": "Say it.",
                "parameters": [{"name": "text", "kind": "positional_or_keyword", "required": True, "type": "str"}],
                "returns": "str",
                "streams": False,
                "asynchronous": False,
            }
        ],
        "limits": {
            "concurrency": 1,
            "queue": 4,
            "deadline_seconds": 5.0,
            "request_bytes": 1048576,
            "result_bytes": 1048576,
        },
    }


def test_a_client_that_goes_away_cancels_its_call(gateway: Gateway) -> None:
    """The function hears of it, and the place is free when it has stopped."""
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b"{}")
    call = runner.expect(Frame.CALL)
    abort(asked)
    cancel = runner.expect(Frame.CANCEL)
    assert (cancel.call, cancel.header) == (call.call, b'{"reason":"client"}')
    waiting = gateway.send("POST", INVOKE, b"{}")
    runner.error(call.call, "cancelled", "stopped")
    again = runner.expect(Frame.CALL)
    runner.result(again.call, "next")
    assert answer(waiting).json() == "next"
    assert [row["outcome"] for row in gateway.records()] == ["CANCELLED", "OK"]


def test_every_call_leaves_one_record_refused_ones_too(gateway: Gateway) -> None:
    """With who, what, how it ended; never with a token."""
    runner = gateway.ready()
    token = gateway.token("echo", subject="alice")
    asked = gateway.send("POST", INVOKE, b"{}", token=token)
    runner.result(runner.expect(Frame.CALL).call, "hi")
    assert answer(asked).status == 200
    gateway.ask("POST", INVOKE, b"{}", token=None)
    gateway.ask("POST", "/v1/agents/nobody/entrypoints/say:invoke", b"{}", token=token)
    rows = [(row["outcome"], row.get("subject"), row.get("agent"), row.get("tag")) for row in gateway.records()]
    assert rows == [
        ("OK", "alice", "echo-1", "say"),
        ("AUTHENTICATION_ERROR", None, None, None),
        ("AGENT_NOT_FOUND", "alice", None, None),
    ]
    assert not any(token in line for line in gateway.log_lines)


def test_health_tells_whether_the_process_lives_and_whether_calls_are_taken(gateway: Gateway) -> None:
    """Without a token."""
    assert (gateway.ask("GET", "/livez", token=None).status, gateway.ask("GET", "/readyz", token=None).status) == (
        200,
        200,
    )
    gateway.supervisor.drop()
    gateway.wait_until(lambda: not gateway.application.announcements.online)
    assert gateway.ask("GET", "/livez", token=None).status == 200
    got = gateway.ask("GET", "/readyz", token=None)
    assert (got.status, got.body) == (503, b'{"status":"waiting for the supervisor"}')
    gateway.supervisor.connect()


def test_a_field_that_was_sent_twice_is_named(gateway: Gateway) -> None:
    """Where two readers could differ nothing is read; who sent it hears which field it was."""
    twice = b"Content-Type: application/json\r\nContent-Type: text/plain\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as client:
        client.sendall(
            b"POST " + INVOKE.encode() + b" HTTP/1.1\r\nHost: x\r\n" + twice + b"Content-Length: 2\r\n\r\n{}"
        )
        got = b"".join(iter(lambda: client.recv(65536), b""))
    assert got.startswith(b"HTTP/1.1 400 ")
    assert b'"detail":"the field Content-Type was sent more than once"' in got


@pytest.mark.parametrize(
    ("cause", "code", "detail"),
    [
        (Cause.OUT_OF_MEMORY, "OUT_OF_MEMORY", "this is why"),
        (Cause.SIGNAL, "INSTANCE_DIED", "this is why"),
        (Cause.SECCOMP, "INSTANCE_DIED", "this is why"),
        (Cause.EXIT, "INSTANCE_DIED", "this is why"),
        (Cause.OPERATOR, "INSTANCE_DIED", "the agent's process ended during the call: this is why"),
    ],
)
def test_an_instance_that_dies_during_a_call_tells_its_true_cause(
    gateway: Gateway, cause: Cause, code: str, detail: str
) -> None:
    """Whichever comes first, the end of the channel or the supervisor's word; and nothing is said twice."""
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b"{}")
    runner.expect(Frame.CALL)
    runner.close()
    gateway.supervisor.gone(cause, "this is why")
    got = answer(asked)
    members = problem(got)
    assert (got.status, members["code"], members["cause"]) == (502, code, cause.value)
    assert members["detail"] == detail


@pytest.mark.parametrize(
    ("told", "shown"),
    [('{"a":[1]}', {"default": {"a": [1]}}), ("null", {"default": None}), ("{", {}), ("[" * 9999, {})],
)
def test_a_default_is_shown_where_the_runner_told_json(told: str, shown: dict[str, object]) -> None:
    """An agent may say anything in its place."""
    assert describe.default_of(Parameter(name="a", default=told)) == shown
