"""What changes from one policy to another, key by key, and where the other grants more.

Runs as: the supervisor and runagentctl. Pure.
Reads from strangers: nothing.
Fails closed: what neither contains nor is contained counts as a widening, and so does every key whose order cannot say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runagentd.policy.keys import KEYS, Key, value_of
from runagentd.policy.model import Policy
from runagentd.policy.order import Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A key where two policies differ. `a` and `b` are as a policy would have them written."""

    key: str
    a: str
    b: str
    relation: Comparison
    """of `b` as against `a`; EQUAL where they are other values that grant the same"""


def differences(a: Policy, b: Policy) -> tuple[Difference, ...]:
    """Each key that `b` has otherwise than `a`, in the order of the table."""
    return tuple(_difference(key, a, b) for key in KEYS if value_of(a, key) != value_of(b, key))


def widening(a: Policy, b: Policy) -> tuple[Difference, ...]:
    """Each key where `b` grants anything that `a` does not; where there is none, `b` can take the place of `a`."""
    return tuple(difference for difference in differences(a, b) if difference.relation.widens)


def _difference(key: Key[Any], a: Policy, b: Policy) -> Difference:  # Any: see `keys.KEYS`
    of_a, of_b = value_of(a, key), value_of(b, key)
    kind = key.kind
    return Difference(key=key.name, a=kind.text(of_a), b=kind.text(of_b), relation=kind.compare(of_b, of_a))
