"""The calls of one agent go to several of its versions: which call to which, and how they end there.

Runs as: the gateway.
Reads from strangers: nothing. What callers can do is to make calls fail; which version has a call is drawn by lot, so
their failures are spread over the versions as their calls are, and the supervisor compares them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Container
from typing import Generic, Protocol, TypeVar

from runagentd import errors
from runagentd.errors import Fault, Refusal
from runagentd.wire.control import Cause, Ended, FromGateway, Outcomes, Share

TELL_SECONDS = 0.5


class Callee(Protocol):
    """A version, as far as it matters for who is called: `agents.Agent`."""

    @property
    def entrypoints(self) -> Container[str]:
        """The tags that it has."""

    def state(self) -> str:
        """For people, in a word."""


A = TypeVar("A", bound=Callee)


class Split(Generic[A]):
    """The versions that get calls of an agent beside the one that serves: each is an `Agent` with calls of its own."""

    def __init__(self, tally: Tally) -> None:
        self.sides: dict[int, A] = {}
        self.shares: tuple[Share, ...] = ()
        self.aliases: dict[str, int] = {}
        """to 0 for the version that serves, else to one of the sides"""
        self.tally = tally
        """one for all versions of an agent"""

    def draw(self, main: A, tag: str) -> A:
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
    """Counts how calls of an agent's versions end, and tells the supervisor of all of them at once.

    At once: of two messages the one about a version that fails could come first, and nothing be there to compare.
    """

    def __init__(self, agent: str, send: Callable[[FromGateway], None]) -> None:
        self._agent = agent
        self._send = send
        self._counts: dict[int, list[int]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, side: int, refusal: Refusal | None, *, hurried: bool) -> None:
        """A call has ended; `hurried` says that its caller gave it less time than the agent has."""
        failed = failure(refusal, hurried=hurried)
        if failed is None:
            return
        count = self._counts.setdefault(side, [0, 0])
        count[0] += 1
        count[1] += failed
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TELL_SECONDS, self._tell)

    def _tell(self) -> None:
        self._timer = None
        ended = tuple(
            Ended(side=side, calls=calls, failures=failures) for side, (calls, failures) in sorted(self._counts.items())
        )
        self._counts.clear()
        self._send(Outcomes(agent=self._agent, ended=ended))


def failure(refusal: Refusal | None, *, hurried: bool) -> bool | None:
    """Whether a call has failed by its version's fault; None where its end says nothing about the version.

    Refusals that are the caller's fault, the host's or the operator's say nothing, nor does a deadline of the caller's,
    nor that an instance was replaced because another call did not stop: perhaps at a deadline of that caller's.
    """
    if refusal is None:
        return False
    if refusal.kind.fault is not Fault.AGENT or (refusal.kind is errors.TIMEOUT and hurried):
        return None
    if refusal.kind is errors.INSTANCE_DIED and refusal.cause == Cause.DEADLINE:
        return None
    return True
