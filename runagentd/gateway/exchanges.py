"""Requests as exchanges: what the doors ask of HTTP, said by aiohttp or by a plain request.

Runs as: the gateway, or its workers.
Reads from strangers: the network, by way of aiohttp, with bounds on bodies, messages, and the patience of slow readers.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import cast

from aiohttp import WebSocketError, WSCloseCode, WSMsgType, web

from runagentd import errors
from runagentd.errors import Refusal
from runagentd.gateway import plain, strict
from runagentd.gateway.exchange import Found, Stream, WebSocket
from runagentd.gateway.guard.front import Front
from runagentd.gateway.requests import request_id

BODY_SECONDS = 30.0
SLOW_READER_SECONDS = 30.0
"""A client that takes nothing for that long is cut off, and its call cancelled."""
WRITE_BUFFER_BYTES = 64 * 1024
NOT_SENT_BYTES = 16 * 1024
PING_SECONDS = 20.0
CLOSE_SECONDS = 2.0
SERVER = "runagentd"
_TCP_NOTSENT_LOWAT = 25  # linux/tcp.h; the socket module of Python 3.11 has no name for it


class PlainExchange:
    """Implements `Exchange` on a plain request, which has no use for a stream or a WebSocket."""

    __slots__ = (
        "_front",
        "_peername",
        "_request",
        "arrived",
        "certificate",
        "connection",
        "found",
        "header",
        "id",
        "method",
        "path",
        "query",
    )
    foreign = False
    header: Callable[[str], str | None]

    def __init__(
        self,
        request: plain.Plain,
        peername: object,
        certificate: bytes | None,
        front: Front,
        found: Found,
        connection: object,
    ) -> None:
        self.certificate = certificate
        self.connection = connection
        self.found = found
        self._front = front
        self._request = request
        self._peername = peername
        self.arrived = time.monotonic()
        self.header = request.head.fields.get
        self.id = request_id(self.header("x-request-id"))
        self.method = "POST"
        self.path, _, self.query = request.head.target.partition("?")

    @property
    def peer(self) -> str:
        peer = str(self._peername[0]) if isinstance(self._peername, tuple) else ""
        return self._front.client(peer, self.header)

    @property
    def declared_bytes(self) -> int | None:
        return len(self._request.body)

    def fields(self) -> dict[str, str]:
        """All of them, their names in lower case."""
        return self._request.head.fields

    @property
    def body(self) -> bytes:
        """The body, which has come."""
        return self._request.body

    async def read_body(self, limit: int) -> bytes:
        body = self._request.body
        if len(body) > limit:
            raise too_large(limit)
        return body

    async def open_stream(self, status: int, headers: dict[str, str]) -> Stream:
        raise RuntimeError("a plain request has no stream")

    async def open_websocket(self, *, message_bytes_max: int) -> WebSocket:
        raise RuntimeError("a plain request is no WebSocket")

    def wants_websocket(self) -> bool:
        return False


class HttpExchange:
    """Implements `Exchange` on one request of aiohttp's."""

    __slots__ = ("_front", "_last", "_request", "arrived", "found", "id", "method", "path", "query", "response")

    def __init__(self, request: web.BaseRequest, front: Front, *, last: bool) -> None:
        """`last`: the connection ends with the answer."""
        self.found = Found()
        self._front = front
        self._last = last
        self._request = request
        # Not the loop's clock: uvloop reads it once per turn, in whole milliseconds.
        self.arrived = time.monotonic()
        self.id = request_id(request.headers.get("X-Request-ID"))
        self.method = request.method
        self.path, _, self.query = request.raw_path.partition("?")
        self.response: web.StreamResponse | None = None

    @property
    def peer(self) -> str:
        return self._front.client(self._request.remote or "", self.header)

    @property
    def foreign(self) -> bool:
        return self._front.foreign(self)

    @property
    def connection(self) -> object:
        """The protocol object of its connection."""
        return self._request.protocol

    def fields(self) -> dict[str, str]:
        """All of them, their names in lower case, and all lines of a name in one."""
        found: dict[str, str] = {}
        for name, value in self._request.headers.items():
            key = name.lower()
            found[key] = f"{found[key]}, {value}" if key in found else value
        return found

    @property
    def certificate(self) -> bytes | None:
        found: bytes | None = getattr(self._request.protocol, "certificate", None)
        return found

    def header(self, name: str) -> str | None:
        # RFC 9110, section 5.3: the lines of a list are one list; fields that are none are not sent twice (`strict`).
        lines = self._request.headers.getall(name, None)
        return None if lines is None else ", ".join(lines)

    @property
    def declared_bytes(self) -> int | None:
        return self._request.content_length

    async def read_body(self, limit: int) -> bytes:
        request, content = self._request, self._request.content
        expects = request.version >= (1, 1) and request.headers.get("Expect", "").lower() == "100-continue"
        if expects and request.transport is not None:
            # RFC 9110, section 10.1.1; sent this late, a refused client has not sent its body for nothing.
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if content.is_eof():
            body = content.read_nowait()  # it came together with the head, as most do
            if len(body) > limit:
                raise too_large(limit)
            return body
        pieces: list[bytes] = []
        size = 0
        async with asyncio.timeout(BODY_SECONDS):
            while not content.at_eof():
                piece = await content.readany()
                size += len(piece)
                if size > limit:
                    raise too_large(limit)
                pieces.append(piece)
        return b"".join(pieces)

    async def open_stream(self, status: int, headers: dict[str, str]) -> _HttpStream:
        transport = self._request.transport
        fields = self._front.fields(self.header("origin"))
        response = self.response = web.StreamResponse(
            status=status, headers={**headers, **fields, "Server": SERVER, "X-Request-ID": self.id}
        )
        if self._last:
            response.force_close()
        if self._request.version >= (1, 1):
            response.enable_chunked_encoding()
        if transport is None:
            raise ConnectionResetError("the client is gone")
        feel_pressure(transport)
        await response.prepare(self._request)
        return _HttpStream(self._request, response, transport)

    async def open_websocket(self, *, message_bytes_max: int) -> _AiohttpWebSocket:
        # compress=False: memory per connection, and secrets beside text that a stranger chose (CRIME).
        # writer_limit=0: aiohttp otherwise looks at the socket's pressure only every 64 KiB.
        ws = _BoundedWebSocket(
            heartbeat=PING_SECONDS,
            max_msg_size=message_bytes_max,
            compress=False,
            timeout=CLOSE_SECONDS,
            writer_limit=0,
        )
        ws.headers.update({"Server": SERVER, "X-Request-ID": self.id})
        self.response = ws
        if self._request.transport is not None:
            feel_pressure(self._request.transport)
        await ws.prepare(self._request)
        return _AiohttpWebSocket(ws, self._request)

    def let_go(self) -> None:
        """It is over: what a client had sent of a message must not stay until its timer or a full collection is due."""
        if isinstance(self.response, web.WebSocketResponse):
            self.response._cancel_heartbeat()
            self.response._parser = self.response._reader = None

    def wants_websocket(self) -> bool:
        return strict.opens_websocket(self.method, self._request.version, self.header)


def too_large(limit: int) -> Refusal:
    """The refusal of a body."""
    return Refusal(errors.TOO_LARGE, f"the request is larger than the {limit} bytes that the agent takes")


def feel_pressure(transport: asyncio.Transport) -> None:
    """Make a slow reader felt early: kernel and transport hold little that the client has not taken."""
    transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        # tcp(7) does not tell of it; Linux 3.12. Without it the kernel takes megabytes before a write would block.
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, NOT_SENT_BYTES)


class Watch:
    """Aborts a connection whose client takes nothing for `SLOW_READER_SECONDS`."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._since: float | None = None

    def waiting(self) -> None:
        """We begin to wait for the client."""
        self._since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(SLOW_READER_SECONDS, self._look)

    def done(self) -> None:
        """The client has taken what we waited for."""
        self._since = None

    def _look(self) -> None:
        self._timer = None
        if self._since is None:
            return  # the next wait starts a new timer
        left = self._since + SLOW_READER_SECONDS - self._loop.time()
        if left <= 0:
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(left, self._look)


READ_FIRST_SECONDS = 0.05
"""Between the last event of a stream that has failed, and its cut."""


class _HttpStream:
    """Implements `Stream`."""

    def __init__(self, request: web.BaseRequest, response: web.StreamResponse, transport: asyncio.Transport) -> None:
        self._request = request
        self._response = response
        self._transport = transport
        self._watch = Watch(transport)

    async def send(self, data: bytes) -> None:
        self._watch.waiting()
        await self._response.write(data)
        await self._request.writer.drain()
        self._watch.done()

    async def abort(self) -> None:
        # Chromium gives a page nothing of what it has at the moment at which a connection is cut, so the event that
        # says why would be lost now and then.
        await asyncio.sleep(READ_FIRST_SECONDS)
        # close() sends what is buffered and then ends the connection; the last chunk of the encoding is missing,
        # so the client, and each proxy on the way, sees an incomplete message (RFC 9112, section 8).
        self._transport.close()


class _BoundedWebSocket(web.WebSocketResponse):
    """Leaves it to a door to close where a message is too large: aiohttp would by itself, without a reason."""

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        if code == WSCloseCode.MESSAGE_TOO_BIG and not message:
            return True  # from within receive(): a door's has a reason
        return await super().close(code=code, message=message, drain=drain)


class _AiohttpWebSocket:
    """Implements `WebSocket`."""

    def __init__(self, ws: web.WebSocketResponse, request: web.BaseRequest) -> None:
        self._ws = ws
        self.too_large = False
        self._watch = Watch(cast(asyncio.Transport, request.transport))

    async def receive(self) -> str | bytes | None:
        message = await self._ws.receive()
        if message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY:
            return cast("str | bytes", message.data)
        if message.type is WSMsgType.ERROR and isinstance(message.data, WebSocketError):
            self.too_large = self.too_large or message.data.code == WSCloseCode.MESSAGE_TOO_BIG
        return None

    async def send(self, *texts: bytes) -> None:
        self._watch.waiting()
        for text in texts:
            await self._ws.send_frame(text, WSMsgType.TEXT)
        self._watch.done()

    async def close(self, code: int, reason: str) -> None:
        await self._ws.close(code=code, message=reason.encode())
