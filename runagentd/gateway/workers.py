"""The workers of the gateway, which read HTTP for it: who may connect, whose exchange is whose, and who is lost.

Runs as: the gateway, where it has workers (`[gateway] workers`).
Reads from strangers: workers that may be captured. A message that breaks the protocol ends the link to that worker and
all that goes on over it, never the gateway, and never what goes on over another link.

A worker decides nothing: each place for a connection, each limit, each call and each record is the gateway's, as if it
had read the bytes itself, and so all of that is exact over all workers.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable

from runagentd.gateway.control import close_all
from runagentd.gateway.exchange import Exchange, Reply
from runagentd.gateway.guard.front import Front
from runagentd.gateway.line import Line
from runagentd.gateway.listener import Place
from runagentd.gateway.relayed import RelayedConnection, RelayedExchange
from runagentd.gateway.requests import WORKER_LOST, request_id
from runagentd.log import Log
from runagentd.wire import exchanges as wire
from runagentd.wire.exchanges import ExchangeError, Kind, Message, Verdict

WORKERS_MAX = 64
_INTRODUCTION = re.compile(rb"worker ([1-9][0-9]?)")
_INTRODUCTION_BYTES = 16


class Workers:
    """All of them. `connections_max` holds for all together."""

    def __init__(
        self,
        introductions: socket.socket,
        *,
        answer: Callable[[Exchange], Awaitable[Reply | None]],
        front: Callable[[], Front],
        place: Callable[[str], Place | None],
        connections_max: int,
        log: Log,
    ) -> None:
        """On `introductions` (SOCK_SEQPACKET) the foreman sends our end of a link to each worker that it starts."""
        introductions.setblocking(False)
        self._introductions = introductions
        self.answer = answer
        self.front = front
        self._place = place
        self.connections_max = connections_max
        self.log = log
        self.connections = 0
        self.links: dict[int, WorkerLink] = {}
        self._exchanges: dict[int, int] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._ending = False

    def start(self) -> None:
        """Take workers from now on."""
        asyncio.get_running_loop().add_reader(self._introductions, self._introduced)

    def figures(self) -> list[tuple[int, int, int]]:
        """Of each worker there has been: its number, its connections, and how many exchanges it has begun."""
        return [
            (number, len(link.connections) if (link := self.links.get(number)) is not None else 0, begun)
            for number, begun in sorted(self._exchanges.items())
        ]

    async def shutdown(self, seconds: float) -> None:
        """Let exchanges end that are about to, then tell the workers to write out what they have, and to end."""
        self._ending = True
        asyncio.get_running_loop().remove_reader(self._introductions)
        tasks = [task for link in self.links.values() for task in link.tasks()]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for link in list(self.links.values()):
            link.drain()
        if self.links:
            await asyncio.wait([link.closed for link in self.links.values()], timeout=seconds)
        for link in list(self.links.values()):
            link.close()
        self._introductions.close()

    # ---- what links ask

    def take_place(self, peer: str) -> Place | Verdict:
        """For one more connection, or why there is none."""
        if self.connections >= self.connections_max:
            return Verdict.FULL
        place = self._place(peer)
        if place is None:
            return Verdict.ADDRESS
        self.connections += 1
        return place

    def give_back(self, place: Place) -> None:
        """A connection has ended."""
        self.connections -= 1
        place.release()

    def began(self, number: int) -> None:
        """One more exchange of this worker."""
        self._exchanges[number] += 1

    def lost(self, link: WorkerLink, exchanges: int) -> None:
        """The link has ended."""
        if self.links.get(link.number) is link:
            del self.links[link.number]
        if not self._ending:
            self.log.warning("a worker is lost", worker=link.number, exchanges=exchanges)

    # ---- the foreman

    def _introduced(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._introductions, _INTRODUCTION_BYTES, 1, socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return
        match = _INTRODUCTION.fullmatch(data)
        if match is None or len(descriptors) != 1 or int(match[1]) > WORKERS_MAX:
            close_all(descriptors)
            if not data:
                asyncio.get_running_loop().remove_reader(self._introductions)  # the foreman is gone
            else:
                self.log.error("an introduction cannot be understood")
            return
        number = int(match[1])
        before = self.links.pop(number, None)
        if before is not None:
            before.close()
        self._exchanges.setdefault(number, 0)
        link = self.links[number] = WorkerLink(number, self)
        task = asyncio.get_running_loop().create_task(self._open(link, descriptors[0]))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, link: WorkerLink, descriptor: int) -> None:
        connection = socket.socket(fileno=descriptor)
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=connection)
        except (OSError, ValueError):
            connection.close()
            link.close()


class WorkerLink(Line):
    """The link to a worker, for as long as both live."""

    def __init__(self, number: int, workers: Workers) -> None:
        super().__init__(wire.FROM_WORKER)
        self.number = number
        self._workers = workers
        self.connections: dict[int, RelayedConnection] = {}
        self._exchanges: dict[int, tuple[RelayedExchange, asyncio.Task[None]]] = {}
        self._last_connection = 0
        self._last_exchange = 0
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._about_connections: dict[Kind, Callable[[int, RelayedConnection, bytes], None]] = {
            Kind.RELEASED: self._on_released,
            Kind.CERTIFICATE: self._on_certificate,
            Kind.HEAD: self._on_head,
        }

    # ---- messages

    def take(self, message: Message) -> None:
        kind, number, body = message
        if kind is Kind.BEGIN:
            self._on_begin(number, wire.begin(body))
        elif kind is Kind.PLACE:
            self._on_place(number, wire.address(body))
        elif kind in self._about_connections:
            connection = self.connections.get(number)
            if connection is None:
                raise ExchangeError(f"{kind.name} of a connection without a place")
            self._about_connections[kind](number, connection, body)
        else:
            self._about_exchange(message)

    def _on_place(self, number: int, peer: str) -> None:
        if number <= self._last_connection:
            raise ExchangeError("a second connection of the same number")
        self._last_connection = number
        place = self._workers.take_place(peer)
        if isinstance(place, Verdict):
            self.write(wire.pack(Kind.PLACED, number, bytes([place])))
            return
        self.connections[number] = RelayedConnection(peer, place)
        self.write(wire.pack(Kind.PLACED, number, bytes([Verdict.YES])))

    def _on_released(self, number: int, connection: RelayedConnection, body: bytes) -> None:
        wire.nothing(body)
        if connection.busy:
            raise ExchangeError("a connection has ended before its exchange")
        del self.connections[number]
        self._workers.give_back(connection.place)

    def _on_certificate(self, number: int, connection: RelayedConnection, body: bytes) -> None:
        if connection.certificate is not None or connection.head is not None:
            raise ExchangeError("a certificate in the midst of a connection")
        connection.certificate = wire.certificate(body)

    def _on_head(self, number: int, connection: RelayedConnection, body: bytes) -> None:
        connection.say_head(wire.head(body))

    def _on_begin(self, number: int, begun: wire.Begin) -> None:
        connection = self.connections.get(begun.connection)
        if connection is None or connection.head is None or connection.busy:
            raise ExchangeError("an exchange where none may begin")
        if number <= self._last_exchange:
            raise ExchangeError("a second exchange of the same number")
        if request_id(begun.id) is not begun.id:
            raise ExchangeError("an exchange's id is neither a UUID nor a ULID")
        self._last_exchange = number
        connection.busy = True
        workers = self._workers
        workers.began(self.number)
        exchange = RelayedExchange(self, number, begun, connection, connection.head, workers.front())
        self._exchanges[number] = exchange, self._loop.create_task(self._respond(number, exchange))

    def _about_exchange(self, message: Message) -> None:
        both = self._exchanges.get(message.number)
        if both is None:
            if message.number > self._last_exchange:
                raise ExchangeError(f"{message.kind.name} of an exchange that has not begun")
            return  # it has just ended
        exchange, task = both
        if message.kind is not Kind.GONE:
            exchange.take(message)
            return
        wire.nothing(message.body)
        self._end(message.number, exchange)
        task.cancel()

    async def _respond(self, number: int, exchange: RelayedExchange) -> None:
        try:
            reply = await self._workers.answer(exchange)
            if reply is not None:
                await exchange.reply(reply)
            elif exchange.opened is not None:
                exchange.end()
            else:
                raise RuntimeError("a door has answered nothing")
        except ConnectionError:
            exchange.fail(ours=False)
        except Exception as error:  # noqa: BLE001  (as in `server`: what a door has not caught is a fault of ours)
            self._workers.log.error("a door failed", problem=f"{type(error).__name__}: {error}")
            exchange.fail(ours=True)
        finally:
            self._end(number, exchange)

    def _end(self, number: int, exchange: RelayedExchange) -> None:
        if not exchange.over:
            exchange.over = True
            exchange.connection.busy = False
            self._exchanges.pop(number, None)

    # ---- the end

    def tasks(self) -> list[asyncio.Task[None]]:
        """Of the exchanges that are under way."""
        return [task for _, task in self._exchanges.values()]

    def drain(self) -> None:
        """Tell the worker that nothing more will be answered, and that what was is to be written out."""
        self.write(wire.pack(Kind.DRAIN, 0))
        self.flush()

    def ended(self, problem: str) -> None:
        """All its exchanges end with it, and its connections have no places any more."""
        if problem:
            self._workers.log.error("a worker broke the protocol", worker=self.number, problem=problem)
        exchanges, self._exchanges = list(self._exchanges.values()), {}
        for exchange, task in exchanges:
            exchange.over = True
            task.cancel(WORKER_LOST)
        connections, self.connections = list(self.connections.values()), {}
        for connection in connections:
            self._workers.give_back(connection.place)
        self.closed.set_result(None)
        self._workers.lost(self, len(exchanges))
