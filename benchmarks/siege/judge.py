"""What the siege has shown, judged: what a limit let through, whether memory was flat, and who was slower. Pure.

Runs as: `make siege`.
Reads from strangers: nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NS = 1_000_000_000
TOKENS_OFF = 1
"""How far a limit may be from what it says."""
GROWTH_BYTES = 1024 * 1024
"""Up to that, memory is flat: slow clients' connections hold what they have sent, a little more each second."""
SLOWER_AT_MOST = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A bucket of `burst`, into which `per_second` go."""

    per_second: int
    burst: int

    @property
    def interval(self) -> int:
        """Nanoseconds for one."""
        return NS // self.per_second


RULES: Mapping[str, Rule] = {
    "principal": Rule(per_second=50, burst=100),
    "tag": Rule(per_second=20, burst=40),
    "address": Rule(per_second=250, burst=500),
    "failed_login": Rule(per_second=5, burst=20),
}
"""The limits that floods go against; the last is the daemon's default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    """What one client has sent against one limit, by its own clock (nanoseconds), and how much of it got through."""

    sent: int
    passed: int
    first_sent: int
    first_answered: int
    last_answered: int
    refused_sent: int
    """when the last request that was refused was sent: then nothing was left in the bucket; 0 where none was"""
    passed_then: int
    """how many had got through before that was answered"""
    full: int
    """for how long, at most, the bucket was full again after the first request, and nothing more went into it"""


@dataclass(slots=True)
class Tally:
    """What is counted for a `Flood` while it goes on, over several connections."""

    rule: Rule
    sent: int = 0
    passed: int = 0
    first_sent: int = 0
    first_answered: int = 0
    last_answered: int = 0
    refused_sent: int = 0
    refused_answered: int = 0
    passed_then: int = 0
    full: int = 0
    full_at: int = 0
    """when the bucket is full again, if each request was looked at as late as it can have been"""

    def note(self, sent: int, answered: int, *, passed: bool) -> None:
        """One request and its answer, in the order of the answers."""
        if not self.sent:
            self.first_sent, self.first_answered, self.full_at = sent, answered, answered
        self.first_sent, self.first_answered = min(self.first_sent, sent), min(self.first_answered, answered)
        self.last_answered = max(self.last_answered, answered)
        self.sent += 1
        if passed:
            self.passed += 1
            # On another connection, and under way when the last one was refused: it may have been let through before.
            self.passed_then += sent < self.refused_answered
            self.full += max(0, answered - self.full_at)
            self.full_at = max(self.full_at, answered) + self.rule.interval
        elif sent > self.refused_sent:
            self.refused_sent, self.refused_answered, self.passed_then = sent, answered, self.passed

    def flood(self) -> Flood:
        return Flood(
            sent=self.sent, passed=self.passed, first_sent=self.first_sent, first_answered=self.first_answered,
            last_answered=self.last_answered, refused_sent=self.refused_sent, passed_then=self.passed_then,
            full=self.full,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """About one limit: what it let through, and what it may and must have."""

    limit: str
    passed: int
    most: int
    passed_then: int
    least: int
    """until the last refusal"""
    reached: bool
    """whether anything was refused; if not, `least` says nothing"""

    @property
    def exact(self) -> bool:
        return self.passed <= self.most and (not self.reached or self.passed_then >= self.least)


def judge(limit: str, flood: Flood, rule: Rule) -> Verdict:
    """A bucket that was full lets `burst` through, and what has gone into it since.

    The daemon's clock for the flood is not known: it has begun between the moments at which the first request was sent
    and the first answer came. Too much is what is over the longest time that there can have been; too little is what is
    under the shortest one up to the last refusal, since after that something may be left in the bucket. Of that time
    none counts in which the bucket was full again, because the flood had only begun and the client had no processor.
    """
    longest = flood.last_answered - flood.first_sent
    shortest = max(0, flood.refused_sent - flood.first_answered - flood.full)
    return Verdict(
        limit=limit,
        passed=flood.passed,
        most=rule.burst + longest // rule.interval + TOKENS_OFF,
        passed_then=flood.passed_then,
        least=rule.burst + shortest // rule.interval - TOKENS_OFF,
        reached=flood.refused_sent > 0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Of the gateway, sampled each second of the attack."""

    first: int
    last: int
    most: int
    growth: int
    """from the third quarter of the attack to the fourth; the half before them is warm-up"""

    @property
    def flat(self) -> bool:
        return self.growth <= GROWTH_BYTES


def memory(samples: Sequence[tuple[float, int]]) -> Memory:
    """`samples`: (seconds of attack, bytes), in order.

    Medians of quarters, since a body of a megabyte is there for a moment and gone: a line through all samples takes one
    that comes late for growth.
    """
    if len(samples) < 8:
        raise ValueError("two samples of memory for each quarter at least")
    sizes = [size for _, size in samples]
    half, rest = len(sizes) // 2, 3 * len(sizes) // 4
    return Memory(
        first=sizes[0],
        last=sizes[-1],
        most=max(sizes),
        growth=round(statistics.median(sizes[rest:]) - statistics.median(sizes[half:rest])),
    )


def schedule(connection: int, *, connections: int, per_second: int, seconds: float) -> list[float]:
    """When one of the connections is to send its calls, in seconds from the start.

    All together send evenly, whatever became of the calls before: a slow answer does not make the load smaller.
    """
    return [number / per_second for number in range(connection, round(per_second * seconds), connections)]
