"""What a run has to say: rows of ours beside a peer's, each with a ratio and what was aimed at. Pure.

Runs as: `make bench`, and whoever reads its results.
Reads from strangers: nothing; `benchmarks/results/latest.json` is our own.
A target is about the ratio where there is one, and about our own figure where there is none: `Row.judged` decides it,
and nobody else.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.figures import ratio

VERSION = 1
"""of the result's form; a reader refuses another one"""


class FormError(Exception):
    """A file that is no result of ours: what is wrong with it, and where."""


@dataclass(frozen=True, slots=True)
class Target:
    """At most, or at least, so much."""

    bound: float
    at_most: bool

    def met(self, value: float) -> bool:
        """The bound itself is met."""
        return value <= self.bound if self.at_most else value >= self.bound

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.bound:.12g}"


def target(text: str) -> Target:
    """A target from its text, "<= 1.0" or ">= 2.5"; ValueError where it is none."""
    sign, _, number = text.partition(" ")
    if sign not in ("<=", ">="):
        raise ValueError(f"{text!r} is no target; write '<= NUMBER' or '>= NUMBER'")
    return Target(float(number), sign == "<=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. What was not measured is None, and `note` says why."""

    part: str
    name: str
    unit: str
    ours: float | None = None
    peer: float | None = None
    peer_name: str | None = None
    ratio: float | None = None
    """ours to the peer's, of medians"""
    low: float | None = None
    high: float | None = None
    """they hold the middle half: of the ratios of neighbours in time, or of our own values where there is no peer"""
    target: str | None = None
    note: str = ""

    @property
    def judged(self) -> float | None:
        """The figure that the target is about."""
        return self.ours if self.peer_name is None else self.ratio

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none, or nothing was measured."""
        return None if self.target is None or self.judged is None else target(self.target).met(self.judged)


def beside(
    part: str, name: str, unit: str, ours: Sequence[float], theirs: Sequence[float], peer: str,
    *, target: str | None = None, note: str = "",
) -> Row:  # fmt: skip
    """Two series that were measured in turns."""
    found = ratio(ours, theirs)
    return Row(
        part=part, name=name, unit=unit, ours=statistics.median(ours), peer=statistics.median(theirs), peer_name=peer,
        ratio=found.of_medians, low=found.low, high=found.high, target=target, note=note,
    )  # fmt: skip


def alone(part: str, name: str, unit: str, ours: Sequence[float], *, target: str | None = None, note: str = "") -> Row:
    """A series with nothing beside it: the median, and the middle half of its values."""
    ordered = sorted(ours)
    quarter = (len(ordered) - 1) // 4
    return Row(
        part=part, name=name, unit=unit, ours=statistics.median(ordered), low=ordered[quarter],
        high=ordered[-1 - quarter], target=target, note=note,
    )  # fmt: skip


def without(
    part: str, name: str, unit: str, ours: Sequence[float], peer: str, why: str, *, target: str | None = None
) -> Row:
    """A peer that could not be measured, by name and with the reason: left out, it would look like won."""
    return Row(
        part=part, name=name, unit=unit, ours=statistics.median(ours) if ours else None, peer_name=peer,
        target=target, note=f"{peer}: {why}",
    )  # fmt: skip


def failed(part: str, why: str) -> Row:
    """A part of the run that could not be measured at all."""
    return Row(part=part, name=f"{part}: not measured", unit="", note=why)


Series = dict[str, list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one part of a run has given."""

    rows: Sequence[Row]
    series: Mapping[str, Sequence[float]]
    missing: Mapping[str, str] = field(default_factory=dict)
    """peers that could not be measured, and why"""
    details: Sequence[str] = ()
    """lines for a terminal that are no figures to compare"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRun:
    """How it was when a part was measured."""

    seconds: float
    load_before: float
    """the load average of the last minute"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run. `series` holds every value that was measured, by part and name."""

    machine: Mapping[str, Any]  # Any: what `machine.Machine` holds, for people
    commit: str
    peers: Sequence[Mapping[str, str]]
    """name, version, isolation and protections of whatever was measured, and why it was not where it was not"""
    parts: Mapping[str, PartRun]
    rows: Sequence[Row]
    series: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)


def as_json(result: Result) -> str:
    """A result as the text of a file; what follows from it (`met`) is in there too, for other readers."""
    found = {
        "version": VERSION,
        "machine": dict(result.machine),
        "commit": result.commit,
        "peers": [dict(peer) for peer in result.peers],
        "parts": {name: dataclasses.asdict(part) for name, part in result.parts.items()},
        "rows": [{**dataclasses.asdict(row), "met": row.met} for row in result.rows],
        "series": {part: {name: list(values) for name, values in all_.items()} for part, all_ in result.series.items()},
    }
    return json.dumps(found, indent=1, allow_nan=False) + "\n"


def from_json(text: str) -> Result:
    """The result in a file's text; `FormError` where it is another's, or another version's."""
    try:
        found = json.loads(text)
        if found["version"] != VERSION:
            raise FormError(f"version {found['version']!r} of results is not known; measure again")
        return Result(
            machine=found["machine"],
            commit=found["commit"],
            peers=found["peers"],
            parts={name: PartRun(**part) for name, part in found["parts"].items()},
            rows=[Row(**{key: value for key, value in row.items() if key != "met"}) for row in found["rows"]],
            series=found["series"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FormError(f"this is no result of 'make bench': {error!r}") from error
