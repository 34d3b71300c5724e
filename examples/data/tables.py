"""Statistics over CSV text: one pass to read, plain functions to compute.

Standard library only. Every complaint names the row or the column, because the caller cannot see our table.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Statistic = Literal["count", "sum", "mean", "median", "min", "max", "stdev"]

_STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {
    "count": len,
    "sum": math.fsum,
    "mean": statistics.fmean,
    "median": statistics.median,
    "min": min,
    "max": max,
    "stdev": lambda values: statistics.stdev(values) if len(values) > 1 else 0.0,
}


@dataclass(frozen=True)
class Column:
    """What one column holds. The numbers are None where it holds text."""

    kind: Literal["number", "text", "empty"]
    present: int
    missing: int
    distinct: int
    mean: float | None = None
    stdev: float | None = None
    minimum: float | None = None
    median: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Summary:
    """A table at a glance."""

    rows: int
    columns: dict[str, Column]


@dataclass(frozen=True)
class Group:
    """One group of rows and its number."""

    key: str
    rows: int
    value: float


def summarise(table: str) -> Summary:
    """Describe every column of a CSV table."""
    rows = _read(table)
    names = list(rows[0]) if rows else []
    return Summary(rows=len(rows), columns={name: _describe([row[name] for row in rows]) for name in names})


def group(table: str, by: str, value: str, statistic: Statistic = "mean") -> list[Group]:
    """Group the rows by one column and reduce another to a number per group, largest first."""
    rows = _read(table)
    _require(rows, by, value)
    groups: dict[str, list[float]] = {}
    for number, row in enumerate(rows, start=2):
        if row[value] != "":
            groups.setdefault(row[by], []).append(_number(row[value], value, number))
    reduce = _STATISTICS[statistic]
    found = [Group(key=key, rows=len(values), value=float(reduce(values))) for key, values in groups.items()]
    return sorted(found, key=lambda one: (-one.value, one.key))


def quantiles(table: str, column: str, points: Sequence[float] = (0.25, 0.5, 0.75)) -> dict[str, float]:
    """Quantiles of a column, interpolated linearly between the two nearest values."""
    rows = _read(table)
    _require(rows, column)
    values = sorted(_number(row[column], column, number) for number, row in enumerate(rows, start=2) if row[column])
    if not values:
        raise ValueError(f"column {column!r} has no values")
    for point in points:
        if not 0 <= point <= 1:
            raise ValueError(f"points: {point} is not between 0 and 1")
    return {f"{point:g}": _quantile(values, point) for point in points}


def _read(table: str) -> list[dict[str, str]]:
    """The rows, cells stripped; ValueError where the text is not a table."""
    lines = table.lstrip("\ufeff").strip()
    if not lines:
        raise ValueError("table is empty: the first line must hold the column names")
    header = lines.partition("\n")[0]
    delimiter = max(",;\t|", key=header.count)
    reader = csv.reader(io.StringIO(lines), delimiter=delimiter, strict=True)
    try:
        names, *records = [[cell.strip() for cell in record] for record in reader if record]
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error
    if "" in names or len(set(names)) != len(names):
        raise ValueError(f"line 1: column names must be present and different, not {names}")
    for number, record in enumerate(records, start=2):
        if len(record) != len(names):
            raise ValueError(f"row {number} has {len(record)} cells, the header has {len(names)}")
    return [dict(zip(names, record, strict=True)) for record in records]


def _require(rows: list[dict[str, str]], *columns: str) -> None:
    if not rows:
        raise ValueError("table has a header but no rows")
    for column in columns:
        if column not in rows[0]:
            raise ValueError(f"there is no column {column!r}; the columns are {', '.join(map(repr, rows[0]))}")


def _number(cell: str, column: str, row: int) -> float:
    number = _as_number(cell)
    if number is None:
        raise ValueError(f"row {row}, column {column!r}: {cell!r} is not a number")
    return number


def _as_number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _describe(cells: list[str]) -> Column:
    present = [cell for cell in cells if cell != ""]
    counts = {"present": len(present), "missing": len(cells) - len(present), "distinct": len(set(present))}
    if not present:
        return Column(kind="empty", **counts)
    numbers = [number for cell in present if (number := _as_number(cell)) is not None]
    if len(numbers) < len(present):
        return Column(kind="text", **counts)
    return Column(
        kind="number",
        **counts,
        mean=statistics.fmean(numbers),
        stdev=_STATISTICS["stdev"](numbers),
        minimum=min(numbers),
        median=statistics.median(numbers),
        maximum=max(numbers),
    )


def _quantile(ordered: Sequence[float], point: float) -> float:
    position = point * (len(ordered) - 1)
    below = math.floor(position)
    above = math.ceil(position)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
