"""What `runagentctl top` makes of two looks at the counters."""

from __future__ import annotations

import dataclasses

from runagentd.cli import top_screen
from runagentd.cli.top_screen import Look, Row
from runagentd.wire.figures import AgentFigures, Count
from runagentd.wire.traffic import AgentTraffic, Times

SECOND = 1_000_000_000
ZERO = (0, 0, 0)


def figures(agent: str, *, cpu: int = 0) -> AgentFigures:
    return AgentFigures(
        agent=agent,
        states=(Count(name="ready", count=1), Count(name="frozen", count=1), Count(name="importing", count=1)),
        ends=(),
        memory=10 * 1024**2,
        tasks=3,
        cpu_microseconds=cpu,
        pressure=(),
        memory_max=1,
        tasks_max=1,
        cpu_max_thousandths=1000,
        instances_min=1,
        instances_max=4,
    )


def traffic(agent: str, calls: int, failed: int = 0, buckets: tuple[int, ...] = ZERO) -> AgentTraffic:
    times = Times(buckets=buckets, microseconds=calls * 1_000_000)
    return AgentTraffic(agent=agent, state="ready", open=1, waiting=2, bound=0, calls=calls, failed=failed, times=times)


def look(at: int, *agents: AgentTraffic, cpu: int = 0, since: int = 7) -> Look:
    """At so many nanoseconds."""
    return Look(
        figures={each.agent: figures(each.agent, cpu=cpu) for each in agents},
        names={each.agent: f"name of {each.agent}" for each in agents},
        figures_ns=at,
        spares=1,
        pressed=False,
        traffic={each.agent: each for each in agents},
        traffic_ns=at,
        since_ns=since,
        bounds_microseconds=(1000, 2000),
    )


def one(before: Look | None, now: Look) -> Row:
    [row] = top_screen.rows(before, now)
    return row


def test_rates_are_what_came_between_two_looks() -> None:
    """Calls, failures, processor time, and how long those calls took."""
    before = look(1 * SECOND, traffic("a", 100, 10, (100, 0, 0)), cpu=1_000_000)
    row = one(before, look(3 * SECOND, traffic("a", 140, 20, (100, 40, 0)), cpu=2_000_000))
    assert (row.calls, row.failed, row.cpu) == (20.0, 5.0, 0.5)
    assert (row.p50, row.p99) == (0.0015, 0.00199)
    assert (row.open, row.waiting, row.ready, row.coming, row.instances_max) == (1, 2, 2, 1, 4)


def test_counters_that_began_anew_give_no_rate() -> None:
    """Another gateway has counted them."""
    row = one(look(SECOND, traffic("a", 100)), look(2 * SECOND, traffic("a", 3), since=8))
    assert (row.calls, row.p50) == (None, None)


def test_a_counter_that_goes_down_is_no_negative_rate() -> None:
    """A gateway that lies may say so."""
    row = one(look(SECOND, traffic("a", 100, 50, (9, 9, 9))), look(2 * SECOND, traffic("a", 3, 1)))
    assert (row.calls, row.failed, row.p50) == (0.0, 0.0, None)


def test_the_busiest_come_first() -> None:
    """Then by name."""
    before = look(SECOND, traffic("a", 0), traffic("b", 0), traffic("c", 0))
    now = look(2 * SECOND, traffic("a", 1), traffic("b", 5), traffic("c", 1))
    assert [row.agent for row in top_screen.rows(before, now)] == ["b", "a", "c"]


def test_without_a_gateway_the_rest_is_shown() -> None:
    """And it is said."""
    now = dataclasses.replace(look(SECOND, traffic("a", 1)), traffic={}, traffic_ns=0, since_ns=0)
    lines = top_screen.screen(top_screen.rows(None, now), now, moment="12:00:00", width=None, height=None)
    assert lines[0] == "12:00:00  1 agent  2 instances  1 spare  NO GATEWAY ANSWERS"
    assert lines[3].split("  ")[0] == "name of a"
    assert "2+1/4" in lines[3]


def test_a_screen_fits_its_terminal() -> None:
    """What does not is counted."""
    now = look(SECOND, *(traffic(name, 1) for name in "abcdef"))
    lines = top_screen.screen(top_screen.rows(None, now), now, moment="12:00:00", width=20, height=6)
    assert len(lines) == 6
    assert max(map(len, lines)) == 20
    assert lines[-1] == "and 4 more"


def test_a_name_cannot_move_the_cursor() -> None:
    """Whatever a name is made of, it is one line of printable characters."""
    now = look(SECOND, traffic("a", 1))
    now = dataclasses.replace(now, names={"a": "x\x1b[2J\n" + "y" * 100})
    lines = top_screen.screen(top_screen.rows(None, now), now, moment="12:00:00", width=None, height=None)
    assert all(line.isprintable() for line in lines)
    assert lines[3].startswith("x\\x1b[2J\\ny")
