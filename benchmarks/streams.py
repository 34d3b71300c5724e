"""Streams: chunks a second, and how late the first one is.

Runs as: `make bench`, root.
Reads from strangers: the streams of the measured servers, on 127.0.0.1, to a bounded length and time.
The client looks at nothing but the end of what has come, so that it costs little beside what it measures.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from benchmarks import peers
from benchmarks.processes import AGENT, BenchmarkError, Daemon, Endpoint, daemon
from benchmarks.rows import Measured, Row, Series, alone, beside, without

PART = "streams"
COUNTING = AGENT.parent / "counting"
OURS = "runagentd"
TARGET, FIRST_TARGET = ">= 50000", "<= 1"
SSE_END, WS_END = b"event: done", b"stream_completed"
_STAMP = re.compile(rb"(?:payload[^0-9]{1,16}|data: )([0-9]{9,19})")
_TAIL = 256
_TIMEOUT_SECONDS = 60.0
_CHUNKS = 20_000
_FEW = 2_000
"""RunAgent's own server sends some hundred chunks a second, and keeps 5,000 of each stream"""
_SEVERAL = 4
_FIRSTS = 200
POLICY = f"[scaling]\ninstances_min = {_SEVERAL}\ninstances_max = {_SEVERAL}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A stream that can be asked for: the bytes of the request, what to send once there is an answer, how it ends."""

    address: tuple[str, int]
    request: bytes
    then: bytes
    end: bytes


def events(endpoint: Endpoint, path: str, count: int) -> Source:
    """Server-sent events over a connection of their own."""
    parts = urllib.parse.urlsplit(endpoint.url)
    body = json.dumps({"to": count}).encode() if count else b"{}"
    authorization = f"Authorization: Bearer {endpoint.token}\r\n" if endpoint.token else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\n{authorization}Content-Type: application/json\r\n"
        f"Accept: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    address = (parts.hostname or "", parts.port or 80)
    return Source(address=address, request=head.encode() + body, then=b"", end=SSE_END)


def websocket(endpoint: Endpoint, path: str, tag: str, arguments: Mapping[str, int]) -> Source:
    """RunAgent's protocol over a WebSocket (RFC 6455): the handshake, and the one message that a client sends."""
    parts = urllib.parse.urlsplit(endpoint.url)
    authorization = f"Authorization: Bearer {endpoint.token}\r\n" if endpoint.token else ""
    key = base64.b64encode(os.urandom(16)).decode()
    head = (
        f"GET {path} HTTP/1.1\r\nHost: x\r\n{authorization}Connection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
    message = json.dumps({"entrypoint_tag": tag, "input_args": [], "input_kwargs": arguments}).encode()
    address = (parts.hostname or "", parts.port or 80)
    return Source(address=address, request=head.encode(), then=frame(message), end=WS_END)


def frame(message: bytes) -> bytes:
    """A text frame of a client's, of 126 to 65535 bytes or fewer; its mask is nothing but zeros (RFC 6455, 5.2)."""
    if len(message) < 126:
        return bytes([0x81, 0x80 | len(message)]) + bytes(4) + message
    return bytes([0x81, 0xFE]) + len(message).to_bytes(2, "big") + bytes(4) + message


def read(source: Source) -> tuple[float, float, bytes]:
    """Seconds from the request to the end of its stream; when its first chunk was there; and how it ended."""
    with socket.create_connection(source.address, timeout=_TIMEOUT_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.perf_counter()
        connection.sendall(source.request)
        tail = b""
        if source.then:
            while b"\r\n\r\n" not in tail:
                tail += _some(connection, tail)
            tail = tail.partition(b"\r\n\r\n")[2]
            connection.sendall(source.then)
        first, marks = 0.0, (b"event: chunk", b'"type":"data"', b'"type": "data"')
        while source.end not in tail:
            piece = _some(connection, tail)
            # What ends a stream may come in two pieces, and what is before it is of no interest.
            tail = (tail + piece) if len(piece) < _TAIL else tail[-_TAIL:] + piece
            if not first and any(mark in tail for mark in marks):
                first = time.monotonic()
            if source.end not in tail:
                tail = tail[-2 * _TAIL :]
        return time.perf_counter() - began, first, tail


def _some(connection: socket.socket, before: bytes) -> bytes:
    piece = connection.recv(262144)
    if not piece:
        raise BenchmarkError(f"a stream ended before its end: {before[-200:]!r}")
    return piece


# ---- what is measured


def measure(*, rounds: int, progress: Callable[[str], None]) -> Measured:
    """All sources in turn, and then how late a first chunk is."""
    with ExitStack() as stack:
        served = stack.enter_context(daemon(spares=1, others=[COUNTING], policy=POLICY))
        names = (peers.FASTAPI, peers.AIOHTTP, peers.RUNAGENT)
        there, missing = peers.start_all(stack, names, progress)
        ours = served.endpoint()
        _all_ready(served)
        sources: dict[str, tuple[Source, int, int]] = {
            f"{OURS}, SSE": (_ours(served, ours, "sse", _CHUNKS), 1, _CHUNKS),
            f"{OURS}, SSE, {_SEVERAL} streams": (_ours(served, ours, "sse", _CHUNKS), _SEVERAL, _CHUNKS),
            f"{OURS}, WebSocket": (_ours(served, ours, "ws", _CHUNKS), 1, _CHUNKS),
        }
        if peers.AIOHTTP in there:
            bare = there[peers.AIOHTTP]
            sources["aiohttp, SSE"] = (events(bare, "/sse", _CHUNKS), 1, _CHUNKS)
            plain = websocket(bare, "/ws", "count_stream", {"to": _CHUNKS})
            sources["aiohttp, WebSocket"] = (plain, 1, _CHUNKS)
        if peers.FASTAPI in there:
            sources["FastAPI, SSE"] = (events(there[peers.FASTAPI], "/sse", _CHUNKS), 1, _CHUNKS)
        if peers.RUNAGENT in there:
            path = f"/api/v1/agents/{peers.RUNAGENT_ID}/run-stream"
            own = websocket(there[peers.RUNAGENT], path, "count_stream", {"to": _FEW})
            sources["RunAgent, WebSocket"] = (own, 1, _FEW)
        values: Series = {}
        for number in range(-1, rounds):
            for name, (source, streams, chunks) in sources.items():
                progress(f"streams, round {number + 1} of {rounds}: {name}")
                rate = streams * chunks / _together(source, streams)
                if number >= 0:
                    values.setdefault(f"{name}, chunks/s", []).append(rate)
        for name, way in (("SSE", "sse"), ("WebSocket", "ws")):
            progress(f"streams: first chunks, {name}")
            values[f"{OURS}, {name}, first chunk ms"] = [_first(_ours(served, ours, way, 0)) for _ in range(_FIRSTS)]
    return measured(values, missing)


def measured(values: Mapping[str, Sequence[float]], missing: Mapping[str, str]) -> Measured:
    """Chunks a second beside others, and milliseconds from the function's `yield` to the client."""
    rows: list[Row] = []
    sse, several = values[f"{OURS}, SSE, chunks/s"], values[f"{OURS}, SSE, {_SEVERAL} streams, chunks/s"]
    ws = values[f"{OURS}, WebSocket, chunks/s"]
    name = f"{_SEVERAL} streams at once through one gateway, SSE"
    rows.append(alone(PART, name, "chunks/s", several, target=TARGET))
    for what, ours, peer, key in (
        ("one stream, SSE", sse, peers.AIOHTTP, "aiohttp, SSE"),
        ("one stream, SSE", sse, peers.FASTAPI, "FastAPI, SSE"),
        ("one stream, WebSocket", ws, peers.AIOHTTP, "aiohttp, WebSocket"),
        ("one stream, WebSocket", ws, peers.RUNAGENT, "RunAgent, WebSocket"),
    ):
        if theirs := values.get(f"{key}, chunks/s"):
            rows.append(beside(PART, what, "chunks/s", ours, theirs, peer))
        else:
            rows.append(without(PART, what, "chunks/s", ours, peer, missing.get(peer, "not measured")))
    for way in ("SSE", "WebSocket"):
        late = values[f"{OURS}, {way}, first chunk ms"]
        rows.append(alone(PART, f"first chunk after the function made it, {way}", "ms", late, target=FIRST_TARGET))
    return Measured(rows=rows, series=values, missing=missing)


def _ours(served: Daemon, endpoint: Endpoint, way: str, count: int) -> Source:
    tag = "count_stream" if count else "stamp_stream"
    if way == "sse":
        return events(endpoint, served.path(tag, agent="counting"), count)
    arguments = {"to": count} if count else {}
    return websocket(endpoint, "/api/v1/agents/counting/run-stream", tag, arguments)


def _all_ready(served: Daemon) -> None:
    deadline = time.monotonic() + 60
    while sum(row.state == "ready" and row.agent_name == "counting" for row in served.listing().instances) < _SEVERAL:
        if time.monotonic() > deadline:
            raise BenchmarkError("the counting agent's instances do not come up")
        time.sleep(0.02)


def _together(source: Source, streams: int) -> float:
    """Seconds until so many streams, begun at once, have ended."""
    if streams == 1:
        return read(source)[0]
    errors: list[Exception] = []

    def one() -> None:
        try:
            read(replace(source))
        except (OSError, BenchmarkError) as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(streams)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise BenchmarkError(str(errors[0]))
    return time.perf_counter() - began


def _first(source: Source) -> float:
    """Milliseconds from when the function made its chunk, by its own word, until it was here."""
    _, first, tail = read(source)
    return first * 1e3 - _stamp(tail) / 1e6


def _stamp(tail: bytes) -> int:
    """The one chunk of a stream of `stamp_stream`: nanoseconds, as SSE or RunAgent's protocol has them."""
    found = _STAMP.search(tail)
    if found is None:
        raise BenchmarkError(f"a stream without the stamp that was asked for: {tail[-300:]!r}")
    return int(found[1])
