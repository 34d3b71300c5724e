"""One version of an agent: what its instances are made from.

Runs as: the supervisor.
Reads from strangers: nothing; the manifest was checked when the folder was loaded.
Instances of two versions can run at the same time: the ones that serve, and the ones that are tried, or are on their
way out. The descriptors of a version are closed when nothing of it runs any more and nothing more will.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass

from runagentd.policy.model import Policy
from runagentd.supervise.environment_store import Lease
from runagentd.supervise.store import Deployment
from runagentd.wire import control
from runagentd.wire.runtime import PythonRuntime

DESCRIBE_SECONDS = 15.0
"""Beyond the time that the agent has to start: for a gateway that is being started again."""

_generations = itertools.count(1)


@dataclass(slots=True)
class FirstStart:
    """What becomes of the first instance: what the operator who deployed the version waits for."""

    done: asyncio.Future[bool]
    describe: bytes = b""
    report: bytes = b""
    detail: str = ""
    cause: control.Cause | None = None

    def over(self, ok: bool) -> None:
        """It is proven, or it has ended before; later calls do nothing."""
        if not self.done.done():
            self.done.set_result(ok)


class Version:
    """The two descriptors and the lease are the version's from now on.

    `on_over` is called when nothing needs them any more.
    """

    def __init__(
        self,
        *,
        deployment: Deployment,
        policy: Policy,
        runtime: PythonRuntime,
        snapshot: int,
        persistent: int,
        environment: Lease | None,
        on_over: Callable[[], None],
    ) -> None:
        self.deployment = deployment
        self.policy = policy
        self.runtime = runtime
        """that instances get which are made from now on"""
        self.snapshot = snapshot
        self.persistent = persistent
        self.environment = environment
        self.number = 0
        """under which it is kept; 0 until it has been proven"""
        self.generation = next(_generations)
        """tells what was made from it apart, also from what was made of the same version before"""
        self.first_start = FirstStart(done=asyncio.get_running_loop().create_future())
        self.on_trial = False
        """somebody waits for the first start: where that fails, nothing is started again"""
        self.given_up = False
        """no more instances of it will be started"""
        self._on_over = on_over
        self._users = 0

    async def proven(self) -> bool:
        """Whether its first instance becomes ready, and the gateway describes it, in time."""
        try:
            async with asyncio.timeout(self.policy.calls.start_timeout / 1000 + DESCRIBE_SECONDS):
                return await self.first_start.done
        except TimeoutError:
            self.first_start.detail = "no gateway has described the agent in time"
            return False

    def enter(self) -> None:
        """One more instance is made from it."""
        self._users += 1

    def leave(self) -> None:
        """One fewer."""
        self._users -= 1
        self._close_if_unused()

    def give_up(self) -> None:
        """No more instances of it will be started."""
        if not self.given_up:
            self.given_up = True
            self._close_if_unused()

    @property
    def over(self) -> bool:
        """Whether nothing of it is left, and nothing will be."""
        return self.given_up and not self._users

    def _close_if_unused(self) -> None:
        if self.over and self.snapshot >= 0:
            os.close(self.snapshot)
            os.close(self.persistent)
            self.snapshot = self.persistent = -1
            if self.environment is not None:
                self.environment.release()
            self._on_over()
