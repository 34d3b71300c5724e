"""The link to the gateway: connections and exchanges of this worker, told there; what is to be done, told here.

Runs as: a worker of the gateway.
Reads from strangers: nothing but what the HTTP server has made of it. The gateway holds more power than we do; its
messages are parsed strictly all the same.

A gateway can die: the link ends, what it had is answered with 503, and no connection is accepted until the foreman has
brought the link to the next one, which is asked for a place for each connection that there is.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable

from runagentd import errors
from runagentd.errors import Refusal
from runagentd.gateway.doors import envelope
from runagentd.gateway.doors.problems import problem
from runagentd.gateway.exchange import Exchange, Reply
from runagentd.gateway.exchanges import HttpExchange, PlainExchange
from runagentd.gateway.line import Line
from runagentd.gateway.server import Connection
from runagentd.log import Log
from runagentd.wire import exchanges as wire
from runagentd.wire.exchanges import ExchangeError, Kind, Message, Verdict
from runagentd.worker.forwarded import Forwarded, GatewayLost

AWAY_SECONDS = 2.0
"""How long a request waits for the next gateway."""
ALONE_SECONDS = 10.0
"""How long a worker waits for one. Then it ends, and the foreman starts it with a link of its own."""
_INTRODUCTION = b"gateway"
_MAY_HAVE_RUN = "the gateway ended while it had this request, which may have run"
_RUNAGENT = re.compile(r"/api(?:/|$)")


class Seat:
    """A client's connection, and its place at the gateway. To be called when it has ended; later calls do nothing."""

    __slots__ = (
        "_end",
        "_gateway",
        "address",
        "certified",
        "ended",
        "exchange",
        "known",
        "link",
        "number",
        "protocol",
        "settled",
    )

    def __init__(self, gateway: Gateway, address: str, end: Callable[[], None]) -> None:
        self._gateway = gateway
        self._end = end
        self.address = address
        self.number = 0
        """on `link`"""
        self.link: Link | None = None
        """where it has a place"""
        self.settled: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        """whether the gateway of now has one for it"""
        self.known: object = None
        """whose head the gateway was told last; see `gateway.exchange.Found`"""
        self.certified = False
        """whether the gateway was told the client's certificate, or that there is none"""
        self.exchange: Forwarded | None = None
        self.protocol: Connection | None = None
        """once something of it may be read"""
        self.ended = False

    def __call__(self) -> None:
        if self.ended:
            return
        self.ended = True
        if self.exchange is not None:
            self.exchange.leave()
        if self.link is not None and not self.link.over:
            self.link.write(wire.pack(Kind.RELEASED, self.number))
        self.protocol = None  # which has us: a circle, with all that a client had sent
        self._gateway.seats.discard(self)
        self._end()

    def judge(self, verdict: Verdict) -> None:
        """What the gateway of now says. A connection that there is already, and has no place any more, is cut."""
        if not self.settled.done():
            self.settled.set_result(verdict)
        if verdict is not Verdict.YES and self.protocol is not None and self.protocol.transport is not None:
            self.protocol.transport.abort()

    def lose(self) -> None:
        """The gateway is gone, and with it the place; the next one will be asked."""
        self.link, self.known, self.certified = None, None, False
        if self.settled.done():
            self.settled = asyncio.get_running_loop().create_future()


class Gateway:
    """The gateway as this worker knows it: one after the other."""

    def __init__(
        self, introductions: socket.socket, *, drain: Callable[[], None], alone: Callable[[], None], log: Log
    ) -> None:
        """The foreman sends our end of a link on `introductions` (SOCK_SEQPACKET).

        `drain` is called where the gateway wants us to end, `alone` where there was none for too long.
        """
        introductions.setblocking(False)
        self._introductions = introductions
        self.drain = drain
        self._alone = alone
        self._log = log
        self._loop = asyncio.get_running_loop()
        self.link: Link | None = None
        self.seats: set[Seat] = set()
        self._next = 0
        self._timer: asyncio.TimerHandle | None = None
        self._opening: set[asyncio.Task[None]] = set()
        self.away: Callable[[bool], None] = lambda away: None
        """told whether the gateway is away"""

    def start(self) -> None:
        """Take a link, and each that comes after it."""
        self._loop.add_reader(self._introductions, self._introduced)
        self._timer = self._loop.call_later(ALONE_SECONDS, self._alone)

    def close(self) -> None:
        """End the link."""
        self._loop.remove_reader(self._introductions)
        self._introductions.close()
        if self.link is not None:
            self.link.close()
        if self._timer is not None:
            self._timer.cancel()

    def number(self) -> int:
        """One that was not used."""
        self._next += 1
        return self._next

    # ---- connections

    async def place(self, seat: Seat) -> Verdict:
        """Ask for a place, of the next gateway where this one ends meanwhile."""
        self.seats.add(seat)
        if self.link is not None:
            self.link.ask(seat)
        return await seat.settled

    async def forward(self, exchange: Exchange) -> Reply | None:
        """What the gateway answers, and 503 where there is none: nobody knows then whether the call has run."""
        if not isinstance(exchange, PlainExchange | HttpExchange) or not isinstance(exchange.connection, Connection):
            raise TypeError("this is no exchange of our own server's")
        seat = exchange.connection.lost
        if not isinstance(seat, Seat):
            raise TypeError("a connection without a place")
        link = seat.link or await self._settled(seat)
        if link is None:
            return _unavailable(exchange, "the gateway is being started again")
        forwarded = Forwarded(link, self.number(), exchange)
        try:
            begin = link.begin(forwarded, seat)
        except ValueError:
            return problem(Refusal(errors.MALFORMED, errors.MALFORMED.title), exchange.id)
        link.exchanges[forwarded.number] = seat.exchange = forwarded
        link.write(begin)
        try:
            return await forwarded.run()
        except GatewayLost:
            return _unavailable(exchange, _MAY_HAVE_RUN)
        except ExchangeError as error:
            link.close(str(error))
            raise ConnectionResetError("nobody knows what the answer is") from error
        finally:
            forwarded.leave()
            seat.exchange = None

    async def _settled(self, seat: Seat) -> Link | None:
        """The link to the gateway of now; None where there is none for too long."""
        try:
            async with asyncio.timeout(AWAY_SECONDS):
                while seat.link is None:
                    if await asyncio.shield(seat.settled) is not Verdict.YES:
                        raise ConnectionResetError("the connection has no place any more")
        except TimeoutError:
            return None
        return seat.link

    # ---- links

    def _introduced(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._introductions, 16, 1, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return
        if not data:
            self._loop.remove_reader(self._introductions)  # the foreman is gone, and the lifeline says so, too
            return
        connections = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        if data != _INTRODUCTION or len(connections) != 1:
            self._log.error("an introduction cannot be understood")
            for connection in connections:
                connection.close()
            return
        if self.link is not None:
            self.link.close()
        if self._timer is not None:
            self._timer.cancel()
        self.link = Link(self)
        for seat in self.seats:
            self.link.ask(seat)
        task = self._loop.create_task(self._open(self.link, connections[0]))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        self.away(False)

    async def _open(self, link: Link, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            await self._loop.create_unix_connection(lambda: link, sock=connection)
        except (OSError, ValueError):
            connection.close()
            link.close()

    def lost(self, link: Link, problem: str) -> None:
        """A link has ended."""
        if problem:
            self._log.error("the gateway sent what cannot be understood", problem=problem)
        if self.link is not link:
            return
        self.link = None
        for seat in self.seats:
            seat.lose()
        self._timer = self._loop.call_later(ALONE_SECONDS, self._alone)
        self.away(True)


class Link(Line):
    """Our end of a link."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(wire.FROM_GATEWAY)
        self._gateway = gateway
        self._asked: dict[int, Seat] = {}
        self.exchanges: dict[int, Forwarded] = {}
        self._sent: dict[int, int] = {}
        """how many pieces of which exchange have left since that was told"""

    def ask(self, seat: Seat) -> None:
        """For a place."""
        number = self._gateway.number()
        self._asked[number] = seat
        self.write(wire.pack(Kind.PLACE, number, seat.address.encode("ascii", "replace")))

    def begin(self, forwarded: Forwarded, seat: Seat) -> bytes:
        """The messages with which the exchange begins; ValueError where there is no form for its head."""
        exchange = forwarded.exchange
        parts: list[bytes] = []
        plain = isinstance(exchange, PlainExchange)
        if seat.known is not exchange.found or not plain:
            target = f"{exchange.path}?{exchange.query}" if exchange.query else exchange.path
            head = wire.pack_head(seat.number, exchange.method, target, exchange.fields())
            if not seat.certified:
                seat.certified = True
                if exchange.certificate is not None:
                    parts.append(wire.pack_certificate(seat.number, exchange.certificate))
            parts.append(head)
            seat.known = exchange.found
        body = exchange.body if isinstance(exchange, PlainExchange) else None
        if body is not None and len(body) > wire.PIECE_BYTES_MAX:
            body = None
        websocket = not plain and exchange.wants_websocket()
        begin = wire.Begin(seat.number, websocket, exchange.declared_bytes, exchange.id, body)
        parts.append(wire.pack_begin(forwarded.number, begin))
        return b"".join(parts)

    def sent(self, number: int) -> None:
        """One more piece has left our hands; said together with what else is said in this turn of the loop."""
        if not self._sent:
            self._loop.call_soon(self._tell_sent)
        self._sent[number] = self._sent.get(number, 0) + 1

    def _tell_sent(self) -> None:
        sent, self._sent = self._sent, {}
        self.write(b"".join([wire.pack_count(number, count) for number, count in sent.items()]))

    def take(self, message: Message) -> None:
        kind, number, body = message
        if kind is Kind.PLACED:
            self._on_placed(number, wire.verdict(body))
        elif kind is Kind.DRAIN:
            self._gateway.drain()
        else:
            forwarded = self.exchanges.get(number)
            if forwarded is not None:  # else its client has just gone
                forwarded.take(message)

    def _on_placed(self, number: int, verdict: Verdict) -> None:
        seat = self._asked.pop(number, None)
        if seat is None:
            raise ExchangeError("a place that nobody has asked for")
        if verdict is Verdict.YES:
            if seat.ended:
                self.write(wire.pack(Kind.RELEASED, number))
                return
            seat.number, seat.link = number, self
        seat.judge(verdict)

    def ended(self, problem: str) -> None:
        exchanges, self.exchanges = list(self.exchanges.values()), {}
        for forwarded in exchanges:
            forwarded.lose()
        self._gateway.lost(self, problem)


def _unavailable(exchange: Exchange, message: str) -> Reply:
    """The worker's own answer, in the form of the path's door."""
    refusal = Refusal(errors.UNAVAILABLE, message, cause="gateway-lost", retry_after=1)
    if _RUNAGENT.match(exchange.path):
        body = envelope.failure(refusal, exchange.id)
        return Reply(errors.UNAVAILABLE.runagent_status, body, headers={"Retry-After": "1"})
    return problem(refusal, exchange.id)
