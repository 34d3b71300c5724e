"""One end of the stream between a worker and the gateway: bytes into messages, messages into few system calls.

Runs as: the gateway, where it has workers, and each of its workers.
Reads from strangers: yes, each side takes the other for captured: `wire.exchanges` says what is a message.
"""

from __future__ import annotations

import abc
import asyncio
from typing import cast

from runagentd.wire.exchanges import ExchangeError, Kind, Message, Splitter

WRITE_BUFFER_BYTES = 256 * 1024
"""Above this the other side is one that does not read at the moment, and what is large waits for it."""
UNREAD_BYTES_MAX = 8 * 1024 * 1024
"""Above this it is one that does not read at all: what does not wait is small, so this is much of it."""
READ_SECONDS = 35.0
"""How long it may not read."""


class Line(asyncio.Protocol, abc.ABC):
    """Ends once: `ended` is called then, and nothing afterwards."""

    def __init__(self, accept: frozenset[Kind]) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._splitter = Splitter(accept)
        self._unwritten: list[bytes] = []
        self._unwritten_bytes = 0
        self.paused = False
        """whether the other side does not read"""
        self._reads: asyncio.Future[None] | None = None
        """done when the other side reads again"""
        self.over = False

    @abc.abstractmethod
    def take(self, message: Message) -> None:
        """One message; ExchangeError where it may not come now."""

    @abc.abstractmethod
    def ended(self, problem: str) -> None:
        """The line is at its end; `problem` is what the other side has done wrong, or empty."""

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.over:
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self.flush()

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._splitter.feed(data):
                if not self.over:
                    self.take(message)
        except ExchangeError as error:
            self.close(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self.close()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._wake()

    # ---- writing

    def write(self, data: bytes) -> None:
        """Send soon: what is said in one turn of the loop leaves in one system call."""
        if not self._unwritten:
            self._loop.call_soon(self.flush)
        self._unwritten.append(data)
        self._unwritten_bytes += len(data)
        if self._unwritten_bytes > WRITE_BUFFER_BYTES:
            self.flush()

    async def ready(self) -> None:
        """Return once the other side reads; ConnectionResetError where it does not for too long."""
        if not self.paused:
            return
        try:
            async with asyncio.timeout(READ_SECONDS):
                while self.paused and not self.over:
                    if self._reads is None or self._reads.done():
                        self._reads = self._loop.create_future()
                    await asyncio.shield(self._reads)  # others wait for the same
        except TimeoutError as error:
            raise ConnectionResetError("the other side does not read") from error

    def flush(self) -> None:
        """Send now."""
        if self._transport is None or not self._unwritten:
            return
        unwritten, self._unwritten, self._unwritten_bytes = self._unwritten, [], 0
        if self.over:
            return
        self._transport.write(unwritten[0] if len(unwritten) == 1 else b"".join(unwritten))
        if self.paused and self._transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            self.close("it does not read")

    def _wake(self) -> None:
        if self._reads is not None and not self._reads.done():
            self._reads.set_result(None)

    # ---- the end

    def close(self, problem: str = "") -> None:
        """End it; more than once does no harm."""
        if self.over:
            return
        self.over = True
        self._wake()
        if self._transport is not None:
            self._transport.abort()
        self.ended(problem)
