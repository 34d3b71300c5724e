"""Tells the gateway whom to believe, and waits for its word that it does.

Runs as: the supervisor.
Reads from strangers: epochs and ids of API keys, from a gateway that may be captured: an epoch that was never sent
wakes nobody, and an id that is not known changes nothing. The gateway can neither add nor remove trust.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from runagentd.errors import HostError
from runagentd.log import Log
from runagentd.trust import TrustStore
from runagentd.wire import control

TAKE_SECONDS = 5.0
"""How long an operator's command waits for the gateway."""
USED_MAX = 10_000


class TrustTeller:
    """`send` gives a message to the gateway that is there; `start` is called for each that says hello."""

    def __init__(self, directory: Path, *, send: Callable[[control.FromSupervisor], None], log: Log) -> None:
        self._store = TrustStore(directory)
        self._directory = directory
        self._send = send
        self._log = log
        self._told = -1
        """the last epoch that the gateway was told of; -1 for none"""
        self._taken = -1
        self._taking: set[asyncio.Future[None]] = set()
        self._used: set[str] = set()
        self._noting: asyncio.Task[None] | None = None

    def close(self) -> None:
        self._store.close()

    def start(self) -> None:
        """A gateway has said hello: it knows nothing."""
        self._told = self._taken = -1
        self._tell()

    async def spread(self) -> bool:
        """Tell what has changed; whether the gateway has taken it in time."""
        self._tell()
        epoch, end = self._told, asyncio.get_running_loop().time() + TAKE_SECONDS
        try:
            async with asyncio.timeout_at(end):
                while self._taken < epoch:
                    waiter = asyncio.get_running_loop().create_future()
                    self._taking.add(waiter)
                    try:
                        await waiter
                    finally:
                        self._taking.discard(waiter)
        except TimeoutError:
            return False
        return True

    def taken(self, epoch: int) -> bool:
        """The gateway says that an epoch holds; False where it was never told of it, and is not to be listened to."""
        if epoch > self._told:
            self._log.error("the gateway takes over what it was never told", epoch=epoch)
            return False
        self._taken = max(self._taken, epoch)
        for waiter in self._taking:
            if not waiter.done():
                waiter.set_result(None)
        return True

    def _tell(self) -> None:
        changes = self._store.changes(self._told)
        for message in changes.messages():
            self._send(message)
        self._told = changes.epoch

    # ---- when API keys were used

    def used(self, identities: Sequence[str]) -> None:
        """Note it, off the loop: this waits for the disk."""
        if len(self._used) < USED_MAX:
            self._used.update(identities)
        if self._noting is None or self._noting.done():
            self._noting = asyncio.get_running_loop().create_task(self._note())

    async def _note(self) -> None:
        while self._used:
            used, self._used = self._used, set()
            try:
                await asyncio.to_thread(_note_use, self._directory, used)
            except (HostError, sqlite3.Error) as error:
                self._log.error("when API keys were used cannot be noted", reason=error)


def _note_use(directory: Path, used: set[str]) -> None:
    with TrustStore(directory) as store:
        store.note_api_keys_used(used, time.time())
