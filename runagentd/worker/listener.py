"""Accept connections in turn with other workers, each with a place that the gateway has given it.

Runs as: a worker of the gateway.
Reads from strangers: nothing but their addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

from runagentd.gateway.listener import Acceptor
from runagentd.gateway.server import Connection, Server
from runagentd.wire.exchanges import Verdict
from runagentd.worker.link import Gateway, Seat

AT_ONCE = 1
"""All workers wait on the same socket, and one that is awake would take all that there is. So each takes one, and none
more until the gateway has answered for that: meanwhile others wake up."""


class SharedListener(Acceptor):
    """Owns its end of a listening socket that other workers have, too. While the gateway is away nobody is accepted."""

    def __init__(
        self,
        listening: socket.socket,
        *,
        server: Server,
        gateway: Gateway,
        connections_max: int,
        tls: ssl.SSLContext | None,
    ) -> None:
        def protocol(lost: Callable[[], None]) -> asyncio.Protocol:
            made = server.protocol(lost)
            if isinstance(lost, Seat) and isinstance(made, Connection):
                lost.protocol = made
            return made

        super().__init__(listening, protocol=protocol, connections_max=connections_max, tls=tls, at_once=AT_ONCE)
        self._gateway = gateway
        self._asking = 0
        """connections that have no answer yet"""
        self._closed = False

    def start(self, backlog: int) -> None:
        """Accept whenever the gateway is there."""
        self._gateway.away = self._away
        super().start(backlog)

    def close(self) -> None:
        self._closed = True
        super().close()

    def resume(self) -> None:
        """Accept again, if it is time to."""
        if not (self._closed or self._asking or self._gateway.link is None):
            super().resume()

    def _away(self, away: bool) -> None:
        if self._closed:
            return
        if away:
            self.pause()
        else:
            self.resume()

    def _take(self, connection: socket.socket, address: str) -> None:
        if self.connections >= self.connections_max:
            self._turn_away(connection)
            return
        self.connections += 1
        self._asking += 1
        self.pause()
        self._start(self._ask(connection, Seat(self._gateway, address, self._ended)))

    def _ended(self) -> None:
        self.connections -= 1

    async def _ask(self, connection: socket.socket, seat: Seat) -> None:
        try:
            verdict = await self._gateway.place(seat)
        except BaseException:
            seat()
            connection.close()
            raise
        finally:
            self._asking -= 1
            self.resume()
        if verdict is Verdict.YES:
            await self._begin(connection, seat)
            return
        seat()
        with contextlib.suppress(OSError):
            if verdict is Verdict.FULL:
                self._turn_away(connection)
            else:
                self._turn_away_address(connection)
