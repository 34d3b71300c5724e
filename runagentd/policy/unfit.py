"""What is raised where a value does not fit its key, and how such a value is shown to the person who wrote it.

Runs as: the supervisor and runagentctl. Pure.
Reads from strangers: nothing; but an operator may check a file that someone else wrote, so what is shown is short
and without control characters (a terminal obeys those).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from runagentd.errors import Problem

_SHOWN_MAX = 60
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Unfit(Exception):
    """A value does not fit. Each problem's `where` is a place within the value: "" or "[3]"."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def unfit(what: str, *hints: str) -> Unfit:
    """One problem with the value as a whole."""
    return Unfit(Problem("", what, hints))


def quoted(value: object) -> str:
    """A TOML value as it is shown in a message: short, one line, printable. Never recurses into the value."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{_printable(value)}"'
        case int():
            # int.__str__ refuses more than 4300 digits (CVE-2020-10735), so a long one is not even tried.
            return str(value) if value.bit_length() <= 128 else "a number of more than 38 digits"
        case float():
            return repr(value)
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"


def key_text(key: str) -> str:
    """One part of a dotted key as TOML would have it written."""
    return key if len(key) <= _SHOWN_MAX and _BARE_KEY.fullmatch(key) else quoted(key)


def did_you_mean(written: str, known: Iterable[str]) -> tuple[str, ...]:
    """A hint with the nearest known word, or no hint."""
    # Ratcliff/Obershelp is quadratic: text longer than any known word is not compared.
    near = difflib.get_close_matches(written, known, n=1, cutoff=0.6) if len(written) <= _SHOWN_MAX else []
    return tuple(f"did you mean {word}?" for word in near)


def _printable(text: str) -> str:
    shown = text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…"
    return "".join(_ESCAPES.get(c, c if c.isprintable() else f"\\u{ord(c):04X}") for c in shown)


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
