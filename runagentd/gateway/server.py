"""HTTP by aiohttp: with `exchanges` the only module that knows which server is underneath.

Runs as: the gateway, or its workers.
Reads from strangers: the network; aiohttp's parser does, with bounds on lines, fields, time and connections.
"""

from __future__ import annotations

import asyncio
import email.utils
import functools
import http
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from runagentd import errors
from runagentd.errors import ErrorKind, Refusal
from runagentd.gateway import plain, strict
from runagentd.gateway.doors.problems import problem
from runagentd.gateway.exchange import Exchange, Found, Reply
from runagentd.gateway.exchanges import SERVER, WRITE_BUFFER_BYTES, HttpExchange, PlainExchange, Watch
from runagentd.gateway.frames import Reader, StrictReader
from runagentd.gateway.guard.front import Front
from runagentd.gateway.outbox import Outbox
from runagentd.gateway.requests import request_id

LINE_BYTES_MAX = 16 * 1024
"""A token may have 8 KiB and travel in a query (RunAgent's clients) or in a field."""
HEADERS_MAX = 64
HEAD_BYTES_MAX = 32 * 1024
"""Of one request's line and fields together: 64 fields of 16 KiB each would be a MiB that no token was shown for."""
IDLE_SECONDS = 75
"""Also how long a client may take to send the head of a request."""
LINGER_SECONDS = 2.0
KNOWN_BYTES_MAX = 2 * 1024
LARGE_BYTES = 64 * 1024
"""A body of so much is written at once, after its head and not joined with it, which would copy it."""
AHEAD_BYTES = 64 * 1024
"""What a client may send before it has the answer to its plain request; then nothing more is read."""

Answer = Callable[[Exchange], Awaitable[Reply | None]]


class Connection(RequestHandler):
    """A connection whose plain requests are answered here, without the costs of aiohttp's way to a handler.

    From the first request on that is not plain, all is aiohttp's. Its malformed requests get an answer of ours, without
    a word about the parser's insides.
    """

    def __init__(self, server: Server, lost: Callable[[], None], **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self.lost = lost
        self._plain = True
        self._known: plain.Head | None = None
        """of the last request, where it was as short as most are: a connection that does nothing costs no more"""
        self._found: tuple[plain.Head, Front, Found] | None = None
        """about that head, where these settings held"""
        self._head_bytes = 0
        self._together = True
        """whether answers may wait for the end of the turn: TLS closes at the client's end before we hear of it"""
        self._answering: asyncio.Task[None] | None = None
        self._ahead = b""
        """what has come after the request that is being answered"""
        self._held = False
        self._idle: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self.certificate: bytes | None = None
        """the client's, in DER, where mutual TLS has verified one"""
        self.begun = False
        """whether aiohttp has had a whole head on this connection: from then on it minds the time itself"""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # aiohttp closes a connection on which it has had no request for so long, and of what is answered here it knows
        # nothing: it would cut a call off in its midst. `_look_if_idle` minds the time until aiohttp has had one.
        self.keep_alive(True)  # ends that timer (aiohttp.web_protocol)
        ssl_object = transport.get_extra_info("ssl_object")
        self.certificate = None if ssl_object is None else ssl_object.getpeercert(True)
        self._together = ssl_object is None
        self._idle_since = self._loop.time()
        self._idle = self._loop.call_later(IDLE_SECONDS, self._look_if_idle)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        # A WebSocket's, which leads back to this connection: a circle with all that the client had sent of a message.
        self._data_received_cb = None
        self.lost()
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._answering is not None:
            self._answering.cancel()

    def eof_received(self) -> None:
        self._server.outbox.flush()  # the connection is closed on return, once what was written has left
        super().eof_received()

    def data_received(self, data: bytes) -> None:
        if not self._plain:
            self._give_on(data)
        elif self._answering is None:
            self._answer(data)
        else:
            self._ahead += data
            if len(self._ahead) > AHEAD_BYTES and self.transport is not None:
                self._held = True
                self.transport.pause_reading()

    def _give_on(self, data: bytes) -> None:
        """To aiohttp, whose parser bounds each line of a head, and their number, but not what all take together."""
        super().data_received(data)
        if self._waiter is None or self._messages or self._upgraded:  # a request is whole, or was
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES_MAX and self.transport is not None:
            self.transport.abort()

    def set_parser(self, parser: Reader, data_received_cb: Callable[[], None] | None = None) -> None:
        """Called by aiohttp where this becomes a WebSocket."""
        strict_reader = StrictReader(parser)
        # arg-type: aiohttp names its own class, and uses the two methods of it that `Reader` has.
        super().set_parser(strict_reader, data_received_cb)  # type: ignore[arg-type]

    def _answer(self, data: bytes) -> None:
        """Begin to answer what is at the start of `data`, or leave it and all that follows to aiohttp."""
        request = plain.parse(data, self._known)
        if request is None:
            self._plain, self._known, self._found = False, None, None
            self._ahead = b""
            self._resume()
            self._server.outbox.flush()  # the answer to the request before this one may still be in it
            self._give_on(data)
            return
        self._known = request.head if len(request.head.text) <= KNOWN_BYTES_MAX else None
        self._ahead = data[request.size :]
        self._answering = self._loop.create_task(self._respond(request))

    async def _respond(self, request: plain.Plain) -> None:
        transport = self.transport
        if transport is None:
            return
        outbox = self._server.outbox
        turn = outbox.begin()
        front = self._server.front()
        exchange = PlainExchange(
            request, self.peername, self.certificate, front, self._found_about(request.head, front), self
        )
        try:
            reply = await self._server.answer(exchange)
            if reply is None:
                raise RuntimeError("a door has answered nothing")
        except ConnectionError:
            transport.close()
            return
        except Exception as error:  # noqa: BLE001  (as in aiohttp: what a door has not caught is a fault of ours)
            self.log_exception("a door failed", exc_info=error)
            transport.write(_whole(_fault(errors.SERVER, exchange.id), exchange.id, {}, connection="close"))
            transport.close()
            return
        fields = front.fields(request.head.fields.get("origin"))
        if len(reply.body) < LARGE_BYTES and self._together:
            outbox.put(transport, _whole(reply, exchange.id, fields), turn)
        else:
            _send(transport, reply, exchange.id, fields)
        if transport.get_write_buffer_size() > WRITE_BUFFER_BYTES:
            watch = Watch(transport)
            watch.waiting()
            await self._drain_helper()
            watch.done()
        self._answering = None
        self._idle_since = self._loop.time()
        if self._ahead:
            self._answer(self._ahead)
        if len(self._ahead) <= AHEAD_BYTES:
            # And not after each answer: a request is small, and what is read before the next one is not.
            self._resume()

    def _resume(self) -> None:
        if self._held and self.transport is not None:
            self._held = False
            self.transport.resume_reading()

    def _found_about(self, head: plain.Head, front: Front) -> Found:
        if head is not self._known:
            return Found()
        if self._found is None or self._found[0] is not head or self._found[1] is not front:
            self._found = (head, front, Found())
        return self._found[2]

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109  (aiohttp's signature)
        """Called by `Server.shutdown`: an answer that is under way gets `timeout` seconds."""
        if self._answering is not None:
            await asyncio.wait([self._answering], timeout=timeout)
        self._server.outbox.flush()
        await super().shutdown(timeout)

    def _look_if_idle(self) -> None:
        """A client that sends nothing, or an endless first head, for which aiohttp has no bound."""
        left = self._idle_since + IDLE_SECONDS - self._loop.time()
        if self.begun:
            return
        if self._answering is None and left <= 0:
            if self.transport is not None:
                self.transport.close()
        else:
            self._idle = self._loop.call_later(max(left, 1.0), self._look_if_idle)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Called by aiohttp for what it could not parse, and for an exception that no door has caught."""
        kind = errors.SERVER if status >= 500 else errors.MALFORMED
        if kind is errors.SERVER and not isinstance(exc, ConnectionError):
            self.log_exception("a door failed", exc_info=exc)
        if self._upgraded and self.transport is not None:
            self.transport.abort()  # what follows would be HTTP in the midst of a WebSocket
        number = request_id(None)
        field = strict.repeated(f"{message} {exc}") if kind is errors.MALFORMED else None
        detail = f"the field {field} was sent more than once" if field is not None else kind.title
        return _WholeReply(_fault(kind, number, detail), number, {}, last=True)


def _fault(kind: ErrorKind, number: str, detail: str = "") -> Reply:
    return problem(Refusal(kind, detail or kind.title), number)


def turned_away(kind: ErrorKind, message: str, limit: str | None = None) -> bytes:
    """The answer to a connection of which nothing is read."""
    number = request_id(None)
    return _whole(problem(Refusal(kind, message, retry_after=1, limit=limit), number), number, {}, connection="close")


class Server(web.Server):
    """Connections into exchanges, and those to `answer`."""

    def __init__(self, answer: Answer, *, front: Callable[[], Front]) -> None:
        """`front` gives the settings that hold now."""
        super().__init__(self._handle, handler_cancellation=True)
        self.answer = answer
        self.front = front
        self.outbox = Outbox(asyncio.get_running_loop().call_soon)

    def protocol(self, lost: Callable[[], None]) -> RequestHandler:
        """For one connection; `lost` is called when that has ended."""
        return Connection(
            self,
            lost,
            loop=asyncio.get_running_loop(),
            access_log=None,
            keepalive_timeout=IDLE_SECONDS,
            max_line_size=LINE_BYTES_MAX,
            max_field_size=LINE_BYTES_MAX,
            max_headers=HEADERS_MAX,
            lingering_time=LINGER_SECONDS,
            # A body of some kilobytes could otherwise become gigabytes before any limit of ours sees it.
            auto_decompress=False,
        )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if isinstance(request.protocol, Connection):
            request.protocol.begun = True
        front = self.front()
        if strict.is_in_doubt(request.version, request.raw_path, request.headers):
            number = request_id(None)
            return _WholeReply(_fault(errors.MALFORMED, number), number, {}, last=True)
        last = strict.is_last(request.method, request.headers)
        exchange = HttpExchange(request, front, last=last)
        try:
            reply = await self.answer(exchange)
        finally:
            exchange.let_go()
        if reply is not None:
            return _WholeReply(reply, exchange.id, front.fields(request.headers.get("Origin")), last=last)
        if exchange.response is None:
            raise RuntimeError("a door has answered nothing")
        return exchange.response


class _WholeReply(web.StreamResponse):
    """A reply that is one piece, head and body: a third of what web.Response costs (measured: 9 µs instead of 27)."""

    def __init__(self, reply: Reply, request_id: str, fields: dict[str, str], *, last: bool = False) -> None:
        """`last`: the connection ends with it."""
        # Nothing of the base class's state is used: aiohttp calls `prepare`, `write_eof` and `keep_alive` only.
        self._last = last
        self._reply = reply
        self._id = request_id
        self._fields = fields
        self._keep_alive = False

    @property
    def keep_alive(self) -> bool:
        return bool(self._keep_alive)

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write it; returns when the client's connection has taken all but a bounded rest."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        self._keep_alive = bool(request.keep_alive) and not self._last
        connection = "" if self._keep_alive else "close"
        if self._keep_alive and request.version < (1, 1):
            connection = "keep-alive"
        head_only = request.method == "HEAD"
        _send(transport, self._reply, self._id, self._fields, connection=connection, head_only=head_only)
        if transport.get_write_buffer_size() > WRITE_BUFFER_BYTES:
            watch = Watch(transport)
            watch.waiting()
            await request.writer.drain()
            watch.done()

    async def write_eof(self, data: bytes = b"") -> None:
        """Everything was written by `prepare`."""


def _send(
    transport: asyncio.Transport,
    reply: Reply,
    request_id: str,
    fields: dict[str, str],
    *,
    connection: str = "",
    head_only: bool = False,
) -> None:
    apart = not head_only and len(reply.body) >= LARGE_BYTES
    transport.write(_whole(reply, request_id, fields, connection=connection, head_only=head_only or apart))
    if apart:
        transport.write(reply.body)


def _whole(
    reply: Reply, request_id: str, fields: dict[str, str], *, connection: str = "", head_only: bool = False
) -> bytes:
    """A reply as it goes over the wire; `fields` come on top of its own."""
    body = reply.body
    more = "".join([f"{name}: {value}\r\n" for name, value in reply.headers.items()]) if reply.headers else ""
    if fields:
        more += "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
    if connection:
        more += f"Connection: {connection}\r\n"
    # RFC 9110, section 8.6: a length in an answer without content would be that of the content it stands for.
    content = (
        "" if reply.status in (204, 304) else f"Content-Type: {reply.content_type}\r\nContent-Length: {len(body)}\r\n"
    )
    head = (
        f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, '')}\r\n{content}"
        f"X-Request-ID: {request_id}\r\nDate: {_date(int(time.time()))}\r\n"
        f"{more}{_SAME_FOR_ALL if 'Cache-Control' in reply.headers else _NOT_KEPT}"
    ).encode("latin-1")
    return head if head_only else head + body


_REASONS = {status.value: status.phrase for status in http.HTTPStatus}
_SAME_FOR_ALL = (
    "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\n"
    f"Server: {SERVER}\r\n\r\n"
)
_NOT_KEPT = f"Cache-Control: no-store\r\n{_SAME_FOR_ALL}"


@functools.lru_cache(maxsize=1)
def _date(second: int) -> str:
    """RFC 9110, section 6.6.1; the same text for a second."""
    return email.utils.formatdate(second, usegmt=True)
