"""The table for a terminal and for docs/, and its pictures."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import pytest

from benchmarks import chart, publish, rows, table
from benchmarks.chart import Bar
from benchmarks.rows import PartRun, Result

ROWS = [
    rows.beside("cold", "cold start", "ms", [4.0, 5.0], [10.0, 10.0], "bubblewrap, true", target="<= 0.5"),
    rows.without("cold", "cold start", "ms", [4.0, 5.0], "runc", "not | installed"),
    rows.alone("streams", "chunks", "chunks/s", [40_000.0], target=">= 50000"),
]
RESULT = Result(
    machine={
        "date": "2026-11-28 12:00 UTC", "cpu": "Some CPU", "processors": 2, "virtual": True, "memory_bytes": 8 << 30,
        "kernel": "Linux 6.18.0", "distribution": "Debian 12", "python": "CPython 3.11.2",
        "programs": ["bubblewrap 0.8.0"], "load": 0.1, "generator": "wrk",
        "size": {"runs": 60, "rounds": 5, "seconds": 2},
    },
    commit="abc1234",
    peers=[{"name": "runc", "version": "–", "isolation": "namespaces", "protections": "none", "missing": "no runc"}],
    parts={"cold": PartRun(seconds=1.0, load_before=0.1), "streams": PartRun(seconds=1.0, load_before=1.26)},
    rows=ROWS,
    series={"cold": {"runagentd, from a spare, ms": [4.0, 5.0], "bubblewrap, true, ms": [10.0, 10.0]}},
)  # fmt: skip


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"),
        (0.0, "0"),
        (12345.6, "12,346"),
        (123.4, "123"),
        (12.34, "12.3"),
        (1.234, "1.23"),
        (0.0957, "0.0957"),
    ],
)
def test_a_number_has_the_figures_that_count(value: float | None, expected: str) -> None:
    """What was not measured is a dash and never a zero."""
    assert table.number(value) == expected


def test_the_terminal_has_aligned_columns_and_each_note_once() -> None:
    """The reason for a gap stands below."""
    assert list(table.text_lines(ROWS)) == [
        "what        unit        ours  peer              peer's  ratio       middle half   target     met",
        "cold start  ms          4.50  bubblewrap, true    10.0   0.45      0.40 to 0.50    ≤ 0.5     met",
        "cold start  ms          4.50  runc                   –      –                 –        –       –",
        "chunks      chunks/s  40,000  –                      –      –  40,000 to 40,000  ≥ 50000  missed",
        "  note: runc: not | installed",
    ]


def test_the_document_has_a_table_for_each_part_and_one_for_what_is_not_equal() -> None:
    """A bar in a text cannot end a cell; the figure of a part stands above its table."""
    lines = list(table.markdown(RESULT, [("cold start, p50", "figures/cold.svg")]))
    assert "## Cold start" in lines
    assert lines[lines.index("## Cold start") + 2] == "![cold start, p50](figures/cold.svg)"
    assert "| cold start | ms | 4.50 | bubblewrap, true | 10.0 | 0.45 | 0.40 to 0.50 | ≤ 0.5 | met |" in lines
    assert "- runc: not \\| installed" in lines
    assert "| chunks | chunks/s | 40,000 | – | – | – | 40,000 to 40,000 | ≥ 50000 | missed |" in lines
    assert lines[-1] == "| runc | – | namespaces | none | no runc |"
    assert "2026-11-28 12:00 UTC, commit abc1234: Some CPU, 2 processors (virtual), 8192 MiB;" in "\n".join(lines)
    assert "60 cold starts of each kind; 5 rounds of 2 s of load by wrk on everything, in turns." in lines
    assert not [line for line in lines if "trial" in line]
    assert "The load average before each part was 0.1 to 1.3" in "\n".join(lines)


def test_a_run_that_was_too_short_says_so() -> None:
    """Its figures could be taken for others."""
    short = {**RESULT.machine, "size": {"runs": 2, "rounds": 1, "seconds": 1}}
    lines = list(table.markdown(dataclasses.replace(RESULT, machine=short), []))
    assert "**This was a trial of whether every part runs: the figures say nothing.**" in lines


def test_a_bar_is_as_long_as_its_value() -> None:
    """Half the value, half the length; the scale begins at nothing."""
    picture = chart.bars("t", "ms", [_bar("a", 10.0), _bar("b", 5.0)])
    [whole, half] = [
        float(each.attrib["width"])
        for each in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}rect")
        if "x" in each.attrib
    ]
    assert (whole, half) == (330.0, 165.0)


def test_a_name_cannot_leave_its_place_in_a_picture() -> None:
    """It is text, whatever is in it."""
    picture = chart.bars("t", "ms", [_bar('</text><script href="x">', 1.0)])
    assert "<script" not in picture
    assert [each.text for each in ElementTree.fromstring(picture).iter() if each.text and "script" in each.text] == [
        '</text><script href="x">'
    ]


def test_nothing_measured_is_a_picture_without_bars() -> None:
    """And no division by zero."""
    assert ElementTree.fromstring(chart.bars("t", "ms", [_bar("a", 0.0)])) is not None
    assert ElementTree.fromstring(chart.bars("t", "ms", [])) is not None


def test_publishing_writes_the_table_and_a_picture_for_each_series_that_is_there() -> None:
    """A part that was not measured has none, and no link to one."""
    found = publish.documents(RESULT)
    assert list(found) == ["performance-table.md", "figures/cold.svg"]
    assert "](figures/cold.svg)" in found["performance-table.md"]
    assert "streams.svg" not in found["performance-table.md"]
    assert ">runagentd, from a spare<" in found["figures/cold.svg"]
    assert found["performance-table.md"].endswith("|\n")


def _bar(name: str, value: float) -> Bar:
    return Bar(name=name, value=value, low=value, high=value, ours=True)
