"""The guard's limits and verdicts, and the stages of a profile."""

from __future__ import annotations

import pytest

from benchmarks import growth, guard, peers, profile
from benchmarks.growth import Point
from benchmarks.guard import LimitsError
from benchmarks.processes import ROOT
from benchmarks.profile import Line, Stages, Wrapping
from benchmarks.rows import Target

LIMITS = 'version = 1\n[ratio]\n"warm, 16 connections" = ">= 0.6"\n[instructions]\ngateway = "<= 260"\n'


def test_limits_are_read_from_their_file() -> None:
    """Each is a side and a number."""
    found = guard.read(LIMITS)
    assert found.ratio == {"warm, 16 connections": Target(0.6, False)}
    assert found.instructions == {"gateway": Target(260.0, True)}


def test_the_shipped_limits_can_be_read_and_name_every_ratio_that_is_measured() -> None:
    """A name that is left out would be measured and judged by nobody."""
    assert tuple(guard.read(guard.LIMITS.read_text()).ratio) == guard.NAMES["ratio"]


def test_what_was_counted_without_a_limit_is_told() -> None:
    """So that somebody can set one; and a machine that counts nothing says so."""
    limits = guard.read(LIMITS)
    assert list(guard.unlimited(limits, {"gateway": 190.04, "runner": 80.0}, "")) == [
        "note: 80.0 thousand instructions a call in the runner, for which guard.toml has no limit"
    ]
    assert list(guard.unlimited(limits, {}, "perf is not installed")) == ["note: perf is not installed"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version = 2\n", "guard.toml: version: must be 1"),
        ('version = 1\n[ratio]\nwarn = ">= 1"\n', "guard.toml: ratio.warn: is not measured"),
        (LIMITS.replace(">= 0.6", "0.6"), "guard.toml: ratio.warm, 16 connections: '0.6' is no target"),
        (LIMITS.replace('"<= 260"', "260"), "guard.toml: instructions.gateway: "),
        (f"other = 1\n{LIMITS}", "guard.toml: other: is not known"),
        ("version", "guard.toml: "),
    ],
)
def test_a_limit_that_would_hold_for_ever_is_refused(text: str, message: str) -> None:
    """A mistyped name or number says where it is."""
    with pytest.raises(LimitsError) as caught:
        guard.read(text)
    assert str(caught.value).startswith(message)


def test_the_exit_status_says_broken_before_unknown() -> None:
    """0 where all hold, 1 where one is broken, 2 where something could not be measured."""
    limits = guard.read(LIMITS)

    def judged(ratio: float, counted: dict[str, float]) -> tuple[int, list[str]]:
        found = list(guard.verdicts(limits, {"warm, 16 connections": ratio}, counted, "no counter here"))
        return guard.status(found), [str(verdict) for verdict in found]

    assert judged(0.6, {"gateway": 260.0})[0] == 0
    assert judged(0.59, {"gateway": 260.0})[0] == 1
    assert judged(0.59, {})[0] == 1
    status, lines = judged(0.7, {})
    assert status == 2
    assert lines[0].endswith("0.7   >= 0.6     holds")
    assert lines[1].endswith("not measured   <= 260     unknown: no counter here")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("123456789,,instructions:u,2000000,100.00,,\n", 123456789),
        ("<not supported>,,instructions:u,0,100.00,,\n", None),
        ("", None),
    ],
)
def test_instructions_are_counted_where_the_machine_can(said: str, expected: int | None) -> None:
    """perf-stat(1), -x: a machine without the counter says so in words."""
    assert guard.counted(said) == expected


class Clock:
    """Each reading is one more of what the test says."""

    def __init__(self, *readings: int) -> None:
        self._readings = list(readings)

    def __call__(self) -> int:
        return self._readings.pop(0)


def test_a_stage_does_not_count_what_is_within_it() -> None:
    """100 ns, of which 30 are another stage's, each with 4 for taking the time and 6 around it."""
    stages = Stages(Wrapping(4.0, 6.0), Clock(0, 20, 50, 100))
    stages.begin()
    stages.begin()
    stages.end("inner")
    stages.end("outer")
    assert stages.nanoseconds == {"inner": 26.0, "outer": 60.0}
    assert stages.calls == {"inner": 1, "outer": 1}


def test_what_no_stage_has_taken_is_the_rest() -> None:
    """Without what the wrapping has cost; only stages that were passed are shown."""
    stages = Stages(Wrapping(4.0, 6.0), Clock())
    stages.nanoseconds, stages.calls = {"admit": 2000.0, "decode": 6000.0}, {"admit": 2, "decode": 2}
    found = list(profile.lines(stages, Wrapping(4.0, 6.0), calls=2, total_ns=20_040.0))
    assert found == [
        Line(name="admit", microseconds=1.0, times=1.0),
        Line(name="decode", microseconds=3.0, times=1.0),
        Line(name="event loop, sockets, frames, tasks", microseconds=6.0, times=1.0),
        Line(name="all of the gateway", microseconds=10.0, times=1.0),
    ]


def test_system_calls_are_counted_with_and_without_errors() -> None:
    """What `strace -c` prints: a column is empty where nothing failed."""
    said = (
        "strace: Process 12 attached\n"
        "% time     seconds  usecs/call     calls    errors syscall\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        " 60.00    0.000600          12        50           write\n"
        " 40.00    0.000400           8        48        20 read\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        "100.00    0.001000           5        98        20 total\n"
    )
    assert profile.counts(said) == {"write": 50, "read": 48}


def test_growth_is_a_table_of_milliseconds_and_megabytes() -> None:
    """One line for each number of each thing."""
    point = Point(
        of="agents", number=1000, p50_ms=0.5, p99_ms=2.0, gateway=40 << 20, supervisor=20 << 20,
        instances=8000 << 20, up_seconds=90.0,
    )  # fmt: skip
    assert list(growth.markdown([point]))[2] == "| agents | 1,000 | 0.50 | 2.00 | 40.0 | 20.0 | 8,000 | 90.0 |"


def test_a_reason_is_one_line_without_the_folders_of_this_machine() -> None:
    """It goes into a table that others read."""
    said = f"Traceback\n  in {ROOT}/benchmarks/x.py\nERROR: no wheel in {ROOT}/y\n\n"
    assert peers.last_line(said) == "ERROR: no wheel in y"
    assert peers.last_line("") == ""
    assert len(peers.last_line("x" * 1000)) == 160
