"""CSV text in, statistics out; and what results of pandas and numpy look like to a caller."""

import io
from collections.abc import Iterator
from typing import Any

import numpy
import pandas


def _table(csv: str) -> pandas.DataFrame:
    return pandas.read_csv(io.StringIO(csv))


def describe(csv: str) -> pandas.DataFrame:
    """count, mean, std and quantiles of each column of numbers: a data frame as it is."""
    return _table(csv).describe()


def totals(csv: str, by: str, value: str) -> pandas.Series:
    """The sums of one column, by another: a series as it is."""
    return _table(csv).groupby(by)[value].sum()


def gram(rows: list[list[float]]) -> numpy.ndarray:
    """A matrix times its transpose."""
    matrix = numpy.array(rows)
    return matrix @ matrix.T


def rows_stream(csv: str) -> Iterator[list[dict[str, Any]]]:
    """The table again, two rows at a time."""
    for part in pandas.read_csv(io.StringIO(csv), chunksize=2):
        yield part.to_dict("records")


def kinds() -> dict[str, Any]:
    """One of each kind that JSON does not have."""
    return {
        "int64": numpy.int64(7),
        "float32": numpy.float32(0.5),
        "bool": numpy.bool_(True),
        "nan": numpy.float64("nan"),
        "array of float32": numpy.array([[1.5, float("inf")]], numpy.float32),
        "text": numpy.str_("text"),
        "datetime64": numpy.datetime64("2026-11-28T10:00:00"),
        "timestamp": pandas.Timestamp("2026-11-28 10:00", tz="UTC"),
        "timedelta": pandas.Timedelta("90s"),
        "NaT": pandas.NaT,
        "NA": pandas.NA,
        "categories": pandas.Series(["b", "a"], dtype="category"),
        "index": pandas.Index([1, 2]),
        "interval": pandas.Interval(0, 1),
        "period": pandas.Period("2026-11"),
        "missing": pandas.DataFrame({"text": ["x", None], "whole": pandas.array([1, None], "Int64")}),
    }
