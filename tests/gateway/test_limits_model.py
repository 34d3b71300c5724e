"""All limits of a call together, against an exact model: rational buckets, places and days, asked in any order."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runagentd.errors import Refusal
from runagentd.gateway.guard import limits
from runagentd.gateway.guard.gcra import SECOND, Rate
from runagentd.gateway.guard.grants import Grants
from runagentd.gateway.guard.identity import Principal
from runagentd.gateway.guard.limits import Hold, Limits
from runagentd.gateway.guard.quota import DAY_SECONDS, Quotas
from runagentd.log import Log
from runagentd.wire.settings import Limit
from runagentd.wire.settings import Limits as Settings
from tests.gateway.test_gcra import Model

PRINCIPALS, TENANTS, AGENTS, TAGS = ("ann", "bob", "cid"), (None, "acme"), ("a1", "a2"), ("say", "pay")
_EXAMPLES = itertools.count(1)


class Clock:
    """Both clocks that limits read; moved by hand. Each example begins on a day of its own."""

    def __init__(self) -> None:
        self.now = 0
        self.day = next(_EXAMPLES) * 100

    def monotonic_ns(self) -> int:
        return self.now

    def time(self) -> float:
        return self.day * DAY_SECONDS + self.now / SECOND


def rules(kind: str, name: str = "") -> st.SearchStrategy[Limit]:
    return st.builds(
        Limit,
        kind=st.just(kind),
        name=st.just(name),
        count=st.sampled_from([0, 1, 2, 7]),
        seconds=st.sampled_from([1, 60]),
        burst=st.integers(1, 4),
        concurrency=st.integers(0, 3),
        daily=st.sampled_from([0, 0, 1, 5, 60]),
    )


RULES = st.tuples(
    *(
        st.none() | rules(kind, name)
        for kind, name in (
            ("principal", ""), ("principal", "bob"), ("tenant", ""), ("agent", ""), ("agent", "second"), ("tag", ""),
            ("tag", "a1/pay"),
        )
    )
)  # fmt: skip


@dataclass(frozen=True)
class Ask:
    """A call, so long after what came before; its end is one of the later `End`s."""

    pause: int
    principal: str
    tenant: str | None
    agent: str
    tag: str


@dataclass(frozen=True)
class End:
    """One of the calls that run, whichever, has stopped."""

    which: int


STEPS = st.lists(
    st.builds(
        Ask,
        st.sampled_from([0, 1, SECOND // 7, SECOND - 1, SECOND, 20 * SECOND, 40_000 * SECOND]),
        *map(st.sampled_from, (PRINCIPALS, TENANTS, AGENTS, TAGS)),
    )
    | st.builds(End, st.integers(0, 5)),
    max_size=60,
)


@dataclass
class Exact:
    """The model: what one rule has left for one key."""

    rule: Limit
    bucket: Model | None
    places: int = 0
    days: dict[int, int] = field(default_factory=dict)

    def may(self, now: int, day: int) -> bool:
        if self.bucket is not None:
            self.bucket.refill(now)
            if self.bucket.tokens < 1:
                return False
        if self.rule.concurrency and self.places >= self.rule.concurrency:
            return False
        return not self.rule.daily or self.days.get(day, 0) < self.rule.daily

    def charge(self, day: int) -> None:
        if self.bucket is not None:
            self.bucket.tokens -= 1
        self.places += 1
        self.days[day] = self.days.get(day, 0) + 1


class World:
    """The model of all limits."""

    def __init__(self, found: list[Limit]) -> None:
        self._rules = {(rule.kind, rule.name): rule for rule in found}
        self._exact: dict[tuple[str, str], Exact] = {}

    def stages(self, ask: Ask) -> tuple[list[Exact], list[Exact]]:
        """Whom a call is charged to before its body is read, and after."""
        agent_name = {"a1": "first", "a2": "second"}[ask.agent]
        first = [self._of("principal", ask.principal, ask.principal), self._of("agent", ask.agent, agent_name)]
        if ask.tenant is not None:
            first.append(self._of("tenant", ask.tenant, ask.tenant))
        path = f"{ask.agent}/{ask.tag}"
        return [each for each in first if each], [each for each in [self._of("tag", path, path)] if each]

    def _of(self, kind: str, key: str, name: str) -> Exact | None:
        rule = self._rules.get((kind, name)) or self._rules.get((kind, ""))
        if rule is None:
            return None
        rate = Rate(rule.count, rule.seconds, rule.burst) if rule.count else None
        return self._exact.setdefault((kind, key), Exact(rule, None if rate is None else Model(rate)))


@pytest.fixture(scope="module")
def quotas() -> Iterator[Quotas]:
    with tempfile.TemporaryDirectory() as folder:
        made = Quotas(Path(folder), Log(None, source="x"))
        yield made
        made.close()


def ask_limits(found: Limits, ask: Ask) -> Hold | None:
    """As the pipeline does, in its two stages; None where one refuses."""
    principal = Principal(
        subject=ask.principal, client=ask.principal, token_id="t", issuer="i", issued=0, expires=0,
        digest=f"digest of {ask.principal}", grants=Grants(), tenant=ask.tenant,
    )  # fmt: skip
    name = {"a1": "first", "a2": "second"}[ask.agent]
    try:
        hold = found.calls(principal, ask.agent, name, {}, "native")
        return found.tag(ask.agent, name, ask.tag, hold, {}, "native") or Hold({})
    except Refusal:
        return None


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(rules=RULES, steps=STEPS)
def test_a_call_gets_through_exactly_where_the_model_lets_it(
    quotas: Quotas, rules: tuple[Limit | None, ...], steps: list[Ask | End]
) -> None:
    """Rates, places and days of principal, tenant, agent and tag at once, with exceptions by name.

    Before its body is read a call is charged for all that limits it, or for nothing. An entrypoint is charged after
    that: a call that it refuses gives its places back, and has cost its caller and its agent.
    """
    wanted, clock = [rule for rule in rules if rule is not None], Clock()
    world, running = World(wanted), list[tuple[Hold, list[Exact]]]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "time", clock)
        found = Limits(Settings(limits=tuple(wanted)), quotas)
        for step in steps:
            if isinstance(step, End):
                if running:
                    hold, charged = running.pop(step.which % len(running))
                    hold.release()
                    for exact in charged:
                        exact.places -= 1
                continue
            clock.now += step.pause
            day = int(clock.time()) // DAY_SECONDS
            first, second = world.stages(step)
            may_begin = all(exact.may(clock.now, day) for exact in first)
            if may_begin:
                for exact in first:
                    exact.charge(day)
            may_go_on = may_begin and all(exact.may(clock.now, day) for exact in second)
            if may_go_on:
                for exact in second:
                    exact.charge(day)
            elif may_begin:
                for exact in first:
                    exact.places -= 1
            hold_or_none = ask_limits(found, step)
            assert (hold_or_none is not None) is may_go_on
            if hold_or_none is not None:
                running.append((hold_or_none, first + second))
        for hold, _ in running:
            hold.release()
        assert found._places == {}
