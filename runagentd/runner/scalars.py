"""Converters for what JSON has one value for: texts, numbers, dates and the members of closed sets.

Runs as: the runner, in the sandbox. Pure.
Reads from strangers: yes, a caller's arguments; the answer is a value or `Mismatch`.
Text becomes a number or a boolean only where it can mean nothing else. docs/values.md is the table of the rules.
"""

from __future__ import annotations

import datetime
import decimal
import difflib
import enum
import math
import pathlib
import re
import uuid
from collections.abc import Callable, Iterable
from typing import Any

Converter = Callable[[Any, bool], Any]
"""(value, exact) → the value asked for. `exact` refuses every conversion: a union asks all of its members so first."""

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)\Z")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\Z")
_BOOLEANS = {"true": True, "false": False}
_DIGITS_MAX = 4300
"""As many as Python converts by default (sys.get_int_max_str_digits)."""


class Mismatch(Exception):
    """A value does not fit; `parts` lead to it, the innermost first."""

    def __init__(self, expected: str, found: Any = None, *, what: str | None = None) -> None:
        super().__init__(expected)
        self.expected = expected
        self.what = what if what is not None else f"expected {expected}, not {_found(found)}"
        self.parts: list[str] = []


def _found(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() if abs(value) >= 10**18:
            return "a large number"
        case int() | float():
            return f"the number {value!r}"
        case str():
            return f'"{value}"' if len(value) <= 40 else f'"{value[:40]}…"'
        case list():
            return "an array"
        case dict():
            return "an object"
    return f"a {type(value).__name__}"


def closest(name: str, known: Iterable[str]) -> str:
    """A did-you-mean for the end of a sentence, or nothing."""
    match = difflib.get_close_matches(name[:100], [one for one in known if len(one) <= 100][:500], n=1)
    return f'; did you mean "{match[0]}"?' if match else ""


def text(value: Any, exact: bool) -> Any:
    """A str."""
    if isinstance(value, str):
        return value
    raise Mismatch("a string", value)


def _integer(value: Any, exact: bool) -> Any:
    if type(value) is int:
        return value
    if not exact and isinstance(value, str) and len(value) < _DIGITS_MAX and _INTEGER.match(value):
        return int(value)
    raise Mismatch("an integer", value)


def _number(value: Any, exact: bool) -> Any:
    if type(value) is float:
        return value
    if not exact:
        if type(value) is int or (isinstance(value, str) and len(value) < _DIGITS_MAX and _NUMBER.match(value)):
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if math.isfinite(number):
                return number
    raise Mismatch("a number", value)


def _boolean(value: Any, exact: bool) -> Any:
    if type(value) is bool:
        return value
    if not exact and isinstance(value, str) and value in _BOOLEANS:
        return _BOOLEANS[value]
    raise Mismatch("true or false", value)


def _null(value: Any, exact: bool) -> Any:
    if value is None:
        return None
    raise Mismatch("null", value)


def _from_text(expected: str, parse: Callable[[Any], Any], kinds: tuple[type, ...] = (str,)) -> Converter:
    def convert(value: Any, exact: bool) -> Any:
        if not exact and isinstance(value, kinds) and not isinstance(value, bool):
            try:
                return parse(value)
            except (ValueError, ArithmeticError):
                pass
        raise Mismatch(expected, value)

    return convert


SCALARS: dict[Any, Converter] = {
    str: text,
    int: _integer,
    float: _number,
    bool: _boolean,
    None: _null,
    type(None): _null,
    bytes: _from_text("a string of hexadecimal digits", bytes.fromhex),
    bytearray: _from_text("a string of hexadecimal digits", bytearray.fromhex),
    datetime.datetime: _from_text("a date and time as ISO 8601 text", datetime.datetime.fromisoformat),
    datetime.date: _from_text("a date as ISO 8601 text", datetime.date.fromisoformat),
    datetime.time: _from_text("a time as ISO 8601 text", datetime.time.fromisoformat),
    datetime.timedelta: _from_text("a number of seconds", lambda s: datetime.timedelta(seconds=s), (int, float)),
    uuid.UUID: _from_text("a UUID as text", uuid.UUID),
    # A float is written the way it was sent: Decimal(0.1) would show digits that nobody wrote.
    decimal.Decimal: _from_text("a decimal number", lambda n: decimal.Decimal(str(n)), (str, int, float)),
    pathlib.Path: _from_text("a path as text", pathlib.Path),
    pathlib.PurePath: _from_text("a path as text", pathlib.PurePath),
    pathlib.PurePosixPath: _from_text("a path as text", pathlib.PurePosixPath),
}


def literal(options: tuple[Any, ...]) -> Converter:
    """One of the values of a Literal."""
    expected = " or ".join(_found(option.value if isinstance(option, enum.Enum) else option) for option in options)

    def convert(value: Any, exact: bool) -> Any:
        for option in options:
            plain = option.value if isinstance(option, enum.Enum) else option
            if type(plain) is type(value) and plain == value:
                return option
        for option in () if exact else options:
            if type(option) in (int, bool):
                try:
                    if SCALARS[type(option)](value, False) == option:
                        return option
                except Mismatch:
                    pass
        raise Mismatch(expected, value)

    return convert


def enumeration(kind: type[enum.Enum]) -> Converter:
    """A member of an Enum, by its value or its name."""
    expected = " or ".join(_found(member.value) for member in kind) or f"a {kind.__name__}"

    def convert(value: Any, exact: bool) -> Any:
        for member in kind:
            if type(member.value) is type(value) and member.value == value:
                return member
        if isinstance(value, str) and value in kind.__members__:
            return kind.__members__[value]
        if not exact and isinstance(value, str):
            for member in kind:
                if type(member.value) in (int, bool):
                    try:
                        if SCALARS[type(member.value)](value, False) == member.value:
                            return member
                    except Mismatch:
                        pass
        raise Mismatch(expected[:300], value)

    return convert
