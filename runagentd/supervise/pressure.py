"""Whether the host is short of memory: the kernel's own account of time lost to it (PSI).

Runs as: the supervisor.
Reads from strangers: nothing; /proc/pressure/memory is the kernel's (Documentation/accounting/psi.rst, Linux 4.20).
A host without it is never taken for short: what is limited then is each agent, and how many instances there may be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from runagentd.log import Log
from runagentd.supervise import psi

FILE = Path("/proc/pressure/memory")
LOOK_SECONDS = 1.0
PRESSED_FROM = 20.0
"""Percent of the last ten seconds in which some process waited for memory."""
RELIEVED_BELOW = 10.0
"""Not the same number: who stands at the edge would change its mind every second."""


def after(pressed: bool, text: str) -> bool:
    """Whether the host is pressed now, if it was or was not before. A text of another form changes nothing."""
    try:
        return float(psi.some(text)["avg10"]) >= (RELIEVED_BELOW if pressed else PRESSED_FROM)
    except (KeyError, ValueError):
        return pressed


class PressureWatch:
    """Looks every second; `changed` is called where the answer is another one."""

    def __init__(self, changed: Callable[[], None], log: Log, *, file: Path = FILE) -> None:
        self._changed = changed
        self._log = log
        self._file = file
        self._timer: asyncio.TimerHandle | None = None
        self.pressed = False

    def start(self) -> None:
        """Begin to look, where the kernel keeps this account."""
        if self._file.exists():
            self._look()

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
        try:
            pressed = after(self.pressed, self._file.read_text())
        except OSError:
            return
        if pressed != self.pressed:
            self.pressed = pressed
            if pressed:
                self._log.warning(
                    "the host is short of memory: no more instances, and calls that would wait are refused"
                )
            else:
                self._log.info("the host has memory again")
            self._changed()
