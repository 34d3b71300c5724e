"""Spans of calls: in the form that a Collector reads, of what is to be recorded, bounded on the disk."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.protobuf import json_format  # type: ignore[import-untyped]  # protobuf ships no types
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from runagentd.errors import Fault
from runagentd.gateway import spans
from runagentd.gateway.requests import CallRecord
from runagentd.gateway.spans import Spans
from runagentd.log import Form, Level, Log
from runagentd.wire.channel import Frame
from runagentd.wire.settings import Settings, Telemetry
from tests import fakes_gateway
from tests.fakes_gateway import TRACE, FakeRunner, Gateway, answer

INVOKE = "/v1/agents/echo-1/entrypoints/say:invoke"
ID, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
RECORDED = msgspec.structs.replace(TRACE, recorded=True, state='a="1"')
RECORD = CallRecord(
    request_id="7d444840-9dc0-11d1-b245-5ffdce74fad2", door="native", peer="192.0.2.1", subject="alice",
    principal="p-1", agent="echo-1", tag="say", instance="00000000000000a1", outcome="OK", cause=None, detail=None,
    started_unix=1_800_000_000.5, seconds=0.5, queue_seconds=0.125, request_bytes=2, result_bytes=3, chunks=1,
    client="curl/8", trace=RECORDED, route="POST /v1/agents/{agent}/entrypoints/{entrypoint}:invoke", path=INVOKE,
    status=200,
)  # fmt: skip


class Clock:
    """`call_later` whose time a test moves."""

    def __init__(self) -> None:
        self.due: list[Any] = []

    def __call__(self, seconds: float, callback: Any) -> Clock:
        self.due.append(callback)
        return self

    def cancel(self) -> None:
        self.due.clear()


class Written:
    """Spans in a folder, and what was written of them."""

    def __init__(self, folder: Path, bytes_max: int = 1024 * 1024) -> None:
        self.file = folder / "spans" / "spans.jsonl"
        self.later = Clock()
        self.log_lines: list[str] = []
        log = Log(fakes_gateway._Lines(self.log_lines), source="gateway", form=Form.JSON, level=Level.INFO)  # type: ignore[arg-type]
        self.spans = Spans(folder, log, bytes_max=bytes_max, version="1.0", secure=False, later=self.later)

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.file.read_bytes().splitlines()] if self.file.exists() else []


def spans_of(line: Any) -> list[Any]:
    [resource] = line["resourceSpans"]
    [scope] = resource["scopeSpans"]
    found: list[Any] = scope["spans"]
    return found


def attributes(span: Any) -> dict[str, Any]:
    return {row["key"]: next(iter(row["value"].values())) for row in span["attributes"]}


def test_a_call_is_three_spans(tmp_path: Path) -> None:
    """The request, and in it how long it waited and how long its function took."""
    written = Written(tmp_path)
    written.spans.add(RECORD)
    written.spans.flush()
    [line] = written.lines()
    server, queue, function = spans_of(line)
    assert (server["traceId"], server["spanId"], server["parentSpanId"]) == (ID, TRACE.span, SPAN)
    assert (server["kind"], server["flags"], server["traceState"]) == (2, 0x301, 'a="1"')
    assert (server["startTimeUnixNano"], server["endTimeUnixNano"]) == ("1800000000500000000", "1800000001000000000")
    assert (queue["startTimeUnixNano"], queue["endTimeUnixNano"]) == ("1800000000500000000", "1800000000625000000")
    assert (function["startTimeUnixNano"], function["endTimeUnixNano"]) == (
        "1800000000625000000",
        "1800000001000000000",
    )
    assert [queue["parentSpanId"], function["parentSpanId"]] == [TRACE.span] * 2
    assert function["spanId"] == TRACE.function  # what the function was told as its parent
    assert len({server["spanId"], queue["spanId"], function["spanId"]}) == 3
    assert server["name"] == "POST /v1/agents/{agent}/entrypoints/{entrypoint}:invoke"
    assert server["status"] == {}
    assert attributes(server) == {
        "http.request.method": "POST",
        "http.route": "/v1/agents/{agent}/entrypoints/{entrypoint}:invoke",
        "url.path": INVOKE,
        "url.scheme": "http",
        "http.response.status_code": "200",
        "client.address": "192.0.2.1",
        "user_agent.original": "curl/8",
        "runagentd.request_id": "7d444840-9dc0-11d1-b245-5ffdce74fad2",
        "runagentd.result_bytes": "3",
        "runagentd.chunks": "1",
        "runagentd.agent": "echo-1",
        "runagentd.entrypoint": "say",
        "runagentd.instance": "00000000000000a1",
        "runagentd.outcome": "OK",
    }
    [resource] = line["resourceSpans"]
    assert attributes(resource["resource"]) == {"service.name": "runagentd", "service.version": "1.0"}


def test_a_line_is_what_opentelemetrys_own_schema_says(tmp_path: Path) -> None:
    """Every name and type of it; a name that is not there is an error. Also where texts are broken."""
    written = Written(tmp_path)
    broken = '\ud800\x00"\\'
    written.spans.add(
        msgspec.structs.replace(RECORD, tag=broken, path=broken, detail=broken, fault=Fault.AGENT, outcome="X")
    )
    written.spans.add(
        msgspec.structs.replace(RECORD, agent=None, tag=None, instance=None, queue_seconds=None, client=None)
    )
    written.spans.flush()
    [line] = written.file.read_text().splitlines()
    # Ids are hexadecimal in OTLP's JSON, and not in base 64 as protocol buffers would have it: look at the rest.
    message = json_format.Parse(
        re.sub(r'"(traceId|spanId|parentSpanId)":"[0-9a-f]+",?', "", line), ExportTraceServiceRequest()
    )
    found = message.resource_spans[0].scope_spans[0].spans
    assert [span.kind for span in found] == [2, 1, 1, 2]
    assert found[0].status.code == 2
    assert found[0].start_time_unix_nano == 1_800_000_000_500_000_000
    assert found[0].attributes[4].value.int_value == 200


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault.CALLER, {}),
        (Fault.AGENT, {"code": 2}),
        (Fault.DAEMON, {"code": 2}),
    ],
)
def test_only_what_is_not_the_callers_fault_is_an_error(fault: Fault, status: dict[str, Any], tmp_path: Path) -> None:
    """As the semantic conventions have it for servers; what it was is an attribute either way."""
    written = Written(tmp_path)
    written.spans.add(
        msgspec.structs.replace(
            RECORD, outcome="FUNCTION_ERROR", fault=fault, detail="the function raised an exception"
        )
    )
    written.spans.flush()
    server, _, function = spans_of(written.lines()[0])
    assert server["status"] == function["status"] == status
    assert attributes(server)["error.type"] == "FUNCTION_ERROR"


def test_what_nobody_records_is_not_written(tmp_path: Path) -> None:
    """Nor is there a file for it."""
    written = Written(tmp_path)
    written.spans.add(msgspec.structs.replace(RECORD, trace=TRACE))
    written.spans.flush()
    assert not written.file.exists()
    off = Written(tmp_path / "off", bytes_max=0)
    off.spans.add(RECORD)
    off.spans.flush()
    assert not (tmp_path / "off").exists()


def test_spans_are_written_by_size_and_by_time(tmp_path: Path) -> None:
    """128 KiB at once, or what came within a second: a Collector takes no line of more than 1 MiB."""
    written = Written(tmp_path)
    while not written.file.exists():
        written.spans.add(RECORD)
    assert 128 * 1024 < written.file.stat().st_size < 136 * 1024
    written.spans.add(RECORD)
    assert len(written.lines()) == 1
    [due] = written.later.due
    due()
    assert [len(spans_of(line)) for line in written.lines()] == [written.spans.written - 3, 3]


def test_the_disk_that_they_take_is_bounded(tmp_path: Path) -> None:
    """Two files, each of half of it; a Collector has read the older one by then."""
    written = Written(tmp_path, bytes_max=20_000)
    for _ in range(100):
        written.spans.add(RECORD)
        written.spans.flush()
    files = sorted((tmp_path / "spans").iterdir())
    assert [file.name for file in files] == ["spans.jsonl", "spans.jsonl.1"]
    assert all(file.stat().st_size <= 10_000 for file in files)
    assert [oct(file.stat().st_mode & 0o777) for file in (tmp_path / "spans", *files)] == ["0o755", "0o644", "0o644"]


def test_a_disk_that_fails_costs_spans_and_no_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said once, and counted."""
    written = Written(tmp_path)

    def full(lines: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(written.spans._file, "append", full)
        for _ in range(2):
            written.spans.add(RECORD)
            written.spans.flush()
    assert (written.spans.written, written.spans.lost) == (0, 6)
    assert [json.loads(line)["event"] for line in written.log_lines] == ["spans cannot be written down"]
    written.spans.add(RECORD)
    written.spans.flush()
    assert json.loads(written.log_lines[-1])["lost"] == 6
    assert written.spans.written == 3


# ---- through the gateway


@pytest.fixture
def recording() -> Iterator[Gateway]:
    """Records what callers want recorded, and of the others nothing."""
    yield from fakes_gateway.running(Settings(telemetry=Telemetry(spans_bytes=1024 * 1024, share=0.0)))


def read(gateway: Gateway) -> list[Any]:
    """All spans of requests so far."""
    gateway.inside(lambda: gateway.application._spans.flush())
    file = gateway.folder / "data" / spans.FOLDER / spans.NAME
    lines = file.read_text().splitlines() if file.exists() else []
    return [span for line in lines for span in spans_of(json.loads(line)) if span["kind"] == 2]


def call(gateway: Gateway, runner: FakeRunner, traceparent: str | None) -> dict[str, Any]:
    """One good call; the header that the runner got."""
    fields = {} if traceparent is None else {"traceparent": traceparent}
    asked = gateway.send("POST", INVOKE, b"{}", **fields)
    frame = runner.expect(Frame.CALL)
    runner.result(frame.call, 1)
    assert answer(asked).status == 200
    header: dict[str, Any] = json.loads(frame.header)
    return header


def test_whoever_says_that_a_trace_is_recorded_has_it_recorded(recording: Gateway) -> None:
    """The function's parent is then the function's span, which is there."""
    runner = recording.ready()
    call(recording, runner, None)
    call(recording, runner, f"00-{ID}-{SPAN}-00")
    header = call(recording, runner, f"00-{ID}-{SPAN}-01")
    [span] = read(recording)
    assert (span["traceId"], span["parentSpanId"]) == (ID, SPAN)
    assert abs(int(span["endTimeUnixNano"]) / 1e9 - time.time()) < 60
    told = header["traceparent"].split("-")
    assert (told[1], told[3]) == (ID, "01")
    file = recording.folder / "data" / spans.FOLDER / spans.NAME
    assert f'"spanId":"{told[2]}"' in file.read_text()


def test_refused_calls_have_spans_with_their_status(recording: Gateway) -> None:
    """What a stranger sends is cut; no token is in it."""
    recording.ready()
    parent = f"00-{ID}-{SPAN}-01"
    assert recording.ask("POST", INVOKE, b"{}", token="secret-token", traceparent=parent).status == 401
    assert (
        recording.ask("POST", "/v1/agents/" + "x" * 400 + "/entrypoints/y:invoke", b"{}", traceparent=parent).status
        == 404
    )
    first, second = read(recording)
    assert attributes(first)["http.response.status_code"] == "401"
    assert attributes(first)["error.type"] == "AUTHENTICATION_ERROR"
    assert attributes(second)["http.response.status_code"] == "404"
    assert len(attributes(second)["url.path"]) == 255
    assert "secret-token" not in (recording.folder / "data" / spans.FOLDER / spans.NAME).read_text()


def test_nothing_of_a_calls_contents_is_in_its_spans(recording: Gateway) -> None:
    """Neither arguments nor results nor words of exceptions, whatever the agent's policy keeps of them elsewhere."""
    limits = dataclasses.replace(fakes_gateway.LIMITS, history_contents=True)
    runner = recording.ready(limits=limits)
    parent = f"00-{ID}-{SPAN}-01"
    for good in (True, False):
        asked = recording.send("POST", INVOKE, b'{"text": "secret-argument"}', traceparent=parent)
        frame = runner.expect(Frame.CALL)
        if good:
            runner.result(frame.call, "secret-result")
        else:
            runner.error(frame.call, "exception", "secret-words", type="ValueError")
        answer(asked)
    assert len(read(recording)) == 2
    assert "secret" not in (recording.folder / "data" / spans.FOLDER / spans.NAME).read_text()


def test_settings_that_change_begin_and_end_it(recording: Gateway) -> None:
    """As kill -HUP brings them."""
    runner = recording.ready()
    configuration = recording.application._configuration

    def change(telemetry: Telemetry) -> None:
        recording.application.configure(type(configuration)(Settings(telemetry=telemetry), {}))

    recording.inside(lambda: change(Telemetry()))
    call(recording, runner, f"00-{ID}-{SPAN}-01")
    assert read(recording) == []
    recording.inside(lambda: change(Telemetry(spans_bytes=1024 * 1024, share=1.0)))
    call(recording, runner, None)
    assert len(read(recording)) == 1
