"""From what JSON brought to what an annotation asks for: one converter per annotation, made once, when an agent loads.

Runs as: the runner, in the sandbox. Pure, but for constructors of the agent's own classes that it calls.
Reads from strangers: yes, a caller's arguments; the answer is a value or `Mismatch`.
An annotation that says nothing we can check (Any, a protocol, a missing name) lets every value through as it is.
docs/values.md is the table of the rules.
"""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import enum
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

from runagentd.runner.scalars import SCALARS, Converter, Mismatch, closest, enumeration, literal, text

_SEQUENCES: dict[Any, Callable[[list[Any]], Any]] = {
    list: list, collections.abc.Sequence: list, collections.abc.MutableSequence: list, collections.abc.Iterable: list,
    collections.abc.Collection: list, collections.deque: collections.deque, set: set, collections.abc.Set: set,
    collections.abc.MutableSet: set, frozenset: frozenset,
}  # fmt: skip
_MAPPINGS: dict[Any, Callable[[dict[Any, Any]], Any]] = {
    dict: dict, collections.abc.Mapping: dict, collections.abc.MutableMapping: dict,
    collections.OrderedDict: collections.OrderedDict,
}  # fmt: skip


class Converters:
    """Makes converters; remembers those of classes, so that a class may contain itself."""

    def __init__(self) -> None:
        self._classes: dict[int, tuple[type, Converter | None]] = {}
        self._making: set[int] = set()

    def of(self, annotation: Any) -> Converter | None:
        """The converter for `annotation`, or None where every value may pass as it is."""
        if annotation in (Any, object):
            return None
        if isinstance(annotation, collections.abc.Hashable) and annotation in SCALARS:
            return SCALARS[annotation]
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Annotated:
            return self._pydantic(annotation) or self.of(arguments[0])
        if origin in (typing.Required, typing.NotRequired, typing.Final, typing.ClassVar):
            return self.of(arguments[0])
        if origin in (typing.Union, types.UnionType):
            return self._union(arguments)
        if origin is typing.Literal:
            return literal(arguments)
        kind = origin if origin is not None else annotation
        if kind is tuple:
            return self._tuple(arguments)
        if isinstance(kind, collections.abc.Hashable):
            if kind in _SEQUENCES:
                return self._sequence(_SEQUENCES[kind], arguments)
            if kind in _MAPPINGS:
                return self._mapping(_MAPPINGS[kind], arguments)
        supertype = getattr(annotation, "__supertype__", None)  # NewType
        if supertype is not None:
            return self.of(supertype)
        if isinstance(kind, type):
            return self._class(kind)
        return self._pydantic(annotation)

    def _union(self, members: tuple[Any, ...]) -> Converter | None:
        converters = [self.of(member) for member in members]
        known = [converter for converter in converters if converter is not None]
        if len(known) < len(converters):
            return None

        def convert(value: Any, exact: bool) -> Any:
            failures: list[Mismatch] = []
            for strictly in (True,) if exact else (True, False):
                failures.clear()
                for converter in known:
                    try:
                        return converter(value, strictly)
                    except Mismatch as error:
                        failures.append(error)
            # Where one member got further into the value than the others, it is the one that was meant.
            deep = [failure for failure in failures if failure.parts]
            if len(deep) == 1:
                raise deep[0]
            raise Mismatch(" or ".join(dict.fromkeys(failure.expected for failure in failures)), value)

        return convert

    def _sequence(self, build: Callable[[list[Any]], Any], arguments: tuple[Any, ...]) -> Converter:
        item = self.of(arguments[0]) if arguments else None

        def convert(value: Any, exact: bool) -> Any:
            if type(value) is not list:
                raise Mismatch("an array", value)
            items = _converted(value, item, exact) if item is not None else value
            try:
                return build(items)
            except TypeError as error:  # a set of arrays or objects
                raise Mismatch("an array of strings, numbers or booleans", value) from error

        return convert

    def _tuple(self, arguments: tuple[Any, ...]) -> Converter:
        if not arguments or (len(arguments) == 2 and arguments[1] is Ellipsis):
            return self._sequence(tuple, arguments[:1])
        if arguments == ((),):
            arguments = ()
        items = [self.of(argument) for argument in arguments]

        def convert(value: Any, exact: bool) -> Any:
            if type(value) is not list or len(value) != len(items):
                raise Mismatch(f"an array of {len(items)}", value)
            return tuple(_at(str(i), c, v, exact) for i, (c, v) in enumerate(zip(items, value)))

        return convert

    def _mapping(self, build: Callable[[dict[Any, Any]], Any], arguments: tuple[Any, ...]) -> Converter:
        key, item = (self.of(arguments[0]), self.of(arguments[1])) if len(arguments) == 2 else (None, None)
        convert_key = None if key is text else key

        def convert(value: Any, exact: bool) -> Any:
            if type(value) is not dict:
                raise Mismatch("an object", value)
            if convert_key is not None:
                # A key of JSON is always text, so reading it as a number is no conversion that exactness forbids.
                value = {_at(name, convert_key, name, False): one for name, one in value.items()}
            if item is not None:
                value = {name: _at(str(name), item, one, exact) for name, one in value.items()}
            return build(value)

        return convert

    def _class(self, kind: type) -> Converter | None:
        key = id(kind)  # a metaclass of the agent's may forbid hashing; the entry keeps the class alive
        if key in self._making:
            # This class contains itself: look again when a value comes.
            return lambda value, exact: self._again(key, value, exact)
        if key not in self._classes:
            self._making.add(key)
            try:
                self._classes[key] = (kind, self._new_class(kind))
            finally:
                self._making.discard(key)
        return self._classes[key][1]

    def _again(self, key: int, value: Any, exact: bool) -> Any:
        converter = self._classes[key][1]
        return value if converter is None else converter(value, exact)

    def _new_class(self, kind: type) -> Converter | None:
        if issubclass(kind, enum.Enum):
            return enumeration(kind)
        if callable(getattr(kind, "model_validate", None)):
            return _validated(kind.model_validate, kind)  # type: ignore[attr-defined]  # as tested
        if typing.is_typeddict(kind):
            return self._record(kind, _hints(kind), _required_keys(kind, _hints(kind)), dict)
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            names, defaults = kind._fields, kind._field_defaults  # type: ignore[attr-defined]  # every named tuple has them
            hints = _hints(kind)
            convert_object = self._record(
                kind, {name: hints.get(name, Any) for name in names}, frozenset(names) - frozenset(defaults), kind
            )

            def convert(value: Any, exact: bool) -> Any:
                if type(value) is list and len(value) <= len(names):
                    return convert_object(dict(zip(names, value)), exact)
                return convert_object(value, exact)

            return convert
        if dataclasses.is_dataclass(kind):
            hints = _hints(kind)
            fields = [field for field in dataclasses.fields(kind) if field.init]
            mandatory = frozenset(
                field.name
                for field in fields
                if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            )
            return self._record(kind, {field.name: hints.get(field.name, Any) for field in fields}, mandatory, kind)
        if callable(getattr(kind, "parse_obj", None)):  # pydantic 1
            return _validated(kind.parse_obj, kind)  # type: ignore[attr-defined]  # as tested
        return self._pydantic(kind)

    def _record(
        self, kind: type, hints: dict[str, Any], required: frozenset[str], build: Callable[..., Any]
    ) -> Converter:
        converters = {name: self.of(hint) for name, hint in hints.items()}

        def convert(value: Any, exact: bool) -> Any:
            if type(value) is not dict:
                raise Mismatch(f"an object ({kind.__name__})", value)
            fields = {}
            for name, one in value.items():
                if name not in converters:
                    raise _located(
                        name, Mismatch("", what=f"{kind.__name__} has no such field{closest(name, converters)}")
                    )
                fields[name] = _at(name, converters[name], one, exact)
            for name in converters:
                if name in required and name not in fields:
                    raise _located(name, Mismatch("", what=f"{kind.__name__} needs this field"))
            return _built(lambda: build(**fields), kind)

        return convert

    def _pydantic(self, annotation: Any) -> Converter | None:
        """What the agent's own pydantic makes of an annotation; nothing where the agent has not imported it."""
        adapter_class = getattr(sys.modules.get("pydantic"), "TypeAdapter", None)
        if adapter_class is None:
            return None
        try:
            adapter = adapter_class(annotation)
        except Exception:  # noqa: BLE001  (not a type that pydantic can build; whatever it raises)
            return None
        return _validated(adapter.validate_python, annotation)


def _hints(kind: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except Exception:  # noqa: BLE001  (annotations are code of the agent's: NameError and anything else)
        return {}


def _required_keys(kind: Any, hints: dict[str, Any]) -> frozenset[str]:
    """__required_keys__ of a TypedDict, which cannot see a NotRequired that is still text (PEP 563)."""
    marks = {name: typing.get_origin(hint) for name, hint in hints.items()}
    return frozenset(
        name
        for name, mark in marks.items()
        if mark is typing.Required or (mark is not typing.NotRequired and name in kind.__required_keys__)
    )


def _converted(values: list[Any], converter: Converter, exact: bool) -> list[Any]:
    result = []
    for index, value in enumerate(values):
        try:
            result.append(converter(value, exact))
        except Mismatch as error:
            raise _located(str(index), error) from None
    return result


def _at(part: str, converter: Converter | None, value: Any, exact: bool) -> Any:
    if converter is None:
        return value
    try:
        return converter(value, exact)
    except Mismatch as error:
        raise _located(part, error) from None


def _located(part: str, error: Mismatch) -> Mismatch:
    error.parts.append(part)
    return error


def _validated(validate: Callable[[Any], Any], kind: Any) -> Converter:
    return lambda value, exact: _built(lambda: validate(value), kind)


def _built(build: Callable[[], Any], kind: Any) -> Any:
    """What `build` returns; a refusal of the agent's own code is a mismatch at the place that it names."""
    name = kind.__name__ if isinstance(kind, type) else "value"
    try:
        return build()
    except Mismatch:
        raise
    except Exception as error:  # a constructor or validator of the agent's
        mismatch = Mismatch(f"a {name}", what=f"{name}: {_message(error)}")
        first = _first_error(error)
        if first is not None:
            mismatch.what = f"{name}: {first[1]}"
            mismatch.parts = [str(part) for part in reversed(first[0])]
        raise mismatch from error


def _first_error(error: Exception) -> tuple[tuple[Any, ...], str] | None:
    """Location and text of the first of pydantic's errors."""
    errors = getattr(error, "errors", None)
    if not callable(errors):
        return None
    try:
        first = errors()[0]
        return tuple(first["loc"]), str(first["msg"])
    except Exception:  # noqa: BLE001  (not pydantic's, whatever it is)
        return None


def _message(error: Exception) -> str:
    try:
        return str(error)[:1000]
    except Exception:  # noqa: BLE001  (a __str__ of the agent's)
        return type(error).__name__
