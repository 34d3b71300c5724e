"""Tells the supervisor how many instances an agent's calls could use: more at once, fewer after a moment.

Runs as: the gateway.
Reads from strangers: nothing.
The supervisor decides; it hears nothing where there is nothing to decide, which is what most agents have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runagentd.wire.control import Demand, FromGateway, Scaling

FALL_SECONDS = 0.5
"""Calls come in bursts: a message for each end of one would be as many messages as calls."""


class DemandTeller:
    """`instances` gives how many the calls of this moment could use; `send` may drop what it is given."""

    def __init__(self, agent: str, *, instances: Callable[[Scaling], int], send: Callable[[FromGateway], None]) -> None:
        self._agent = agent
        self._instances = instances
        self._send = send
        self._told = 0
        self._falling: asyncio.TimerHandle | None = None
        self._scaling = Scaling()

    def configure(self, scaling: Scaling) -> None:
        """Bounds from the supervisor, which may be a new one that knows nothing, or one that knows what was before."""
        self._scaling = scaling
        if scaling.minimum != scaling.maximum:
            self._tell(self._wanted())

    def look(self) -> None:
        """A call more, or a call less."""
        scaling = self._scaling
        if scaling.minimum == scaling.maximum:
            return
        wanted = self._wanted()
        if wanted > self._told:
            self._tell(wanted)
        elif wanted < self._told and self._falling is None:
            self._falling = asyncio.get_running_loop().call_later(FALL_SECONDS, self._fallen)

    def look_now(self) -> None:
        """Likewise, and fewer are told at once: before one ends, or another would be started for it."""
        if self._scaling.minimum != self._scaling.maximum and (wanted := self._wanted()) != self._told:
            self._tell(wanted)

    def close(self) -> None:
        """Say nothing more."""
        self._scaling = Scaling()
        if self._falling is not None:
            self._falling.cancel()

    def _wanted(self) -> int:
        return min(self._scaling.maximum, self._instances(self._scaling))

    def _fallen(self) -> None:
        self._falling = None
        wanted = self._wanted()
        if wanted < self._told:
            self._tell(wanted)

    def _tell(self, wanted: int) -> None:
        self._told = wanted
        self._send(Demand(agent=self._agent, instances=wanted))
