"""The JSON Schema of a policy's file, from the table of keys: docs/schemas/policy.schema.json.

Runs as: runagentctl. Pure.
Reads from strangers: nothing.
It is about form. What keys say together, and whether what they name exists, `runagentctl policy check` says.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from typing import Any

from runagentd.policy.document import INCLUDES_MAX, VERSION
from runagentd.policy.keys import KEYS, TABLES, Key
from runagentd.policy.kinds import GroupNames, ListKind
from runagentd.schema import Schema, array, document, table, text


def schema(known_groups: Collection[str]) -> str:
    """The text of the file. `known_groups` are the names in policies/syscalls.toml that a policy can add."""
    tables = {
        name: table(
            f"Every key of [{name}] has a default.",
            {key.field: _key(key, known_groups) for key in KEYS if key.table == name},
        )
        for name in TABLES
    }
    head = {
        "version": {"description": "The form of this file; it stands in each one.", "const": VERSION},
        "extends": text(
            "The policy whose keys hold where this one has none: the name of one that runagentd ships, or a path "
            "relative to this file. What it names may not itself extend.",
            examples=["base", "compute"],
        ),
        "include": array(
            "Files that hold [network] and [secrets] only, by paths relative to this one.",
            {"type": "string"},
            maxItems=INCLUDES_MAX,
        ),
    }
    body = table("What one agent's sandbox grants; the operator chooses it.", head | tables, required=["version"])
    return document("policy", "runagentd policy", body)


def _key(key: Key[Any], known_groups: Collection[str]) -> Schema:  # Any: see `keys.KEYS`
    value = key.kind.schema()
    if isinstance(key.kind, GroupNames):
        value["items"] = {"enum": sorted(known_groups)}
    if isinstance(key.kind, ListKind):
        added = {"properties": {"add": value}, "required": ["add"], "additionalProperties": False}
        value = {**value, "type": ["array", "object"], **added}
    description = f"{key.meaning}\n\n{key.kind.range()}; wider is {key.kind.wider()}. Described in: {key.source}."
    # `text` is what a policy would say, so the default has the form that a policy has.
    default = tomllib.loads(f"value = {key.kind.text(key.default)}")["value"]
    return {"description": description, "default": default, **value}
