"""Schemas as editors go by them: by jsonschema-rs, the library that taplo and others use."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs

ODD: tuple[Any, ...] = (
    True, False, 0, 1, -1, 7, 2**70, 0.5, -0.5, "", " ", "x", "0", "1", "7d", "5m", "64MiB", "100/s", "*", "/", "/srv",
    "a b", "none", [], [1], ["x"], ["x", "x"], [[]], [{}], {}, {"x": 1}, {"add": []}, {"path": "/srv"},
)  # fmt: skip
"""Values that are right for some key and wrong for most. Any: they are anything."""


def validator(text: str) -> jsonschema_rs.Draft202012Validator:
    """Of a schema that is itself right by the dialect's own schema."""
    schema = json.loads(text)
    jsonschema_rs.meta.validate(schema)
    return jsonschema_rs.Draft202012Validator(schema)


def toml(value: object) -> str:
    """A value as TOML would have it written."""
    match value:
        case dict():
            return f"{{ {', '.join(f'{json.dumps(key)} = {toml(each)}' for key, each in value.items())} }}"
        case list():
            return f"[{', '.join(toml(each) for each in value)}]"
        case _:
            return json.dumps(value)


def toml_document(content: dict[str, Any]) -> str:
    """A file of it."""
    return "".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in content.items())


def leaves(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of each key that a schema has, tables too; a free name is "*", an entry of a list of tables "0"."""
    for name, part in schema.get("properties", {}).items():
        yield (*path, name)
        yield from leaves(part, (*path, name))
    if isinstance(more := schema.get("additionalProperties"), dict):
        yield from leaves(more, (*path, "*"))
    if isinstance(items := schema.get("items"), dict):
        yield from leaves(items, (*path, "0"))


def with_value(content: Any, path: tuple[str, ...], value: Any) -> Any:  # Any: JSON
    """A copy of `content` with another value at `path`; "*" is the first name there is, "0" the first entry."""
    if not path:
        return value
    changed = copy.copy(content)
    key = _key(content, path[0])
    below = changed[key] if isinstance(changed, list) or key in changed else {}
    changed[key] = with_value(below, path[1:], value)
    return changed


def without(content: Any, path: tuple[str, ...]) -> Any:  # Any: JSON
    """A copy of `content` without what is at `path`."""
    changed = copy.copy(content)
    key = _key(content, path[0])
    if len(path) == 1:
        del changed[key]
    else:
        changed[key] = without(content[key], path[1:])
    return changed


def _key(content: Any, part: str) -> Any:  # Any: a name or an index
    return int(part) if isinstance(content, list) else next(iter(content)) if part == "*" else part
