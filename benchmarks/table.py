"""Rows as a table, for a terminal and for a document. Pure.

Runs as: `make bench` and `python -m benchmarks.publish`.
Reads from strangers: nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from benchmarks.rows import Result, Row

TITLES = {
    "cold": "Cold start",
    "warm": "Warm call, closed loop",
    "payloads": "Payloads",
    "open": "Open loop",
    "cached": "Kept answers",
    "refused": "Refusals",
    "streams": "Streams",
    "isolated": "A process for each call",
    "memory": "Instances",
    "burst": "A burst of first calls",
    "cancel": "Clients that go away",
    "kills": "kill -9",
}
_HEAD = ("what", "unit", "ours", "peer", "peer's", "ratio", "middle half", "target", "met")


def number(value: float | None) -> str:
    """Three figures that count, or all before the point; an en dash for what was not measured."""
    if value is None:
        return "–"
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 4
    return f"{value:.{digits}f}"


def cells(row: Row) -> tuple[str, ...]:
    """One row's texts, in the order of the head."""
    half = f"{number(row.low)} to {number(row.high)}" if row.low is not None else "–"
    met = {True: "met", False: "missed", None: "–"}[row.met]
    ratio = "–" if row.ratio is None else number(row.ratio)
    return (
        row.name, row.unit, number(row.ours), row.peer_name or "–", number(row.peer), ratio, half,
        (row.target or "–").replace("<=", "≤").replace(">=", "≥"), met,
    )  # fmt: skip


def by_part(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """In the order in which parts come first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.part, []).append(row)
    return found


def text_lines(rows: Sequence[Row]) -> Iterator[str]:
    """For a terminal: columns as wide as what is in them."""
    table = [_HEAD, *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(_HEAD))]
    for line in table:
        yield "  ".join(
            text.ljust(width) if column in (0, 1, 3) else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths))
        ).rstrip()
    yield from (f"  note: {note}" for note in _notes(rows))


def _notes(rows: Sequence[Row]) -> list[str]:
    """Each once."""
    return list(dict.fromkeys(row.note for row in rows if row.note))


def markdown(result: Result, figures: Sequence[tuple[str, str]]) -> Iterator[str]:
    """The document, line by line; `figures` are the title and the path of each picture."""
    facts = result.machine
    kind = "virtual" if facts["virtual"] else "bare metal"
    yield "# The table of performance"
    yield ""
    yield "Written by `python -m benchmarks.publish` from one run of `make bench`; do not edit it by hand."
    yield "What is measured and how, where the time goes and what was tried: [performance.md](performance.md)."
    yield ""
    yield (
        f"{facts['date']}, commit {result.commit}: {facts['cpu']}, {facts['processors']} processors ({kind}), "
        f"{facts['memory_bytes'] >> 20} MiB; {facts['kernel']}, {facts['distribution']}, {facts['python']}; "
        f"{', '.join(facts['programs'])}."
    )
    size = facts["size"]
    yield (
        f"{size['runs']} cold starts of each kind; {size['rounds']} round{'s' if size['rounds'] > 1 else ''} of "
        f"{size['seconds']} s of load by {facts['generator']} on everything, in turns."
    )
    if size["rounds"] < 5 or size["seconds"] < 2:
        yield "**This was a trial of whether every part runs: the figures say nothing.**"
    loads = [part.load_before for part in result.parts.values()]
    if loads:
        yield (
            f"The load average before each part was {min(loads):.1f} to {max(loads):.1f}, "
            "which the part before has itself caused where nobody else is at work."
        )
    yield ""
    yield "A ratio is ours to the peer's, of medians; the middle half holds the ratios of neighbours in time."
    yield "Where there is no peer, the middle half and the target are about our own figure."
    for part, rows in by_part(result.rows).items():
        yield ""
        yield f"## {TITLES.get(part, part)}"
        yield ""
        for title, path in figures:
            if path.endswith(f"/{part}.svg"):
                yield f"![{title}]({path})"
                yield ""
        yield from _table(_HEAD, [cells(row) for row in rows])
        notes = _notes(rows)
        if notes:
            yield ""
        yield from (f"- {_escaped(note)}" for note in notes)
    yield ""
    yield "## What is not equal"
    yield ""
    yield "Nothing but runagentd checks a token, limits a caller, keeps a record or calls into a sandbox;"
    yield "what was in force while it was measured, and what stands between the function and its host:"
    yield ""
    head = ("name", "version", "isolation", "what was on", "why it is missing")
    keys = ("name", "version", "isolation", "protections", "missing")
    yield from _table(head, [tuple(peer.get(key, "") or "–" for key in keys) for peer in result.peers])


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for line in lines:
        yield f"| {' | '.join(_escaped(text) for text in line)} |"


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
