"""A slow reader slows the generator; a reader that goes away ends it. Nothing piles up in between."""

from __future__ import annotations

import json
import socket
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.daemon import Daemon, serve
from tests.system.folders import agent, policy

pytestmark = [pytest.mark.root, pytest.mark.slow]

COUNTING = """
    made = 0
    ended = []

    def flood_stream(size: int):
        global made
        made = 0
        try:
            while True:
                made += 1
                yield "x" * size
        finally:
            ended.append("flood")

    async def aflood_stream(size: int):
        global made
        made = 0
        try:
            while True:
                made += 1
                yield "x" * size
        finally:
            ended.append("aflood")

    def nap(seconds: float) -> None:
        import time
        try:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(0.01)
        finally:
            ended.append("nap")

    async def anap(seconds: float) -> None:
        import asyncio
        try:
            await asyncio.sleep(seconds)
        finally:
            ended.append("anap")

    def counter() -> int:
        return made

    def endings() -> list[str]:
        return ended
"""
TAGS = ("flood_stream", "aflood_stream", "nap", "anap", "counter", "endings")
CHUNK_BYTES = 64 * 1024


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("streams")
    several = policy(place, "several", "[calls]\nconcurrency = 4\n")
    with serve([agent(place, "counting", COUNTING, *TAGS)], policies=[several]) as running:
        yield running


def ask(daemon: Daemon, tag: str, arguments: dict[str, Any], accept: str) -> socket.socket:
    """A client that is careful with memory: send a request, read nothing yet."""
    body = json.dumps(arguments).encode()
    parts = urllib.parse.urlsplit(daemon.url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
    client.settimeout(10)
    client.connect((parts.hostname, parts.port))
    head = (
        f"POST /v1/agents/counting/entrypoints/{tag}:invoke HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Authorization: Bearer {daemon.token}\r\nAccept: {accept}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    client.sendall(head.encode() + body)
    return client


def read_chunks(client: socket.socket, number: int) -> None:
    """Read as far as the beginning of the chunk after the next `number`."""
    seen = b""
    while seen.count(b"event: chunk") <= number:
        piece = client.recv(8192)
        assert piece, seen[-2000:]
        seen = seen[-20:].replace(b"event: chunk", b"") + piece if len(seen) > 1 << 20 else seen + piece


def count(daemon: Daemon) -> int:
    status, number = daemon.call("counting", "counter")
    assert (status, type(number)) == (200, int)
    return int(number)


def resident_bytes(pid: int) -> int:
    """VmRSS (proc_pid_status(5))."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def wait_for_ending(daemon: Daemon, what: str, before: int, seconds: float) -> float:
    """How long until a function has noticed that it is to end."""
    began = time.monotonic()
    while daemon.call("counting", "endings")[1].count(what) <= before:
        assert time.monotonic() - began < seconds
        time.sleep(0.01)
    return time.monotonic() - began


@pytest.mark.parametrize("tag", ["flood_stream", "aflood_stream"])
def test_a_reader_that_stops_stops_the_generator(daemon: Daemon, tag: str) -> None:
    """The generator's own counter stands still, and the gateway has not put the rest into its memory."""
    what = tag.partition("_")[0]
    before = daemon.call("counting", "endings")[1].count(what)
    gateway = daemon.gateway_pid()
    # What the kernel's own socket buffers may hold (tcp(7)) is not the gateway's to bound.
    kernel_bytes = int(Path("/proc/sys/net/ipv4/tcp_wmem").read_text().split()[2])
    rss = resident_bytes(gateway)
    with ask(daemon, tag, {"size": CHUNK_BYTES}, "text/event-stream") as client:
        read_chunks(client, 10)
        deadline = time.monotonic() + 10
        stood = -1
        while (now := count(daemon)) != stood:
            assert time.monotonic() < deadline
            stood = now
            time.sleep(0.3)
        time.sleep(1)
        assert count(daemon) == stood
        # 10 were read, 16 are the window, one is being made, one is being sent.
        assert 10 < stood <= 10 + 16 + 2 + kernel_bytes // CHUNK_BYTES
        assert resident_bytes(gateway) - rss < 8 * 1024 * 1024
        read_chunks(client, 10)
        assert count(daemon) > stood
    assert wait_for_ending(daemon, what, before, 3) < 3


@pytest.mark.parametrize("what", ["nap", "anap"])
def test_a_client_that_goes_away_cancels_its_call(daemon: Daemon, what: str) -> None:
    """The function itself is told, synchronous or not, and the instance goes on."""
    before = daemon.call("counting", "endings")[1].count(what)
    instance = daemon.row("counting").instance
    with ask(daemon, what, {"seconds": 30}, "application/json"):
        time.sleep(0.3)
    assert wait_for_ending(daemon, what, before, 2) < 2
    assert daemon.row("counting").instance == instance


def test_a_stream_that_nobody_reads_does_not_hinder_the_others(daemon: Daemon) -> None:
    """Within the policy's concurrency."""
    with (
        ask(daemon, "flood_stream", {"size": CHUNK_BYTES}, "text/event-stream"),
        ask(daemon, "flood_stream", {"size": CHUNK_BYTES}, "text/event-stream"),
    ):
        time.sleep(0.5)
        began = time.monotonic()
        for _ in range(20):
            assert daemon.call("counting", "endings")[0] == 200
        assert time.monotonic() - began < 5
