"""pandas and numpy: CSV text in, statistics out, and what their values become."""

from __future__ import annotations

import pytest

from tests.frameworks.served import chunks
from tests.system.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(300)]

AGENT, POLICY = "pandas", "base"


PRICES = "city,price\nOslo,4.5\nParis,2\nRome,1.5\nParis,4\n"


def test_a_data_frame_is_an_object_of_columns(served: Daemon) -> None:
    status, columns = served.call(AGENT, "describe", {"csv": PRICES})
    assert (status, columns) == (
        200,
        {
            "price": {
                "count": 4.0, "mean": 3.0, "std": 1.4719601443879744, "min": 1.5, "25%": 1.875, "50%": 3.0,
                "75%": 4.125, "max": 4.5,
            }
        },
    )  # fmt: skip


def test_a_series_is_an_object_by_its_index(served: Daemon) -> None:
    asked = {"csv": PRICES, "by": "city", "value": "price"}
    assert served.call(AGENT, "totals", asked) == (200, {"Oslo": 4.5, "Paris": 6.0, "Rome": 1.5})


def test_an_array_is_an_array(served: Daemon) -> None:
    assert served.call(AGENT, "gram", {"rows": [[1, 2], [3, 4]]}) == (200, [[5.0, 11.0], [11.0, 25.0]])


def test_rows_stream(served: Daemon) -> None:
    assert chunks(served, AGENT, "rows_stream", {"csv": PRICES}) == [
        [{"city": "Oslo", "price": 4.5}, {"city": "Paris", "price": 2.0}],
        [{"city": "Rome", "price": 1.5}, {"city": "Paris", "price": 4.0}],
    ]


def test_each_kind_of_value_has_a_form(served: Daemon) -> None:
    """docs/values.md says which; what is missing is null, whatever it is called."""
    assert served.call(AGENT, "kinds") == (
        200,
        {
            "int64": 7,
            "float32": 0.5,
            "bool": True,
            "nan": None,
            "array of float32": [[1.5, None]],
            "text": "text",
            "datetime64": "2026-11-28T10:00:00",
            "timestamp": "2026-11-28T10:00:00+00:00",
            "timedelta": 90.0,
            "NaT": None,
            "NA": None,
            "categories": {"0": "b", "1": "a"},
            "index": [1, 2],
            "interval": "(0, 1]",
            "period": "2026-11",
            "missing": {"text": {"0": "x", "1": None}, "whole": {"0": 1, "1": None}},
        },
    )
