"""What a siege has shown, as a table for people and as JSON. Pure.

Runs as: `make siege`.
Reads from strangers: nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import Ratio, Target, quantile, ratio
from benchmarks.load import Load
from benchmarks.machine import Machine
from benchmarks.report import machine_lines
from benchmarks.siege.cage import Report
from benchmarks.siege.judge import RULES, SLOWER_AT_MOST, Memory, Verdict, judge, memory

OTHERS_MAX = 0.3
"""Processors. A turn in which others used more says how busy the machine was."""
_TARGET = Target(bound=SLOWER_AT_MOST, at_most=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calm:
    """What those saw who only wanted an answer."""

    microseconds: tuple[int, ...]
    errors: Mapping[str, int]

    def at(self, share: float) -> float:
        """In milliseconds."""
        return quantile(self.microseconds, share) / 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One attack on one server."""

    steady: Calm
    reports: tuple[Report, ...]
    memory: tuple[tuple[float, int], ...]
    busy: Mapping[str, float]
    """processors in use, by process"""
    others: float
    """and by whoever else is on this machine"""

    def verdicts(self) -> list[Verdict]:
        found = []
        for one in self.reports:
            for limit, flood in one.floods.items():
                found.append(judge(limit, flood, RULES[limit]))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrk:
    """A closed loop, alone and beside slow-loris."""

    name: str
    alone: Load
    beside: Load


@dataclass(frozen=True, slots=True, kw_only=True)
class Siege:
    """All of it."""

    calm: Calm
    calm_dummy: Calm
    ours: tuple[Turn, ...]
    dummy: tuple[Turn, ...]
    descriptors_before: int
    descriptors_after: int

    @property
    def verdicts(self) -> list[Verdict]:
        return [verdict for turn in self.ours for verdict in turn.verdicts()]

    @property
    def errors(self) -> dict[str, int]:
        """Of the steady load on the gateway, in quiet and under attack."""
        found: dict[str, int] = {}
        for calm in (self.calm, *(turn.steady for turn in self.ours)):
            for why, count in calm.errors.items():
                found[why] = found.get(why, 0) + count
        return found

    @property
    def descriptors_back(self) -> bool:
        return self.descriptors_after <= self.descriptors_before

    @property
    def limits_exact(self) -> bool:
        """A limit that no flood has reached has not been shown to be exact."""
        seen = {verdict.limit for verdict in self.verdicts}
        return seen == set(RULES) and all(verdict.exact and verdict.reached for verdict in self.verdicts)

    @property
    def correct(self) -> bool:
        return not self.errors and self.descriptors_back and self.limits_exact

    @property
    def memory(self) -> Memory:
        """Of the gateway, over its turns as if they followed each other."""
        samples: list[tuple[float, int]] = []
        for turn in self.ours:
            offset = samples[-1][0] + 1.0 if samples else 0.0
            samples += [(offset + at, size) for at, size in turn.memory]
        return memory(samples)


def lines(machine: Machine, siege: Siege, wrk: Sequence[Wrk]) -> Iterator[str]:
    yield from machine_lines(machine)
    yield f"load average {machine.load:.2f} before the start"
    yield ""
    calls = sum(len(turn.steady.microseconds) for turn in siege.ours)
    yield f"steady load, 200 calls/s over 8 connections, from when each was due; {calls} calls under attack"
    yield f"  {'':<34}{'p50':>10}{'p99':>10}{'max':>10}   errors"
    for name, calm in (("runagentd, in quiet", [siege.calm]), ("runagentd, under attack", _steadies(siege.ours))):
        yield _calm_row(name, calm)
    for name, calm in (("aiohttp, in quiet", [siege.calm_dummy]), ("aiohttp, under attack", _steadies(siege.dummy))):
        yield _calm_row(name, calm)
    pairs = undisturbed(siege)
    found = _p99_ratio(pairs or list(zip(siege.ours, siege.dummy)))
    verdict = f"{_TARGET} {'met' if _TARGET.met(found) else 'missed'}" if pairs else "others were at work all the time"
    yield (
        f"  p99 under attack × aiohttp's: {found.of_medians:.2f} ({found.low:.2f} to {found.high:.2f})   {verdict};"
        f" {len(pairs)} of {len(siege.ours)} pairs of turns undisturbed"
    )
    for name, turns in (("runagentd", siege.ours), ("aiohttp", siege.dummy)):
        p99 = (f"{turn.steady.at(0.99):.2f} ({turn.others:.2f})" for turn in turns)
        yield f"  p99 of each turn, ms (processors that others used), {name}: {', '.join(p99)}"
    for name, turns in (("runagentd", siege.ours), ("aiohttp", siege.dummy)):
        busy = (", ".join(f"{who} {share:.2f}" for who, share in turn.busy.items()) for turn in turns)
        yield f"  processors in use, {name}: {'; '.join(busy)}"
    yield ""
    yield f"limits, by the clock of who went against them{'let through':>14}{'':>6}until the last refusal"
    for turn, one in enumerate(siege.ours, 1):
        for verdict in one.verdicts():
            rule = f"{RULES[verdict.limit].per_second} a second, burst {RULES[verdict.limit].burst}"
            yield (
                f"  turn {turn}  {verdict.limit:<14}{rule:<24}{verdict.passed:>9}{f'≤ {verdict.most}':>9}"
                f"{verdict.passed_then:>18}{f'≥ {verdict.least}':>9}"
                f"   {'exact' if verdict.exact else 'WRONG'}{'' if verdict.reached else ', not reached'}"
            )
    grown = siege.memory
    yield ""
    yield (
        f"gateway's memory (PSS, MiB): first {_mib(grown.first)}, last {_mib(grown.last)}, most {_mib(grown.most)}; "
        f"{grown.growth / 1024:+.0f} KiB from the third quarter to the fourth: {'flat' if grown.flat else 'GROWS'}"
    )
    back = "back" if siege.descriptors_back else "LEFT OPEN"
    yield f"its descriptors: {siege.descriptors_before} before, {siege.descriptors_after} after: {back}"
    yield ""
    yield "what the hostile clients counted, first turn"
    for report in siege.ours[0].reports:
        yield f"  {report.kind:<22}{', '.join(f'{what} {n}' for what, n in sorted(report.counts.items()))}"
    if wrk:
        yield ""
        yield f"wrk, 4 connections in a closed loop{'calls/s':>12}{'p50':>10}{'p99':>10}"
        for row in wrk:
            for name, one in (("alone", row.alone), ("beside slow-loris", row.beside)):
                yield (
                    f"  {f'{row.name}, {name}':<34}{one.per_second:>11,.0f}"
                    f"{one.p50_seconds * 1e3:>7.2f} ms{one.p99_seconds * 1e3:>7.2f} ms"
                )


def as_json(machine: Machine, siege: Siege, wrk: Sequence[Wrk]) -> dict[str, Any]:
    """What was measured, without the single times."""
    grown = siege.memory
    return {
        "machine": dataclasses.asdict(machine),
        "correct": siege.correct,
        "errors": siege.errors,
        "p99_ratio": dataclasses.asdict(_p99_ratio(undisturbed(siege) or list(zip(siege.ours, siege.dummy)))),
        "pairs_undisturbed": len(undisturbed(siege)),
        "others": {"runagentd": [turn.others for turn in siege.ours], "aiohttp": [turn.others for turn in siege.dummy]},
        "steady": {
            name: [
                {"calls": len(calm.microseconds), "p50_ms": calm.at(0.5), "p99_ms": calm.at(0.99), "max_ms": calm.at(1)}
                for calm in calms
            ]
            for name, calms in (
                ("runagentd_quiet", [siege.calm]),
                ("runagentd_attacked", _steadies(siege.ours)),
                ("aiohttp_quiet", [siege.calm_dummy]),
                ("aiohttp_attacked", _steadies(siege.dummy)),
            )
        },
        "busy": {"runagentd": [dict(t.busy) for t in siege.ours], "aiohttp": [dict(t.busy) for t in siege.dummy]},
        "limits": [dataclasses.asdict(verdict) | {"exact": verdict.exact} for verdict in siege.verdicts],
        "memory": dataclasses.asdict(grown)
        | {"flat": grown.flat, "samples": [list(turn.memory) for turn in siege.ours]},
        "descriptors": {"before": siege.descriptors_before, "after": siege.descriptors_after},
        "attacks": [{report.kind: dict(report.counts) for report in turn.reports} for turn in siege.ours],
        "wrk": [dataclasses.asdict(row) for row in wrk],
    }


def _steadies(turns: Sequence[Turn]) -> list[Calm]:
    return [turn.steady for turn in turns]


def undisturbed(siege: Siege) -> list[tuple[Turn, Turn]]:
    """The pairs of neighbours in time, ours and the other's, in which nobody else used much of the machine."""
    return [pair for pair in zip(siege.ours, siege.dummy) if max(turn.others for turn in pair) <= OTHERS_MAX]


def _p99_ratio(pairs: Sequence[tuple[Turn, Turn]]) -> Ratio:
    return ratio([ours.steady.at(0.99) for ours, _ in pairs], [other.steady.at(0.99) for _, other in pairs])


def _calm_row(name: str, calms: Sequence[Calm]) -> str:
    whole = Calm(microseconds=tuple(one for calm in calms for one in calm.microseconds), errors={})
    errors = sum(count for calm in calms for count in calm.errors.values())
    return f"  {name:<34}{whole.at(0.5):>7.2f} ms{whole.at(0.99):>7.2f} ms{whole.at(1):>7.2f} ms{errors:>9}"


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:.1f}"
