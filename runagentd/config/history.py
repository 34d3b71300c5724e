"""`[history]`: how long calls are kept, and in how much of the disk.

Runs as: the foreman and runagentctl. Pure.
Reads from strangers: nothing; the file is the operator's.

    [history]
    keep = "7d"
    size = "64MiB"
"""

from __future__ import annotations

from runagentd import schema
from runagentd.config.table import Table
from runagentd.config.units import DURATION, SIZE, seconds_of, size_of
from runagentd.wire.settings import Settings

_LONGEST = 10 * 366 * 86400
LEAST_BYTES, MOST_BYTES = 1024**2, 4 * 1024**3

SCHEMA = schema.table(
    "The invocation history.",
    {
        "keep": schema.text(
            'How long calls are kept, up to ten years, as "7d" or "12h"; "0" keeps none.',
            pattern=f"{schema.whole(DURATION)}|^0$",
            default="7d",
        ),
        "size": schema.text(
            'How much of the disk they may take, from 1MiB to 4GiB; "0" keeps none.',
            pattern=schema.whole(SIZE),
            default="64MiB",
        ),
    },
)


def read(table: Table) -> tuple[int, int]:
    """In seconds and bytes; 0 keeps nothing."""
    seconds = table.converted("keep", _duration, Settings().history_seconds)
    size = table.converted("size", _size, Settings().history_bytes)
    table.finish()
    return seconds, size


def _duration(text: str) -> int:
    seconds = 0 if text == "0" else seconds_of(text, digits_max=6)
    if seconds is None or seconds > _LONGEST:
        raise ValueError(f'must be a time up to ten years such as "7d" or "12h", or "0", not {text!r}')
    return seconds


def _size(text: str) -> int:
    size = size_of(text)
    if size is None or not (size == 0 or LEAST_BYTES <= size <= MOST_BYTES):
        raise ValueError(f'must be a size from 1MiB to 4GiB such as "64MiB", or "0", not {text!r}')
    return size
