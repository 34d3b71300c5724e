"""What agent files say beside what is deployed: as values, as lines for a person, as facts for a script.

Runs as: runagentctl. Pure.
Reads from strangers: names that an agent's author chose; control characters never reach the terminal.
"""

from __future__ import annotations

import dataclasses
import enum
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runagentd.config.agent_file import AgentFile
from runagentd.config.agent_files import Found
from runagentd.errors import Problem
from runagentd.log import escape
from runagentd.wire import admin
from runagentd.wire.manifest import LoadProblem


class State(enum.StrEnum):
    """What is to become of an agent."""

    NEW = "new"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    """its file cannot be used, or cannot be applied as it is"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One agent file. `file` is None where it cannot be read, `planned` where what it names cannot be deployed."""

    path: Path
    file: AgentFile | None = None
    planned: admin.Planned | None = None
    problems: tuple[Problem | LoadProblem, ...] = ()

    @property
    def state(self) -> State:
        planned = self.planned
        if planned is None or self.problems:
            return State.REFUSED
        if not planned.serving:
            return State.NEW
        return State.UNCHANGED if self.serves and not planned.aliases and self.managed else State.CHANGED

    @property
    def serves(self) -> bool:
        """Whether the version that serves is the one that the file asks for."""
        planned = self.planned
        return planned is not None and planned.served and planned.number == planned.serving != 0

    @property
    def managed(self) -> bool:
        """Whether it is this file that the daemon knows to manage the agent."""
        return self.planned is not None and self.planned.managed_by == str(self.path)

    @property
    def name(self) -> str:
        """For people."""
        if self.planned is not None:
            return self.planned.agent_name
        return (self.file.name if self.file is not None else "") or self.path.stem


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """All files, and the agents that files made which none of them names any more."""

    steps: tuple[Step, ...]
    gone: tuple[admin.ManagedRow, ...]

    @property
    def to_do(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.state in (State.NEW, State.CHANGED))

    @property
    def refused(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.state is State.REFUSED)


def compare(found: Found, steps: Sequence[Step], managed: Sequence[admin.ManagedRow]) -> Difference:
    """Put together what was found out of each file, and refuse what cannot be done though each by itself could."""
    broken = [Step(path=each.path, problems=each.problems) for each in found.broken]
    ordered = sorted((*steps, *broken), key=lambda step: step.path)
    files: dict[str, list[Path]] = {}
    for step in ordered:
        if step.planned is not None:
            files.setdefault(step.planned.agent, []).append(step.path)
    unknown = {str(step.path) for step in ordered if step.planned is None}
    gone = (row for row in managed if row.agent not in files and row.managed_by not in unknown)
    return Difference(
        steps=tuple(_checked(step, files) for step in ordered),
        gone=tuple(row for row in gone if found.covers(row.managed_by)),
    )


def _checked(step: Step, files: dict[str, list[Path]]) -> Step:
    planned, file = step.planned, step.file
    if planned is None or file is None:
        return step
    problems: list[Problem | LoadProblem] = [*step.problems]
    others = [str(path) for path in files[planned.agent] if path != step.path]
    if others:
        what = f"is the same agent as in {', '.join(others)}: {planned.agent!r}"
        problems.append(Problem(str(step.path), what, ("an agent has one file: remove one, or give it another name",)))
    wider = [key for key in planned.keys if key.relation in (admin.Relation.WIDER, admin.Relation.OTHER)]
    if wider and not file.allow_widening:
        than = f"than that of v{planned.serving}"
        problems += [
            Problem(f"{step.path}: policy", f"is wider {than}: {key.key} = {key.after}, was {key.before}")
            for key in wider
        ]
        problems.append(Problem("", "it is not applied", ("allow_widening = true in the file allows it",)))
    return dataclasses.replace(step, problems=tuple(problems))


# ---- for people


def lines(difference: Difference, *, prune: bool) -> Iterator[str]:
    """What would change, agent by agent."""
    for step in difference.steps:
        yield f"{step.state.value:<10} {escape(step.name)}"
        if step.state is not State.UNCHANGED:
            yield from (f"  {key:<8} {text}" for key, text in _rows(step))
        for problem in step.problems:
            yield from (f"  {escape(line)}" for line in str(_problem(problem)).splitlines())
    for row in difference.gone:
        yield f"{'gone':<10} {escape(row.agent_name)}"
        yield f"  {'file':<8} {escape(row.managed_by)}, no longer in the files"
        yield f"  {'removed' if prune else 'stays'}" + ("" if prune else "    --prune removes it")


def _rows(step: Step) -> Iterator[tuple[str, str]]:
    yield "file", escape(str(step.path))
    if step.file is not None:
        yield "folder", escape(str(step.file.folder))
    planned = step.planned
    if planned is not None:
        if not planned.serving:
            yield "policy", escape(planned.policy)
        else:
            yield "serves", _serves(step, planned)
        if planned.origin:
            yield "replaces", f"what was served from {escape(planned.origin)}"
        if planned.changes:
            yield "changed", ", ".join(map(escape, planned.changes))
        if planned.install:
            yield "packages", "have to be installed first"
        for key in planned.keys:
            yield "policy", f"{key.relation.value:<9} {escape(key.key)} = {escape(key.after)}, was {escape(key.before)}"
        for alias in planned.aliases:
            led = f", and led to v{alias.before}" if alias.before else ""
            yield "alias", f"{escape(alias.alias)} leads to it{led}"
        if not step.managed and planned.serving:
            yield "managed", f"by this file, and by {escape(planned.managed_by) or 'hand'} so far"
        yield from (("hint", escape(hint)) for hint in planned.hints)


def _problem(told: Problem | LoadProblem) -> Problem:
    return Problem(told.where, told.what, told.hints)


def _serves(step: Step, planned: admin.Planned) -> str:
    if step.serves:
        return f"v{planned.serving} already"
    again = f"v{planned.number}, which is kept" if planned.number else "another version"
    if planned.served:
        return f"{again}, in the place of v{planned.serving}"
    return f"{again if planned.number != planned.serving else f'v{planned.serving}'}, and nothing at the moment"


def summary(difference: Difference) -> str:
    """One line: how many of each."""
    counts = Counter(step.state for step in difference.steps)
    parts = [f"{counts[state]} {state.value}" for state in State if counts[state]]
    if difference.gone:
        parts.append(f"{len(difference.gone)} no longer in the files")
    return ", ".join(parts) or "no agent files"


# ---- for scripts


def facts(step: Step) -> dict[str, object]:
    """What `--json` has of one file."""
    planned = step.planned
    told: dict[str, object] = {
        "file": str(step.path),
        "folder": str(step.file.folder) if step.file is not None else None,
        "state": step.state.value,
        "problems": [{"where": p.where, "what": p.what, "hints": list(p.hints)} for p in step.problems],
    }
    if planned is not None:
        told |= {
            "id": planned.agent,
            "name": planned.agent_name,
            "serving": planned.serving or None,
            "served": planned.served,
            "number": planned.number or None,
            "changed": list(planned.changes),
            "packages": planned.install,
            "policy": planned.policy,
            "keys": [dataclasses.asdict(key) for key in planned.keys],
            "aliases": [dataclasses.asdict(alias) for alias in planned.aliases],
            "managed_by": planned.managed_by or None,
            "replaces": planned.origin or None,
            "hints": list(planned.hints),
        }
    return told


def gone_facts(row: admin.ManagedRow, *, removed: bool) -> dict[str, object]:
    """What `--json` has of an agent that no file names any more."""
    return {"id": row.agent, "name": row.agent_name, "file": row.managed_by, "removed": removed}
