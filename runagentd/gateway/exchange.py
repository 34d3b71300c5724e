"""One HTTP exchange as the doors see it: what they may ask of it, and what they answer. No HTTP server in sight.

Runs as: the gateway. Pure: `server` implements `Exchange`, tests may, too.
Reads from strangers: nothing.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from runagentd.gateway.guard.identity import Credentials

JSON = "application/json"
JOINED_BYTES_MAX = 16 * 1024
"""How much more of a stream that has come already goes out with a chunk, in one piece."""


class Reply(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: dict[str, str] = {}


class Stream(Protocol):
    """An answer that is sent piece by piece."""

    async def send(self, data: bytes) -> None:
        """Send; returns when the piece has left our hands. ConnectionError where the client is gone."""

    async def abort(self) -> None:
        """End it in a way that no proxy takes for success."""


class WebSocket(Protocol):
    """A connection that has become a WebSocket (RFC 6455)."""

    @property
    def too_large(self) -> bool:
        """Whether a message was larger than `message_bytes_max`: nothing more is read, and it is to be closed."""

    async def receive(self) -> str | bytes | None:
        """The next message, or None when the other side is gone, or has sent one that is too large."""

    async def send(self, *texts: bytes) -> None:
        """Send text messages, given as UTF-8; returns when they have left our hands, like `Stream.send`."""

    async def close(self, code: int, reason: str) -> None:
        """Close it."""


class Found:
    """What was found out about the line and the fields of a request.

    A connection keeps it for further requests that say the same: nothing in it may depend on anything else.
    """

    __slots__ = ("credentials", "segments")

    def __init__(self) -> None:
        self.credentials: Credentials | None = None
        self.segments: tuple[str, ...] | None = None


class Exchange(Protocol):
    """One request, and the means to answer it."""

    found: Found
    id: str
    method: str
    path: str
    """percent-encoded as it came, without the query"""
    query: str
    arrived: float
    """on time.monotonic()"""

    @property
    def peer(self) -> str:
        """The address of the other side."""

    @property
    def certificate(self) -> bytes | None:
        """The client's certificate in DER, where mutual TLS verified one."""

    def header(self, name: str) -> str | None:
        """The value of a header field, whose name is given in lower case."""

    @property
    def declared_bytes(self) -> int | None:
        """Content-Length, where it was sent."""

    async def read_body(self, limit: int) -> bytes:
        """The whole body; `Refusal` TOO_LARGE where it is longer, TimeoutError where it does not come."""

    async def open_stream(self, status: int, headers: dict[str, str]) -> Stream:
        """Send the head of an answer, and give the means to send its body."""

    async def open_websocket(self, *, message_bytes_max: int) -> WebSocket:
        """Switch to WebSocket."""

    def wants_websocket(self) -> bool:
        """Whether this is a good opening handshake."""

    @property
    def foreign(self) -> bool:
        """Whether a browser asks for a page of an origin that may not (RFC 6455, section 10.2)."""
