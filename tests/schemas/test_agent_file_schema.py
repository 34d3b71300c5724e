"""docs/schemas/agent-file.schema.json: true to what the reader of agent files takes."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from runagentd.config import agent_file
from runagentd.errors import ConfigurationError
from tests.schemas.validation import ODD, leaves, toml_document, validator, with_value, without

ROOT = Path(__file__).parents[2]
TEXT = agent_file.json_schema()
VALIDATOR = validator(TEXT)
PATHS = list(leaves(json.loads(TEXT)))
FULL: dict[str, Any] = {
    "folder": "/srv/chat",
    "name": "chat",
    "policy": "base",
    "aliases": ["stable"],
    "allow_widening": False,
    "scaling": {"instances_min": 1, "instances_max": 4},
}
"""Every key that there is."""


def parse(content: dict[str, Any]) -> agent_file.AgentFile:
    return agent_file.parse(toml_document(content).encode(), Path("/etc/chat.toml"))


def test_the_published_schema_is_what_the_code_makes() -> None:
    """Run `runagentctl schema agent-file > docs/schemas/agent-file.schema.json` after a change."""
    assert (ROOT / "docs" / "schemas" / "agent-file.schema.json").read_text() == TEXT


def test_all_keys_together_are_valid_and_read() -> None:
    assert {path for path in PATHS if len(path) == 1} == {(key,) for key in FULL}
    VALIDATOR.validate(FULL)
    assert parse(FULL).aliases == ("stable",)
    assert not VALIDATOR.is_valid(without(FULL, ("folder",)))


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_the_schema_never_refuses_what_the_reader_takes(path: tuple[str, ...]) -> None:
    """And takes what the reader refuses only where texts or lists are concerned, never another type."""
    for value in ODD:
        content = with_value(FULL, path, value)
        valid = VALIDATOR.is_valid(content)
        try:
            parse(content)
        except ConfigurationError as error:
            # That the least is more than the most no schema says.
            if valid and ", and instances_max is " not in str(error):
                assert isinstance(value, str | list | dict), f"an editor would take {path} = {value!r}: {error}"
        else:
            assert valid, f"an editor would mark {path} = {value!r}, which is right"


@pytest.mark.parametrize("key", ["policy", "aliases", "allow_widening"])
def test_writing_a_default_changes_nothing(key: str) -> None:
    default = json.loads(TEXT)["properties"][key]["default"]
    assert parse({"folder": "x", key: default}) == parse({"folder": "x"})


def test_every_agent_file_in_the_documentation_is_valid() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "files.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        VALIDATOR.validate(tomllib.loads(block))
