"""Idempotency-Key: once under concurrency, replayed afterwards, and never again where nobody knows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.sync.client import connect

from runagentd.errors import Refusal
from runagentd.gateway.calls import Asked, Call, Mode
from runagentd.gateway.kept import idempotency
from runagentd.gateway.kept.idempotency import Entry, Ledger
from runagentd.gateway.values import Value, canonical
from runagentd.log import Log
from runagentd.wire.channel import Frame, ValueType
from runagentd.wire.control import Cause
from tests.fakes_gateway import TIMEOUT, TRACE, Gateway, HttpAnswer, abort, answer

INVOKE = "/v1/agents/echo/entrypoints/say:invoke"
KEY = '"key-of-16-letters"'


def code(got: HttpAnswer) -> tuple[int, str]:
    return got.status, got.json()["code"]


def test_a_repeated_call_has_the_first_ones_answer_and_does_not_run(gateway: Gateway) -> None:
    """Whatever the order of its arguments; with or without quotes around the key."""
    runner = gateway.ready()
    token = gateway.token()
    asked = gateway.send("POST", INVOKE, b'{"a": 1, "b": [2]}', token=token, Idempotency_Key=KEY)
    runner.result(runner.expect(Frame.CALL).call, {"paid": 7})
    first = answer(asked)
    assert (first.status, "idempotency-replayed" in first.headers) == (200, False)
    for body, key in ((b'{"a":1,"b":[2]}', KEY), (b'{"b":[2],"a":1}', KEY.strip('"'))):
        again = gateway.ask("POST", INVOKE, body, token=token, Idempotency_Key=key)
        assert (again.status, again.body, again.headers["idempotency-replayed"]) == (200, first.body, "true")
    assert [row["outcome"] for row in gateway.records()] == ["OK", "OK", "OK"]


def test_a_key_belongs_to_its_caller_path_and_request(gateway: Gateway) -> None:
    """Another caller's is another key; another request with the same one is a mistake."""
    runner = gateway.ready()
    alice, bob = gateway.token(subject="alice"), gateway.token(subject="bob")
    for token in (alice, bob):
        asked = gateway.send("POST", INVOKE, b'{"a":1}', token=token, Idempotency_Key=KEY)
        runner.result(runner.expect(Frame.CALL).call, "own")
        assert answer(asked).status == 200
    wrong = gateway.ask("POST", INVOKE, b'{"a":1.0}', token=alice, Idempotency_Key=KEY)
    assert code(wrong) == (422, "IDEMPOTENCY_KEY_REUSED")
    body = json.dumps({"entrypoint_tag": "say"}).encode()
    asked = gateway.send("POST", "/api/v1/agents/echo/run", body, token=alice, Idempotency_Key=KEY)
    runner.result(runner.expect(Frame.CALL).call, "other door")
    first = answer(asked).json()
    again = gateway.ask("POST", "/api/v1/agents/echo/run", body, token=alice, Idempotency_Key=KEY)
    assert (again.json()["data"], again.headers["idempotency-replayed"]) == (first["data"], "true")
    other = json.dumps({"entrypoint_tag": "say", "input_args": [1]}).encode()
    refused = gateway.ask("POST", "/api/v1/agents/echo/run", other, token=alice, Idempotency_Key=KEY)
    assert (refused.status, refused.json()["error"]["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")


def test_a_hundred_at_once_run_once(gateway: Gateway) -> None:
    """The others are told that it runs, and when to ask again."""
    runner = gateway.ready()
    token = gateway.token()
    asked = [gateway.send("POST", INVOKE, b"{}", token=token, Idempotency_Key=KEY) for _ in range(100)]
    call = runner.expect(Frame.CALL).call
    gateway.wait_until(lambda: [row["outcome"] for row in gateway.records()].count("IDEMPOTENCY_IN_PROGRESS") == 99)
    runner.result(call, "once")
    answers = [answer(each) for each in asked]
    assert sorted({got.status for got in answers}) == [200, 409]
    assert [got.json() for got in answers if got.status == 200] == ["once"]
    assert {code(got) for got in answers if got.status == 409} == {(409, "IDEMPOTENCY_IN_PROGRESS")}
    assert {got.headers["retry-after"] for got in answers if got.status == 409} == {"1"}
    assert gateway.ask("POST", INVOKE, b"{}", token=token, Idempotency_Key=KEY).json() == "once"


def test_a_client_that_goes_away_has_its_result_when_it_asks_again(gateway: Gateway) -> None:
    """That is what the key is for: without one the call would be cancelled."""
    runner = gateway.ready()
    token = gateway.token()
    asked = gateway.send("POST", INVOKE, b"{}", token=token, Idempotency_Key=KEY)
    call = runner.expect(Frame.CALL).call
    abort(asked)
    gateway.wait_until(lambda: not gateway.application._pipeline._running)
    runner.result(call, "kept")
    gateway.wait_until(lambda: not gateway.application.directory.find("echo").open_calls())  # type: ignore[union-attr]
    assert gateway.ask("POST", INVOKE, b"{}", token=token, Idempotency_Key=KEY).json() == "kept"


def test_a_call_that_failed_is_told_as_it_failed(gateway: Gateway) -> None:
    """The function ran: it does not run again by itself."""
    runner = gateway.ready()
    token = gateway.token()
    asked = gateway.send("POST", INVOKE, b"{}", token=token, Idempotency_Key=KEY)
    runner.error(runner.expect(Frame.CALL).call, "exception", "no money", type="ValueError")
    first = answer(asked)
    again = gateway.ask("POST", INVOKE, b"{}", token=token, Idempotency_Key=KEY)
    assert code(first) == code(again) == (502, "FUNCTION_ERROR")
    assert (again.json()["detail"], again.headers["idempotency-replayed"]) == (first.json()["detail"], "true")


def test_a_call_that_no_runner_was_given_frees_its_key(gateway: Gateway) -> None:
    """It did not run, so it may be sent again."""
    gateway.supervisor.serve()
    gateway.supervisor.gone(Cause.EXIT, "crashed", retry_after_ms=60_000)
    gateway.wait_until(lambda: gateway.application.directory.find("echo") is not None)
    token = gateway.token()
    for _ in range(2):
        assert code(gateway.ask("POST", INVOKE, b"{}", token=token, Idempotency_Key=KEY)) == (503, "UNAVAILABLE")


def test_a_call_that_was_sent_ahead_is_never_given_to_a_second_runner(gateway: Gateway) -> None:
    """Nobody can be sure that the first one had not begun it."""
    runner = gateway.ready()
    token = gateway.token()
    for _ in range(20):  # until calls are so short that the next one is sent ahead
        asked = gateway.send("POST", INVOKE, b"{}", token=token)
        runner.result(runner.expect(Frame.CALL).call, 1)
        answer(asked)
    first = gateway.send("POST", INVOKE, b"{}", token=token)
    runner.expect(Frame.CALL)
    second = gateway.send("POST", INVOKE, b"{}", token=token, Idempotency_Key=KEY)
    runner.expect(Frame.CALL)
    gateway.supervisor.gone(Cause.SIGNAL, "signal 9")
    assert [code(answer(each)) for each in (first, second)] == [(502, "INSTANCE_DIED")] * 2
    assert code(gateway.ask("POST", INVOKE, b"{}", token=token, Idempotency_Key=KEY)) == (502, "INSTANCE_DIED")


def test_a_stream_is_replayed_chunk_by_chunk_and_one_that_was_cut_is_not(gateway: Gateway) -> None:
    """Over both doors; a stream ends with its reader."""
    runner = gateway.ready("say", "say_stream", streams=True)
    token = gateway.token()
    fields = {"token": token, "Accept": "text/event-stream", "Idempotency_Key": KEY}
    asked = gateway.send("POST", INVOKE, b"{}", **fields)
    call = runner.until(Frame.CALL).call
    for number in range(3):
        runner.chunk(call, number)
    runner.end(call, 3)
    first = answer(asked)
    again = gateway.ask("POST", INVOKE, b"{}", **fields)
    assert first.body.partition(b"id: 1")[2] == again.body.partition(b"id: 1")[2] != b""
    assert again.headers["idempotency-replayed"] == "true"

    url = f"ws://127.0.0.1:{gateway.port}/api/v1/agents/echo/run-stream"
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": KEY}
    seen = []
    for turn in range(2):
        with connect(url, additional_headers=headers, compression=None, open_timeout=5, close_timeout=1) as ws:
            ws.send(json.dumps({"entrypoint_tag": "say_stream"}))
            if turn == 0:
                call = runner.until(Frame.CALL).call
                runner.chunk(call, "a")
                runner.end(call, 1)
            frames = [json.loads(ws.recv(timeout=TIMEOUT)) for _ in range(3)]
            seen.append([frame["type"] for frame in frames] + [frames[1]])
    assert seen[0] == seen[1]

    fields["Idempotency_Key"] = '"another-key-of-mine"'
    asked = gateway.send("POST", INVOKE, b"{}", **fields)
    call = runner.until(Frame.CALL).call
    runner.chunk(call, 1)
    asked.sock.recv(10)
    abort(asked)
    runner.until(Frame.CANCEL)
    assert code(gateway.ask("POST", INVOKE, b"{}", **fields)) == (409, "IDEMPOTENCY_OUTCOME_UNKNOWN")


@pytest.mark.parametrize(
    "key", ["", "short", '"short"', "x" * 256, '"' + "x" * 256 + '"', "sixteen letters ü", "a b" * 9]
)
def test_a_key_that_is_none_is_refused(gateway: Gateway, key: str) -> None:
    """Never passed over: the caller believes to be safe."""
    gateway.ready()
    got = gateway.ask("POST", INVOKE, b"{}", Idempotency_Key=key.encode().decode("latin-1"))
    assert code(got) == (400, "VALIDATION_ERROR")
    assert got.json()["detail"] == "Idempotency-Key must be a text of 16 to 255 visible ASCII characters"


def test_a_quoted_key_may_hold_quotes() -> None:
    """RFC 9651, section 3.3.3."""
    assert idempotency.parse(r'"a \"quoted\" key \\ here"') == r'a "quoted" key \ here'


# ---- the ledger itself


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    found = Ledger(tmp_path, Log(None, source="x"), clock)
    yield found
    found.close()


def begin(ledger: Ledger, key: str = "k", principal: str = "p") -> object:
    return ledger.begin(key, principal=principal, path="x", mode=Mode.SINGLE, request=b"r")


def refusal(ledger: Ledger, key: str = "k") -> str:
    with pytest.raises(Refusal) as raised:
        begin(ledger, key)
    return raised.value.kind.code


def test_what_ran_when_the_process_ended_is_unknown_for_a_day(ledger: Ledger, clock: Clock, tmp_path: Path) -> None:
    """And is never run again by its key; after the day the key is new."""
    assert isinstance(begin(ledger), Entry)
    assert refusal(ledger) == "IDEMPOTENCY_IN_PROGRESS"
    later = Ledger(tmp_path, Log(None, source="x"), clock)
    assert refusal(later) == "IDEMPOTENCY_OUTCOME_UNKNOWN"
    clock.now += 86_400
    assert refusal(later) == "IDEMPOTENCY_OUTCOME_UNKNOWN"
    clock.now += 1
    assert isinstance(begin(later), Entry)
    later.close()


def test_a_broken_database_refuses_calls_with_a_key(tmp_path: Path) -> None:
    """Others go on: they promise nothing."""
    (tmp_path / idempotency.NAME).write_bytes(b"nonsense" * 1000)
    broken = Ledger(tmp_path, Log(None, source="x"))
    assert refusal(broken) == "UNAVAILABLE"


def test_there_is_room_for_so_many_and_the_oldest_outcomes_go_first(
    ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a key whose call runs."""
    monkeypatch.setattr(idempotency, "KEYS_OF_ONE_MAX", 3)
    monkeypatch.setattr(idempotency, "_DISCARDED_AT_ONCE", 1)
    for number in range(3):
        entry = begin(ledger, f"done-{number}")
        assert isinstance(entry, Entry)
        ledger.finish(entry._scope, idempotency.DONE, b"[]")
        clock.now += 1
    begin(ledger, "running-0")
    assert begin(ledger, "done-1") == []
    for number in (1, 2):
        begin(ledger, f"running-{number}")
    assert refusal(ledger, "running-3") == "RATE_LIMIT_ERROR"
    assert isinstance(begin(ledger, "x", principal="another"), Entry)


def test_a_result_that_is_too_large_is_remembered_as_run(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key says so, and does not run again."""
    monkeypatch.setattr(idempotency, "OUTCOME_BYTES_MAX", 10)
    call = Call(
        Asked(
            request_id="r",
            tag="t",
            mode=Mode.SINGLE,
            arguments=b"",
            deadline=time.monotonic(),
            principal="p",
            caller="p",
            traceparent=TRACE.traceparent,
        )
    )
    call.observer = begin(ledger)  # type: ignore[assignment] # an Entry
    call.deliver(Value(ValueType.STRING, b'"' + b"x" * 20 + b'"'))
    call.end()
    assert refusal(ledger) == "IDEMPOTENCY_NOT_STORED"


def test_a_long_text_is_its_own_form() -> None:
    """Whoever repeats a call sends the same bytes; to take a MiB apart would keep all others waiting."""
    short = b'[[],{"b":1, "a":"' + b"x" * (16 * 1024 - 20) + b'"}]'
    assert (len(short), canonical(short)[:9]) == (16 * 1024, b'[[],{"a":')
    long = short.replace(b"x", b"xx", 1)
    assert canonical(long) == long


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_the_canonical_form_is_the_same_for_the_same_value(value: object) -> None:
    """However it was written."""
    plain = json.dumps(value).encode()
    assert canonical(plain) == canonical(
        json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8", "surrogatepass")
    )
    assert json.loads(canonical(plain)) == value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"1", b"1.0"),
        (b"1", b'"1"'),
        (b'{"a":1,"a":2}', b'{"a":2}'),
        (b"[[]]", b"[]"),
        (b"null", b'"null"'),
        (b"1e2", b"100"),
    ],
)
def test_what_may_differ_has_another_form(one: bytes, other: bytes) -> None:
    """An int is not a float for a Python function."""
    assert canonical(one) != canonical(other)
