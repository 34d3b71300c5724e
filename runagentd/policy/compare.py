"""Whether one policy grants more than another, key by key and as a whole.

Runs as: the supervisor and runagentctl. Pure.
Reads from strangers: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from runagentd.policy.keys import KEYS, value_of
from runagentd.policy.model import Policy
from runagentd.policy.order import Comparison, all_together


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A key where two policies grant different things. `comparison` is the first's as against the second's."""

    key: str
    comparison: Comparison
    first: str
    second: str


def differences(first: Policy, second: Policy) -> tuple[Difference, ...]:
    """Each key where `first` grants something else than `second`, in the order of the table."""
    found = []
    for key in KEYS:
        a, b = value_of(first, key), value_of(second, key)
        comparison = key.kind.compare(a, b)
        if comparison is not Comparison.EQUAL:
            found.append(
                Difference(key=key.name, comparison=comparison, first=key.kind.text(a), second=key.kind.text(b))
            )
    return tuple(found)


def compare(first: Policy, second: Policy) -> Comparison:
    """Whether `first` as a whole grants more than `second`: wider somewhere and narrower nowhere."""
    return all_together(difference.comparison for difference in differences(first, second))
