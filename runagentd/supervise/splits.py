"""Several versions of one agent at a time: each beside the one that serves has instances and a share of calls.

Runs as: the supervisor.
Reads from strangers: how calls have ended, from a gateway that may be captured; see `verdict`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from runagentd.errors import ConfigurationError, HostError
from runagentd.log import Log
from runagentd.supervise import releases
from runagentd.supervise.agent import Agent
from runagentd.supervise.deploy import Deployer
from runagentd.supervise.instance import Surroundings
from runagentd.supervise.replies import wider_keys
from runagentd.supervise.store import Deployed, Store
from runagentd.supervise.verdict import Tally, Window, verdict
from runagentd.supervise.version import Version
from runagentd.wire import admin, control
from runagentd.wire.admin import EventKind


class Splits:
    """The versions that get a part of the calls. `introduce`, `announce` and `removed` tell the gateway of them."""

    def __init__(
        self,
        *,
        store: Store,
        deployer: Deployer,
        served: Mapping[str, Agent],
        around: Surroundings,
        introduce: Callable[[Agent], None],
        announce: Callable[[Agent], None],
        removed: Callable[[str, int], None],
        log: Log,
    ) -> None:
        self._store = store
        self._deployer = deployer
        self._served = served
        self._around = around
        self._introduce = introduce
        self._announce = announce
        self._removed = removed
        self._log = log
        self._sides: dict[str, dict[int, Agent]] = {}
        self._shares: dict[str, tuple[control.Share, ...]] = {}
        self._errors_max: dict[str, int] = {}
        self._windows: defaultdict[tuple[str, int], Window] = defaultdict(Window)
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- what there is

    def sides(self, agent: str) -> Mapping[int, Agent]:
        """The versions beside the one that serves, by number; also those that are on their way out."""
        return self._sides.get(agent, {})

    def all(self) -> Iterator[Agent]:
        """All of them, of all agents."""
        return itertools.chain.from_iterable(sides.values() for sides in self._sides.values())

    def shares(self, agent: str) -> tuple[control.Share, ...]:
        """What the gateway is to know of an agent."""
        return self._shares.get(agent, ())

    # ---- an operator's changes

    async def divide(self, agent_id: str, request: admin.Divide) -> admin.Reply:
        """Have calls go to several versions. ConfigurationError for what cannot be."""
        async with self._deployer.alone(agent_id):
            known, agent = self._store.find(agent_id), self._served.get(agent_id)
            if known is None or agent is None:
                return admin.Failed(message="the agent is not served: deploy it again")
            shares = releases.shares(known, request.shares)
            there = set(self.sides(agent_id))
            for number in shares:
                problem = await self._have(known, agent, number)
                if problem:
                    self._drop_unshared(agent)
                    return admin.Failed(message=problem)
            try:
                self._store.divide(agent_id, shares, errors_max=request.errors_max)
            except HostError as error:
                self._drop_unshared(agent)
                return admin.Failed(message=str(error))
            self._take_over(agent, shares, request.errors_max)
            agent.note(EventKind.TRAFFIC, _words(agent, shares))
            # Each was accepted when it was deployed, perhaps years before the narrower one that serves.
            wider = {
                number: wider_keys(self._sides[agent_id][number].policy, agent.policy) for number in sorted(shares)
            }
            for number in wider.keys() - there:
                agent.note_wider(number, wider[number])
            return admin.Divided(
                wider=tuple(admin.WiderSide(number=number, keys=keys) for number, keys in wider.items() if keys)
            )

    def restore(self, known: Deployed) -> None:
        """As it was before this supervisor. What cannot be started leaves its share to the version that serves."""
        agent = self._served[known.agent]
        for number in list(known.shares):
            try:
                self._begin(agent, self._deployer.restored(known.releases[number])).start()
            except (KeyError, ConfigurationError, HostError, OSError) as error:
                self._log.error("a version gets no calls", agent=known.agent, version=f"v{number}", reason=error)
        self._take_over(agent, known.shares, known.errors_max)

    def end(self, agent: Agent) -> None:
        """Another version serves: it gets all calls. What is told to the gateway is the caller's to say."""
        if self._shares.pop(agent.id, ()):
            agent.note(EventKind.TRAFFIC, f"all calls go to v{agent.version.number}")
        self._drop_unshared(agent)

    async def stop(self, agent_id: str, cause: control.Cause) -> None:
        """Nothing of any version beside the one that serves is left when this returns."""
        self._shares.pop(agent_id, None)
        for number, side in list(self._sides.get(agent_id, {}).items()):
            await side.stop(cause)
            self._forget(agent_id, number, side)

    async def _have(self, known: Deployed, agent: Agent, number: int) -> str:
        """Have one instance of this version, ready and well; why that cannot be, "" where it is so."""
        there = self._sides.get(agent.id, {}).get(number)
        if there is not None and not there.version.given_up:
            return ""
        if there is not None:
            return f"v{number} is still on its way out: wait until its last call has ended"
        if number in known.unread:
            return f"v{number}: {known.unread[number].reason}"
        try:
            version = self._deployer.restored(known.releases[number])
        except (ConfigurationError, HostError, OSError) as error:
            return f"v{number} cannot be started: {error}"
        version.on_trial = True
        side = self._begin(agent, version)
        side.start()
        ok = await version.proven()
        version.on_trial = False
        if not ok:
            return f"v{number} did not start: {version.first_start.detail}"
        problem = await self._deployer.unwell(side, version)
        return f"v{number} is not well: {problem}" if problem else ""

    def _begin(self, agent: Agent, version: Version) -> Agent:
        side = Agent(version, self._around, side=version.number)
        self._sides.setdefault(agent.id, {})[version.number] = side
        self._introduce(side)
        return side

    # ---- what becomes of it

    def told(self, outcomes: control.Outcomes) -> None:
        """How calls have ended."""
        if not self.shares(outcomes.agent):
            return  # a gateway that makes up agents must not fill our memory
        known = {0, *(share.side for share in self.shares(outcomes.agent))}
        now = time.monotonic()
        for row in outcomes.ended:
            if row.side in known:
                tally = Tally(calls=max(0, row.calls), failures=max(0, min(row.failures, row.calls)))
                self._windows[outcomes.agent, row.side].add(now, tally)
        self._judge(outcomes.agent, now)

    def died(self, agent: str, side: int) -> None:
        """An instance ended, and was not to."""
        if self._shares.get(agent):
            now = time.monotonic()
            self._windows[agent, side].add(now, Tally(deaths=1))
            self._judge(agent, now)

    def _judge(self, agent_id: str, now: float) -> None:
        serving = self._windows[agent_id, 0].sum(now)
        for share in self._shares.get(agent_id, ()):
            window = self._windows[agent_id, share.side].sum(now)
            reason = verdict(window, serving, errors_max=self._errors_max.get(agent_id, 100)) if share.percent else ""
            if reason:
                self._roll_back(agent_id, share.side, reason)

    def _roll_back(self, agent_id: str, number: int, reason: str) -> None:
        """This version gets no more calls, from now on: its share goes to the version that serves."""
        agent = self._served[agent_id]
        self._shares[agent_id] = tuple(share for share in self.shares(agent_id) if share.side != number)
        self._announce(agent)
        agent.note(EventKind.ROLLED_BACK, f"v{number} gets no calls any more: {reason}")
        self._log.warning("a version was rolled back", agent=agent_id, version=f"v{number}", reason=reason)
        self._keep(asyncio.create_task(self._write_down(agent_id)))

    async def _write_down(self, agent_id: str) -> None:
        """Once nobody else changes the agent: what was decided meanwhile, and the ends of versions without a share."""
        async with self._deployer.alone(agent_id):
            agent = self._served.get(agent_id)
            if agent is None:
                return
            left = {share.side: share.percent for share in self.shares(agent_id)}
            try:
                self._store.divide(agent_id, left, errors_max=self._errors_max.get(agent_id, 100))
            except HostError as error:
                # It would have its share again after the next start; until then it has none.
                self._log.error("the end of a share could not be written down", agent=agent_id, reason=error)
            self._drop_unshared(agent)

    def _take_over(self, agent: Agent, shares: Mapping[int, int], errors_max: int) -> None:
        self._shares[agent.id] = tuple(
            control.Share(side=number, percent=percent) for number, percent in sorted(shares.items())
        )
        self._errors_max[agent.id] = errors_max
        self._drop_unshared(agent)
        self._announce(agent)

    def _drop_unshared(self, agent: Agent) -> None:
        """Let go of every version that has no share: it starts nothing more, and ends with its last call."""
        shared = {share.side for share in self.shares(agent.id)}
        for number, side in self._sides.get(agent.id, {}).items():
            if number not in shared and not side.version.given_up:
                side.leave()
                self._announce(side)
                self._keep(asyncio.create_task(self._see_off(agent.id, number, side)))

    async def _see_off(self, agent_id: str, number: int, side: Agent) -> None:
        await side.over()
        self._forget(agent_id, number, side)

    def _forget(self, agent_id: str, number: int, side: Agent) -> None:
        sides = self._sides.get(agent_id, {})
        if sides.get(number) is side:
            del sides[number]
            self._windows.pop((agent_id, number), None)
            self._removed(agent_id, number)
        if not sides:
            self._sides.pop(agent_id, None)
            self._windows.pop((agent_id, 0), None)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _words(agent: Agent, shares: Mapping[int, int]) -> str:
    rest = 100 - sum(shares.values())
    return ", ".join([f"v{agent.version.number} {rest} %", *(f"v{n} {percent} %" for n, percent in shares.items())])
