"""`runagentctl signing-key list|rotate`.

Runs as: root.
Reads from strangers: nothing.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence

from runagentd import log, signing
from runagentd.cli import spread, table
from runagentd.state import StateDirectory
from runagentd.trust import SigningKeyRow, TrustStore

_COLUMNS = ("ID", "STATE", "MADE", "ACTIVE SINCE", "BELIEVED UNTIL")


def list_keys(directory: StateDirectory, *, as_json: bool) -> int:
    """Print every key that tokens may be signed with."""
    signing.create_or_open(str(directory.keys))
    with TrustStore(directory.keys) as store:
        rows = store.signing_keys()
    if as_json:
        print(json.dumps(_facts(rows), indent=2))
    else:
        _show(rows)
    return 0


def rotate(directory: StateDirectory, *, force: bool, drop: bool, as_json: bool) -> int:
    """Sign with the next key from now on; the exit status."""
    rows = signing.rotate(str(directory.keys), now=int(time.time()), force=force, drop=drop)
    if not as_json:
        _show(rows)
    done = "rotated" + (": tokens of the key before are believed no more" if drop else "")
    return spread.report(directory, done, {"keys": _facts(rows)}, as_json=as_json)


def _facts(rows: Sequence[SigningKeyRow]) -> list[dict[str, object]]:
    return [{**dataclasses.asdict(row), "public": row.public.hex()} for row in rows]


def _show(rows: Sequence[SigningKeyRow]) -> None:
    table.show(
        _COLUMNS,
        [(row.id, row.state, _moment(row.made), _moment(row.activated), _moment(row.until)) for row in rows],
    )


def _moment(seconds: int) -> str:
    return log.utc(seconds)[:16].replace("T", " ") if seconds else "-"
