"""The table in docs/causes.md is the one that `make causes` prints when all is well."""

from __future__ import annotations

from pathlib import Path

from tests.causes.__main__ import HEAD, row
from tests.causes.provoke import WAYS, expected

PAGE = Path(__file__).resolve().parents[2] / "docs" / "causes.md"


def test_the_page_has_every_way_and_what_is_said_of_it() -> None:
    table = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    assert table == [row(*HEAD), "|---|---|---|---|", *(row(way.name, *expected(way)) for way in WAYS)]
