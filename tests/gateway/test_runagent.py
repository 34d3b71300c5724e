"""RunAgent's door over HTTP: the envelope, its codes, and its one error body."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from runagentd.wire.channel import Frame
from tests.fakes_gateway import Gateway, HttpAnswer, answer

BY_WORKERS_TOO = True

RUN = "/api/v1/agents/echo-1/run"


def run_body(tag: str = "say", **more: object) -> bytes:
    return json.dumps({"entrypoint_tag": tag, "input_args": [], "input_kwargs": {}, **more}).encode()


def error(got: HttpAnswer) -> dict[str, Any]:
    """The error of the one error body; what is the same in all of them is checked here. Any: JSON."""
    body: dict[str, Any] = got.json()
    assert list(body) == ["success", "data", "message", "detail", "error", "timestamp", "request_id"]
    assert (body["success"], body["data"]) == (False, None)
    assert body["request_id"] == got.headers["x-request-id"]
    found: dict[str, Any] = body["error"]
    assert list(found) == ["code", "type", "message", "suggestion", "details", "field"]
    assert body["message"] == body["detail"] == found["message"]
    assert found["field"] is None
    return found


def test_a_result_travels_as_a_json_string_of_typed_json_text(gateway: Gateway) -> None:
    """`data` is a string, and so is `payload` in it: two layers, as RunAgent's server does it."""
    runner = gateway.ready()
    asked = gateway.send("POST", RUN, run_body(input_args=["a"], input_kwargs={"k": 1}))
    call = runner.expect(Frame.CALL)
    assert call.body == b'[["a"],{"k": 1}]'
    runner.result(call.call, "hi")
    got = answer(asked)
    assert (got.status, got.headers["content-type"]) == (200, "application/json")
    body = got.json()
    assert list(body) == ["success", "data", "message", "error", "timestamp", "request_id"]
    assert body["data"] == '{"type": "string", "payload": "\\"hi\\""}'
    assert (body["success"], body["error"], body["message"]) == (True, None, "Agent execution completed successfully")
    assert uuid.UUID(body["request_id"]).version == 4
    assert "T" in body["timestamp"]
    assert not body["timestamp"].endswith(("Z", "+00:00"))


@pytest.mark.parametrize(
    ("type", "text", "data"),
    [
        ("integer", "7", '{"type": "integer", "payload": "7"}'),
        ("number", "1.5", '{"type": "number", "payload": "1.5"}'),
        ("null", "null", '{"type": "null", "payload": "null"}'),
        ("array", '["ü\\n", 1e400]', '{"type": "array", "payload": "[\\"ü\\\\n\\", 1e400]"}'),
        ("object", '{"a": "\\\\"}', '{"type": "object", "payload": "{\\"a\\": \\"\\\\\\\\\\"}"}'),
    ],
)
def test_the_payload_is_the_runners_text_to_the_byte(gateway: Gateway, type: str, text: str, data: str) -> None:
    """It is never parsed on the way, so that no number loses a digit."""
    runner = gateway.ready()
    asked = gateway.send("POST", RUN, run_body())
    runner.send(Frame.RESULT, runner.expect(Frame.CALL).call, {"type": type}, text.encode())
    assert answer(asked).json()["data"] == data


def test_arguments_are_optional_and_unknown_fields_are_passed_over(gateway: Gateway) -> None:
    """What RunAgent's clients send besides: user_id, persistent_memory, async_execution, id."""
    runner = gateway.ready()
    for body in (
        b'{"entrypoint_tag":"say"}',
        b'{"entrypoint_tag":"say","input_args":null,"input_kwargs":null,"user_id":"u","persistent_memory":false,"id":7}',
    ):
        asked = gateway.send("POST", RUN, body)
        call = runner.expect(Frame.CALL)
        assert call.body == b"[[],{}]"
        runner.result(call.call, 1)
        assert answer(asked).json()["success"] is True


def test_timeout_seconds_brings_the_deadline_nearer_and_not_further(gateway: Gateway) -> None:
    """The clients send 300 with every call; the policy here allows 5."""
    runner = gateway.ready()
    for seconds, low, high in ((300, 4000, 5000), (2, 1000, 2000), (1.5, 500, 1500)):
        asked = gateway.send("POST", RUN, run_body(timeout_seconds=seconds))
        call = runner.expect(Frame.CALL)
        assert low < json.loads(call.header)["deadline_ms"] <= high
        runner.result(call.call, 1)
        answer(asked)


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        (b"", 422, "VALIDATION_ERROR", "the request is not JSON"),
        (b"{", 422, "VALIDATION_ERROR", "the request is not JSON"),
        (b"[]", 422, "VALIDATION_ERROR", "the request does not have the right form: Expected `object`, got `array`"),
        (
            b"{}",
            422,
            "VALIDATION_ERROR",
            "the request does not have the right form: Object missing required field `entrypoint_tag`",
        ),
        (b'{"entrypoint_tag":"say","input_args":{}}', 422, "VALIDATION_ERROR", "input_args must be an array"),
        (b'{"entrypoint_tag":"say","input_kwargs":[]}', 422, "VALIDATION_ERROR", "input_kwargs must be an object"),
        (
            b'{"entrypoint_tag":"say","timeout_seconds":0}',
            422,
            "VALIDATION_ERROR",
            "timeout_seconds must be a number above 0",
        ),
        (b'{"entrypoint_tag":"nay"}', 404, "NOT_FOUND", "entrypoint 'nay' not found in agent 'echo'"),
        (
            b'{"entrypoint_tag":"say_stream"}',
            400,
            "VALIDATION_ERROR",
            "Can't use Streaming Entrypoint `say_stream` through non-streaming endpoint.",
        ),
    ],
)
def test_a_request_that_is_wrong_is_a_status_and_the_one_error_body(
    gateway: Gateway, body: bytes, status: int, code: str, message: str
) -> None:
    """Strings where clients want strings."""
    gateway.ready("say", "say_stream")
    got = gateway.ask("POST", RUN, body)
    found = error(got)
    assert (got.status, found["code"], found["message"]) == (status, code, message)


@pytest.mark.parametrize(
    ("kind", "more", "code", "type", "message"),
    [
        ("exception", {"type": "ValueError"}, "FUNCTION_ERROR", "FunctionError", "ValueError: said by the runner"),
        (
            "argument",
            {"pointer": "/input_args/0"},
            "VALIDATION_ERROR",
            "ValidationError",
            "said by the runner (at /input_args/0)",
        ),
        ("unserialisable", {}, "UNSERIALISABLE_RESULT", "FunctionError", "said by the runner"),
        ("too_large", {}, "RESULT_TOO_LARGE", "FunctionError", "said by the runner"),
        ("streams", {}, "VALIDATION_ERROR", "ValidationError", "said by the runner"),
    ],
)
def test_what_goes_wrong_in_the_function_is_200_without_success(
    gateway: Gateway, kind: str, more: dict[str, str], code: str, type: str, message: str
) -> None:
    """The only form whose code and suggestion RunAgent's clients keep."""
    runner = gateway.ready()
    asked = gateway.send("POST", RUN, run_body())
    runner.error(runner.expect(Frame.CALL).call, kind, "said by the runner", **more)
    got = answer(asked)
    found = error(got)
    assert (got.status, found["code"], found["type"], found["message"]) == (200, code, type, message)


def test_a_deadline_is_200_without_success(gateway: Gateway) -> None:
    """The function is told to stop, and the caller does not wait for that."""
    runner = gateway.ready()
    asked = gateway.send("POST", RUN, run_body(timeout_seconds=0.05))
    call = runner.expect(Frame.CALL)
    got = answer(asked)
    assert (got.status, error(got)["code"]) == (200, "TIMEOUT_ERROR")
    assert error(got)["message"] == "the call reached its deadline while its function ran"
    cancel = runner.expect(Frame.CANCEL)
    assert (cancel.call, cancel.header) == (call.call, b'{"reason":"deadline"}')


def test_the_architecture_lists_every_tag_with_what_clients_want(gateway: Gateway) -> None:
    """Most clients ask for it before anything else."""
    gateway.ready("say", "say_stream")
    body = gateway.ask("GET", "/api/v1/agents/echo-1/architecture").json()
    assert body["success"] is True
    assert body["data"] == {
        "agent_id": "echo-1",
        "entrypoints": [
            {"file": "main.py", "module": "run", "tag": "say", "extractor": {}},
            {"file": "main.py", "module": "run", "tag": "say_stream", "extractor": {}},
        ],
    }
    assert gateway.ask("GET", "/api/v1/agents/echo-1/architecture", token=None).status == 401
    missing = gateway.ask("GET", "/api/v1/agents/nobody/architecture")
    assert (missing.status, error(missing)["code"]) == (404, "AGENT_NOT_FOUND")


def test_the_token_may_come_in_the_query(gateway: Gateway) -> None:
    """Some clients can only do that; it is never logged."""
    gateway.ready()
    token = gateway.token("echo")
    assert gateway.ask("GET", f"/api/v1/agents/echo-1/architecture?token={token}", token=None).status == 200
    assert gateway.ask("GET", f"/api/v1/agents/echo-1/architecture?token={token}&token=x", token=None).status == 401
    assert gateway.ask("GET", "/api/v1/agents/echo-1/architecture?token=x", token=None).status == 401
    assert not any(token in line for line in gateway.log_lines)


def test_wrong_token_wrong_path_and_wrong_method_have_the_same_body(gateway: Gateway) -> None:
    """404 and 405 too."""
    gateway.ready()
    got = gateway.ask("POST", RUN, run_body(), token="x.y.z")
    assert (got.status, error(got)["code"]) == (401, "AUTHENTICATION_ERROR")
    assert got.headers["www-authenticate"] == 'Bearer realm="runagentd", error="invalid_token"'
    for path in ("/api/v1/nothing", "/api/v1/agents/echo-1/nothing", "/api/v1/invocations/1"):
        got = gateway.ask("GET", path)
        assert (got.status, error(got)["code"]) == (404, "NOT_FOUND")
    got = gateway.ask("GET", RUN)
    assert (got.status, got.headers["allow"], error(got)["code"]) == (405, "POST", "METHOD_NOT_ALLOWED")
    got = gateway.ask("GET", "/api/v1/agents/echo-1/run-stream")
    assert (got.status, error(got)["message"]) == (400, "this path takes a WebSocket opening handshake")


def test_base_urls_with_a_final_slash_work(gateway: Gateway) -> None:
    """Some clients then send two."""
    gateway.ready()
    assert gateway.ask("GET", "//api/v1/agents/echo-1/architecture").status == 200


def test_health_and_welcome_name_no_agent(gateway: Gateway) -> None:
    """They need no token."""
    gateway.ready()
    health = gateway.ask("GET", "/api/v1/health", token=None).json()
    assert (health["status"], health["server"], health["version"]) == ("healthy", "runagentd", "0.1.0")
    assert set(health) == {"status", "server", "timestamp", "uptime_seconds", "version"}
    welcome = gateway.ask("GET", "/api/v1", token=None)
    assert welcome.status == 200
    assert b"echo" not in welcome.body


def test_our_own_words_are_not_among_those_that_clients_reclassify(gateway: Gateway) -> None:
    """A 5xx whose text has "permission" or "403" becomes a permission error in the Python and Rust clients."""
    gateway.supervisor.serve()
    gateway.wait_until(lambda: gateway.application.directory.find("echo") is not None)
    gateway.inside(lambda: next(iter(gateway.application.directory.all()))._no_instance())
    got = gateway.ask("POST", RUN, run_body())
    assert (got.status, error(got)["code"]) == (503, "UNAVAILABLE")
    assert got.headers["retry-after"] == "1"
    words = f"{error(got)['message']} {error(got)['suggestion']}".lower()
    assert not any(word in words for word in ("permission", "403", "401", "not found"))
