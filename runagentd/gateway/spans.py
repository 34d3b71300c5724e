"""Spans of calls, as lines of OTLP in JSON: a file that the operator's OpenTelemetry Collector reads.

Runs as: the gateway, which can connect to nothing; so nothing is sent from here, and nobody has to be trusted for it.
Reads from strangers: nothing; what callers chose is cut by `invocation`, and JSON besides.

A line is one `ExportTraceServiceRequest` (opentelemetry-proto 1, OpenTelemetry Protocol File Exporter): the Collector's
receiver `otlpjsonfile` takes it as it is. Spans are made when a call ends and written some at a time; a disk that fails
costs spans and never a call.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from runagentd.errors import Fault
from runagentd.gateway.kept.invocation import GOOD, client, text
from runagentd.gateway.requests import CallRecord
from runagentd.gateway.rotating import RotatingFile
from runagentd.gateway.timers import Later, Timer
from runagentd.log import Log

FOLDER, NAME = "spans", "spans.jsonl"
BATCH_BYTES = 128 * 1024
"""Of a line: the Collector takes none of more than 1 MiB (`max_log_size`), and a call's spans are a few KiB at most."""
BATCH_SECONDS = 1.0

_ENCODE = msgspec.json.Encoder().encode
_INTERNAL, _SERVER = 1, 2
_ERROR = 2
_HAS_IS_REMOTE, _IS_REMOTE, _SAMPLED = 0x100, 0x200, 0x01
"""SpanFlags of opentelemetry-proto"""


class Spans:
    """Writes down what is recorded of a trace. In `folder` a folder of its own is made; `bytes_max` 0 writes nothing.

    `later` is the event loop's `call_later`; `secure` is whether clients speak TLS to us.
    """

    def __init__(
        self,
        folder: Path,
        log: Log,
        *,
        bytes_max: int,
        version: str,
        secure: bool,
        later: Later,
    ) -> None:
        self._folder = folder
        self._log = log
        self._scheme = "https" if secure else "http"
        self._later = later
        self._timer: Timer | None = None
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._failing = False
        self._directory = -1
        self._file: RotatingFile | None = None
        self._begin, self._end = _around(version)
        self.written = 0
        self.lost = 0
        """spans, since this process began"""
        self._open(bytes_max)

    def configure(self, bytes_max: int) -> None:
        """Another size; files that are larger shrink when they are rotated."""
        self.close()
        self._open(bytes_max)

    def close(self) -> None:
        """Write what waits, and end."""
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def add(self, record: CallRecord) -> None:
        """A call that has ended."""
        if self._file is None or not record.trace.recorded:
            return
        made = [_ENCODE(span) for span in _spans(record, self._scheme)]
        self._waiting += made
        self._bytes += sum(map(len, made))
        if self._bytes >= BATCH_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = self._later(BATCH_SECONDS, self._due)

    def flush(self) -> None:
        """Write what waits, as one line."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting or self._file is None:
            return
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        try:
            self._file.append(self._begin + b",".join(waiting) + self._end)
        except OSError as error:
            self.lost += len(waiting)
            if not self._failing:
                self._failing = True
                self._log.error("spans cannot be written down", problem=error.strerror)
            return
        self.written += len(waiting)
        if self._failing:
            self._failing = False
            self._log.info("spans are written down again", lost=self.lost)

    def _due(self) -> None:
        self._timer = None
        self.flush()

    def _open(self, bytes_max: int) -> None:
        if not bytes_max:
            return
        try:
            self._directory = _open_folder(self._folder)
        except OSError as error:
            self._log.error("spans cannot be written down", problem=error.strerror)
            return
        self._file = RotatingFile(self._directory, NAME, bytes_max=bytes_max // 2, mode=0o644)


def _open_folder(folder: Path) -> int:
    """Ours, and readable for others: for who they are, see docs/seeing.md. Above it is a folder that is only ours."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder / FOLDER)
    directory = os.open(folder / FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(directory, 0o755)
    except OSError:
        os.close(directory)
        raise
    return directory


def _around(version: str) -> tuple[bytes, bytes]:
    """What comes before and after the spans of a line."""
    resource = {"attributes": [_text("service.name", "runagentd"), _text("service.version", version)]}
    scope = {"name": "runagentd.gateway", "version": version}
    whole = _ENCODE({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": []}]}]})
    place = whole.rindex(b"[]") + 1
    return whole[:place], whole[place:] + b"\n"


# ---- spans of a call


def _spans(record: CallRecord, scheme: str) -> Iterator[dict[str, object]]:
    """The call's own, and within it how long it waited and how long its function took."""
    trace = record.trace
    begin = int(record.started_unix * 1e9)
    end = begin + int(record.seconds * 1e9)
    flags = _SAMPLED | (_HAS_IS_REMOTE | _IS_REMOTE if trace.caller else 0)
    yield {
        **_span(record, trace.span, trace.caller, record.route, begin, end, _SERVER, flags),
        "attributes": [*_request(record, scheme), *_call(record)],
        "status": _status(record),
    }
    if record.queue_seconds is None:
        return
    sent = begin + int(record.queue_seconds * 1e9)
    queue = f"{int(trace.function, 16) ^ (1 << 63) or 1:016x}"
    yield _span(record, queue, trace.span, "wait for a place", begin, sent, _INTERNAL, _SAMPLED | _HAS_IS_REMOTE)
    yield {
        **_span(record, trace.function, trace.span, "function", sent, end, _INTERNAL, _SAMPLED | _HAS_IS_REMOTE),
        "attributes": list(_call(record)),
        "status": _status(record),
    }


def _span(
    record: CallRecord, span: str, parent: str, name: str, begin: int, end: int, kind: int, flags: int
) -> dict[str, object]:
    fields: dict[str, object] = {
        "traceId": record.trace.id,
        "spanId": span,
        "name": name,
        "kind": kind,
        "flags": flags,
        "startTimeUnixNano": str(begin),
        "endTimeUnixNano": str(end),
    }
    if parent:
        fields["parentSpanId"] = parent
    if record.trace.state is not None:
        fields["traceState"] = record.trace.state
    return fields


def _request(record: CallRecord, scheme: str) -> Iterator[dict[str, object]]:
    """Semantic conventions for HTTP server spans (opentelemetry.io, stable since 1.23)."""
    method, _, route = record.route.partition(" ")
    yield _text("http.request.method", method)
    yield _text("http.route", route)
    yield _text("url.path", text(record.path))
    yield _text("url.scheme", scheme)
    if record.status:
        yield _number("http.response.status_code", record.status)
    yield _text("client.address", record.peer[:64])
    agent = None if record.client is None else client(record.client)
    if agent is not None:
        yield _text("user_agent.original", agent)
    yield _text("runagentd.request_id", record.request_id)
    yield _number("runagentd.result_bytes", record.result_bytes)
    yield _number("runagentd.chunks", record.chunks)


def _call(record: CallRecord) -> Iterator[dict[str, object]]:
    if record.agent is not None:
        yield _text("runagentd.agent", record.agent)
    if record.tag is not None:
        yield _text("runagentd.entrypoint", text(record.tag))
    if record.instance is not None:
        yield _text("runagentd.instance", record.instance)
    yield _text("runagentd.outcome", record.outcome)
    if record.cause is not None:
        yield _text("runagentd.cause", record.cause)
    if record.outcome != GOOD:
        yield _text("error.type", record.outcome)


def _status(record: CallRecord) -> dict[str, object]:
    """An error is what is not the caller's fault: theirs they see themselves."""
    if record.fault is None or record.fault is Fault.CALLER:
        return {}
    # Without a message: where an agent's policy keeps contents, what was wrong may quote them.
    return {"code": _ERROR}


def _text(key: str, value: str) -> dict[str, object]:
    return {"key": key, "value": {"stringValue": value}}


def _number(key: str, value: int) -> dict[str, object]:
    # 64-bit integers are texts in the JSON form of protocol buffers.
    return {"key": key, "value": {"intValue": str(value)}}
