"""The calls of one agent go to several of its versions: which call to which, and how they end there.

Runs as: the gateway.
Reads from strangers: nothing. What callers can do is to make calls fail; which version has a call is drawn by lot, so
their failures are spread over the versions as their calls are, and the supervisor compares them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from runagentd import errors
from runagentd.errors import Fault, Refusal
from runagentd.wire.control import FromGateway, Outcomes, Share

if TYPE_CHECKING:
    from runagentd.gateway.agents import Agent

TELL_SECONDS = 0.5


class Split:
    """The versions that get calls of an agent beside the one that serves: each is an `Agent` with calls of its own."""

    def __init__(self) -> None:
        self.sides: dict[int, Agent] = {}
        self.shares: tuple[Share, ...] = ()

    def draw(self, main: Agent, tag: str) -> Agent:
        """Who is to have a call of this entrypoint. A version without it, or without an instance, is passed over."""
        if not self.shares:
            return main
        lot = random.random() * 100
        for share in self.shares:
            lot -= share.percent
            if lot < 0:
                side = self.sides.get(share.side)
                return side if side is not None and tag in side.entrypoints and side.state() == "ready" else main
        return main


class Tally:
    """Counts how calls of one version end, and tells the supervisor while there is something to tell."""

    def __init__(self, agent: str, side: int, send: Callable[[FromGateway], None]) -> None:
        self._agent = agent
        self._side = side
        self._send = send
        self._calls = 0
        self._failures = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, refusal: Refusal | None, *, hurried: bool) -> None:
        """A call has ended; `hurried` says that its caller gave it less time than the agent has."""
        failed = failure(refusal, hurried=hurried)
        if failed is None:
            return
        self._calls += 1
        self._failures += failed
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TELL_SECONDS, self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._send(Outcomes(agent=self._agent, side=self._side, calls=self._calls, failures=self._failures))
        self._calls = self._failures = 0


def failure(refusal: Refusal | None, *, hurried: bool) -> bool | None:
    """Whether a call has failed by its version's fault; None where its end says nothing about the version.

    Refusals that are the caller's fault, the host's or the operator's say nothing, nor does a deadline of the caller's.
    """
    if refusal is None:
        return False
    if refusal.kind.fault is not Fault.AGENT or (refusal.kind is errors.TIMEOUT and hurried):
        return None
    return True
