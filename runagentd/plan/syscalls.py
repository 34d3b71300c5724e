"""The table of system calls: policies/syscalls.toml as values.

Runs as: the supervisor and runagentctl. Pure, but for `shipped_table`, which reads the one file that we ship.
Reads from strangers: nothing; the file is part of the release.
A condition is an equality, over all 64 bits or over a mask that always holds the upper half: a table cannot say
anything that an argument with a set upper half slips through (CVE-2019-7303, CVE-2019-10063).
"""

from __future__ import annotations

import errno
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runagentd.errors import ConfigurationError, Problem

UPPER_HALF = 0xFFFFFFFF_00000000
ALL_BITS = 0xFFFFFFFF_FFFFFFFF

FIRST_COMMON_NUMBER = 424
"""From here on a new call has one number on every architecture (Linux 5.1); below, numbers differ."""

FILE = "syscalls.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """`(argument & mask) == value`; a mask of all bits is plain equality."""

    argument: int
    mask: int
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One way in which a filtered call is allowed: every condition holds. `words` say it to a person."""

    words: str
    reason: str
    when: tuple[Condition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One call of a group: allowed always, in some alternatives, or refused with an errno of its own."""

    name: str
    reason: str
    group: str
    number: int | None = None
    optional: bool = False
    needs: str | None = None
    """the boolean policy key without which this entry is absent"""
    key: str | None = None
    """the policy key that decides this entry's shape, for `policy explain`"""
    source: str | None = None
    errno: int | None = None
    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    name: str
    always: bool
    summary: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """The last call that the table's authors looked at; later ones answer ENOSYS."""

    name: str
    number: int
    kernel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SyscallTable:
    newest: Newest
    groups: tuple[Group, ...]
    reaper: tuple[Entry, ...]
    builder: tuple[Entry, ...]
    """each takes the place of the entry of that name in a group"""

    def selectable(self) -> frozenset[str]:
        """The groups that a policy may name in `syscalls.groups`."""
        return frozenset(group.name for group in self.groups if not group.always)


def shipped_table() -> SyscallTable:
    """The table of this release: beside the checkout's package, or inside an installed wheel."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_policies", package.parent / "policies"):
        path = folder / FILE
        if path.is_file():
            return parse(path.read_text("utf-8"))
    raise ConfigurationError(Problem(FILE, "this installation lacks the table of system calls", ("install it again",)))


def parse(text: str, where: str = FILE) -> SyscallTable:
    """The table in a TOML text; raises ConfigurationError with every problem found."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(Problem(where, f"not TOML: {error}")) from error
    reader = _Reader()
    table = reader.table(_Node(document, where))
    if reader.problems:
        raise ConfigurationError(*reader.problems)
    return table


@dataclass(frozen=True, slots=True)
class _Node:
    """A value of the document, and where it stands."""

    value: object
    where: str

    def items(self) -> Iterator[tuple[str, _Node]]:
        if isinstance(self.value, dict):
            for key, value in self.value.items():
                yield (
                    key,
                    _Node(value, f"{self.where}: {key}" if self.where.endswith(".toml") else f"{self.where}.{key}"),
                )

    def elements(self) -> Iterator[_Node]:
        if isinstance(self.value, list):
            for index, value in enumerate(self.value):
                name = f" ({value['name']})" if isinstance(value, dict) and "name" in value else ""
                yield _Node(value, f"{self.where}[{index}]{name}")


_ORDERINGS = frozenset(
    {"not_equals", "less", "less_than", "at_most", "greater", "greater_than", "at_least", "ne", "lt", "le", "gt", "ge"}
)
_CALL_KEYS = frozenset({"name", "reason", "number", "optional", "needs", "key", "source"})


class _Reader:
    """Reads nodes and collects what is wrong with them; a wrong node gives a harmless value of the right type."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def table(self, node: _Node) -> SyscallTable:
        fields = self._fields(node, required={"version", "newest", "groups", "reaper", "builder"})
        version = fields.get("version")
        if version is not None and version.value != 1:
            self._problem(version, f"{version.value!r} is not a version that this release reads", "write 1")
        groups = []
        if "groups" in fields:
            groups = [self._group(name, group) for name, group in fields["groups"].items()]
        reaper, builder = self._own(fields, "reaper"), self._own(fields, "builder")
        newest = Newest(name="", number=0, kernel="")
        if "newest" in fields:
            parts = self._fields(fields["newest"], required={"name", "number", "kernel"})
            newest = Newest(
                name=self._text(parts, "name"),
                number=self._integer(parts, "number") or 0,
                kernel=self._text(parts, "kernel"),
            )
        return SyscallTable(newest=newest, groups=tuple(groups), reaper=reaper, builder=builder)

    def _own(self, fields: Mapping[str, _Node], process: str) -> tuple[Entry, ...]:
        """The entries of a process of ours, whose filter is the same under every policy."""
        if process not in fields:
            return ()
        entries = self._entries(process, self._fields(fields[process], required=set(), allowed={"calls", "filtered"}))
        for entry in entries:
            if entry.needs or entry.key:
                where = f"{FILE}: {process} ({entry.name})"
                self.problems.append(Problem(where, f"no policy decides about the {process}"))
        return entries

    def _group(self, name: str, node: _Node) -> Group:
        parts = self._fields(node, required={"always", "summary"}, allowed={"calls", "filtered", "refused"})
        return Group(
            name=name,
            always=self._boolean(parts, "always"),
            summary=self._text(parts, "summary"),
            entries=self._entries(name, parts),
        )

    def _entries(self, group: str, parts: Mapping[str, _Node]) -> tuple[Entry, ...]:
        entries: list[Entry] = []
        for kind in ("calls", "refused", "filtered"):
            if kind in parts:
                entries.extend(self._entry(group, kind, node) for node in parts[kind].elements())
        seen: set[str] = set()
        for entry in entries:
            # Two entries for one name would be read as "either": an unfiltered one would undo a filtered one.
            if entry.name in seen:
                self.problems.append(Problem(f"{FILE}: {group}", f'"{entry.name}" stands here twice'))
            seen.add(entry.name)
        return tuple(entries)

    def _entry(self, group: str, kind: str, node: _Node) -> Entry:
        own = {"calls": set(), "refused": {"errno"}, "filtered": {"allow"}}[kind]
        parts = self._fields(node, required={"name", "reason"} | own, allowed=_CALL_KEYS)
        number = self._integer(parts, "number")
        if number is not None and number < FIRST_COMMON_NUMBER:
            hint = f"numbers below {FIRST_COMMON_NUMBER} differ between architectures: leave it out"
            self._problem(parts["number"], f"{number} cannot be given here", hint)
        answer = None
        if kind == "refused" and "errno" in parts:
            answer = getattr(errno, self._text(parts, "errno"), None)
            if not isinstance(answer, int):
                self._problem(parts["errno"], f"{parts['errno'].value!r} is not the name of an errno")
        alternatives: tuple[Alternative, ...] = ()
        if kind == "filtered" and "allow" in parts:
            alternatives = tuple(self._alternative(part) for part in parts["allow"].elements())
            if not alternatives:
                # Without conditions the call would be allowed whatever its arguments are.
                self._problem(parts["allow"], "a filtered call needs at least one alternative")
        return Entry(
            name=self._text(parts, "name"),
            reason=self._text(parts, "reason"),
            group=group,
            number=number,
            optional=self._boolean(parts, "optional"),
            needs=self._text(parts, "needs") or None,
            key=self._text(parts, "key") or None,
            source=self._text(parts, "source") or None,
            errno=answer,
            alternatives=alternatives,
        )

    def _alternative(self, node: _Node) -> Alternative:
        parts = self._fields(node, required={"words", "reason", "when"})
        when: tuple[Condition, ...] = ()
        if "when" in parts:
            when = tuple(self._condition(part) for part in parts["when"].elements())
            if not when:
                self._problem(parts["when"], "an alternative needs at least one condition")
        return Alternative(words=self._text(parts, "words"), reason=self._text(parts, "reason"), when=when)

    def _condition(self, node: _Node) -> Condition:
        for key, part in node.items():
            if key in _ORDERINGS:
                hint = "a filter sees 64 bits where the kernel may read 32: write equals, alone or with a mask"
                self._problem(part, "an argument can only be compared for equality", hint)
        parts = self._fields(node, required={"argument", "equals"}, allowed={"mask", *_ORDERINGS})
        argument, value = self._integer(parts, "argument") or 0, self._integer(parts, "equals") or 0
        mask = self._integer(parts, "mask")
        if not 0 <= argument <= 5:
            self._problem(parts["argument"], f"{argument} is not an argument: they go from 0 to 5")
        if not 0 <= value <= ALL_BITS:
            self._problem(parts["equals"], f"{value} does not fit into 64 bits")
        if mask is not None and not 0 < mask < 1 << 32:
            self._problem(parts["mask"], f"{mask:#x} is not a mask of 32 bits", "the upper half is always compared")
        full = ALL_BITS if mask is None else mask | UPPER_HALF
        if value & ~full & ALL_BITS:
            self._problem(parts["equals"], f"{value:#x} has bits outside its mask: it could never hold")
        return Condition(argument=argument, mask=full, value=value)

    # ---- the leaves

    def _problem(self, node: _Node, what: str, *hints: str) -> None:
        self.problems.append(Problem(node.where, what, hints))

    def _fields(
        self, node: _Node, *, required: set[str], allowed: frozenset[str] | set[str] = frozenset()
    ) -> dict[str, _Node]:
        if not isinstance(node.value, dict):
            self._problem(node, "not a table")
            return {}
        fields = dict(node.items())
        for key in sorted(required - fields.keys()):
            self._problem(node, f'"{key}" is missing')
        for key in sorted(fields.keys() - required - allowed):
            self._problem(fields[key], "unknown key")
        return fields

    def _text(self, parts: Mapping[str, _Node], key: str) -> str:
        node = parts.get(key)
        if node is None:
            return ""
        if not isinstance(node.value, str) or not node.value.strip():
            self._problem(node, f"{node.value!r} is not a text")
            return ""
        return node.value

    def _integer(self, parts: Mapping[str, _Node], key: str) -> int | None:
        node = parts.get(key)
        if node is None:
            return None
        if not isinstance(node.value, int) or isinstance(node.value, bool):
            self._problem(node, f"{node.value!r} is not a whole number")
            return None
        return node.value

    def _boolean(self, parts: Mapping[str, _Node], key: str) -> bool:
        node = parts.get(key)
        if node is None:
            return False
        if not isinstance(node.value, bool):
            self._problem(node, f"{node.value!r} is neither true nor false")
            return False
        return node.value
