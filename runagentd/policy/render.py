"""An effective policy as rows of text, for `policy check` and `policy explain`.

Runs as: runagentctl. Pure.
Reads from strangers: nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from runagentd.policy.keys import KEYS, value_of
from runagentd.policy.model import Policy


class Row(NamedTuple):
    """One key of an effective policy."""

    key: str
    value: str
    """as a policy would have it written"""
    origin: str
    """the file that set it, or "default" """
    meaning: str


def rows(policy: Policy) -> list[Row]:
    """Every key, in the order of the table."""
    origins = dict(policy.origins)
    return [Row(key.name, key.kind.text(value_of(policy, key)), origins[key.name], key.meaning) for key in KEYS]


def wider_than_default(policy: Policy) -> list[str]:
    """The keys where this policy grants more than the strictest default, or something else than it."""
    return [key.name for key in KEYS if key.kind.compare(value_of(policy, key), key.default).widens]


def summary(policy: Policy) -> str:
    """Lines for a terminal: each key, its value, who set it, and a mark where it is wider than the default."""
    lines = rows(policy)
    marked = frozenset(wider_than_default(policy))
    key_width = max(len(row.key) for row in lines)
    value_width = min(40, max(len(row.value) for row in lines))
    return "\n".join(
        f"{'+' if row.key in marked else ' '} {row.key:<{key_width}}  {row.value:<{value_width}}  {row.origin}"
        for row in lines
    )
