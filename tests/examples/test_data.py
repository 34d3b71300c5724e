"""The data example computes what it says and complains by row and column.

Runs as: the test process.
Reads from strangers: nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.examples.load import example

TABLE = "shop,price,note\nNorth,10,\nSouth,30,late\nNorth,20,\n"


@pytest.fixture
def agent() -> Iterator[ModuleType]:
    with example("data", "tables") as module:
        yield module


def test_summary_knows_numbers_text_and_missing_cells(agent: ModuleType) -> None:
    """A column is a number, a text or empty, and numbers come with their statistics."""
    summary = dataclasses.asdict(agent.summarise(TABLE))
    assert summary["rows"] == 3
    assert summary["columns"]["price"] == {
        "kind": "number", "present": 3, "missing": 0, "distinct": 3,
        "mean": 20.0, "stdev": 10.0, "minimum": 10.0, "median": 20.0, "maximum": 30.0,
    }  # fmt: skip
    assert summary["columns"]["shop"]["kind"] == "text"
    assert summary["columns"]["note"]["missing"] == 2


def test_groups_come_largest_first(agent: ModuleType) -> None:
    """Each group has its number of rows and its value."""
    groups = agent.group(TABLE, by="shop", value="price", statistic="mean")
    assert [(one.key, one.rows, one.value) for one in groups] == [("South", 1, 30.0), ("North", 2, 15.0)]


def test_quantiles_interpolate(agent: ModuleType) -> None:
    """The quarter of 10, 20, 30 lies half-way between the first two."""
    assert agent.quantiles(TABLE, "price") == {"0.25": 15.0, "0.5": 20.0, "0.75": 25.0}


def test_semicolons_are_found_from_the_header(agent: ModuleType) -> None:
    """A table from a spreadsheet may use another delimiter."""
    assert agent.quantiles("a;b\n1;2,5\n", "a", [0.5]) == {"0.5": 1.0}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "table is empty: the first line must hold the column names"),
        ("a,a\n1,2\n", "line 1: column names must be present and different, not ['a', 'a']"),
        ("a,b\n1\n", "row 2 has 1 cells, the header has 2"),
        ("a,price\n", "table has a header but no rows"),
        ("a\n1\n", "there is no column 'price'; the columns are 'a'"),
        ("price\n1\nmany\n", "row 3, column 'price': 'many' is not a number"),
        ('price\n"1\n', "line 2: unexpected end of data"),
    ],
)
def test_complaints_say_where(agent: ModuleType, table: str, message: str) -> None:
    """The caller cannot see our table, so each complaint names the line, row or column."""
    with pytest.raises(ValueError) as caught:
        agent.quantiles(table, "price")
    assert str(caught.value) == message
