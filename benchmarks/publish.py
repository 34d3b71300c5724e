"""`python -m benchmarks.publish`: docs/performance-table.md and docs/figures/*.svg from the last run.

Runs as: a maintainer, in a checkout.
Reads from strangers: nothing; the result is `make bench`'s own.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import chart, table
from benchmarks.rows import FormError, Result, from_json

ROOT = Path(__file__).resolve().parent.parent
LATEST = ROOT / "benchmarks" / "results" / "latest.json"
DOCS = ROOT / "docs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One picture: the series of one part that have this ending, which the names in it do without."""

    part: str
    title: str
    unit: str
    ending: str
    ours: str


FIGURES = (
    Figure(part="cold", title="cold start, p50", unit="ms", ending=", ms", ours="runagentd"),
    Figure(part="warm", title="warm call, 16 connections", unit="calls/s", ending=", 16, calls/s", ours="runagentd"),
    Figure(part="open", title="open loop, 1,000 calls/s, p99", unit="ms", ending=", 1000/s, p99 ms", ours="runagentd"),
    Figure(part="streams", title="streams", unit="chunks/s", ending=", chunks/s", ours="runagentd"),
)


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.publish", description="Write the table of the last run.")
    parser.add_argument("--from", type=Path, default=LATEST, dest="source", metavar="FILE", help="default: %(default)s")
    parser.add_argument("--docs", type=Path, default=DOCS, metavar="DIR", help="default: %(default)s")
    arguments = parser.parse_args()
    try:
        result = from_json(arguments.source.read_text(encoding="utf-8"))
    except (OSError, FormError) as error:
        print(f"benchmarks.publish: {arguments.source}: {error}", file=sys.stderr)
        print("hint: run 'make bench' first, or name a result with --from", file=sys.stderr)
        return 1
    for path, text in documents(result).items():
        target = arguments.docs / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        print(target)
    return 0


def documents(result: Result) -> dict[str, str]:
    """The text of each file, by its path below docs/."""
    figures = {
        f"figures/{figure.part}.svg": (figure.title, chart.bars(figure.title, figure.unit, bars))
        for figure in FIGURES
        if (bars := list(_bars(figure, result.series.get(figure.part, {}))))
    }
    links = [(title, path) for path, (title, _) in figures.items()]
    lines = "\n".join(table.markdown(result, links)) + "\n"
    return {"performance-table.md": lines, **{path: text for path, (_, text) in figures.items()}}


def _bars(figure: Figure, series: Mapping[str, Sequence[float]]) -> Iterator[chart.Bar]:
    for name, values in series.items():
        if name.endswith(figure.ending) and values:
            ordered = sorted(values)
            quarter = (len(ordered) - 1) // 4
            short = name.removesuffix(figure.ending)
            yield chart.Bar(
                name=short, value=statistics.median(ordered), low=ordered[quarter], high=ordered[-1 - quarter],
                ours=short.startswith(figure.ours),
            )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
