"""The kinds of values that policy keys have: how each is read, bounded, shown and ordered.

Runs as: the supervisor and runagentctl. Pure.
Reads from strangers: nothing; an operator's TOML values, already decoded.
`read` raises `Unfit` and nothing else, whatever value TOML can hold; `text` gives what `read` reads back.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from runagentd.errors import Problem
from runagentd.policy.model import HostFolder
from runagentd.policy.order import Comparison, by_amount, by_cover
from runagentd.policy.reserved import reserved
from runagentd.policy.unfit import Unfit, did_you_mean, key_text, quoted, unfit
from runagentd.policy.units import DURATION_PATTERN, SIZE_PATTERN, duration, duration_text, size, size_text
from runagentd.schema import Schema, whole

T = TypeVar("T")
Choice = TypeVar("Choice", bound=StrEnum)

LIST_MAX = 16
"""Entries of one list: each folder costs mount points in a root of 1 MiB and 128 inodes."""

_PATH_BYTES_MAX = 4095  # PATH_MAX with its NUL: path_resolution(7)
_PAGE = 4096
_GROUP_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)


class Kind(ABC, Generic[T]):
    """What values of one kind are like."""

    @abstractmethod
    def read(self, raw: object) -> T:
        """The value that a TOML value stands for; raises `Unfit`."""

    @abstractmethod
    def text(self, value: T) -> str:
        """The value as a policy would have it written."""

    @abstractmethod
    def compare(self, a: T, b: T) -> Comparison:
        """Whether `a` grants more than `b`."""

    @abstractmethod
    def range(self) -> str:
        """What values there are, in words for the reference."""

    @abstractmethod
    def schema(self) -> Schema:
        """What `read` may take, as far as a JSON Schema can say; it never refuses what `read` takes."""

    def wider(self) -> str:
        """Which of two values is wider, in words for the reference."""
        return "more"


class ListKind(Kind[tuple[T, ...]]):
    """A kind whose values are lists, which `{ add = [...] }` can extend."""

    @abstractmethod
    def join(self, old: tuple[T, ...], new: tuple[T, ...]) -> tuple[T, ...]:
        """`old` and then `new`, without what `new` says again."""


@dataclass(frozen=True, slots=True)
class Flag(Kind[bool]):
    def read(self, raw: object) -> bool:
        if isinstance(raw, bool):
            return raw
        raise unfit(f"{quoted(raw)} is neither true nor false", "write true or false, without quotes")

    def text(self, value: bool) -> str:
        return quoted(value)

    def compare(self, a: bool, b: bool) -> Comparison:
        return by_amount(a, b)

    def schema(self) -> Schema:
        return {"type": "boolean"}

    def range(self) -> str:
        return "true or false"

    def wider(self) -> str:
        return "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Amount(Kind[int]):
    """A whole number of something, between two bounds. `because` says why a bound is where it is."""

    least: int
    most: int
    because: str = ""

    def text(self, value: int) -> str:
        return str(value)

    def compare(self, a: int, b: int) -> Comparison:
        return by_amount(a, b)

    def range(self) -> str:
        return f"{self.text(self.least)} to {self.text(self.most)}"

    def _bounded(self, value: int, raw: object) -> int:
        hints = (self.because,) if self.because else ()
        if value < self.least:
            raise unfit(f"{quoted(raw)} is less than {self.text(self.least)}, the least here", *hints)
        if value > self.most:
            raise unfit(f"{quoted(raw)} is more than {self.text(self.most)}, the most here", *hints)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Count(_Amount):
    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}

    def read(self, raw: object) -> int:
        if isinstance(raw, int) and not isinstance(raw, bool):
            return self._bounded(raw, raw)
        raise unfit(f"{quoted(raw)} is not a whole number", f"write a number from {self.range()}, without quotes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size(_Amount):
    """Bytes. `pages` says that the kernel counts whole pages, so that it would silently round anything else."""

    pages: bool = False

    def read(self, raw: object) -> int:
        value = self._bounded(size(raw), raw)
        if self.pages and value % _PAGE:
            raise unfit(f"{quoted(raw)} is not a multiple of 4KiB", "the kernel counts pages and would round it")
        return value

    def schema(self) -> Schema:
        whole_pages = {"multipleOf": _PAGE} if self.pages else {}
        # Each keyword is about one of the types only: an editor then says what is wrong, which it cannot of an `anyOf`.
        number = {"minimum": self.least, "maximum": self.most, **whole_pages}
        return {"type": ["string", "integer"], "pattern": SIZE_PATTERN, **number}

    def text(self, value: int) -> str:
        shown = size_text(value)
        return shown if shown.isdigit() else quoted(shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration(_Amount):
    """Milliseconds."""

    def read(self, raw: object) -> int:
        return self._bounded(duration(raw), raw)

    def schema(self) -> Schema:
        return {"type": "string", "pattern": DURATION_PATTERN}

    def text(self, value: int) -> str:
        return quoted(duration_text(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores(Kind[float]):
    """Processor time as a number of cores, in hundredths: the kernel takes it in microseconds per period."""

    least: float
    most: float

    def read(self, raw: object) -> float:
        if not isinstance(raw, int | float) or isinstance(raw, bool):
            raise unfit(f"{quoted(raw)} is not a number of cores", "write a number such as 0.5 or 2.0, without quotes")
        # Compared before it is converted: float() overflows on an integer of 309 digits. NaN is in no range.
        if not self.least <= raw <= self.most:
            raise unfit(f"{quoted(raw)} is not a number of cores from {self.range()}")
        value = round(float(raw), 2)
        # Only what two decimals can write: 0.333 would be kept as something that nobody wrote.
        if value != float(raw):
            raise unfit(f"{quoted(raw)} has more than two decimals", "write hundredths of a core, for example 0.33")
        return value

    def schema(self) -> Schema:
        return {"type": "number", "minimum": self.least, "maximum": self.most}

    def text(self, value: float) -> str:
        return repr(value)

    def compare(self, a: float, b: float) -> Comparison:
        return by_amount(a, b)

    def range(self) -> str:
        return f"{self.least} to {self.most}"


@dataclass(frozen=True, slots=True)
class OneOf(Kind[Choice]):
    """One of some words, the narrowest first."""

    choices: tuple[Choice, ...]
    hint: str = ""

    def read(self, raw: object) -> Choice:
        for choice in self.choices:
            if raw == choice.value:
                return choice
        words = " or ".join(quoted(choice.value) for choice in self.choices)
        near = did_you_mean(raw, (choice.value for choice in self.choices)) if isinstance(raw, str) else ()
        raise unfit(f"{quoted(raw)} is not {words}", *near, *((self.hint,) if self.hint else ()))

    def schema(self) -> Schema:
        return {"enum": [choice.value for choice in self.choices]}

    def text(self, value: Choice) -> str:
        return quoted(value.value)

    def compare(self, a: Choice, b: Choice) -> Comparison:
        return by_amount(self.choices.index(a), self.choices.index(b))

    def range(self) -> str:
        return " or ".join(quoted(choice.value) for choice in self.choices)

    def wider(self) -> str:
        return ", then ".join(quoted(choice.value) for choice in reversed(self.choices))


@dataclass(frozen=True, slots=True)
class HostFolders(ListKind[HostFolder]):
    """Files and folders of the host's that an agent may read."""

    def read(self, raw: object) -> tuple[HostFolder, ...]:
        folders, problems = [], []
        for number, entry in enumerate(_entries(raw)):
            try:
                folders.append(_folder(entry))
            except Unfit as error:
                problems += [Problem(f"[{number}]{inner.where}", inner.what, inner.hints) for inner in error.problems]
        problems += _repeated([folder.path for folder in folders])
        if problems:
            raise Unfit(*problems)
        return tuple(folders)

    def schema(self) -> Schema:
        path = {"type": "string", "pattern": "^/", "maxLength": _PATH_BYTES_MAX}
        entry = path | {
            "type": ["string", "object"],
            "properties": {"path": path, "optional": {"type": "boolean", "default": False}},
            "required": ["path"],
            "additionalProperties": False,
        }
        return {"type": "array", "items": entry, "maxItems": LIST_MAX, "uniqueItems": True}

    def text(self, value: tuple[HostFolder, ...]) -> str:
        return f"[{', '.join(self._entry_text(folder) for folder in value)}]"

    @staticmethod
    def _entry_text(folder: HostFolder) -> str:
        return f"{{ path = {quoted(folder.path)}, optional = true }}" if folder.optional else quoted(folder.path)

    def compare(self, a: tuple[HostFolder, ...], b: tuple[HostFolder, ...]) -> Comparison:
        """By the paths alone, for `optional` grants nothing.

        A folder does not cover one below it: mounts below a folder are not shown with it (open_tree(2) without
        AT_RECURSIVE), and what a directory's mode hides from an agent is open where the policy names what is in it.
        """
        first, second = {folder.path for folder in a}, {folder.path for folder in b}
        return by_cover(a_covers_b=first >= second, b_covers_a=second >= first)

    def join(self, old: tuple[HostFolder, ...], new: tuple[HostFolder, ...]) -> tuple[HostFolder, ...]:
        again = {folder.path for folder in new}
        return (*(folder for folder in old if folder.path not in again), *new)

    def range(self) -> str:
        return f"up to {LIST_MAX} absolute paths, or {{ path = …, optional = true }}"

    def wider(self) -> str:
        return "what has all paths of the other"


@dataclass(frozen=True, slots=True)
class GroupNames(ListKind[str]):
    """Names of system call groups. Whether they exist is for the plan to say, which has the table of them."""

    def read(self, raw: object) -> tuple[str, ...]:
        names, problems = [], []
        for number, entry in enumerate(_entries(raw)):
            if isinstance(entry, str) and _GROUP_NAME.fullmatch(entry):
                names.append(entry)
            else:
                hint = 'write the name of a group in policies/syscalls.toml, for example "memfd"'
                problems.append(Problem(f"[{number}]", f"{quoted(entry)} is not the name of a group", (hint,)))
        problems += _repeated(names)
        if problems:
            raise Unfit(*problems)
        return tuple(names)

    def schema(self) -> Schema:
        name = {"type": "string", "pattern": whole(_GROUP_NAME)}
        return {"type": "array", "items": name, "maxItems": LIST_MAX, "uniqueItems": True}

    def text(self, value: tuple[str, ...]) -> str:
        return f"[{', '.join(quoted(name) for name in value)}]"

    def compare(self, a: tuple[str, ...], b: tuple[str, ...]) -> Comparison:
        return by_cover(a_covers_b=set(a) >= set(b), b_covers_a=set(b) >= set(a))

    def join(self, old: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
        return (*old, *(name for name in new if name not in old))

    def range(self) -> str:
        return f"up to {LIST_MAX} names"

    def wider(self) -> str:
        return "what has all groups of the other"


def _entries(raw: object) -> list[object]:
    if not isinstance(raw, list):
        raise unfit(f"{quoted(raw)} is not a list", "write [...], or { add = [...] } to add to what there is")
    if len(raw) > LIST_MAX:
        raise unfit(f"{len(raw)} entries are more than {LIST_MAX}, the most here")
    return raw


def _repeated(words: Sequence[str]) -> list[Problem]:
    twice = sorted({word for word in words if words.count(word) > 1})
    return [Problem("", f"{quoted(word)} is listed twice", ("remove one of the two",)) for word in twice]


def _folder(entry: object) -> HostFolder:
    if isinstance(entry, str):
        return HostFolder(path=_path(entry), optional=False)
    if not isinstance(entry, dict) or "path" not in entry:
        hint = 'write "/srv/words", or { path = "/srv/words", optional = true }'
        raise unfit(f"{quoted(entry)} is not a path", hint)
    strange = [key for key in entry if key not in ("path", "optional")]
    if strange:
        raise Unfit(Problem(f".{key_text(strange[0])}", "no such key", ("an entry has path and optional",)))
    path, optional = entry["path"], entry.get("optional", False)
    if not isinstance(path, str):
        raise Unfit(Problem(".path", f"{quoted(path)} is not a path", ('write it as text, for example "/srv/words"',)))
    if not isinstance(optional, bool):
        raise Unfit(Problem(".optional", f"{quoted(optional)} is neither true nor false"))
    return HostFolder(path=_path(path), optional=optional)


def _path(text: str) -> str:
    """Checked as text only: what lies there is looked at when the plan is built, beneath a descriptor."""
    if not text.startswith("/"):
        raise unfit(f"{quoted(text)} is not an absolute path", "a policy may be read from anywhere: begin with /")
    if not text.isprintable() or len(text.encode("utf-8", "surrogatepass")) > _PATH_BYTES_MAX:
        raise unfit(f"{quoted(text)} is not a path that can be shown and opened", "use printable characters only")
    parts = text.split("/")[1:]
    if text != "/" and any(part in ("", ".", "..") for part in parts):
        raise unfit(f"{quoted(text)} is not a plain path", 'leave out "//", ".", ".." and the last "/"')
    if (reason := reserved(text)) is not None:
        raise unfit(f"{quoted(text)} cannot be shown to an agent: {reason[0]}", *reason[1:])
    return text
