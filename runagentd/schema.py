"""JSON Schema 2020-12 in our own words: how the readers of files say what may stand in them, for editors.

Runs as: runagentctl, which prints them, and every reader, for which they are constants.
Reads from strangers: nothing. Nothing is validated by them here: a reader decides, and says what is wrong in words.
Everything is written out where it is used, without `$ref`: editors of TOML follow those badly or not at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

Schema = dict[str, Any]
"""JSON. Any: a schema nests as it likes."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def document(name: str, title: str, body: Schema) -> str:
    """The text of a schema's file. `name` tells it from our other ones: "policy"."""
    head = {"$schema": _DIALECT, "$id": f"urn:runagentd:schema:{name}", "title": title}
    return json.dumps(head | body, indent=2, ensure_ascii=False) + "\n"


def whole(pattern: re.Pattern[str], *, or_empty: bool = False) -> str:
    """A pattern for all of a text, as ECMA-262 has it: Python's `fullmatch` of the same one."""
    return f"^(?:{pattern.pattern}){'?' if or_empty else ''}$"


def text(meaning: str, **more: Any) -> Schema:  # Any: keywords of JSON Schema
    """A text; `more` are keywords as `pattern`, `enum`, `default`, `examples`."""
    return {"description": meaning, "type": "string", **more}


def flag(meaning: str, **more: Any) -> Schema:  # Any: likewise
    """true or false."""
    return {"description": meaning, "type": "boolean", **more}


def number(meaning: str, least: int, most: int, **more: Any) -> Schema:  # Any: likewise
    """A whole number from `least` to `most`."""
    return {"description": meaning, "type": "integer", "minimum": least, "maximum": most, **more}


def array(meaning: str, items: Schema, **more: Any) -> Schema:  # Any: likewise
    """A list, all of whose entries are `items`."""
    return {"description": meaning, "type": "array", "items": items, **more}


def table(meaning: str, properties: Mapping[str, Schema], *, required: Sequence[str] = (), **more: Any) -> Schema:
    """A table with these keys and no others."""
    needed: Schema = {"required": list(required)} if required else {}
    return {
        "description": meaning,
        "type": "object",
        "properties": dict(properties),
        **needed,
        "additionalProperties": False,
        **more,
    }


def named(meaning: str, each: Schema, **more: Any) -> Schema:  # Any: likewise
    """A table of `each`, by names that are free."""
    return {"description": meaning, "type": "object", "additionalProperties": each, **more}


def present(key: str) -> Schema:
    """The condition that `key` is there and neither an empty text nor an empty list."""
    return {"required": [key], "properties": {key: {"minLength": 1, "minItems": 1}}}
