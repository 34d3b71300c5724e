"""Spares: jails made in advance, and what an instance leaves behind, cleaned up in the right order.

Runs as: the supervisor.
Reads from strangers: one 64-byte exit record per instance.
Owns the uids and the cgroups: both are free again only after the reaper was reaped and its cgroups are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import signal
import time
from collections import deque
from collections.abc import Callable

from runagentd.log import Log
from runagentd.plan.model import Step
from runagentd.supervise import spawn
from runagentd.supervise.cgroup import CgroupHost
from runagentd.supervise.zygote import Zygote, ZygoteGone
from runagentd.uids import Leases

_POLL_SECONDS = 0.002
_CLEAN_UP_SECONDS = 10.0
_SPAWNS_AT_ONCE = 8
_NEW_ZYGOTE_SECONDS = 0.1
_ZYGOTE_STEADY_SECONDS = 5.0
_ZYGOTE_DELAY_MAX = 5.0
_REFILL_SECONDS = 0.05


class SparePool:
    """Keeps `size` spares ready; gives one, or makes one on demand."""

    def __init__(
        self,
        *,
        size: int,
        cgroups: CgroupHost,
        leases: Leases,
        steps: tuple[Step, ...],
        steps_in_advance: tuple[Step, ...],
        start_zygote: Callable[[Callable[[], None]], Zygote],
        reaper_program: bytes,
        new_pid_namespace: bool,
        log: Log,
    ) -> None:
        self._log = log
        self._size = size
        self._cgroups = cgroups
        self._leases = leases
        self._steps = steps
        self._steps_in_advance = steps_in_advance
        self._start_zygote = start_zygote
        self._reaper_program = reaper_program
        self._new_pid_namespace = new_pid_namespace
        self._spares: deque[spawn.Spare] = deque()
        self._refilling: asyncio.Task[None] | None = None
        self._at_once = asyncio.Semaphore(_SPAWNS_AT_ONCE)
        self._closed = False
        self._discarding: set[asyncio.Task[None]] = set()
        self._zygote_started = time.monotonic()
        self._zygote_failures = 0
        self._zygote = start_zygote(self._zygote_ended)

    @property
    def ready(self) -> int:
        """How many spares wait."""
        return len(self._spares)

    @property
    def zygote(self) -> Zygote:
        return self._zygote

    async def take(self) -> tuple[spawn.Spare, bool]:
        """A spare, and whether it had been made in advance."""
        while self._spares:
            spare = self._spares.popleft()
            self._forget_end(spare)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(spare.reaper_pidfd, 0)
                return spare, True
        return await self._make(self._steps), False

    def refill_soon(self) -> None:
        """Refill in a moment: the instance that took a spare shall not share the processors with the next one's."""
        asyncio.get_running_loop().call_later(_REFILL_SECONDS, self.refill)

    def refill(self) -> None:
        """Make spares until there are enough again, in the background."""
        if not self._closed and (self._refilling is None or self._refilling.done()):
            self._refilling = asyncio.create_task(self._refill())

    async def discard(self, spare: spawn.Spare) -> None:
        """Free all that a killed spare or an ended instance held: process, cgroups, uid, descriptors; in that order."""
        deadline = asyncio.get_running_loop().time() + _CLEAN_UP_SECONDS
        while not _is_reaped(spare.reaper_pidfd):
            if asyncio.get_running_loop().time() > deadline:
                self._log.error("a reaper does not end; its uid stays leased", pid=spare.reaper_pid, uid=spare.uid)
                return
            await asyncio.sleep(_POLL_SECONDS)
        while not spare.group.remove():
            spare.group.kill()
            if asyncio.get_running_loop().time() > deadline:
                self._log.error("a cgroup cannot be removed; its uid stays leased", pid=spare.reaper_pid, uid=spare.uid)
                return
            await asyncio.sleep(_POLL_SECONDS)
        spare.close()
        self._leases.release(spare.uid)

    async def close(self) -> None:
        """Kill and clean up every spare, and the zygote."""
        self._closed = True
        if self._refilling is not None:
            self._refilling.cancel()
            await asyncio.wait([self._refilling])
        spares, self._spares = list(self._spares), deque()
        for spare in spares:
            self._forget_end(spare)
            spawn.kill(spare)
        await asyncio.gather(*(self.discard(spare) for spare in spares), *self._discarding)
        self._zygote.close()

    async def _refill(self) -> None:
        while len(self._spares) < self._size and not self._closed:
            try:
                spare = await self._make(self._steps_in_advance)
            except (ZygoteGone, spawn.LaunchRefused, OSError) as error:
                self._log.warning("no spare could be made", reason=error)
                await asyncio.sleep(_NEW_ZYGOTE_SECONDS)
                continue
            self._spares.append(spare)
            asyncio.get_running_loop().add_reader(spare.reaper_pidfd, self._spare_ended, spare)

    async def _make(self, steps: tuple[Step, ...]) -> spawn.Spare:
        async with self._at_once:
            uid = self._leases.lease()
            group = None
            try:
                group = self._cgroups.create(secrets.token_hex(8))
                return await spawn.make_spare(
                    self._zygote,
                    uid=uid,
                    group=group,
                    steps=steps,
                    reaper_program=self._reaper_program,
                    new_pid_namespace=self._new_pid_namespace,
                )
            except BaseException:
                if group is not None:
                    group.kill()
                    for _ in range(500):
                        if group.remove():
                            break
                        await asyncio.sleep(_POLL_SECONDS)
                self._leases.release(uid)
                raise

    def _spare_ended(self, spare: spawn.Spare) -> None:
        self._forget_end(spare)
        with contextlib.suppress(ValueError):
            self._spares.remove(spare)
        task = asyncio.get_running_loop().create_task(self.discard(spare))
        self._discarding.add(task)
        task.add_done_callback(self._discarding.discard)
        self.refill()

    def _forget_end(self, spare: spawn.Spare) -> None:
        asyncio.get_running_loop().remove_reader(spare.reaper_pidfd)

    def _zygote_ended(self) -> None:
        if self._closed:
            return
        # At once the first time; a zygote that ends right after its start is not started in a tight loop.
        lived = time.monotonic() - self._zygote_started
        self._zygote_failures = 0 if lived > _ZYGOTE_STEADY_SECONDS else self._zygote_failures + 1
        delay = min(_ZYGOTE_DELAY_MAX, 0.1 * (2**self._zygote_failures - 1))
        self._log.warning("the zygote ended; starting another", delay_seconds=delay)
        asyncio.get_running_loop().call_later(delay, self._new_zygote)

    def _new_zygote(self) -> None:
        if not self._closed:
            self._zygote_started = time.monotonic()
            self._zygote = self._start_zygote(self._zygote_ended)
            self.refill()


def _is_reaped(pidfd: int) -> bool:
    """Whether the process is gone for good. As its subreaper the supervisor may have to reap it itself."""
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        pass  # the zygote's child, as long as there is a zygote
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return True
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
    return False
