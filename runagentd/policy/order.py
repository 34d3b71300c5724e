"""Which of two values of a key grants more: the order that lets a person, or a later rule, say "no wider than".

Runs as: the supervisor and runagentctl. Pure.
Reads from strangers: nothing.
Each comparison here is a preorder: reflexive, transitive, and swapping its operands swaps the answer.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable


class Comparison(enum.StrEnum):
    """How the first of two grants relates to the second."""

    EQUAL = "equal"
    NARROWER = "narrower"
    WIDER = "wider"
    INCOMPARABLE = "incomparable"

    def swapped(self) -> Comparison:
        """The answer with the operands exchanged."""
        match self:
            case Comparison.NARROWER:
                return Comparison.WIDER
            case Comparison.WIDER:
                return Comparison.NARROWER
            case _:
                return self


def by_amount(a: float, b: float) -> Comparison:
    """More is wider; for switches, true is wider than false."""
    if a == b:
        return Comparison.EQUAL
    return Comparison.WIDER if a > b else Comparison.NARROWER


def by_cover(*, a_covers_b: bool, b_covers_a: bool) -> Comparison:
    """The order of sets: wider is what contains the other and more."""
    if a_covers_b and b_covers_a:
        return Comparison.EQUAL
    if a_covers_b:
        return Comparison.WIDER
    return Comparison.NARROWER if b_covers_a else Comparison.INCOMPARABLE


def all_together(comparisons: Iterable[Comparison]) -> Comparison:
    """The product order: wider as a whole is wider somewhere and narrower nowhere."""
    seen = set(comparisons) - {Comparison.EQUAL}
    if not seen:
        return Comparison.EQUAL
    return seen.pop() if len(seen) == 1 else Comparison.INCOMPARABLE
