"""`[runtimes]`: other versions of CPython that agents may ask for, beside the daemon's own.

Runs as: the foreman and runagentctl.
Reads from strangers: nothing; the file is the operator's. Nothing is run here: `foreman.settings_link` has the
interpreters looked at.

    [runtimes]
    "3.13" = "/opt/python3.13/bin/python3"
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runagentd import schema
from runagentd.config.table import Table
from runagentd.wire.runtime import VERSION

RUNTIMES_MAX = 8
EXAMPLE = '"3.13" = "/opt/python3.13/bin/python3"'

SCHEMA = schema.named(
    "Other versions of CPython that agents may ask for, beside the daemon's own.",
    schema.text("The interpreter of that version.", minLength=1, examples=["/opt/python3.13/bin/python3"]),
    propertyNames={"pattern": schema.whole(VERSION)},
    maxProperties=RUNTIMES_MAX,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedInterpreter:
    """The interpreter that is to be the CPython of this minor version. `where` is its key in the file."""

    version: str
    path: str
    where: str


def read(table: Table, folder: Path) -> tuple[NamedInterpreter, ...]:
    """Each of them; relative paths start at `folder`."""
    found = []
    for key in table.names():
        if not VERSION.fullmatch(key):
            hint = f"write the version in quotes, from 3.11 on: {EXAMPLE}"
            table.problem(key, f"{key!r:.40} is not a minor version of CPython that agents can run on", hint)
        elif path := table.converted(key, _path, ""):
            found.append(NamedInterpreter(version=key, path=str(folder / path), where=table.place(key)))
    if len(found) > RUNTIMES_MAX:
        table.problem(found[-1].version, f"is one of {len(found)}, and there may be {RUNTIMES_MAX} at most")
    return tuple(found)


def _path(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError(f"must be the path of an interpreter, as in {EXAMPLE}")
    return text
