"""The keys of an agent's configuration, and its JSON Schema: docs/schemas/agent.schema.json.

Runs as: the loader, which knows keys and bounds from here; runagentctl, which prints the schema.
Reads from strangers: nothing. Imports no parser, so that whoever prints the schema has none.
The schema is stricter than the loader in one thing: it marks keys that nobody knows, which the loader ignores.
"""

from __future__ import annotations

from runagentd.loader import dotenv
from runagentd.names import NAME_MAX
from runagentd.schema import Schema, array, document, flag, number, table, text, whole
from runagentd.wire.manifest import CACHE_SECONDS_MAX, ENTRYPOINTS_MAX, TIMEOUT_MS_MAX, CacheScope
from runagentd.wire.runtime import VERSION

EXTRACTIONS_MAX = 64
PATH_MAX = 1000
"""Characters of a JSONPath."""
CACHE_BYTES_MAX = 64 * 1024 * 1024
FOLDERS_MAX = 32
FOLDER_NAME_MAX = 255
OLD_TYPES = ("generic", "generic_stream")
"""What RunAgent's first files had instead of a tag."""

_DESCRIPTIVE = ["string", "number", "null"]


def _or_null(schema: Schema) -> Schema:
    """RunAgent's own files have null where a key is not used."""
    return schema | {"type": [schema["type"], "null"]}


CACHE = {
    "ttl": number("How many seconds an answer is good.", 1, CACHE_SECONDS_MAX, examples=[60]),
    "swr": _or_null(number("For how many more it is given while a new one is made.", 0, CACHE_SECONDS_MAX, default=0)),
    "scope": text(
        "Who shares kept answers: each caller has its own, or those of a tenant do, or all.",
        enum=[scope.value for scope in CacheScope],
        default=CacheScope.PRIVATE.value,
    ),
    "streams": flag("Whether streams are kept, too, once they were whole.", default=False),
    "max_bytes": _or_null(number("Larger answers are not kept.", 1, CACHE_BYTES_MAX, default=1024 * 1024)),
}

ENTRYPOINT = {
    "file": text(
        "Where the function is, relative to the folder.", pattern=r"^(?!\s*/).*\.py[/\s]*$", examples=["main.py"]
    ),
    "module": text(
        "The function's name; with dots it is walked to, as app.invoke.",
        pattern=r"^\s*[^\s().]+(?:\.[^\s().]+)*\s*$",
        examples=["run", "app.invoke"],
    ),
    "tag": text(
        "What callers call it; one that ends in _stream streams.", pattern=r"\S", examples=["main", "main_stream"]
    ),
    "type": {"description": f"Older files have {' or '.join(OLD_TYPES)} here instead of a tag.", "deprecated": True},
    "extractor": _or_null(
        {
            "description": "Reduces the result to these outputs: the first match of a JSONPath each.",
            "type": "object",
            "additionalProperties": {"type": "string", "minLength": 1, "maxLength": PATH_MAX},
            "propertyNames": {"minLength": 1, "maxLength": NAME_MAX},
            "maxProperties": EXTRACTIONS_MAX,
            "examples": [{"answer": "$.messages[-1].content"}],
        }
    ),
    "description": text("What it is for.") | {"type": _DESCRIPTIVE},
    "cache": _or_null(table("Its answers may be kept.", CACHE, required=["ttl"], examples=[{"ttl": 60}])),
    "timeout_seconds": {
        "description": "How long a call may take; it can only lower the policy's calls.deadline.",
        "type": ["number", "null"],
        "exclusiveMinimum": 0,
        "maximum": TIMEOUT_MS_MAX // 1000,
        "examples": [30],
    },
}

_ENTRYPOINTS = array(
    "The functions that can be called.",
    table(
        "One function, under its tag.",
        ENTRYPOINT,
        required=["file", "module"],
        anyOf=[{"required": ["tag"]}, {"required": ["type"], "properties": {"type": {"enum": list(OLD_TYPES)}}}],
    ),
    minItems=1,
    maxItems=ENTRYPOINTS_MAX,
)

AGENT: dict[str, Schema] = {
    "$schema": text("Where the schema of this file is, for editors."),
    "agent_name": text("What people call the agent.", pattern=r"\S", examples=["my-agent"]),
    "agent_id": _or_null(text("What machines call it; where it is missing or all zeros it is made from the name.")),
    "agent_architecture": table("What can be called.", {"entrypoints": _ENTRYPOINTS}, required=["entrypoints"]),
    "entrypoints": _ENTRYPOINTS | {"description": "The same as agent_architecture.entrypoints.", "deprecated": True},
    "env_vars": _or_null(
        {
            "description": "Environment variables, set before the agent is imported; .env wins over them.",
            "type": "object",
            "additionalProperties": {"type": ["string", "number", "boolean"]},
            "propertyNames": {"pattern": whole(dotenv.NAME)},
            "examples": [{"MODEL": "small"}],
        }
    ),
    "persistent_folders": _or_null(
        array(
            "Folders below the agent's that outlive an instance, where the policy has files.persistent = true.",
            {"type": "string", "pattern": "^(?!/)", "maxLength": FOLDER_NAME_MAX},
            maxItems=FOLDERS_MAX,
            uniqueItems=True,
            examples=[["chat_storage"]],
        )
    ),
    "health": _or_null(
        text("The tag of a function without arguments that says whether the agent is well.", examples=["health"])
    ),
    "python": _or_null(
        text(
            "The minor version of CPython that it runs on; where it is missing, .python-version of the folder counts.",
            pattern=rf"^(?:{VERSION.pattern}(?:\.[0-9]{{1,2}})?)?$",
            examples=["3.13"],
        )
    ),
    "description": text("What the agent is for.") | {"type": _DESCRIPTIVE},
    "framework": text("What it is made with.", default="default") | {"type": _DESCRIPTIVE},
    "version": text("Its version, as its author counts.") | {"type": _DESCRIPTIVE},
    **{
        key: {"description": "RunAgent's own; runagentd does not use it."}
        for key in ("auth_settings", "created_at", "metadata", "template", "template_source")
    },
}


def schema() -> str:
    """The text of the file."""
    either = [{"required": ["agent_architecture"]}, {"required": ["entrypoints"]}]
    body = table("An agent: its name and its functions.", AGENT, required=["agent_name"], anyOf=either)
    return document("agent", "runagent.config.json", body)
