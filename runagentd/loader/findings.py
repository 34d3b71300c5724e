"""Collect what is wrong with an agent's files, and what its author should know: all of it, not only the first.

Runs as: the loader, confined.
Reads from strangers: the values that messages quote; each is cut and made printable.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from runagentd.loader.tree import Number, Tree
from runagentd.wire.manifest import LoadProblem

_PROBLEMS_MAX = 50
_HINTS_MAX = 50
_TEXT_MAX = 400


@dataclass(slots=True)
class Findings:
    """Problems prevent a manifest; hints do not."""

    problems: list[LoadProblem] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    found: int = 0
    """how many problems there are; only the first `_PROBLEMS_MAX` are kept"""

    def problem(self, where: str, what: str, *hints: str) -> None:
        self.found += 1
        if len(self.problems) < _PROBLEMS_MAX:
            self.problems.append(
                LoadProblem(where=_cut(where), what=_cut(what), hints=tuple(_cut(hint) for hint in hints))
            )

    def hint(self, where: str, what: str) -> None:
        if len(self.hints) < _HINTS_MAX:
            self.hints.append(_cut(f"{where}: {what}"))


def shown(value: Tree) -> str:
    """A value as its author wrote it, in short."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case Number():
            return _cut(str(value), 80)
        case str():
            return f'"{_cut(value, 80)}"'
        case list():
            return "a list"
        case _:
            return "an object"


def key_path(*parts: str | int) -> str:
    """`agent_architecture.entrypoints[0].tag`."""
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{_cut(part, 80)}" if path else _cut(part, 80)
    return path


def similar(word: str, words: Iterable[str]) -> str | None:
    """The one of `words` that `word` was most probably meant to be."""
    found: Sequence[str] = difflib.get_close_matches(word[:100].lower(), list(words), n=1, cutoff=0.75)
    return found[0] if found else None


def _cut(text: str, length: int = _TEXT_MAX) -> str:
    """Printable, for it may end on a terminal, and at most `length` characters; half a surrogate pair has no UTF-8."""
    if len(text) > length:
        text = text[: length - 1] + "…"
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
