"""Sizes and times as an operator writes them in runagentd.toml: "64MiB", "7d".

Runs as: the foreman and runagentctl. Pure.
Reads from strangers: nothing; the file is the operator's.
What may be written where, and what is said of anything else, is each key's.
"""

from __future__ import annotations

import re

SIZE = re.compile(r"(0|[1-9][0-9]{0,5})(KiB|MiB|GiB)?")
_BYTES = {None: 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
DURATION = re.compile(r"([1-9][0-9]*)(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def size_of(text: str) -> int | None:
    """Bytes; None for what is no size."""
    match = SIZE.fullmatch(text)
    return int(match[1]) * _BYTES[match[2]] if match is not None else None


def size_between(text: str, least: str, most: str, *, such_as: str) -> int:
    """Bytes; ValueError in words for what is no size from `least` to `most`."""
    size = size_of(text)
    if size is None or not (size_of(least) or 0) <= size <= (size_of(most) or 0):
        raise ValueError(f'must be a size from {least} to {most} such as "{such_as}", not {text!r}')
    return size


def seconds_of(text: str, *, digits_max: int) -> int | None:
    """Seconds; None for what is no time, or has a longer number than that."""
    match = DURATION.fullmatch(text)
    return int(match[1]) * _SECONDS[match[2]] if match is not None and len(match[1]) <= digits_max else None
