"""One policy file's text to its settings, each checked by itself; nothing is known here of other files.

Runs as: the supervisor and runagentctl. Pure.
Reads from strangers: nothing; an operator's TOML, of any bytes.
Never raises: what is wrong is in `problems`, and the rest of the file is read on.
"""

from __future__ import annotations

import enum
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from runagentd.errors import Problem
from runagentd.policy.keys import BY_NAME, NOT_BUILT_KEYS, NOT_BUILT_TABLES, TABLES, Key
from runagentd.policy.kinds import ListKind
from runagentd.policy.unfit import Unfit, did_you_mean, key_text, quoted

VERSION = 1
INCLUDES_MAX = 16
DOTS_MAX = 200
"""Dots in one line: tomllib takes time by the square of a dotted key's parts (24 s for 64 KiB of "a.", 2026-11)."""

_INCLUDED_TABLES = ("network", "secrets")
_LIST_HINT = "write [...] to replace what there is, or { add = [...] } to add to it"
_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class Role(enum.Enum):
    """What a file is for."""

    POLICY = "policy"
    INCLUDED = "included"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a file says of one key. `add` is the form `{ add = [...] }`."""

    value: Any
    """as the key's kind reads it"""
    add: bool


@dataclass(slots=True, kw_only=True)
class Document:
    """What one file says. Filled by `parse`, and not changed after."""

    label: str
    extends: str | None = None
    include: tuple[str, ...] = ()
    settings: dict[str, Setting] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, key: str, what: str, *hints: str) -> None:
        self.problems.append(Problem(f"{self.label}: {key}" if key else self.label, what, hints))


def parse(label: str, data: bytes, role: Role) -> Document:
    """The settings and problems of one file; `label` is what its messages call it."""
    document = Document(label=label)
    content = _toml(document, data)
    if content is None:
        return document
    _check_version(document, content)
    for key, value in content.items():
        if key == "version":
            continue
        if role is Role.INCLUDED and key not in _INCLUDED_TABLES:
            document.problem(
                key_text(key),
                "an included file may hold [network] and [secrets] only",
                "move it into the policy, or into one that the policy extends",
            )
        elif key == "extends":
            _read_extends(document, value)
        elif key == "include":
            _read_include(document, value)
        elif key in TABLES or key in NOT_BUILT_TABLES:
            _read_table(document, key, value)
        else:
            document.problem(key_text(key), "no such key", *_nearest(key))
    return document


def _toml(document: Document, data: bytes) -> dict[str, Any] | None:
    for number, row in enumerate(data.split(b"\n"), start=1):
        if row.count(b".") > DOTS_MAX:
            document.problem(f"line {number}", f"more than {DOTS_MAX} dots", "break the list into lines")
            return None
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        document.problem(f"line {line}", "not UTF-8 text")
    except tomllib.TOMLDecodeError as error:
        found = _POSITION.search(str(error))
        reason = _POSITION.sub("", str(error))
        where = f"line {found[1]}" if found and found[1] else "the last line"
        # The words are tomllib's: nobody else knows what it expected there.
        document.problem(where, f"not TOML: {reason[:1].lower()}{reason[1:]}")
    except (ValueError, RecursionError):
        # tomllib lets int()'s own refusal of more than 4300 digits through, and recurses into nested arrays.
        document.problem("", "TOML beyond what anybody writes: thousands of digits or of nested brackets")
    return None


def _check_version(document: Document, content: dict[str, Any]) -> None:
    hint = f"write version = {VERSION} at the top of the file"
    if "version" not in content:
        document.problem("version", "missing", hint)
    elif type(content["version"]) is not int or content["version"] != VERSION:
        document.problem("version", f"{quoted(content['version'])} is not a version that this runagentd reads", hint)


def _read_extends(document: Document, value: object) -> None:
    if isinstance(value, str):
        document.extends = value
    else:
        hint = 'write one name or path, for example extends = "base"'
        document.problem("extends", f"{quoted(value)} is not the name of a policy", hint)


def _read_include(document: Document, value: object) -> None:
    if not isinstance(value, list):
        document.problem("include", f"{quoted(value)} is not a list", 'write include = ["hosts.toml"]')
        return
    if len(value) > INCLUDES_MAX:
        document.problem("include", f"{len(value)} files are more than {INCLUDES_MAX}, the most here")
        return
    for number, entry in enumerate(value):
        if not isinstance(entry, str):
            document.problem(f"include[{number}]", f"{quoted(entry)} is not the path of a file")
    document.include = tuple(entry for entry in value if isinstance(entry, str))


def _read_table(document: Document, table: str, content: object) -> None:
    if not isinstance(content, dict):
        document.problem(table, f"{quoted(content)} is not a table", f"write [{table}] and its keys below it")
        return
    for part, raw in content.items():
        name = f"{table}.{part}"
        where = f"{table}.{key_text(part)}"
        if (key := BY_NAME.get(name)) is not None:
            _read_setting(document, key, raw)
        elif name in NOT_BUILT_KEYS:
            document.problem(where, "not built yet", NOT_BUILT_KEYS[name])
        elif table in NOT_BUILT_TABLES:
            document.problem(where, "not built yet", f"nothing of [{table}] works in this version: remove it")
        else:
            document.problem(where, "no such key", *_nearest(part, table))


def _read_setting(document: Document, key: Key[Any], raw: object) -> None:
    add = isinstance(key.kind, ListKind) and isinstance(raw, dict)
    where = f"{key.name}.add" if add else key.name
    if add and isinstance(raw, dict):
        if list(raw) != ["add"]:
            document.problem(key.name, "neither a list nor { add = [...] }", _LIST_HINT)
            return
        raw = raw["add"]
    try:
        document.settings[key.name] = Setting(value=key.kind.read(raw), add=add)
    except Unfit as error:
        for problem in error.problems:
            document.problem(f"{where}{problem.where}", problem.what, *problem.hints)


def _nearest(written: str, table: str | None = None) -> Iterator[str]:
    """A hint for a key that does not exist: the same word in another table, or a word spelled nearly so."""
    elsewhere = [name for name, key in BY_NAME.items() if key.field == written and key.table != table]
    if elsewhere:
        yield f"did you mean {elsewhere[0]}?"
        return
    inside = [key.field for key in BY_NAME.values() if key.table == table]
    known = inside if table is not None else [*TABLES, *NOT_BUILT_TABLES, "version", "extends", "include"]
    yield from did_you_mean(written, known) or did_you_mean(written, [key.field for key in BY_NAME.values()])
