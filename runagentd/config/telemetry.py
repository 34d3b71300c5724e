"""`[telemetry]`: whether spans of calls are written down, in how much of the disk, and of which calls.

Runs as: the foreman and runagentctl. Pure.
Reads from strangers: nothing; the file is the operator's.

    [telemetry]
    spans = "file"
    size = "64MiB"
    share = 0.1
"""

from __future__ import annotations

from runagentd import schema
from runagentd.config.table import Table
from runagentd.config.units import SIZE as SIZE_FORM
from runagentd.config.units import size_between
from runagentd.wire.settings import Telemetry

SIZE = 64 * 1024**2

_SPANS = ("none", "file")

SCHEMA = schema.table(
    "Spans of calls, for an OpenTelemetry Collector.",
    {
        "spans": schema.text("Where spans are written.", enum=list(_SPANS), default="none"),
        "size": schema.text(
            "How much of the disk they may take, from 1MiB to 4GiB.", pattern=schema.whole(SIZE_FORM), default="64MiB"
        ),
        "share": {
            "description": "The share of the calls without a trace of their caller's that begin one that is recorded.",
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": 1.0,
        },
    },
)


def read(table: Table) -> Telemetry:
    """Nothing is written unless it is asked for."""
    wanted = table.converted("spans", _spans, False)
    size = table.converted("size", _size, SIZE)
    share = table.fraction("share", 1.0)
    table.finish()
    return Telemetry(spans_bytes=size if wanted else 0, share=share)


def _spans(text: str) -> bool:
    if text not in _SPANS:
        raise ValueError(f'must be "file" or "none", not {text!r}')
    return text == "file"


def _size(text: str) -> int:
    return size_between(text, "1MiB", "4GiB", such_as="64MiB")
