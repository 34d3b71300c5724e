"""The part of the event loop that things which do something later need: tests give them a clock of their own.

Runs as: the gateway. Pure.
Reads from strangers: nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """What `asyncio.loop.call_later` gives."""

    def cancel(self) -> None: ...


Later = Callable[[float, Callable[[], None]], Timer]
"""`asyncio.loop.call_later`."""
