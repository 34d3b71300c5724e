"""The part of JSONPath that extractors use: names, indices, slices, wildcards and descent.

Runs as: the runner, in the sandbox. Pure.
Reads from strangers: yes, an agent's configuration and its results.
The names are RFC 9535's. Filters and unions are refused when an agent is loaded, by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

PATH_CHARACTERS_MAX = 1000

# Blanks and digits are RFC 9535's (section 2.1.1) and not Unicode's, of which int() takes some and not others.
_TOKEN = re.compile(
    r"""
      (?P<descent>\.\.)
    | \.(?P<star>\*)
    | \.(?P<name>[^\W\d]\w*(?:-\w+)*)
    | \[[ \t\n\r]*(?:
          (?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
        | (?P<index>-?[0-9]{1,18})
        | (?P<slice>(?:-?[0-9]{1,18})?[ \t\n\r]*
              :[ \t\n\r]*(?:-?[0-9]{1,18})?(?:[ \t\n\r]*
              :[ \t\n\r]*(?:-?[0-9]{1,18})?)?)
        | (?P<wild>\*)
      )[ \t\n\r]*\]
    """,
    re.VERBOSE,
)
_BARE_NAME = re.compile(r"[^\W\d]\w*(?:-\w+)*|\*")
_ESCAPE = re.compile(r"\\(.)")

_Step = str | int | slice | None
"""One step: a name, an index, a slice, or None for all members; paired with whether it descends first."""


class JsonPathError(ValueError):
    """A text that is not a path of this subset: what, and where."""


class JsonPath:
    """One parsed path."""

    __slots__ = ("_steps", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._steps = tuple(_parse(text))

    def first(self, value: Any) -> Any:
        """The first match in a plain value, or None."""
        return next(_matches(value, self._steps, 0), None)


def _parse(text: str) -> Iterator[tuple[bool, _Step]]:
    if len(text) > PATH_CHARACTERS_MAX:
        raise JsonPathError(f"a path of {len(text)} characters is longer than {PATH_CHARACTERS_MAX}")
    path = text.strip()
    if path.startswith("$"):
        path = path[1:]
    elif _BARE_NAME.match(path):
        path = "." + path
    else:
        raise JsonPathError(f"{text!r:.200} does not begin with $ or a name")
    position, descends = 0, False
    while position < len(path):
        if descends and (bare := _BARE_NAME.match(path, position)):
            yield True, None if bare.group() == "*" else bare.group()
            position, descends = bare.end(), False
            continue
        match = _TOKEN.match(path, position)
        if match is None or (descends and match["descent"]):
            raise JsonPathError(f"{text!r:.200} cannot be read from {path[position : position + 40]!r} on")
        position = match.end()
        if match["descent"]:
            descends = True
            continue
        yield descends, _step(match)
        descends = False
    if descends:
        raise JsonPathError(f"{text!r:.200} ends in ..")


def _step(match: re.Match[str]) -> _Step:
    if match["name"] is not None:
        return match["name"]
    if match["quoted"] is not None:
        return _ESCAPE.sub(r"\1", match["quoted"][1:-1])
    if match["index"] is not None:
        return int(match["index"])
    if match["slice"] is not None:
        bounds = [int(part) if part.strip() else None for part in match["slice"].split(":")]
        if len(bounds) == 3 and bounds[2] == 0:
            raise JsonPathError("a slice cannot have a step of 0")
        return slice(*bounds)
    return None


def _matches(value: Any, steps: tuple[tuple[bool, _Step], ...], position: int) -> Iterator[Any]:
    if position == len(steps):
        yield value
        return
    descends, step = steps[position]
    for place in _descendants(value) if descends else (value,):
        for member in _members(place, step):
            yield from _matches(member, steps, position + 1)


def _members(value: Any, step: _Step) -> Iterator[Any]:
    if isinstance(step, str):
        if isinstance(value, dict) and step in value:
            yield value[step]
    elif isinstance(step, int):
        if isinstance(value, list) and -len(value) <= step < len(value):
            yield value[step]
    elif isinstance(step, slice):
        if isinstance(value, list):
            yield from value[step]
    elif isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _descendants(value: Any) -> Iterator[Any]:
    yield value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        yield from _descendants(child)
