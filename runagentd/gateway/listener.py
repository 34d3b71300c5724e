"""Accept connections: so many at one time and no more, over all and for each address, TLS handshakes included.

Runs as: the gateway, or its workers.
Reads from strangers: nothing but their addresses; what they send is read by `server`, or by TLS before it.

An accept of our own and not the event loop's: that one counts a connection from its first byte of HTTP on, so that
whoever begins handshakes and never ends them is bounded by descriptors alone.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Protocol

from runagentd import errors
from runagentd.errors import ErrorKind
from runagentd.gateway.server import turned_away
from runagentd.gateway.tls import HANDSHAKE_SECONDS

CONNECTIONS_MAX = 4096
DESCRIPTORS_MAX = 65536
AT_ONCE = 64
"""How many are accepted before others get their turn."""
PAUSE_SECONDS = 1.0
"""Where the system has no descriptor or no memory left for one more."""
_UNREAD_BYTES = 64 * 1024


def raise_descriptor_limit() -> int:
    """As many descriptors as the hard limit allows (getrlimit(2)); half of them are for clients."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(CONNECTIONS_MAX, soft // 2)


class Place(Protocol):
    """What a connection takes up, until it is released; more than once does no harm."""

    def release(self) -> None:
        """The connection has ended."""


class Acceptor(abc.ABC):
    """Owns a listening socket, of which it makes connections of `protocol`, and says who has no place."""

    def __init__(
        self,
        listening: socket.socket,
        *,
        protocol: Callable[[Callable[[], None]], asyncio.Protocol],
        connections_max: int,
        tls: ssl.SSLContext | None,
        at_once: int,
    ) -> None:
        """`protocol` makes one for a connection, and calls what it is given when that is lost."""
        self._socket = listening
        self._protocol = protocol
        self.connections_max = connections_max
        self._tls = tls
        self._at_once = at_once
        self._loop = asyncio.get_running_loop()
        self._beginning: set[asyncio.Task[None]] = set()
        self._later: asyncio.TimerHandle | None = None
        self.connections = 0
        """that there are, handshakes included"""

    def start(self, backlog: int) -> None:
        """Accept from now on."""
        self._socket.setblocking(False)
        self._socket.listen(backlog)
        self.resume()

    def pause(self) -> None:
        """Accept nothing for a while: who connects waits in the kernel's queue."""
        self._loop.remove_reader(self._socket)

    def resume(self) -> None:
        """Accept again."""
        self._loop.add_reader(self._socket, self._accept_some)

    def close(self) -> None:
        """Accept no more; handshakes that have not ended do not, connections that there are go on."""
        if self._later is not None:
            self._later.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for task in self._beginning:
            task.cancel()

    def _accept_some(self) -> None:
        for _ in range(self._at_once):
            try:
                connection, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # EMFILE, ENFILE, ENOBUFS, ENOMEM: accept(2)
                self.pause()
                self._later = self._loop.call_later(PAUSE_SECONDS, self.resume)
                return
            self._take(connection, str(address[0]))

    @abc.abstractmethod
    def _take(self, connection: socket.socket, address: str) -> None:
        """Begin it, or turn it away."""

    def _start(self, beginning: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(beginning)
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _begin(self, connection: socket.socket, end: Callable[[], None]) -> None:
        try:
            connection.setblocking(False)
            await self._loop.connect_accepted_socket(
                lambda: self._protocol(end),
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else HANDSHAKE_SECONDS,
            )
        except BaseException as error:
            # A handshake that failed or was too slow: no protocol has heard of the connection.
            end()
            if not isinstance(error, OSError | asyncio.TimeoutError):
                raise

    def _turn_away(self, connection: socket.socket) -> None:
        self._refuse(connection, errors.OVERLOADED, "the daemon has as many connections as it takes")

    def _turn_away_address(self, connection: socket.socket) -> None:
        self._refuse(connection, errors.RATE_LIMIT, "too many connections from this address", "address-connections")

    def _refuse(self, connection: socket.socket, kind: ErrorKind, message: str, limit: str | None = None) -> None:
        """Tell it, where that costs no handshake, and wait for nothing."""
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.setblocking(False)
            if self._tls is None:
                connection.send(turned_away(kind, message, limit))
                connection.shutdown(socket.SHUT_WR)
                # What is here already, so that closing is no reset, which could overtake the answer.
                connection.recv(_UNREAD_BYTES)


class Listener(Acceptor):
    """Finds a place for each connection itself."""

    def __init__(
        self,
        listening: socket.socket,
        *,
        protocol: Callable[[Callable[[], None]], asyncio.Protocol],
        place: Callable[[str], Place | None],
        connections_max: int,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`place` takes one for a connection of an address, or says None where the address has no more."""
        super().__init__(listening, protocol=protocol, connections_max=connections_max, tls=tls, at_once=AT_ONCE)
        self._place = place

    def _take(self, connection: socket.socket, address: str) -> None:
        if self.connections >= self.connections_max:
            self._turn_away(connection)
            return
        place = self._place(address)
        if place is None:
            self._turn_away_address(connection)
            return
        self.connections += 1
        ended = False

        def end() -> None:
            nonlocal ended
            if not ended:
                ended = True
                self.connections -= 1
                place.release()

        self._start(self._begin(connection, end))
