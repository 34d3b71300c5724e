"""Requests that a worker has read, as exchanges: what the doors ask of HTTP, said to the worker that has the client.

Runs as: the gateway, where it has workers (`[gateway] workers`).
Reads from strangers: a worker that may be captured; what it says has the right form (`wire.exchanges`), and here it is
checked to be due. Whatever is not is an `ExchangeError`, which ends the link to that worker and nothing else.
No wait is for ever, even where a worker is silent, and no more is held for a worker than the bounds here allow.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from runagentd.gateway.exchange import Found, Reply, Stream, WebSocket
from runagentd.gateway.exchanges import BODY_SECONDS, NOT_SENT_BYTES, SLOW_READER_SECONDS, too_large
from runagentd.gateway.guard.front import Front
from runagentd.gateway.line import Line
from runagentd.gateway.listener import Place
from runagentd.wire import exchanges as wire
from runagentd.wire.exchanges import BodyFault, ExchangeError, Kind, Message

SILENT_SECONDS = 5.0
"""How much longer than a client a worker may take: it keeps the client's times itself."""


class RelayedConnection:
    """A client's connection to a worker, as far as its exchanges have to know it."""

    __slots__ = ("_found", "_front", "busy", "certificate", "head", "peer", "place")

    def __init__(self, peer: str, place: Place) -> None:
        self.peer = peer
        self.place = place
        self.certificate: bytes | None = None
        self.head: wire.Head | None = None
        self.busy = False
        """whether it has an exchange that is not over"""
        self._front: Front | None = None
        self._found = Found()

    def say_head(self, head: wire.Head) -> None:
        """What further exchanges say."""
        self.head, self._front = head, None

    def found(self, front: Front) -> Found:
        """What is known of that head, where these settings hold."""
        if self._front is not front:
            self._front, self._found = front, Found()
        return self._found


class RelayedExchange:
    """Implements `Exchange`."""

    __slots__ = (
        "_begun",
        "_body",
        "_front",
        "_line",
        "_number",
        "_reads",
        "arrived",
        "certificate",
        "connection",
        "found",
        "header",
        "id",
        "method",
        "opened",
        "over",
        "path",
        "query",
    )

    def __init__(
        self, line: Line, number: int, begun: wire.Begin, connection: RelayedConnection, head: wire.Head, front: Front
    ) -> None:
        self.arrived = time.monotonic()
        self.connection = connection
        self._line = line
        self._number = number
        self._begun = begun
        self._front = front
        self.certificate = connection.certificate
        self.found = connection.found(front)
        self.header = head.fields.get
        self.id = begun.id
        self.method = head.method
        self.path, _, self.query = head.target.partition("?")
        self.over = False
        """whether the worker has heard the end of it, or has said it"""
        self.opened: _Opened | None = None
        """the stream or the WebSocket that it has become"""
        self._body: _Body | None = None
        self._reads = False
        """whether a body was asked for: what comes of it too late is passed over"""

    @property
    def peer(self) -> str:
        return self._front.client(self.connection.peer, self.header)

    @property
    def foreign(self) -> bool:
        return self._front.foreign(self)

    @property
    def declared_bytes(self) -> int | None:
        return self._begun.declared

    def wants_websocket(self) -> bool:
        return self._begun.websocket

    async def read_body(self, limit: int) -> bytes:
        body = self._begun.body
        if body is not None:
            if len(body) > limit:
                raise too_large(limit)
            return body
        self._body = _Body(limit)
        self._reads = True
        self._line.write(wire.pack_number(Kind.READ_BODY, self._number, limit))
        try:
            async with asyncio.timeout(BODY_SECONDS + SILENT_SECONDS):
                return await self._body.whole
        finally:
            self._body = None  # an exception in it would lead back to us

    async def open_stream(self, status: int, headers: dict[str, str]) -> Stream:
        self._line.write(wire.pack_opening(self._number, status, headers))
        self.opened = stream = _RelayedStream(self._line, self._number)
        return stream

    async def open_websocket(self, *, message_bytes_max: int) -> WebSocket:
        self._line.write(wire.pack_number(Kind.OPEN_WEBSOCKET, self._number, message_bytes_max))
        self.opened = websocket = _RelayedWebSocket(self._line, self._number, message_bytes_max)
        return websocket

    # ---- what the worker says

    def take(self, message: Message) -> None:
        """A message about this exchange; ExchangeError where it is not due."""
        kind = message.kind
        if kind in (Kind.BODY, Kind.BODY_FAILED):
            if self._body is not None:
                self._body.take(message)
            elif not self._reads:
                raise ExchangeError("a body that nobody has asked for")
        elif self.opened is None:
            raise ExchangeError(f"{kind.name} of what is neither a stream nor a WebSocket")
        elif kind is Kind.SENT:
            self.opened.sent(wire.count(message.body))
        else:
            self.opened.said(wire.said(message.body))

    # ---- the end

    async def reply(self, reply: Reply) -> None:
        """Say all of an answer."""
        if self._line.paused:
            await self._line.ready()
        first, *more = wire.pieces(reply.body)
        answer = wire.Answer(reply.status, not more, reply.content_type, reply.headers, first)
        self._line.write(wire.pack_answer(self._number, answer))
        for position, piece in enumerate(more, 1):
            await self._line.ready()
            self._line.write(wire.pack_piece(Kind.MORE, self._number, piece, last=position == len(more)))

    def end(self) -> None:
        """Say that what was opened has ended."""
        self._line.write(wire.pack(Kind.END, self._number))

    def fail(self, *, ours: bool) -> None:
        """Say that there is no answer: a fault of ours, or a client that is to be cut off."""
        self._line.write(wire.pack(Kind.FAULT, self._number, b"\x01" if ours else b"\0"))


class _Body:
    """The body that is being read."""

    __slots__ = ("_gathered", "_limit", "whole")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Not a list of pieces: those may be of a byte each, or of none, and a list of them much larger than the limit.
        self._gathered = bytearray()
        self.whole: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def take(self, message: Message) -> None:
        if self.whole.cancelled():
            return  # it came too late by a moment
        if self.whole.done():
            raise ExchangeError("more of a body that is complete")
        if message.kind is Kind.BODY_FAILED:
            fault = wire.body_fault(message.body)
            found: Exception = {
                BodyFault.TOO_LARGE: too_large(self._limit),
                BodyFault.SLOW: TimeoutError(),
                BodyFault.BROKEN: ValueError("the body cannot be read"),
            }[fault]
            self.whole.set_exception(found)
            return
        piece, last = wire.piece(message.body)
        self._gathered += piece
        if len(self._gathered) > self._limit:
            raise ExchangeError("a body is larger than what was asked for")
        if last:
            self.whole.set_result(bytes(self._gathered))


class _Opened:
    """What a stream and a WebSocket have in common: pieces go out, and so many bytes may be on their way."""

    def __init__(self, line: Line, number: int) -> None:
        self._line = line
        self._number = number
        self._unsent: deque[int] = deque()
        """how large the pieces are that have not left the worker's hands"""
        self._unsent_bytes = 0
        self._taken: asyncio.Future[None] | None = None

    async def _give(self, message: bytes) -> None:
        self._line.write(message)
        self._unsent.append(len(message))
        self._unsent_bytes += len(message)
        if self._unsent_bytes > NOT_SENT_BYTES:
            await self._room()

    async def _room(self) -> None:
        """Wait until the client has taken enough. A worker tells that it is gone, or else is slower than any client."""
        try:
            async with asyncio.timeout(SLOW_READER_SECONDS + SILENT_SECONDS):
                while self._unsent_bytes > NOT_SENT_BYTES:
                    self._taken = asyncio.get_running_loop().create_future()
                    await self._taken
        except TimeoutError as error:
            raise ConnectionResetError("the client takes nothing") from error

    def sent(self, count: int) -> None:
        if count > len(self._unsent):
            raise ExchangeError("more was sent than there was")
        for _ in range(count):
            self._unsent_bytes -= self._unsent.popleft()
        if self._taken is not None and not self._taken.done() and self._unsent_bytes <= NOT_SENT_BYTES:
            self._taken.set_result(None)

    def said(self, said: wire.Said) -> None:
        raise ExchangeError("a message of what is no WebSocket")


class _RelayedStream(_Opened):
    """Implements `Stream`."""

    async def send(self, data: bytes) -> None:
        for piece in wire.pieces(data):
            await self._give(wire.pack(Kind.PIECE, self._number, piece))

    async def abort(self) -> None:
        self._line.write(wire.pack(Kind.ABORT, self._number))


class _RelayedWebSocket(_Opened):
    """Implements `WebSocket`."""

    def __init__(self, line: Line, number: int, message_bytes_max: int) -> None:
        super().__init__(line, number)
        self._bytes_max = message_bytes_max
        self.too_large = False
        self._asked = False
        """whether a message was asked for that has not come whole"""
        self._gathered = bytearray()
        """as in `_Body`"""
        self._message: str | bytes | None = None
        self._closed = False
        self._arrived: asyncio.Future[None] | None = None

    async def receive(self) -> str | bytes | None:
        while self._message is None and not self._closed:
            if not self._asked:
                self._asked = True
                self._line.write(wire.pack(Kind.RECEIVE, self._number))
            # For as long as the doors wait; a client that has vanished is found out by the worker.
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        message, self._message = self._message, None
        return message

    async def send(self, *texts: bytes) -> None:
        for text in texts:
            pieces = wire.pieces(text)
            for position, piece in enumerate(pieces, 1):
                await self._give(wire.pack_piece(Kind.TEXT, self._number, piece, last=position == len(pieces)))

    async def close(self, code: int, reason: str) -> None:
        self._line.write(wire.pack_close(self._number, code, reason))

    def said(self, said: wire.Said) -> None:
        if not self._asked:
            raise ExchangeError("a message that nobody has asked for")
        self._gathered += said.piece
        if len(self._gathered) > self._bytes_max:
            raise ExchangeError("a message is larger than what was asked for")
        if not said.last:
            return
        whole, self._asked = bytes(self._gathered), False
        self._gathered.clear()
        if said.closed:
            self._closed, self.too_large = True, said.too_large
        else:
            self._message = _text(whole) if said.text else whole
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ExchangeError("a text is not UTF-8") from error
