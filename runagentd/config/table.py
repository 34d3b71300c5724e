"""One TOML table, read key by key: each wrong or unknown key is one problem with its path, and all are found.

Runs as: the foreman and runagentctl. Pure.
Reads from strangers: nothing; the file is the operator's.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from typing import TypeVar

from runagentd.errors import ConfigurationError, Problem

T = TypeVar("T")


def toml(data: bytes, where: str) -> dict[str, object]:
    """The values of a file's text; ConfigurationError where it is not TOML in UTF-8."""
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        # ValueError: not TOML, not UTF-8, or a number of thousands of digits, which tomllib lets through.
        raise ConfigurationError(Problem(where, f"this is not TOML: {error}")) from error


class Table:
    """`where` is the path so far ("runagentd.toml: limits"); problems of all tables of a file share one list."""

    def __init__(self, values: Mapping[str, object], where: str, problems: list[Problem]) -> None:
        self._values = values
        self._where = where
        self._problems = problems
        self._known: list[str] = []

    def text(self, key: str, default: str = "") -> str:
        """A string."""
        return self._take(key, str, "a text", default)

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        return self._take(key, bool, "true or false", default)

    def number(self, key: str, default: int, *, least: int = 0, most: int = 2**53) -> int:
        """A whole number from `least` to `most`."""
        value = self._take(key, int, "a whole number", default)
        if isinstance(value, bool):
            self.problem(key, "must be a whole number")
            return default
        if not least <= value <= most:
            self.problem(key, f"must be from {least} to {most}, not {value}")
            return default
        return value

    def fraction(self, key: str, default: float) -> float:
        """A number from 0 to 1."""
        value = self._take(key, object, "a number from 0 to 1", default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            self.problem(key, f"must be a number from 0 to 1, not {value!r}")
            return default
        return float(value)

    def texts(self, key: str) -> tuple[str, ...]:
        """An array of strings; empty where the key is not there."""
        found = self._take(key, list, "an array of texts", [])
        if not all(isinstance(item, str) for item in found):
            self.problem(key, "must be an array of texts")
            return ()
        return tuple(found)

    def converted(self, key: str, convert: Callable[[str], T], default: T) -> T:
        """A string that `convert` understands; the text of its ValueError is the problem."""
        text = self._take(key, str, "a text", None)
        if text is None:
            return default
        try:
            return convert(text)
        except ValueError as error:
            self.problem(key, str(error))
            return default

    def table(self, key: str) -> Table:
        """A table below this one; an empty one where the key is not there."""
        found = self._take(key, dict, "a table", {})
        return Table(found, self.place(key), self._problems)

    def tables(self, key: str) -> list[Table]:
        """An array of tables (`[[key]]`)."""
        found = self._take(key, list, f"an array of tables: [[{key}]]", [])
        if not all(isinstance(item, dict) for item in found):
            self.problem(key, f"must be an array of tables: [[{key}]]")
            return []
        return [Table(item, f"{self.place(key)}[{position}]", self._problems) for position, item in enumerate(found)]

    def named_tables(self) -> dict[str, Table]:
        """Every table below this one, by its name, where names are free (`[roles.NAME]`)."""
        return {name: self.table(name) for name in self._values}

    def names(self) -> tuple[str, ...]:
        """The keys that are there, where names are free."""
        return tuple(self._values)

    def has(self, key: str) -> bool:
        """Whether the key is there, whatever its value."""
        return key in self._values

    def problem(self, key: str, what: str, *hints: str) -> None:
        """One more thing that is wrong."""
        self._problems.append(Problem(self.place(key), what, hints))

    def place(self, key: str) -> str:
        """Where the key stands, as problems say it: "runagentd.toml: packages.index"."""
        return f"{self._where}.{key}" if self._dotted else f"{self._where}: {key}"

    def finish(self) -> None:
        """Every key that was not asked for is a problem."""
        for key in self._values:
            if key not in self._known:
                near = difflib.get_close_matches(key, self._known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(self._known))}"
                self.problem(key, "there is no such key", hint)

    @property
    def _dotted(self) -> bool:
        return ": " in self._where

    def _take(self, key: str, kind: type[T], called: str, default: T) -> T:
        self._known.append(key)
        if key not in self._values:
            return default
        value = self._values[key]
        if not isinstance(value, kind):
            self.problem(key, f"must be {called}")
            return default
        return value
