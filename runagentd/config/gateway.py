"""`[gateway]`: in how many processes HTTP is read.

Runs as: the foreman and runagentctl. Pure.
Reads from strangers: nothing; the file is the operator's.

    [gateway]
    workers = 2
"""

from __future__ import annotations

from runagentd import schema
from runagentd.config.table import Table

WORKERS_MAX = 64

SCHEMA = schema.table(
    "The processes that clients talk to.",
    {
        "workers": schema.number(
            "How many processes read HTTP and speak TLS for the gateway; with 1 it does so itself.",
            1,
            WORKERS_MAX,
            default=1,
        )
    },
)


def read(table: Table) -> int:
    """How many."""
    workers = table.number("workers", 1, least=1, most=WORKERS_MAX)
    table.finish()
    return workers
