"""Rows in aligned columns, for people.

Runs as: whoever runs a command. Pure.
Reads from strangers: nothing; callers escape what others wrote.
"""

from __future__ import annotations

from collections.abc import Sequence


def show(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a line of headings and one for each row."""
    for line in lines(columns, rows):
        print(line)


def lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A line of headings and one for each row."""
    table = [columns, *rows]
    widths = [max(len(line[column]) for line in table) for column in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
