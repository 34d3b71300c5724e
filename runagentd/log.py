"""Events of a daemon as lines: JSON for machines, a readable line for a person at a terminal.

Runs as: foreman, supervisor, gateway; each makes one `Log` and passes it on.
Reads from strangers: yes, as values of fields. Control characters are escaped, so that no text that an agent or a
client chose can move a terminal's cursor or forge a second line. Values of keys in `NEVER_PRINTED` are replaced.
"""

from __future__ import annotations

import argparse
import enum
import errno
import io
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import IO, Any

NEVER_PRINTED = frozenset(
    {
        "token",
        "authorization",
        "cookie",
        "password",
        "secret",
        "api_key",
        "apikey",
        "private_key",
        "query",
        "env",
        "environment",
    }
)
"""Keys whose value never reaches a log, whatever it is. `query` because RunAgent's clients put tokens there."""

FIELD_CHARACTERS_MAX = 8 * 1024


class Level(enum.IntEnum):
    """How much an event matters; the numbers are those of the standard library's logging."""

    DEBUG = logging.DEBUG
    INFO = logging.INFO
    WARNING = logging.WARNING
    ERROR = logging.ERROR


class Form(enum.StrEnum):
    """How a line looks."""

    TEXT = "text"
    JSON = "json"


def add_options(parser: argparse.ArgumentParser) -> None:
    """How a daemon is told to log by whoever starts it; see `from_options`."""
    parser.add_argument("--log-format", choices=tuple(Form), default=Form.TEXT.value)
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("-q", "--quiet", action="store_true")


def from_options(options: argparse.Namespace, *, source: str) -> Log:
    """The log of a daemon that was started with `add_options`, on stderr."""
    level = Level.DEBUG if options.verbose else Level.ERROR if options.quiet else Level.INFO
    return Log(sys.stderr, source=source, form=Form(options.log_format), level=level)


def escape(text: str) -> str:
    """`text` with every character that a terminal could take as a command written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    # As the codec "unicode_escape" does. The codec itself is a module that is imported when it is first asked for:
    # too late for a process that has given up the right to read its own installation.
    number = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

_QUOTED = ' "='
"""A value with one of these stands in quotes."""

_ERASE = "\x1b[K"
"""ECMA-48: to the end of the line. What goes on may stand there, in a line that is written again and again."""


class Log:
    """Writes events to one stream. `source` names the process that speaks."""

    def __init__(
        self,
        stream: IO[str] | None,
        *,
        source: str,
        form: Form = Form.TEXT,
        level: Level = Level.INFO,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._stream = stream
        self._source = source
        self._form = form
        self._clock = clock
        self._begin = _ERASE if stream is not None and form is Form.TEXT and stream.isatty() else ""
        self.level = level

    def debug(self, event: str, **fields: object) -> None:
        """An event that matters to who looks for a fault."""
        if self.level <= Level.DEBUG:
            self._write(Level.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """An event that an operator may want to see."""
        if self.level <= Level.INFO:
            self._write(Level.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something is not as it should be, and service goes on."""
        if self.level <= Level.WARNING:
            self._write(Level.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Something failed that should not have."""
        self._write(Level.ERROR, event, fields)

    def _write(self, level: Level, event: str, fields: dict[str, object]) -> None:
        if self._stream is None:
            return
        safe = {
            key: "[not printed]" if key in NEVER_PRINTED else _bounded(value)
            for key, value in fields.items()
            if value is not None
        }
        now = self._clock()
        line = self._json(now, level, event, safe) if self._form is Form.JSON else self._text(now, level, event, safe)
        try:
            self._stream.write(self._begin + line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # The reader of our log is gone (EPIPE, or a closed stream): service goes on without it.
            self._stream = None

    def _json(self, now: float, level: Level, event: str, fields: dict[str, object]) -> str:
        row = {"time": utc(now), "level": level.name.lower(), "source": self._source, "event": event, **fields}
        return json.dumps(row, default=str, ensure_ascii=True, separators=(",", ":"))

    def _text(self, now: float, level: Level, event: str, fields: dict[str, object]) -> str:
        moment = time.strftime("%H:%M:%S", time.localtime(now))
        pairs = "".join(f" {key}={_shown(value)}" for key, value in fields.items())
        mark = "" if level < Level.WARNING else f" {level.name}"
        return f"{moment} {self._source}{mark}: {escape(event)}{pairs}"


def _bounded(value: object) -> object:
    if isinstance(value, int | float):
        return value
    text = str(value)
    return text if len(text) <= FIELD_CHARACTERS_MAX else text[:FIELD_CHARACTERS_MAX] + "…"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    if not text or any(letter in text for letter in _QUOTED):
        # What ends a value has to be escaped in it, or a value could go on as a field that nobody has logged.
        return '"' + escape(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'
    return escape(text)


def complain(text: str) -> None:
    """`text`, of one or more lines, on standard error, in one write(2).

    print() writes the newline that it adds apart, and a line of another process that logs to the same terminal
    would come between the two.
    """
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class Unwritten(Exception):
    """Standard output does not take what was printed; not an OSError, which whoever prints may mean to pass over."""


class _StandardOutput(io.FileIO):
    """Tells what goes wrong with it from whatever else does."""

    # Buffer: as of io.RawIOBase, whose stubs name it by a module that Python 3.11 has not.
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise Unwritten from error


def printing(command: Callable[[], int], *, name: str) -> int:
    """What a command that prints gives, once all of it is written; 1 where nobody reads it, or a disk is full.

    It is written here: what Python says of an error when it flushes at its own end is a piece of a traceback.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    before = sys.stdout
    if before is None:  # it was closed by whoever started us
        sys.stdout = io.TextIOWrapper(io.FileIO(nowhere, "w"))
        return command()
    file = _StandardOutput(before.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(file),
        encoding=before.encoding,
        errors=before.errors,
        line_buffering=before.isatty(),
    )
    try:
        try:
            return command()
        finally:
            sys.stdout.flush()
    except Unwritten as error:
        os.dup2(nowhere, file.fileno())  # where Python's own flush can go
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno != errno.EPIPE:
            words = (cause.strerror or "it cannot be written").lower()
            complain(f"{name}: standard output is not complete: {words}")
        return 1
    finally:
        os.close(nowhere)


def utc(seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds: 2026-11-22T22:49:40.123Z."""
    whole = int(seconds)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int((seconds - whole) * 1000):03d}Z"


class _Forwarder(logging.Handler):
    """Records of libraries that use the standard library's logging, as events of ours."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        problem = None
        if record.exc_info and record.exc_info[1] is not None:
            # The type and the place, never the text: an exception's text may quote what a stranger sent.
            error = record.exc_info[1]
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            where = (
                f"{os.path.basename(place.tb_frame.f_code.co_filename)}:{place.tb_lineno}" if place is not None else "?"
            )
            problem = f"{type(error).__name__} at {where}"
        self._log.warning("library", name=record.name, message=record.getMessage()[:500], problem=problem)


def forward_standard_logging(log: Log) -> None:
    """Warnings and errors that libraries log (aiohttp, asyncio) become events of `log`."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(_Forwarder(log))
    root.setLevel(logging.WARNING)
