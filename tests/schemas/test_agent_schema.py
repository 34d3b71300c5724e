"""docs/schemas/agent.schema.json: the keys that the loader knows, and true to what it reads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from runagentd.loader import configuration
from runagentd.loader.schema import AGENT, schema
from runagentd.loader.tree import Tree, parse_json
from tests.loader.folders import SHORT, load, manifest
from tests.loader.test_configuration import CORE_CONCEPTS, LONG
from tests.schemas.validation import ODD, leaves, validator, with_value

ROOT = Path(__file__).parents[2]
TEXT = schema()
VALIDATOR = validator(TEXT)
ENTRY = ("agent_architecture", "entrypoints", "0")
# `entrypoints` is the same list in another place, for files that have it there.
PATHS = [path for path in leaves(json.loads(TEXT)) if path[0] != "entrypoints"]

FULL: dict[str, Any] = {
    "$schema": "https://example.org/agent.schema.json",
    "agent_name": "demo",
    "agent_id": "7a0c2f1e-3d0b-4d52-9c1e-5a5e0c4a1c01",
    "description": "answers",
    "framework": "default",
    "version": "1.0.0",
    "agent_architecture": {
        "entrypoints": [
            {
                "file": "main.py",
                "module": "app.invoke",
                "tag": "main",
                "type": "generic",
                "extractor": {"answer": "$.messages[-1].content"},
                "description": "one answer",
                "cache": {"ttl": 60, "swr": 300, "scope": "tenant", "streams": True, "max_bytes": 65536},
                "timeout_seconds": 30,
            }
        ]
    },
    "env_vars": {"MODEL": "small", "RETRIES": 3},
    "persistent_folders": ["chat_storage"],
    "python": "3.13",
    "auth_settings": {"type": "none"},
    "created_at": "2025-06-25 13:42:03",
    "metadata": {},
    "template": "",
    "template_source": {},
}
"""Every key that there is."""

NEVER_READ = {("created_at",), ("metadata",), ("template",), ("template_source",), ("$schema",)}
"""Known so that they are no slips of the pen."""

PASSED_OVER = {("$schema",), (*ENTRY, "description")}
"""Where the loader does not mind what is no text, and an editor marks it."""


def loads(config: object) -> bool:
    """Whether the loader takes it."""
    return load(config).manifest is not None


def test_the_published_schema_is_what_the_code_makes() -> None:
    """Run `runagentctl schema agent > docs/schemas/agent.schema.json` after a change."""
    assert (ROOT / "docs" / "schemas" / "agent.schema.json").read_text() == TEXT


class Noting(dict[str, Tree]):
    """An object that notes which of its keys are asked for."""

    def __init__(self, content: dict[str, Tree], path: tuple[str, ...], asked: set[tuple[str, ...]]) -> None:
        super().__init__((key, noting(value, (*path, key), asked)) for key, value in content.items())
        self._path, self._asked = path, asked

    def get(self, key: str, default: Any = None) -> Any:  # Any: as of dict
        self._asked.add((*self._path, key))
        return super().get(key, default)

    def __getitem__(self, key: str) -> Tree:
        self._asked.add((*self._path, key))
        return super().__getitem__(key)


def noting(value: Tree, path: tuple[str, ...], asked: set[tuple[str, ...]]) -> Tree:
    match value:
        case dict():
            return Noting(value, path, asked)
        case list():
            return [noting(item, (*path, "0"), asked) for item in value]
        case _:
            return value


def test_every_key_that_is_read_is_in_the_schema_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads another key says in loader/schema.py what it is."""
    asked: set[tuple[str, ...]] = set()
    monkeypatch.setattr(configuration, "parse_json", lambda content: noting(parse_json(content), (), asked))
    manifest(FULL)
    # `type` of auth_settings makes a hint; nothing else of it is looked at. The words of an extractor are free.
    read = {path for path in asked if path != ("auth_settings", "type")}
    assert read | NEVER_READ == set(PATHS)
    assert not read & NEVER_READ


def test_all_keys_together_are_valid_and_read() -> None:
    """With no hint about a slip of the pen."""
    VALIDATOR.validate(FULL)
    assert [hint for hint in manifest(FULL).hints if "no such key" in hint] == []


def test_a_file_that_names_its_schema_loads_without_a_hint() -> None:
    """`$schema` is for the editor."""
    assert manifest({"$schema": "docs/schemas/agent.schema.json", **SHORT}).hints == ()


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*/*.json")), ids=lambda path: path.parent.name)
def test_every_example_is_valid(path: Path) -> None:
    """As an editor reads it."""
    VALIDATOR.validate(json.loads(path.read_text()))


def test_every_configuration_in_the_documentation_is_valid() -> None:
    """Whole files, and single entrypoints put into one."""
    found = [
        json.loads(block)
        for path in (ROOT / "docs").glob("*.md")
        for block in re.findall(r"```json\n(\{.*?)```", path.read_text(), re.DOTALL)
    ]
    files = [content for content in found if "agent_name" in content]
    entrypoints = [content for content in found if {"file", "module"} <= content.keys()]
    assert len(files) >= 1
    assert len(entrypoints) >= 1
    for content in files:
        VALIDATOR.validate(content)
    for content in entrypoints:
        VALIDATOR.validate(with_value(FULL, ENTRY, content))


def test_what_runagents_documentation_shows_is_valid() -> None:
    """The short form and the long one, but for a key that nobody knows."""
    VALIDATOR.validate(CORE_CONCEPTS)
    assert loads(LONG)
    assert [error.message for error in VALIDATOR.iter_errors(LONG)] == [
        "Additional properties are not allowed ('something_new' was unexpected)"
    ]


@pytest.mark.parametrize("entrypoint", [{"file": "main.py", "module": "run", "type": "generic"}])
def test_an_old_file_is_valid(entrypoint: dict[str, str]) -> None:
    """A type in place of the tag, and the list in another place."""
    old = {"agent_name": "old", "entrypoints": [entrypoint]}
    VALIDATOR.validate(old)
    assert loads(old)


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_the_schema_never_refuses_what_the_loader_takes(path: tuple[str, ...]) -> None:
    """And takes what the loader refuses only where texts, lists or objects are concerned, never another type."""
    for value in (*ODD, None):
        config = with_value(FULL, path, value)
        valid, read = VALIDATOR.is_valid(config), loads(config)
        assert valid or not read or path in PASSED_OVER, f"an editor would mark {path} = {value!r}, which is right"
        if valid and not read:
            assert isinstance(value, str | list | dict), f"an editor would take {path} = {value!r}"


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_a_default_in_the_schema_is_the_loaders(path: tuple[str, ...]) -> None:
    """Written or left out, the manifest is the same."""
    part = json.loads(TEXT)
    for name in path:
        part = part["items"] if name == "0" else part["properties"][name]
    if "default" in part:
        minimal = with_value(SHORT, (*ENTRY, "cache"), {"ttl": 60})
        assert manifest(with_value(minimal, path, part["default"])) == manifest(minimal)


@pytest.mark.parametrize(
    "config",
    [
        [],
        {"agent_name": "x"},
        {"agent_architecture": SHORT["agent_architecture"]},
        SHORT | {"agent_architecture": {"entrypoints": []}},
        SHORT | {"agent_architecture": {"entrypoints": [{"file": "main.py", "module": "run"}]}},
        SHORT | {"agent_architecture": {"entrypoints": [{"file": "/main.py", "module": "run", "tag": "x"}]}},
        SHORT | {"agent_architecture": {"entrypoints": [{"file": "main.py", "module": "run()", "tag": "x"}]}},
        SHORT | {"env_vars": {"a b": "x"}},
        SHORT | {"env_vars": {"A": None}},
        SHORT | {"persistent_folders": "data"},
        SHORT | {"python": "3.10"},
        SHORT | {"python": 3.13},
        SHORT | {"python": "cpython@3.13"},
        with_value(FULL, (*ENTRY, "cache"), {"swr": 60}),
        with_value(FULL, (*ENTRY, "cache"), {"ttl": 60, "tll": 60}),
        with_value(FULL, (*ENTRY, "timeout_seconds"), 86401),
    ],
)
def test_what_is_wrong_in_form_is_marked(config: object) -> None:
    """By the schema as by the loader."""
    assert not VALIDATOR.is_valid(config)
    assert not loads(config)


def test_the_loader_and_the_schema_know_the_same_keys() -> None:
    """One table."""
    assert set(json.loads(TEXT)["properties"]) == AGENT.keys()
