"""`[cache]`: how much memory the response cache may take. What is kept, and for whom, an entrypoint's author says.

Runs as: the foreman and runagentctl. Pure.
Reads from strangers: nothing; the file is the operator's.

    [cache]
    size = "64MiB"
"""

from __future__ import annotations

from runagentd import schema
from runagentd.config.table import Table
from runagentd.config.units import SIZE, size_of
from runagentd.wire.settings import Settings

_MOST = 64 * 1024**3

SCHEMA = schema.table(
    "The response cache.",
    {
        "size": schema.text(
            'How much memory kept answers may take, up to 64GiB; "0" keeps none.',
            pattern=schema.whole(SIZE),
            default="64MiB",
        )
    },
)


def read(table: Table) -> int:
    """In bytes; 0 keeps nothing."""
    size = table.converted("size", _size, Settings().cache_bytes)
    table.finish()
    return size


def _size(text: str) -> int:
    size = size_of(text)
    if size is None or size > _MOST:
        raise ValueError(f'must be a size up to 64GiB such as "64MiB", or "0", not {text!r}')
    return size
