"""Which of two values of a key grants more: the order that lets a person, or a later rule, say "no wider than".

Runs as: the supervisor and runagentctl. Pure.
Reads from strangers: nothing.
Each comparison here is a preorder: reflexive, transitive, and swapping its operands swaps the answer.
"""

from __future__ import annotations

import enum


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

    @property
    def widens(self) -> bool:
        """Whether the first grants anything that the second does not. Sets that cannot be compared both do."""
        return self in (Comparison.WIDER, Comparison.INCOMPARABLE)


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
