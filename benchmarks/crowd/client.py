"""HTTP by hand: a client that costs little beside what it measures, and can leave at any moment.

Runs as: `make crowd`.
Reads from strangers: nothing; the daemon is ours.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from benchmarks.processes import BenchmarkError, Daemon


def request(served: Daemon, agent: str, tag: str, body: object, *, token: str = "", stream: bool = False) -> bytes:
    """One request as it goes over the wire."""
    content = json.dumps(body).encode()
    accept = "Accept: text/event-stream\r\n" if stream else ""
    head = (
        f"POST /v1/agents/{agent}/entrypoints/{tag}:invoke HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {token or served.token}\r\nContent-Type: application/json\r\n{accept}"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def answer(reader: asyncio.StreamReader) -> tuple[int, Any]:
    """Status and JSON of the next answer on a connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
    content = await reader.readexactly(length)
    return int(head.split(b" ", 2)[1]), json.loads(content) if content else None


async def call(served: Daemon, agent: str, tag: str, body: object, *, token: str = "") -> tuple[int, Any]:
    """One call on a connection of its own."""
    reader, writer = await asyncio.open_connection(*served.address)
    try:
        writer.write(request(served, agent, tag, body, token=token))
        return await answer(reader)
    finally:
        writer.close()


async def good(served: Daemon, agent: str, tag: str, body: object) -> Any:  # Any: JSON
    """The result of a call that must succeed."""
    status, value = await call(served, agent, tag, body)
    if status != 200:
        raise BenchmarkError(f"{agent}/{tag} answered {status} {value}")
    return value
