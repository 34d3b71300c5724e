"""When keys are fetched, how long they are believed, and who is told.

Runs as: the egress process.
Reads from strangers: what `fetch` and `keys` have taken apart; requests of a gateway that may be captured, which can
have a configured issuer asked once in half a minute and nothing else.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable

from runagentd import backoff
from runagentd.egress.fetch import FetchError, fetch
from runagentd.egress.keys import KeysError, keys_of
from runagentd.log import Log
from runagentd.wire.issuers import KeySet, VerifyingKey
from runagentd.wire.settings import IssuerSource

ASK_SECONDS = 30.0
"""Between two fetches that somebody asks for: a token with a made-up key costs nobody more than that."""
FAILURE_SECONDS_MAX = 300.0


class Source:
    """The keys of one issuer. `tell` is called with every set, also with one that has not changed after an `ask`."""

    def __init__(
        self,
        settings: IssuerSource,
        *,
        tell: Callable[[KeySet], None],
        log: Log,
        get: Callable[[IssuerSource], Awaitable[bytes]] = fetch,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self._tell = tell
        self._log = log
        self._get = get
        self._wall_clock = wall_clock
        self._keys: tuple[VerifyingKey, ...] = ()
        self._fetched = 0
        self._failures = 0
        self._problem = ""
        self._last_asked = -ASK_SECONDS
        self._asked = asyncio.Event()

    def key_set(self) -> KeySet:
        """What is known now."""
        until = self._fetched + self.settings.stale if self._fetched else 0
        return KeySet(
            issuer=self.settings.name, source=self.settings.source, keys=self._keys, fetched=self._fetched, until=until
        )

    def ask(self) -> None:
        """Somebody has a token with a key that is not known: fetch, unless somebody had that a short time ago.

        How long ago a fetch was that nobody asked for does not count: the key may have been made right after it.
        """
        now = asyncio.get_running_loop().time()
        if now - self._last_asked < ASK_SECONDS:
            self._tell(self.key_set())
        else:
            self._last_asked = now
            self._asked.set()

    async def run(self) -> None:
        """Fetch for ever."""
        while True:
            self._asked.clear()
            await self._fetch()
            # Not all at the same moment, also where many daemons were started together.
            pause = self._pause() * random.uniform(0.9, 1.0)
            try:
                async with asyncio.timeout(pause):
                    await self._asked.wait()
            except TimeoutError:
                continue

    def _pause(self) -> float:
        if self._failures:
            most = min(FAILURE_SECONDS_MAX, float(self.settings.refresh))
            return backoff.doubled(1.0, self._failures - 1, most=most)
        return float(self.settings.refresh)

    async def _fetch(self) -> None:
        name = self.settings.name
        try:
            keys, problems = keys_of(await self._get(self.settings), self.settings.algorithms)
        except (FetchError, KeysError) as error:
            self._failures += 1
            self._say(f"{error}", failed=True)
        except Exception as error:  # noqa: BLE001  (a fault of ours must not be the end of all later attempts)
            self._failures += 1
            self._say(f"{type(error).__name__}: {error}", failed=True)
        else:
            changed = {key.kid for key in keys} != {key.kid for key in self._keys}
            self._keys, self._fetched, self._failures = keys, int(self._wall_clock()), 0
            if changed:
                self._log.info("the keys of an issuer", issuer=name, kids=" ".join(key.kid for key in keys))
            self._say("; ".join(problems[:5]), failed=False)
        self._tell(self.key_set())

    def _say(self, problem: str, *, failed: bool) -> None:
        """Once for each problem, and not for each attempt."""
        if problem == self._problem:
            return
        self._problem = problem
        if failed:
            known = "those that are known go on" if self._fetched else "none are known"
            self._log.error(
                f"the keys of an issuer cannot be fetched; {known}", issuer=self.settings.name, problem=problem
            )
        elif problem:
            self._log.warning("not all keys of an issuer can be used", issuer=self.settings.name, problem=problem)
        else:
            self._log.info("the keys of an issuer are fetched again", issuer=self.settings.name)


class Sources:
    """All issuers that are configured."""

    def __init__(self, *, tell: Callable[[KeySet], None], log: Log) -> None:
        self._tell = tell
        self._log = log
        self._running: dict[str, tuple[Source, asyncio.Task[None]]] = {}

    def configure(self, issuers: Iterable[IssuerSource]) -> None:
        """These and no others; one that has not changed goes on."""
        wanted = {each.name: each for each in issuers}
        for name, (source, task) in list(self._running.items()):
            if wanted.get(name) != source.settings:
                task.cancel()
                del self._running[name]
        for name, settings in wanted.items():
            if name not in self._running:
                source = Source(settings, tell=self._tell, log=self._log)
                task = asyncio.get_running_loop().create_task(source.run(), name=f"issuer {name}")
                self._running[name] = (source, task)

    def ask(self, name: str) -> None:
        """See `Source.ask`; of an issuer that is not configured nothing is said."""
        if name in self._running:
            self._running[name][0].ask()

    def tell_all(self) -> None:
        """Say all that is known, to somebody who knows nothing."""
        for source, _ in self._running.values():
            self._tell(source.key_set())
