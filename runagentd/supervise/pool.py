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

from runagentd import backoff
from runagentd.log import Log
from runagentd.plan.model import Step
from runagentd.supervise import spawn
from runagentd.supervise.cgroup import CgroupHost, Group
from runagentd.supervise.zygote import Zygote, ZygoteGone
from runagentd.uids import Leases

_POLL_SECONDS = 0.002
_CLEAN_UP_SECONDS = 10.0
_SPAWNS_AT_ONCE = 8
_NEW_ZYGOTE_SECONDS = 0.1
_ZYGOTE_STEADY_SECONDS = 5.0
_ZYGOTE_DELAY_MAX = 5.0
_FAILURES_COUNTED = 8
"""After so many the delay is the longest."""
_REFILL_SECONDS = 0.05
_PLACES = 2
"""Uids with their cgroups and user namespaces that are kept ready: making one takes 3 ms, most of it a fork."""


class Taken:
    """What `SparePool.take` gave: `place` is there, `spare` may still be on its way."""

    def __init__(
        self, pool: SparePool, place: spawn.Place, *, spare: spawn.Spare | None = None, birth: spawn.Birth | None = None
    ) -> None:
        self._pool = pool
        self.place = place
        self._spare = spare
        self._birth = birth
        self.in_advance = spare is not None

    async def spare(self) -> spawn.Spare:
        """The spare. ZygoteGone, LaunchRefused or OSError; nothing is left to discard then."""
        if self._birth is not None:
            birth, self._birth = self._birth, None
            try:
                self._spare = await birth.finished(stands_by=False)
            except BaseException:
                await self._pool._give_up(self.place)
                raise
            finally:
                self._pool._at_once.release()
        if self._spare is None:
            raise spawn.LaunchRefused("the spare is gone")
        return self._spare

    async def discard(self) -> None:
        """Nothing will be made of it: end and free all there is."""
        if self._birth is not None:
            birth, self._birth = self._birth, None
            birth.forget()
            await self._pool._give_up(self.place)
            self._pool._at_once.release()
        elif self._spare is not None:
            spawn.kill(self._spare)
            await self._pool.discard(self._spare)


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
        make_mounts: Callable[[], list[int]],
        start_zygote: Callable[[Callable[[], None]], Zygote],
        reaper_program: bytes,
        new_pid_namespace: bool,
        log: Log,
        python: str = "",
    ) -> None:
        """`python` says in the log which runtime it is about; "" for the daemon's own."""
        self._log = log
        self._about = {"python": python} if python else {}
        self._size = size
        self._cgroups = cgroups
        self._leases = leases
        self._steps = steps
        self._steps_in_advance = steps_in_advance
        self._make_mounts = make_mounts
        self._start_zygote = start_zygote
        self._reaper_program = reaper_program
        self._new_pid_namespace = new_pid_namespace
        self._spares: deque[spawn.Spare] = deque()
        self._places: deque[spawn.Place] = deque()
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

    async def take(self) -> Taken:
        """A spare that was made in advance, or one that is being made: its place is known at once in both cases."""
        while self._spares:
            spare = self._spares.popleft()
            self._forget_end(spare)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(spare.reaper_pidfd, 0)
                return Taken(self, spare.place, spare=spare)
        await self._at_once.acquire()
        try:
            place = await self._place()
            try:
                return Taken(self, place, birth=self._begin(place, self._steps))
            except BaseException:
                await self._give_up(place)
                raise
        except BaseException:
            self._at_once.release()
            raise

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
        while self._places:
            await self._give_up(self._places.popleft())
        self._zygote.close()

    async def _refill(self) -> None:
        failures = 0
        while not self._closed and (len(self._places) < _PLACES or len(self._spares) < self._size):
            try:
                if len(self._places) < _PLACES:
                    self._places.append(await self._make_place())
                else:
                    await self._refill_spares()
                failures = 0
            except (ZygoteGone, spawn.LaunchRefused, OSError) as error:
                self._log.warning("no spare could be made", reason=error, **self._about)
                # Slower each time: where none can be made for long, the log is for other things, too.
                await asyncio.sleep(backoff.doubled(_NEW_ZYGOTE_SECONDS, failures, most=_ZYGOTE_DELAY_MAX))
                failures += 1

    async def _refill_spares(self) -> None:
        async with self._at_once:
            place = await self._place()
            try:
                spare = await self._begin(place, self._steps_in_advance).finished(stands_by=True)
            except BaseException:
                await self._give_up(place)
                raise
        self._spares.append(spare)
        asyncio.get_running_loop().add_reader(spare.reaper_pidfd, self._spare_ended, spare)

    def _begin(self, place: spawn.Place, steps: tuple[Step, ...]) -> spawn.Birth:
        mounts = self._make_mounts()
        try:
            return spawn.Birth(
                self._zygote,
                place,
                steps=steps,
                mounts=mounts,
                reaper_program=self._reaper_program,
                new_pid_namespace=self._new_pid_namespace,
            )
        finally:
            for descriptor in mounts:
                os.close(descriptor)

    async def _place(self) -> spawn.Place:
        return self._places.popleft() if self._places else await self._make_place()

    async def _make_place(self) -> spawn.Place:
        uid = self._leases.lease()
        group = None
        try:
            group = self._cgroups.create(secrets.token_hex(8))
            return spawn.Place(uid=uid, group=group, user_namespace=await self._zygote.user_namespace(uid))
        except BaseException:
            if group is not None:
                await _remove(group)
            self._leases.release(uid)
            raise

    async def _give_up(self, place: spawn.Place) -> None:
        """Free a place in which nothing lives, or will live."""
        os.close(place.user_namespace)
        await _remove(place.group)
        self._leases.release(place.uid)

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
        steady = lived > _ZYGOTE_STEADY_SECONDS
        self._zygote_failures = 0 if steady else min(self._zygote_failures + 1, _FAILURES_COUNTED)
        delay = min(_ZYGOTE_DELAY_MAX, 0.1 * (2**self._zygote_failures - 1))
        self._log.warning("the zygote ended; starting another", delay_seconds=delay, **self._about)
        asyncio.get_running_loop().call_later(delay, self._new_zygote)

    def _new_zygote(self) -> None:
        if not self._closed:
            self._zygote_started = time.monotonic()
            try:
                self._zygote = self._start_zygote(self._zygote_ended)
            except OSError as error:
                # Its interpreter may be about to be replaced by another build.
                self._log.error("no zygote can be started", reason=error, **self._about)
                self._zygote_ended()
            else:
                self.refill()


async def _remove(group: Group) -> None:
    group.kill()
    for _ in range(500):
        if group.remove():
            return
        await asyncio.sleep(_POLL_SECONDS)


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
