"""What goes on, for somebody who waits: one line that is rewritten on a terminal, a line of the log for each change
elsewhere.

Runs as: the foreman and runagentctl.
Reads from strangers: nothing; the texts are the supervisor's own.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TextIO

from runagentd.log import escape

_SHOWN_FROM_SECONDS = 1.0
"""After that long one sees that time passes."""


class ProgressLine:
    """Writes to `stream`, or calls `note`. Several things may go on at a time; the last that was heard of is shown."""

    def __init__(
        self, stream: TextIO, note: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._note = note
        self._clock = clock
        self._terminal = stream.isatty()
        self._since: dict[str, float] = {}
        self._last = ""

    def show(self, text: str) -> None:
        """Say it, or say again that it still goes on."""
        began = self._since.setdefault(text, self._clock())
        if self._terminal:
            seconds = self._clock() - began
            line = f"{escape(text)}…" + (f" {seconds:.0f} s" if seconds >= _SHOWN_FROM_SECONDS else "")
            # ECMA-48: erase to the end of the line, and go back to its start, where a line of the log may begin.
            self._stream.write(f"\x1b[K{line[: shutil.get_terminal_size().columns - 1]}\r")
            self._stream.flush()
            self._last = line
        elif text != self._last:
            self._last = text
            self._note(text)

    def over(self) -> None:
        """There is an answer: the line makes room."""
        if self._terminal and self._last:
            self._stream.write("\x1b[K")
            self._stream.flush()
        self._last = ""
        self._since.clear()
