"""Which trace a call belongs to: what of the callers' fields is believed, and what goes on to function and caller."""

from __future__ import annotations

import json
import random
import re

import msgspec
import pytest

from runagentd.gateway.kept.invocation import Row, row_of
from runagentd.gateway.requests import CallRecord
from runagentd.gateway.trace import Trace, Tracer, parse_state
from runagentd.wire.channel import Frame
from tests.fakes_gateway import Gateway, answer

INVOKE = "/v1/agents/echo-1/entrypoints/say:invoke"
ID, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
REQUEST = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
TRACER = Tracer(recording=False, share=0.0)


def begin(parent: str | None, state: str | None = None, request_id: str = REQUEST) -> Trace:
    return TRACER.begin(parent, state, request_id)


# ---- traceparent (W3C Trace Context, section 3.2)


@pytest.mark.parametrize(
    ("field", "sampled"),
    [
        (f"00-{ID}-{SPAN}-01", True),
        (f"00-{ID}-{SPAN}-00", False),
        (f"00-{ID}-{SPAN}-ff", True),
        (f"00-{ID}-{SPAN}-fe", False),
        (f" 00-{ID}-{SPAN}-01\t", True),
        (f"cc-{ID}-{SPAN}-01", True),
        (f"cc-{ID}-{SPAN}-01-what-the-future-will-be-like", True),
    ],
)
def test_a_good_traceparent_is_believed(field: str, sampled: bool) -> None:
    """Also of a version that is not known yet; of its flags only the one that is known."""
    trace = begin(field)
    assert (trace.id, trace.caller, trace.sampled) == (ID, SPAN, sampled)
    assert trace.traceparent == f"00-{ID}-{SPAN}-{'01' if sampled else '00'}"


@pytest.mark.parametrize(
    "field",
    [
        "", "00", f"00-{ID}-{SPAN}", f"00-{ID}-{SPAN}-1", f"00-{ID}-{SPAN}-01.", f"00-{ID}-{SPAN}-01-more",
        f"ff-{ID}-{SPAN}-01", f".0-{ID}-{SPAN}-01", f"0-{ID}-{SPAN}-01", f"000-{ID}-{SPAN}-01",
        f"cc-{ID}-{SPAN}-01.more", f"00-{'0' * 32}-{SPAN}-01", f"00-{ID}-{'0' * 16}-01", f"00-{ID.upper()}-{SPAN}-01",
        f"00-{ID[:-1]}-{SPAN}-01", f"00-{ID}0-{SPAN}-01", f"00-{ID}-{SPAN[:-1]}.-01", f"00-{ID}-{SPAN}-.0",
        f"00-{ID}-{SPAN}-01, 00-{ID}-{SPAN}-01", "00-x\",\"evil\":\"1", f"00-{ID}-{SPAN}-０1",
    ],
)  # fmt: skip
def test_any_other_traceparent_is_as_if_it_was_not_there(field: str) -> None:
    """A new trace begins, and the caller's tracestate is not looked at."""
    trace = begin(field, "a=1")
    assert (trace.id, trace.caller, trace.sampled, trace.state) == (REQUEST.replace("-", ""), "", False, None)


def test_a_call_without_a_trace_begins_one_that_has_the_requests_id() -> None:
    """Whoever knows one knows the other; an id that is no UUID, or all zero, gives a trace of its own."""
    trace = begin(None)
    assert trace.traceparent == f"00-{REQUEST.replace('-', '')}-{trace.span}-00"
    assert begin(None, request_id=REQUEST.upper()).id == REQUEST.replace("-", "")
    for other in ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "00000000-0000-0000-0000-000000000000"):
        assert re.fullmatch("(?!0{32})[0-9a-f]{32}", begin(None, request_id=other).id)


def test_spans_are_never_zero_nor_the_same() -> None:
    """A span or a trace that is all zero is none."""

    class Mostly(random.Random):
        """Draws zeros, and then a one at the very end; one by one, and only zeros where an id of a trace is drawn."""

        def getrandbits(self, k: int) -> int:
            return 1 << 64 | 1 if k > 128 else 0

    tracer = Tracer(recording=False, share=0.0, chance=Mostly())
    for _ in range(3):
        trace = tracer.begin(None, None, "01ARZ3NDEKTSV4RRFFQ69G5FAV")
        assert (trace.span, trace.function) == ("0000000000000001", "0000000000000001")
        assert trace.id == "0" * 31 + "1"
    traces = [Tracer(recording=False, share=0.0).begin(None, None, REQUEST) for _ in range(2)]
    assert len({id for trace in traces for id in (trace.span, trace.function)}) == 4


def test_what_is_recorded_is_said_to_the_function_and_to_the_caller() -> None:
    """The function's parent is then a span of ours; the share of calls without a trace is drawn."""
    recording = Tracer(recording=True, share=1.0)
    trace = recording.begin(f"00-{ID}-{SPAN}-01", None, REQUEST)
    assert (trace.recorded, trace.traceparent) == (True, f"00-{ID}-{trace.function}-01")
    assert trace.traceresponse == f"00-{ID}-{trace.span}-01"
    assert recording.begin(f"00-{ID}-{SPAN}-00", None, REQUEST).recorded is False
    new = recording.begin(None, None, REQUEST)
    assert (new.recorded, new.traceparent[-2:]) == (True, "01")
    assert Tracer(recording=True, share=0.0).begin(None, None, REQUEST).recorded is False
    assert Tracer(recording=False, share=1.0).begin(None, None, REQUEST).sampled is False


# ---- tracestate (section 3.3)


@pytest.mark.parametrize(
    ("field", "state"),
    [
        ("congo=t61rcWkgMzE", "congo=t61rcWkgMzE"),
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        (" a=1 ,\t, b=2 ", "a=1,b=2"),
        ("t@s=v,0*/_-=x", "t@s=v,0*/_-=x"),
        ('a="quoted\\" and spaced', 'a="quoted\\" and spaced'),
        ("", None),
        (" , ", None),
        ("a=1,a=2", None),
        ("A=1", None),
        ("a=", None),
        ("a", None),
        ("a=1=2", None),
        ("a=é", None),
        ("a=1\x7f", None),
        (f"{'k' * 257}=1", None),
        (f"k={'v' * 257}", None),
        (",".join(f"k{number}=v" for number in range(33)), None),
        ("x" * 9000, None),
    ],
)
def test_a_tracestate_goes_on_or_does_not(field: str, state: str | None) -> None:
    """One bad member, a key that is there twice, or one member too many: all of it goes, and the trace stays."""
    assert parse_state(field) == state
    trace = begin(f"00-{ID}-{SPAN}-01", field)
    assert (trace.id, trace.state) == (ID, state)


def test_a_long_tracestate_loses_long_members_first_and_then_the_last() -> None:
    """Never a part of one; 512 characters go on."""
    short = [f"k{number:02}={'v' * 16}" for number in range(24)]
    long = f"long={'v' * 200}"
    assert parse_state(",".join([short[0], long, *short[1:20]])) == ",".join(short[:20])
    assert parse_state(",".join([*short])) == ",".join(short)
    more = [f"k{number:02}={'v' * 100}" for number in range(8)]
    assert parse_state(",".join(more)) == ",".join(more[:4])


# ---- through the gateway


def test_the_trace_goes_into_the_runner_and_back_to_the_caller(gateway: Gateway) -> None:
    """Whatever a tracestate holds, the call's header stays JSON and says nothing else."""
    runner = gateway.ready()
    state = 'a="}{\\'
    asked = gateway.send("POST", INVOKE, b"{}", traceparent=f"00-{ID}-{SPAN}-01", tracestate=state)
    call = runner.expect(Frame.CALL)
    header = json.loads(call.header)
    assert (header["tag"], header["traceparent"], header["tracestate"]) == ("say", f"00-{ID}-{SPAN}-01", state)
    runner.result(call.call, 1)
    assert re.fullmatch(f"00-{ID}-[0-9a-f]{{16}}-01", answer(asked).headers["traceresponse"])


def test_a_call_without_one_is_given_one(gateway: Gateway) -> None:
    """The flag says that nobody recorded it; a refusal tells of it as well."""
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b"{}")
    call = runner.expect(Frame.CALL)
    header = json.loads(call.header)
    assert "tracestate" not in header
    runner.result(call.call, 1)
    got = answer(asked)
    digits = got.headers["x-request-id"].replace("-", "")
    assert header["traceparent"][:36] == got.headers["traceresponse"][:36] == f"00-{digits}-"
    assert header["traceparent"][-3:] == got.headers["traceresponse"][-3:] == "-00"
    refused = gateway.ask("POST", INVOKE, b"{}", token="nonsense")
    assert (refused.status, len(refused.headers["traceresponse"])) == (401, 55)
    for line in gateway.records():
        assert line["trace"] in (digits, refused.headers["traceresponse"][3:35])


def test_two_lines_of_a_tracestate_are_one_list(gateway: Gateway) -> None:
    """RFC 9110, section 5.3; a second traceparent is refused, as every field that can be read in two ways."""
    runner = gateway.ready()
    connection = gateway.send("POST", INVOKE, b"{}", traceparent=f"00-{ID}-{SPAN}-01", tracestate="a=1, b=2")
    call = runner.expect(Frame.CALL)
    assert json.loads(call.header)["tracestate"] == "a=1,b=2"
    runner.result(call.call, 1)
    assert answer(connection).status == 200


def test_a_stream_and_runagents_door_tell_of_it_as_well(gateway: Gateway) -> None:
    """In the head of the stream, and beside the envelope."""
    runner = gateway.ready(streams=True)
    parent = f"00-{ID}-{SPAN}-00"
    asked = gateway.send("POST", INVOKE, b"{}", Accept="text/event-stream", traceparent=parent)
    call = runner.expect(Frame.CALL)
    runner.chunk(call.call, 1)
    runner.end(call.call, 1)
    assert answer(asked).headers["traceresponse"].startswith(f"00-{ID}-")
    body = json.dumps({"entrypoint_tag": "say"}).encode()
    asked = gateway.send("POST", "/api/v1/agents/echo-1/run", body, traceparent=parent)
    call = runner.until(Frame.CALL)  # the stream's chunk may have given credits back before its end came
    runner.result(call.call, 1)
    assert answer(asked).headers["traceresponse"].startswith(f"00-{ID}-")


# ---- what is kept


def record(request_id: str, trace: Trace) -> CallRecord:
    return CallRecord(
        request_id=request_id, door="native", peer="", subject=None, principal=None, agent=None, tag=None,
        instance=None, outcome="OK", cause=None, detail=None, started_unix=0.0, seconds=0.0, queue_seconds=None,
        request_bytes=None, result_bytes=0, chunks=0, client=None, trace=trace,
    )  # fmt: skip


def test_the_history_keeps_a_trace_that_the_id_of_the_request_does_not_tell() -> None:
    """Which is most often none: sixteen bytes of each call saved."""
    assert row_of(record(REQUEST, begin(None)), contents=False).trace is None
    assert row_of(record(REQUEST, begin(f"00-{ID}-{SPAN}-00")), contents=False).trace == ID


def test_calls_that_were_kept_before_there_were_traces_are_read() -> None:
    """They say nothing of one."""
    row = row_of(record(REQUEST, begin(f"00-{ID}-{SPAN}-00")), contents=False)
    before = msgspec.json.decode(msgspec.json.encode(row))[:-1]
    assert msgspec.convert(before, Row).trace is None
