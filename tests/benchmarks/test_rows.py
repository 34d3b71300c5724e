"""Rows, targets, and the form of a result."""

from __future__ import annotations

import dataclasses
import json

import pytest

from benchmarks import rows
from benchmarks.rows import FormError, PartRun, Result, Row, Target

RESULT = Result(
    machine={"cpu": "Some CPU"},
    commit="abc1234",
    peers=[{"name": "bubblewrap, true", "version": "0.8.0", "missing": ""}],
    parts={"cold": PartRun(seconds=12.5, load_before=0.1)},
    rows=[
        rows.beside("cold", "cold start", "ms", [4.0, 5.0, 6.0], [5.0, 5.0, 6.0], "bubblewrap, true", target="<= 1"),
        rows.alone("streams", "chunks", "chunks/s", [40_000.0], target=">= 50000"),
    ],
    series={"cold": {"runagentd, ms": [4.0, 5.0, 6.0]}},
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("<= 0.5", Target(0.5, True)), (">= 50000", Target(50_000.0, False)), ("<= 0", Target(0, True))],
)
def test_a_target_is_a_side_and_a_number(text: str, expected: Target) -> None:
    """Its text can be read again, and says the same."""
    assert rows.target(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize("text", ["", "1.0", "< 1", "<=1", "== 1", "<= one"])
def test_what_is_no_target_is_refused(text: str) -> None:
    """A typing error in a limit must not hold for ever."""
    with pytest.raises(ValueError, match=r"target|float"):
        rows.target(text)


def test_the_bound_of_a_target_is_met() -> None:
    """On both sides."""
    assert [Target(1.0, True).met(value) for value in (0.9, 1.0, 1.1)] == [True, True, False]
    assert [Target(1.0, False).met(value) for value in (0.9, 1.0, 1.1)] == [False, True, True]


def test_a_target_is_about_the_ratio_where_there_is_a_peer() -> None:
    """4 of ours to 8 of theirs is a half, and not 4."""
    row = rows.beside("p", "n", "ms", [4.0], [8.0], "other", target="<= 0.5")
    assert (row.ratio, row.judged, row.met) == (0.5, 0.5, True)


def test_a_target_is_about_our_own_figure_where_there_is_no_peer() -> None:
    """The median of what was seen."""
    row = rows.alone("p", "n", "ms", [1.0, 2.0, 9.0], target="<= 1")
    assert (row.ours, row.ratio, row.judged, row.met) == (2.0, None, 2.0, False)


def test_the_middle_half_of_a_figure_alone_is_of_its_own_values() -> None:
    """As many are cut off above as below."""
    row = rows.alone("p", "n", "ms", [5.0, 1.0, 4.0, 2.0, 3.0])
    assert (row.ours, row.low, row.high) == (3.0, 2.0, 4.0)


def test_a_peer_that_is_missing_is_named_and_nothing_is_met() -> None:
    """Also where our own figure would meet the number."""
    row = rows.without("p", "n", "calls/s", [10.0], "other", "not installed: no wheel", target=">= 2.5")
    assert (row.ours, row.peer, row.peer_name, row.ratio, row.met) == (10.0, None, "other", None, None)
    assert row.note == "other: not installed: no wheel"


def test_a_part_that_failed_is_a_row_of_its_own() -> None:
    """With the reason, and nothing that looks measured."""
    assert rows.failed("kills", "no daemon") == Row(part="kills", name="kills: not measured", unit="", note="no daemon")


def test_a_result_can_be_read_again() -> None:
    """All of it."""
    assert rows.from_json(rows.as_json(RESULT)) == RESULT


def test_the_file_holds_for_each_row_what_others_read() -> None:
    """Name, unit, both figures, the ratio, the target, and whether it is met."""
    found = json.loads(rows.as_json(RESULT))
    wanted = ("name", "unit", "ours", "peer", "peer_name", "ratio", "target", "met")
    assert [[row[key] for key in wanted] for row in found["rows"]] == [
        ["cold start", "ms", 5.0, 5.0, "bubblewrap, true", 1.0, "<= 1", True],
        ["chunks", "chunks/s", 40_000.0, None, None, None, ">= 50000", False],
    ]
    assert found["machine"] == {"cpu": "Some CPU"}


def test_what_is_no_number_is_not_written() -> None:
    """NaN is no JSON (RFC 8259)."""
    broken = dataclasses.replace(RESULT, series={"cold": {"x": [float("nan")]}})
    with pytest.raises(ValueError, match="JSON compliant"):
        rows.as_json(broken)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 2}', '{"version": 1}', '{"version": 1, "rows": [{"x": 1}]}']
)
def test_another_file_is_refused(text: str) -> None:
    """Rather than half a table."""
    with pytest.raises(FormError):
        rows.from_json(text)
