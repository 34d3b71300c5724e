"""`make protections`: take each protection away in turn, and show the test that then fails.

Runs as: root.
Reads from strangers: what our own probes answer.
Exits 1 where a protection has no test that fails without it, or does not hold alone.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from tests.protections.table import PROTECTIONS, Protection
from tests.protections.trial import Outcome, Place, Refused, Trial, place, trial
from tests.protections.weakenings import WEAKENINGS
from tests.system.daemon import ROOT

_AT_ONCE = 3
SECURITY = ROOT / "SECURITY.md"
START, END = "<!-- protections -->", "<!-- /protections -->"
_HEADS = ("protection", "seen from outside", "test that then fails", "what was away in both runs")
_UNFIT = frozenset({"broken", "stuck", "ended"})
"""Words that say nothing of a protection: the attempt itself went wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A protection that was taken away: what saw it, and what then failed."""

    protection: Protection
    seen: str
    failure: str
    problem: str

    def cells(self) -> tuple[str, str, str, str]:
        """The four columns of the table."""
        test = f"{self.protection.test.name} ({self.failure})" if not self.problem else f"NONE: {self.problem}"
        return self.protection.name, self.seen, test, ", ".join(self.protection.beneath) or "-"


class Daemons:
    """One daemon for most runs, and one of its own for each run that weakens a whole daemon."""

    def __init__(self, where: Place, shared: Trial) -> None:
        self._where = where
        self._shared = shared
        self.bait = where.bait

    @contextmanager
    def fit_for(self, drops: frozenset[str]) -> Iterator[Trial]:
        whole = sorted(name for name in drops if WEAKENINGS[name].whole)
        if not whole:
            yield self._shared
            return
        with trial(self._where, whole) as own:
            yield own


def show(one: Protection, daemons: Daemons) -> Shown:
    """Take `one` away: with the look from outside, without it, and with everything beneath it away as well."""
    held = _observe(daemons, one, one.held_without)
    gone = _observe(daemons, one, one.gone_without)
    problem = ""
    if held is None and not one.refused_is_held:
        problem = "the sandbox does not start when only what lies beneath is away"
    elif held is not None and not held.held:
        problem = f"{one.test.name} finds a way where it must not: {held.word}: {held.detail}"
    elif gone is None:
        problem = "the sandbox does not start without it"
    elif gone.held or gone.word in _UNFIT:
        problem = f"{one.test.name} does not notice: {gone.word}: {gone.detail}"
    words = [one_.word if one_ is not None else "refused" for one_ in (held, gone)]
    return Shown(protection=one, seen=_seen(daemons, one), failure=" → ".join(words), problem=problem)


def _seen(daemons: Daemons, one: Protection) -> str:
    """Whether the launch itself, or the look from outside, notices that this one protection is away."""
    if one.is_the_look:
        return "-"
    drops = frozenset({one.weakening})
    try:
        with daemons.fit_for(drops) as run:
            if one.test.alone:
                one.test.check(run, drops, one.policy)
                return "no"
            with run.agent(drops, one.policy):
                return "no"
    except Refused as refused:
        return _in_short(str(refused).replace(str(daemons.bait), "the bait"))


def _in_short(refusal: str) -> str:
    """The first thing that was found, without what differs from run to run."""
    found = re.search(r"the look from outside found: ([^;]*)", refusal)
    if found:
        return "yes: " + re.sub(r" is '.*", "", found[1].strip())
    step = re.search(r"step \d+ ([a-z-]+):", refusal)
    return f"refused at the step {step[1]}" if step else f"refused: {refusal.removeprefix('the agent did not start: ')}"


def _observe(daemons: Daemons, one: Protection, drops: frozenset[str]) -> Outcome | None:
    try:
        with daemons.fit_for(drops) as run:
            return one.test.check(run, drops, one.policy)
    except Refused:
        return None


def run(rows: Sequence[Protection], *, at_once: int = _AT_ONCE, said: Callable[[Shown], None]) -> list[Shown]:
    """Every row, in order; `said` hears of each as soon as it is known."""
    with place() as where, trial(where) as shared, ThreadPoolExecutor(at_once) as pool:
        found = []
        for one in pool.map(partial(show, daemons=Daemons(where, shared)), rows):
            said(one)
            found.append(one)
        return found


def markdown(shown: Iterable[Shown]) -> str:
    """The table of SECURITY.md."""
    lines = ["| " + " | ".join(_HEADS) + " |", "|" + " --- |" * len(_HEADS)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in one.cells()) + " |" for one in shown]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the rows that are named, or all; 0 where each shows the test that fails without it."""
    parser = argparse.ArgumentParser(prog="python -m tests.protections", description=__doc__)
    parser.add_argument("names", nargs="*", help="rows to show, or the beginnings of their names (default: all)")
    parser.add_argument("--markdown", action="store_true", help="print the table of SECURITY.md instead")
    parser.add_argument("--write", action="store_true", help="put that table into SECURITY.md, if it is complete")
    parser.add_argument("--list", action="store_true", help="only list the rows")
    arguments = parser.parse_args()
    rows = [one for one in PROTECTIONS if not arguments.names or one.name.startswith(tuple(arguments.names))]
    rows = [one for one in rows if one.machine in ("", platform.machine())]
    if arguments.list:
        for one in rows:
            print(f"{one.name}: {one.test.name}")
        return 0
    if os.geteuid() != 0:
        print("make protections: needs root: it starts daemons that make sandboxes", file=sys.stderr)
        return 1
    began = time.monotonic()
    shown = run(rows, said=(lambda one: None) if arguments.markdown else _say)
    if arguments.markdown:
        print(markdown(shown), end="")
    missing = [one for one in shown if one.problem]
    summary = f"{len(shown)} protections, {len(missing)} without a test that fails, {time.monotonic() - began:.0f} s"
    print(summary, file=sys.stderr if arguments.markdown else sys.stdout)
    if missing or not shown:
        return 1
    if arguments.write and len(shown) == len(PROTECTIONS):
        SECURITY.write_text(with_table(SECURITY.read_text(), markdown(shown)))
    return 0


def with_table(text: str, table: str) -> str:
    """SECURITY.md with another table between the markers."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"SECURITY.md does not have {START} and {END}")
    return f"{before}{start}\n\n{table}\n{end}{after}"


def _say(one: Shown) -> None:
    name, seen, test, beneath = one.cells()
    print(f"{'FAIL' if one.problem else 'ok  '} {name}\n       seen from outside: {seen}\n       fails: {test}")
    if one.protection.beneath:
        print(f"       beneath: {beneath}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
