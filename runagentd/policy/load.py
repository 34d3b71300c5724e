"""Policy files to one `Policy`: defaults, then what it extends, then what it includes, then its own keys.

Runs as: the supervisor and runagentctl. Pure: files come from the `read` that the caller passes (`policy.files`).
Reads from strangers: nothing; an operator's TOML. Whatever its bytes, a Policy or a ConfigurationError.
Every problem of every file is reported at once, up to 50. `extends` goes one level deep, so that a person has two
files to read and not a chain; an included file may hold [network] and [secrets] only, so that a shared list of
hosts cannot change the sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from runagentd.errors import ConfigurationError, Problem
from runagentd.policy.consistency import contradictions
from runagentd.policy.document import Document, Role, parse
from runagentd.policy.keys import KEYS, Key
from runagentd.policy.kinds import ListKind
from runagentd.policy.model import (
    CallsPolicy,
    FilesPolicy,
    NetworkPolicy,
    Policy,
    ProcessPolicy,
    ResourcesPolicy,
    ScalingPolicy,
    SyscallsPolicy,
)
from runagentd.policy.unfit import did_you_mean, quoted

DEFAULT = "default"
"""The origin of a value that no file set."""

PROBLEMS_MAX = 50
"""Problems that are reported at once: they go over the admin socket, whose messages are bounded."""

_SHIPPED_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}", re.ASCII)
_SPEC_MAX = 4095


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a policy's text is: one that runagentd ships, by its name, or an operator's file, by its path."""

    shipped: str | None
    path: PurePosixPath

    @property
    def label(self) -> str:
        """How messages and origins call it."""
        return str(self.path)

    @property
    def name(self) -> str:
        """What the policy is called: as the operator would ask for it again."""
        return self.shipped if self.shipped is not None else str(self.path)


class Unreadable(Exception):
    """Raised by a `Reader`: there is no such text, or it must not be trusted."""

    def __init__(self, what: str, *hints: str) -> None:
        super().__init__(what)
        self.what = what
        self.hints = hints


Reader = Callable[[Place], bytes]


def place(spec: str, *, beside: PurePosixPath | None = None) -> Place:
    """Where `spec` is: a bare word is a shipped policy, all else a path, relative to the folder `beside`."""
    if not 1 <= len(spec) <= _SPEC_MAX or not spec.isprintable():
        raise Unreadable("not the name of a policy", "write a shipped name such as base, or the path of a file")
    if _SHIPPED_NAME.fullmatch(spec):
        return Place(shipped=spec, path=PurePosixPath("policies", f"{spec}.toml"))
    path = PurePosixPath(spec)
    return Place(shipped=None, path=path if beside is None else beside / path)


def load(spec: str, read: Reader, *, known_groups: Collection[str] | None = None) -> Policy:
    """The effective policy of a shipped name or a file; raises ConfigurationError with every problem found.

    `known_groups` are the names in policies/syscalls.toml, where the caller has them; otherwise the plan checks.
    """
    try:
        own = place(spec)
        data = read(own)
    except Unreadable as error:
        raise ConfigurationError(Problem(quoted(spec), error.what, error.hints)) from error
    layers = _Layers(read)
    layers.add(parse(own.label, data, Role.POLICY), own)
    problems = layers.problems
    values, origins = _merge(layers.documents)
    if known_groups is not None:
        problems += _unknown_groups(layers.documents, known_groups)
    if problems:
        raise _configuration_error(problems, own)
    policy = _policy(own.name, values, origins)
    problems += contradictions(policy, own.label)
    if problems:
        raise _configuration_error(problems, own)
    return policy


def _configuration_error(problems: list[Problem], at: Place) -> ConfigurationError:
    if len(problems) > PROBLEMS_MAX:
        more = Problem(at.label, f"{len(problems) - PROBLEMS_MAX} more problems")
        return ConfigurationError(*problems[:PROBLEMS_MAX], more)
    return ConfigurationError(*problems)


class _Layers:
    """The documents a policy is made of, the weakest first."""

    def __init__(self, read: Reader) -> None:
        self._read = read
        self.documents: list[Document] = []
        self.problems: list[Problem] = []

    def add(self, document: Document, at: Place) -> None:
        """A document after what it extends and includes."""
        self.problems += document.problems
        if document.extends is not None:
            self._extend(document, at, document.extends)
        for number, spec in enumerate(document.include):
            found = self._open(f"{document.label}: include[{number}]", spec, at)
            if found is not None:
                included = parse(found[0].label, found[1], Role.INCLUDED)
                self.problems += included.problems
                self.documents.append(included)
        self.documents.append(document)

    def _extend(self, document: Document, at: Place, spec: str) -> None:
        found = self._open(f"{document.label}: extends", spec, at)
        if found is None:
            return
        parent = parse(found[0].label, found[1], Role.POLICY)
        if parent.extends is not None:
            what = f"{parent.label} itself extends {quoted(parent.extends)}, and a policy extends one level only"
            hint = f"extend {quoted(parent.extends)}, and copy what you need from {parent.label}"
            self.problems.append(Problem(f"{document.label}: extends", what, (hint,)))
            return
        self.add(parent, found[0])

    def _open(self, where: str, spec: str, at: Place) -> tuple[Place, bytes] | None:
        try:
            found = place(spec, beside=at.path.parent)
            return found, self._read(found)
        except Unreadable as error:
            self.problems.append(Problem(where, f"{quoted(spec)}: {error.what}", error.hints))
            return None


def _merge(documents: list[Document]) -> tuple[dict[str, Any], dict[str, str]]:
    """Each key's value, and who set it; also who set each entry of a list ("files.read[0]")."""
    # Any: values of different types, each made by its own key's kind.
    values: dict[str, Any] = {key.name: key.default for key in KEYS}
    origins: dict[str, str] = {key.name: DEFAULT for key in KEYS}
    for key in KEYS:
        entries: dict[object, str] = {}
        for document in documents:
            setting = document.settings.get(key.name)
            if setting is None:
                continue
            value, origin = setting.value, document.label
            if setting.add and isinstance(key.kind, ListKind):
                value = key.kind.join(values[key.name], setting.value)
                origin = _both(origins[key.name], document.label)
            if isinstance(key.kind, ListKind):
                entries |= dict.fromkeys(setting.value, document.label)
            values[key.name], origins[key.name] = value, origin
        origins |= _entry_origins(key, values[key.name], entries)
    return values, origins


def _both(old: str, new: str) -> str:
    return new if old == DEFAULT else f"{old}, {new}"


def _entry_origins(key: Key[Any], value: object, entries: dict[object, str]) -> dict[str, str]:
    if not isinstance(value, tuple):
        return {}
    return {f"{key.name}[{number}]": entries[entry] for number, entry in enumerate(value)}


def _unknown_groups(documents: list[Document], known: Collection[str]) -> list[Problem]:
    problems = []
    for document in documents:
        setting = document.settings.get("syscalls.groups")
        for number, name in enumerate(setting.value if setting is not None else ()):
            if name not in known:
                where = f"{document.label}: syscalls.groups{'.add' if setting and setting.add else ''}[{number}]"
                hints = (*did_you_mean(name, known), f"write one of {', '.join(sorted(known))}")
                problems.append(Problem(where, f"{quoted(name)} is not a group that a policy can add", hints))
    return problems


def _policy(name: str, values: dict[str, Any], origins: dict[str, str]) -> Policy:
    tables: dict[str, dict[str, Any]] = {}
    for key in KEYS:
        tables.setdefault(key.table, {})[key.field] = values[key.name]
    return Policy(
        name=name,
        files=FilesPolicy(**tables["files"]),
        process=ProcessPolicy(**tables["process"]),
        resources=ResourcesPolicy(**tables["resources"]),
        syscalls=SyscallsPolicy(**tables["syscalls"]),
        calls=CallsPolicy(**tables["calls"]),
        network=NetworkPolicy(**tables["network"]),
        scaling=ScalingPolicy(**tables["scaling"]),
        origins=tuple(origins.items()),
    )
