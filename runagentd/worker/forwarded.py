"""One request, forwarded: what the gateway says is done to the client, in the order in which it was said.

Runs as: a worker of the gateway.
Reads from strangers: messages of a WebSocket's client, which are passed on unread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from runagentd.errors import Refusal
from runagentd.gateway.exchange import Reply, Stream, WebSocket
from runagentd.gateway.exchanges import HttpExchange, PlainExchange
from runagentd.wire import exchanges as wire
from runagentd.wire.exchanges import BodyFault, ExchangeError, Kind, Message, Said

CLOSE_RESTART = 1012
"""RFC 6455's registry of close codes: the service is restarted."""


class GatewayLost(Exception):
    """The gateway ended before it had answered, and nothing of an answer was sent."""


class Way(Protocol):
    """The link to the gateway."""

    exchanges: dict[int, Forwarded]
    over: bool

    def write(self, data: bytes) -> None:
        """Send soon."""

    async def ready(self) -> None:
        """Return once the gateway reads."""

    def sent(self, number: int) -> None:
        """One more piece has left our hands."""


class Forwarded:
    """`run` gives the reply, or None where there was a stream or a WebSocket."""

    __slots__ = ("_arrived", "_link", "_lost", "_pump", "_said", "exchange", "number")

    def __init__(self, link: Way, number: int, exchange: PlainExchange | HttpExchange) -> None:
        self._link = link
        self.number = number
        self.exchange = exchange
        self._said: deque[Message] = deque()
        """what the gateway has said, and was not done yet: it waits itself when much of it was not"""
        self._arrived: asyncio.Future[None] | None = None
        self._lost = False
        self._pump: asyncio.Task[None] | None = None

    # ---- what the link says

    def take(self, message: Message) -> None:
        """The gateway has said something."""
        self._said.append(message)
        self._wake()

    def lose(self) -> None:
        """The gateway is gone."""
        self._lost = True
        self._wake()

    def leave(self) -> None:
        """The exchange is over on our side; the gateway is told where it does not know. Later calls do nothing."""
        if self._pump is not None:
            self._pump.cancel()
            self._pump = None
        if self._link.exchanges.pop(self.number, None) is not None and not self._link.over:
            self._link.write(wire.pack(Kind.GONE, self.number))

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    # ---- doing it

    async def run(self) -> Reply | None:
        """All of it. ConnectionError where the client is gone, ExchangeError where the gateway makes no sense."""
        while True:
            message = await self._next()
            match message.kind:
                case Kind.REPLY:
                    return await self._reply(message)
                case Kind.READ_BODY:
                    await self._read_body(wire.number_of(message.body))
                case Kind.OPEN_STREAM:
                    status, fields = wire.opening(message.body)
                    await self._stream(await self.exchange.open_stream(status, fields))
                    return None
                case Kind.OPEN_WEBSOCKET:
                    limit = wire.number_of(message.body)
                    await self._websocket(await self.exchange.open_websocket(message_bytes_max=limit))
                    return None
                case Kind.FAULT:
                    self._over()
                    raise _fault(message)
                case _:
                    raise ExchangeError(f"{message.kind.name} before an answer")

    async def _next(self) -> Message:
        while not self._said:
            if self._lost:
                raise GatewayLost
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        return self._said.popleft()

    def _over(self) -> None:
        """The gateway knows that it is."""
        self._link.exchanges.pop(self.number, None)

    async def _reply(self, message: Message) -> Reply:
        answer = wire.answer(message.body)
        body, last = answer.piece, answer.last
        if not last:
            pieces = [body]
            while not last:
                message = await self._next()
                if message.kind is Kind.FAULT:
                    self._over()
                    raise _fault(message)
                if message.kind is not Kind.MORE:
                    raise ExchangeError(f"{message.kind.name} in the midst of an answer")
                piece, last = wire.piece(message.body)
                pieces.append(piece)
            body = b"".join(pieces)
        self._over()
        return Reply(answer.status, body, answer.content_type, answer.fields)

    async def _read_body(self, limit: int) -> None:
        try:
            pieces = wire.pieces(await self.exchange.read_body(limit))
        except Refusal:
            self._fail(BodyFault.TOO_LARGE)
            return
        except TimeoutError:
            self._fail(BodyFault.SLOW)
            return
        except ConnectionError:
            raise
        except Exception:  # noqa: BLE001  (whatever the HTTP library finds wrong with its encoding)
            self._fail(BodyFault.BROKEN)
            return
        for position, piece in enumerate(pieces, 1):
            await self._link.ready()
            self._link.write(wire.pack_piece(Kind.BODY, self.number, piece, last=position == len(pieces)))

    def _fail(self, fault: BodyFault) -> None:
        self._link.write(wire.pack(Kind.BODY_FAILED, self.number, bytes([fault])))

    async def _stream(self, stream: Stream) -> None:
        while True:
            try:
                message = await self._next()
            except GatewayLost:
                # Cut, so that nobody takes it for complete.
                await stream.abort()
                raise ConnectionResetError("the gateway ended") from None
            match message.kind:
                case Kind.PIECE:
                    await stream.send(message.body)
                    self._link.sent(self.number)
                case Kind.ABORT:
                    wire.nothing(message.body)
                    await stream.abort()
                case Kind.END:
                    wire.nothing(message.body)
                    self._over()
                    return
                case Kind.FAULT:
                    self._over()
                    raise _fault(message)
                case _:
                    raise ExchangeError(f"{message.kind.name} in a stream")

    async def _websocket(self, ws: WebSocket) -> None:
        text: list[bytes] = []
        while True:
            try:
                message = await self._next()
            except GatewayLost:
                await self._stop_pump()
                await ws.close(CLOSE_RESTART, "the gateway was started again")
                return
            match message.kind:
                case Kind.TEXT:
                    piece, last = wire.piece(message.body)
                    text.append(piece)
                    if last:
                        whole, text = b"".join(text), []
                        await ws.send(whole)
                    self._link.sent(self.number)
                case Kind.RECEIVE:
                    wire.nothing(message.body)
                    if self._pump is not None and not self._pump.done():
                        raise ExchangeError("a second message is asked for")
                    self._pump = asyncio.get_running_loop().create_task(self._receive(ws))
                case Kind.CLOSE:
                    await self._stop_pump()
                    await ws.close(*wire.close(message.body))
                case Kind.END:
                    wire.nothing(message.body)
                    self._over()
                    await self._stop_pump()
                    return
                case Kind.FAULT:
                    self._over()
                    await self._stop_pump()
                    raise _fault(message)
                case _:
                    raise ExchangeError(f"{message.kind.name} in a WebSocket")

    async def _receive(self, ws: WebSocket) -> None:
        """One message, for only one may be waited for at a time."""
        message = await ws.receive()
        if message is None:
            self._say(Said(last=True, text=False, closed=True, piece=b"", too_large=ws.too_large))
            return
        text = isinstance(message, str)
        data = message.encode("utf-8") if isinstance(message, str) else message
        pieces = wire.pieces(data)
        for position, piece in enumerate(pieces, 1):
            await self._link.ready()
            self._say(Said(last=position == len(pieces), text=text, closed=False, piece=piece))

    def _say(self, said: Said) -> None:
        self._link.write(wire.pack_said(self.number, said))

    async def _stop_pump(self) -> None:
        if self._pump is not None and not self._pump.done():
            self._pump.cancel()
            await asyncio.wait({self._pump})


def _fault(message: Message) -> Exception:
    if wire.failed(message.body):
        return RuntimeError("a door failed; the gateway's log says which")
    return ConnectionResetError("the client is cut off")
