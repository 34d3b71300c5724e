"""What a function returned, as JSON: plain values fast, everything else by one documented rule each.

Runs as: the runner, in the sandbox. Pure, but for methods of the agent's own objects that it calls.
Reads from strangers: yes, any Python object; the answer is JSON text or `Unserialisable`.
docs/values.md is the table of the rules. Imports nothing late: by then `json` may be a module of the agent's.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import math
import pathlib
import re
import types
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

DEPTH_MAX = 200
"""Nesting beyond this is refused: parsers on the caller's side have such limits too, and crash less politely."""

_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")).encode
_isfinite = math.isfinite
_SCALARS = frozenset({str, int, bool, type(None)})
_TYPE_NAMES = {
    str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null",
    list: "array", tuple: "array", dict: "object",
}  # fmt: skip
_TEXTUAL = (uuid.UUID, decimal.Decimal, pathlib.PurePath)
_ARRAYS: tuple[type[Iterable[Any]], ...] = (list, tuple, collections.deque, range, type({}.keys()), type({}.values()))
_LONG = 4096
_ESCAPED = tuple(map(chr, (*range(0x20), ord('"'), ord("\\"))))
"""What cannot stand in a JSON text as it is (RFC 8259, section 7)."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"
_OBJECT_STR = getattr(object, "__str__", None)
_METHODS = ("model_dump", "dict", "to_dict")
"""How frameworks turn an object into a dict, the best one first: CrewOutput.to_dict() and AgentOutput.to_dict()
give {} where model_dump() gives the content (docs/values.md)."""


_MISSING = ("pandas._libs.missing", "C_NAType")
"""Module and name of the class that pandas' NA is of: it is the agent's, and not there when this is imported."""


class Unserialisable(Exception):
    """A value has no JSON form; `path` is the JSON Pointer of the part that has none."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.parts: list[str] = []

    def __str__(self) -> str:
        path = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in reversed(self.parts))
        return f"the result has no JSON form: {path[:500] + ': ' if path else ''}{self.what}"


def encode(value: object) -> tuple[str, bytes]:
    """The type of `value` in RunAgent's words, and its JSON text in UTF-8 without raw newlines."""
    try:
        if type(value) is str and len(value) >= _LONG and not any(character in value for character in _ESCAPED):
            # The encoder looks at each character for itself, and takes 3.5 ms for a million where this takes 0.4.
            return "string", b'"%b"' % value.encode("utf-8")
        if not _is_plain(value, 0):
            value = normalise(value)
        # Any other iterable or subclass was replaced by normalise, so the table has every type that can be here.
        return _TYPE_NAMES[type(value)], _encode(value).encode("utf-8")
    except UnicodeEncodeError:
        # A surrogate without its partner has no UTF-8 form; U+FFFD says that there was something.
        value = normalise(value, replace_surrogates=True)
        return _TYPE_NAMES[type(value)], _encode(value).encode("utf-8")
    except RecursionError as error:
        raise Unserialisable("it is nested too deeply") from error
    except ValueError as error:
        # The only one left: an int of more digits than sys.get_int_max_str_digits() allows.
        raise Unserialisable(f"a number is too large to write: {error}") from error


def _is_plain(value: object, depth: int) -> bool:
    """Whether the encoder in C writes `value` exactly as the rules say: exact types, finite floats, text keys."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is float:
        return _isfinite(value)  # type: ignore[arg-type]  # exactly a float, as tested
    if depth >= DEPTH_MAX:
        return False
    depth += 1
    if kind is dict:
        for key, item in value.items():  # type: ignore[attr-defined]  # exactly a dict
            if type(key) is not str:
                return False
            if type(item) not in _SCALARS and not _is_plain(item, depth):
                return False
        return True
    if kind is list or kind is tuple:
        items: Any = value
        for item in items:  # noqa: SIM110  (a generator inside all() takes twice the time)
            if type(item) not in _SCALARS and not _is_plain(item, depth):
                return False
        return True
    return False


def normalise(value: object, *, replace_surrogates: bool = False) -> Any:
    """`value` in plain dicts, lists, str, int, float, bool and None; Unserialisable where there is no such form."""
    return _Normaliser(replace_surrogates=replace_surrogates).plain(value)


class _Normaliser:
    """One walk over one value; `_open` are the containers around the current place, to see a cycle."""

    def __init__(self, *, replace_surrogates: bool) -> None:
        self._replace = replace_surrogates
        self._open: set[int] = set()

    def plain(self, value: Any) -> Any:
        kind = type(value)
        if kind is str:
            return _SURROGATE.sub(_REPLACEMENT, value) if self._replace else value
        if kind in _SCALARS:
            return value
        if kind is float:
            return value if _isfinite(value) else None
        simple, result = self._scalar(value)
        if simple:
            return result
        if id(value) in self._open:
            raise Unserialisable("it contains itself")
        if len(self._open) >= DEPTH_MAX:
            raise Unserialisable(f"it is nested deeper than {DEPTH_MAX} levels")
        self._open.add(id(value))
        try:
            return self._container(value)
        finally:
            self._open.discard(id(value))

    def _scalar(self, value: Any) -> tuple[bool, Any]:
        """(True, plain form) of a value that is one JSON scalar."""
        match value:
            case enum.Enum():
                # The value is what an author chose to write down; its name only where that has no JSON form.
                try:
                    return True, self.plain(value.value)
                except Unserialisable:
                    return True, self.plain(str(value.value))
            case str():
                return True, self.plain(str.__str__(value))
            case int():
                return True, int(value)
            case float():
                return True, self.plain(float(value))
            case datetime.datetime() | datetime.date() | datetime.time():
                # pandas' NaT is a datetime that is not equal to itself, as nan is.
                return True, value.isoformat() if value == value else None
            case datetime.timedelta():
                return True, value.total_seconds()
            case bytes() | bytearray() | memoryview():
                return True, value.hex()
        if isinstance(value, _TEXTUAL):
            return True, self.plain(str(value))
        return False, None

    def _container(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return self._object(value.items())
        if isinstance(value, _ARRAYS):
            names = getattr(type(value), "_fields", None)
            return self._array(value) if names is None else self._object(zip(names, value))
        if isinstance(value, collections.abc.Set):
            return self._set(value)
        if isinstance(value, (type, types.ModuleType)) or hasattr(value, "__next__") or hasattr(value, "__anext__"):
            raise Unserialisable(f"{_described(value)} is not a value")
        return self._framework_object(value)

    def _array(self, value: Iterable[Any]) -> list[Any]:
        result = []
        index = 0
        try:
            for item in value:
                result.append(self.plain(item))
                index += 1
        except Unserialisable as error:
            error.parts.append(str(index))
            raise
        return result

    def _set(self, value: Iterable[Any]) -> list[Any]:
        try:
            ordered = sorted(value)
        except TypeError:  # kinds that have no common order: any order is right
            ordered = list(value)
        return self._array(ordered)

    def _object(self, items: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, item in items:
            name = self._key(key)
            if name in result:
                raise Unserialisable(f"two keys become {name[:80]!r}")
            try:
                result[name] = self.plain(item)
            except Unserialisable as error:
                error.parts.append(name)
                raise
        return result

    def _key(self, key: Any) -> str:
        simple, name = (True, key) if type(key) in _SCALARS else self._scalar(key)
        if name is None and isinstance(key, float):
            name = str(key)
        elif not simple:
            raise Unserialisable(f"a key is {_described(key)}, and JSON's are texts")
        if isinstance(name, str):
            return _SURROGATE.sub(_REPLACEMENT, name) if self._replace else name
        if isinstance(name, (int, float, bool, type(None))):
            return _encode(name)
        raise Unserialisable(f"a key is {_described(key)}, and JSON's are texts")

    def _framework_object(self, value: Any) -> Any:
        """The first of the object's own forms that is not empty; {} only where all are."""
        kind = type(value)
        empty: Any = None
        for method in _METHODS:
            # Looked up on the class: an object that answers to every name must not be asked for all of them.
            if not callable(getattr(kind, method, None)):
                continue
            try:
                form = getattr(value, method)()
            except Exception:  # noqa: BLE001  (the agent's own code; another form may work)
                continue
            if isinstance(form, Mapping):
                if form:
                    return self._object(form.items())
                empty = {}
        if dataclasses.is_dataclass(value):
            return self._object((field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value))
        if callable(getattr(kind, "tolist", None)):  # arrays and scalars of numpy and its kin
            return self.plain(value.tolist())
        if any((base.__module__, base.__qualname__) == _MISSING for base in kind.__mro__):
            return None
        public = _public_attributes(value)
        if public:
            return self._object(public.items())
        if not isinstance(value, BaseException) and getattr(kind, "__str__", None) is not _OBJECT_STR:
            return self.plain(str(value))  # addresses, URLs, fractions: a text is what they are
        if empty is not None:
            return empty
        if public is None or isinstance(value, BaseException) or callable(value):
            raise Unserialisable(f"{_described(value)} is not a value")
        return {}


def _public_attributes(value: Any) -> dict[str, Any] | None:
    """The attributes of an instance whose names do not begin with "_"; None where it cannot have any."""
    attributes: dict[str, Any] = {}
    slots: list[str] = []
    for base in type(value).__mro__:
        own_slots: Any = base.__dict__.get("__slots__", ())
        slots += [own_slots] if isinstance(own_slots, str) else list(own_slots)
    for name in slots:
        if not name.startswith("_") and hasattr(value, name):
            attributes[name] = getattr(value, name)
    own = getattr(value, "__dict__", None)
    if not isinstance(own, dict):
        return attributes if slots else None
    attributes.update((name, item) for name, item in own.items() if isinstance(name, str) and not name.startswith("_"))
    return attributes


def _described(value: object) -> str:
    kind = type(value)
    return f"the class {value.__qualname__}" if isinstance(value, type) else f"an object of type {kind.__qualname__}"
