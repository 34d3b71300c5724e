"""Sizes and durations as people write them in a policy, exactly: "512MiB" is 536870912, "250ms" is 250.

Runs as: the supervisor and runagentctl. Pure.
Reads from strangers: nothing.
Whole numbers only, and no unit that means two things: "MB" is 1000² to some and 1024² to others, "m" alone is minutes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from runagentd.policy.unfit import quoted, unfit

SIZE_HINT = 'write a number with KiB, MiB or GiB, for example "512MiB"'
DURATION_HINT = 'write a number with ms, s, m or h, for example "30s"'

_SIZES = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_DURATIONS = {"ms": 1, "s": 1000, "m": 60 * 1000, "h": 60 * 60 * 1000}

# Eighteen digits are more than any bound takes; no leading zero, so that each number has one spelling per unit.
_NUMBER = "(0|[1-9][0-9]{0,17})"
_FORM = re.compile(f"{_NUMBER}([A-Za-z]+)", re.ASCII)

SIZE_PATTERN = f"^{_NUMBER}({'|'.join(_SIZES)})$"
DURATION_PATTERN = f"^{_NUMBER}({'|'.join(_DURATIONS)})$"
"""What `size` and `duration` take as text, for a JSON Schema."""


def size(value: object) -> int:
    """A size in bytes: text with a unit, or a whole number of bytes."""
    # bool is an int to Python and none to the person who wrote `true`.
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (found := _quantity(value, _SIZES)) is not None:
        return found
    raise unfit(f"{quoted(value)} is not a size", SIZE_HINT)


def duration(value: object) -> int:
    """A duration in milliseconds. A bare number is refused: it would be seconds to one reader and not to the next."""
    if isinstance(value, str) and (found := _quantity(value, _DURATIONS)) is not None:
        return found
    raise unfit(f"{quoted(value)} is not a duration", DURATION_HINT)


def size_text(size_bytes: int) -> str:
    """The shortest spelling that `size` reads back: the largest unit that divides it."""
    return _text(size_bytes, _SIZES, "")


def duration_text(milliseconds: int) -> str:
    """The shortest spelling that `duration` reads back."""
    return _text(milliseconds, _DURATIONS, "ms")


def _quantity(text: str, units: Mapping[str, int]) -> int | None:
    found = _FORM.fullmatch(text)
    if found is None or found[2] not in units:
        return None
    return int(found[1]) * units[found[2]]


def _text(amount: int, units: Mapping[str, int], smallest: str) -> str:
    for unit, factor in sorted(units.items(), key=lambda item: -item[1]):
        if amount >= factor and amount % factor == 0:
            return f"{amount // factor}{unit}"
    return f"{amount}{smallest}"
