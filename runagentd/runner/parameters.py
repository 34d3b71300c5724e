"""A function's signature as something to bind a caller's arguments to: checked, converted, the first wrong one named.

Runs as: the runner, in the sandbox.
Reads from strangers: yes, arguments as JSON brought them; the answer is (args, kwargs) or `WrongArgument`.
"""

from __future__ import annotations

import functools
import inspect
import json
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runagentd.runner.conversion import Converters
from runagentd.runner.scalars import Converter, Mismatch, closest

_POSITIONAL_ONLY = inspect.Parameter.POSITIONAL_ONLY
_EITHER = inspect.Parameter.POSITIONAL_OR_KEYWORD
_KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
_VAR_POSITIONAL = inspect.Parameter.VAR_POSITIONAL
_VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD


class WrongArgument(Exception):
    """The first argument that does not fit: a JSON Pointer (RFC 6901) and a sentence."""

    def __init__(self, parts: list[str], what: str) -> None:
        super().__init__(what)
        self.pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)
        self.what = what


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One parameter, for people."""

    name: str
    kind: str
    required: bool
    type: str | None
    default: str | None = None
    """the default as JSON text, where it is plain and short; None where it is not, or there is none"""


class Parameters:
    """The parameters of one callable."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """ValueError or TypeError where Python cannot tell the signature."""
        signature = inspect.signature(function)
        hints = _annotations(function, signature)
        converters = Converters()
        self._positional: list[tuple[str, Converter | None]] = []
        self._by_name: dict[str, Converter | None] = {}
        self._positional_only: set[str] = set()
        self._required: list[str] = []
        self._rest: Converter | None = None
        self._takes_rest = self._takes_names = False
        self._names: Converter | None = None
        self.described: list[Described] = []
        for name, parameter in signature.parameters.items():
            annotation = hints.get(name, Any)
            converter = converters.of(annotation)
            required = parameter.default is inspect.Parameter.empty
            if parameter.kind is _VAR_POSITIONAL:
                self._takes_rest, self._rest, required = True, converter, False
            elif parameter.kind is _VAR_KEYWORD:
                self._takes_names, self._names, required = True, converter, False
            else:
                if parameter.kind is not _KEYWORD_ONLY:
                    self._positional.append((name, converter))
                if parameter.kind is _POSITIONAL_ONLY:
                    self._positional_only.add(name)
                else:
                    self._by_name[name] = converter
                if required:
                    self._required.append(name)
            self.described.append(
                Described(
                    name=name,
                    kind=parameter.kind.name.lower(),
                    required=required,
                    type=None if annotation is Any else annotation_text(annotation),
                    default=_default_text(parameter.default),
                )
            )
        returned = hints.get("return", Any)
        self.returns = None if returned is Any else annotation_text(returned)

    def bind(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments to call the function with; WrongArgument for the first that does not fit."""
        given = len(args)
        if given:
            args = self._bind_positional(args)
        if kwargs:
            kwargs = self._bind_names(kwargs, given)
        if self._required:
            filled = {name for name, _ in self._positional[:given]}
            for name in self._required:
                if name not in filled and name not in kwargs:
                    raise WrongArgument(["input_kwargs", name], f'the argument "{name}" is missing')
        return args, kwargs

    def _bind_positional(self, args: list[Any]) -> list[Any]:
        bound = []
        known = len(self._positional)
        for index, value in enumerate(args):
            if index < known:
                converter = self._positional[index][1]
            elif self._takes_rest:
                converter = self._rest
            else:
                many = f"{known} positional argument{'' if known == 1 else 's'}" if known else "no positional arguments"
                raise WrongArgument(["input_args", str(index)], f"the function takes {many}, not {len(args)}")
            bound.append(value if converter is None else _converted(converter, value, ["input_args", str(index)]))
        return bound

    def _bind_names(self, kwargs: dict[str, Any], given: int) -> dict[str, Any]:
        bound = {}
        for name, value in kwargs.items():
            where = ["input_kwargs", name]
            if name in self._by_name:
                if given and any(name == taken for taken, _ in self._positional[:given]):
                    raise WrongArgument(where, f'the argument "{name}" is given twice, by position too')
                converter = self._by_name[name]
            elif self._takes_names:
                converter = self._names
            elif name in self._positional_only:
                raise WrongArgument(where, f'the argument "{name}" can only be given by position')
            else:
                suggestion = closest(name, self._by_name)
                raise WrongArgument(where, f'the function has no argument "{name[:100]}"{suggestion}')
            bound[name] = value if converter is None else _converted(converter, value, where)
        return bound


def _converted(converter: Converter, value: Any, where: list[str]) -> Any:
    try:
        return converter(value, False)
    except Mismatch as error:
        raise WrongArgument([*where, *reversed(error.parts)], error.what) from error
    except RecursionError as error:
        raise WrongArgument(where, "the value is nested too deeply") from error


def _annotations(function: Callable[..., Any], signature: inspect.Signature) -> dict[str, Any]:
    """The annotation of each parameter and of "return"; one that cannot be evaluated is left out."""
    raw = {name: p.annotation for name, p in signature.parameters.items() if p.annotation is not p.empty}
    if signature.return_annotation is not signature.empty:
        raw["return"] = signature.return_annotation
    names = _globals(function)
    found = {}
    for name, annotation in raw.items():
        try:
            # One at a time: with all at once, one name imported under TYPE_CHECKING would lose them all.
            holder = types.SimpleNamespace(__annotations__={name: annotation})
            found.update(typing.get_type_hints(holder, globalns=names, include_extras=True))
        except Exception:  # noqa: BLE001  (an annotation is code of the agent's: NameError and anything else)
            continue
    return found


def _globals(function: Any) -> dict[str, Any]:
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif inspect.ismethod(function):
            function = function.__func__
        elif hasattr(function, "__globals__"):
            found: dict[str, Any] = function.__globals__
            return found
        elif isinstance(function, type):
            function = vars(function).get("__init__")
        elif callable(function) and inspect.ismethod(function.__call__):
            function = function.__call__
        else:
            return {}


_PLAIN = frozenset({str, int, float, bool, type(None)})
_DEFAULT_BYTES_MAX = 200
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(", ", ": ")).encode


def _default_text(default: object) -> str | None:
    """Exact types only: the JSON of a subclass, or of an object, would be made by code of the agent's."""
    items = [default]
    if type(default) in (list, tuple):
        items = list(typing.cast("list[object]", default))
    elif type(default) is dict:
        items = [*default.keys(), *default.values()]
    if default is inspect.Parameter.empty or len(items) > 20 or any(type(item) not in _PLAIN for item in items):
        return None
    if type(default) is dict and any(type(key) is not str for key in default):
        return None
    if any((type(item) is int and abs(item) > 2**53) or (type(item) is str and len(item) > 200) for item in items):
        return None
    try:
        text = _encode(default)
        size = len(text.encode("utf-8"))
    except ValueError:  # not a number, infinity, a lone surrogate
        return None
    return text if size <= _DEFAULT_BYTES_MAX else None


def annotation_text(annotation: Any) -> str:
    """An annotation the way its author wrote it, near enough, in at most 200 characters."""
    try:
        if isinstance(annotation, type) and not typing.get_args(annotation):
            text = annotation.__qualname__ if annotation is not type(None) else "None"
        else:
            text = repr(annotation).replace("typing.", "").replace("NoneType", "None")
    except Exception:  # noqa: BLE001  (a __repr__ of the agent's)
        return "?"
    return text[:200]
