"""Whose next sandbox is made before it is needed: those agents that have started an instance last.

Runs as: the supervisor. Pure.
Reads from strangers: nothing.

An instance that stands by has been made like any other, has its plan carried out and was looked at from outside; its
runner waits at its gate, and no line of the agent's has run. It is used once, by the version that it was made for, and
takes as much memory as a spare does, so that there is a bound for the whole daemon.
"""

from __future__ import annotations

from typing import Protocol

SECONDS = 0.25
"""From an instance that has become ready to the beginning of the next one's: a burst of starts comes first."""


class Keeper(Protocol):
    """An agent."""

    def give_up_standby(self) -> None:
        """End what stands by; harmless where nothing does."""


class Standbys:
    """At most `most` agents, the one that started an instance last at the end."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._keepers: list[Keeper] = []

    def __len__(self) -> int:
        return len(self._keepers)

    def admit(self, keeper: Keeper) -> bool:
        """Whether this one may keep an instance that stands by; the one that started longest ago gives up its own."""
        self.leave(keeper)
        self._keepers.append(keeper)
        while len(self._keepers) > self._most:
            self._keepers.pop(0).give_up_standby()
        return keeper in self._keepers

    def leave(self, keeper: Keeper) -> None:
        """It keeps none any more."""
        if keeper in self._keepers:
            self._keepers.remove(keeper)

    def give_up_all(self) -> None:
        """The host is short of memory."""
        while self._keepers:
            self._keepers.pop().give_up_standby()
