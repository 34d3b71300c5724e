"""docs/schemas/policy.schema.json: made from the table of keys, and true to what reads policies."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from runagentd.errors import ConfigurationError
from runagentd.plan.syscalls import shipped_table
from runagentd.policy.document import Role, parse
from runagentd.policy.files import shipped_folder, shipped_names
from runagentd.policy.keys import BY_NAME, KEYS
from runagentd.policy.load import load
from runagentd.policy.reference import markdown
from runagentd.policy.schema import schema
from tests.policy.texts import reader
from tests.schemas.validation import ODD, leaves, toml_document, validator

ROOT = Path(__file__).parents[2]
BAD = ROOT / "tests" / "bad-policies"
GROUPS = shipped_table().selectable()
TEXT = schema(GROUPS)
VALIDATOR = validator(TEXT)

NOT_OF_FORM = {
    "concurrency-without-threads.toml": "two keys contradict each other",
    "cpu-too-exact.toml": "hundredths cannot be told in binary fractions",
    "deadline-too-long.toml": "how much a text with a unit comes to",
    "error-in-the-parent.toml": "another file",
    "extends-a-policy-that-extends.toml": "another file",
    "extends-itself.toml": "another file",
    "extends-nothing-shipped.toml": "another file",
    "includes-a-missing-file.toml": "another file",
    "includes-resources.toml": "another file",
    "isolation-with-concurrency.toml": "two keys contradict each other",
    "isolation-with-kept-folders.toml": "two keys contradict each other",
    "isolation-without-queue.toml": "two keys contradict each other",
    "log-line-beyond-a-minute.toml": "two keys contradict each other",
    "memory-cannot-hold-the-tmpfs.toml": "two keys contradict each other",
    "memory-too-small.toml": "how much a text with a unit comes to",
    "read-dots.toml": "which places are the sandbox's own",
    "read-in-run.toml": "which places are the sandbox's own",
    "read-root.toml": "which places are the sandbox's own",
    "read-twice.toml": "two entries of different form with the same path",
    "more-instances-than-may-be.toml": "two keys contradict each other",
    "target-beyond-concurrency.toml": "two keys contradict each other",
}
"""What the schema lets pass of the corpus, and what it would have to know."""


def test_the_published_schema_is_what_the_code_makes() -> None:
    """Run `runagentctl schema policy > docs/schemas/policy.schema.json` after a change."""
    assert (ROOT / "docs" / "schemas" / "policy.schema.json").read_text() == TEXT


def test_every_key_is_in_the_schema_and_no_other() -> None:
    """Tables and keys."""
    found = {".".join(path) for path in leaves(json.loads(TEXT)) if len(path) == 2}
    assert found == {key.name for key in KEYS}


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_policy_is_valid(name: str) -> None:
    """As an editor reads it."""
    VALIDATOR.validate(tomllib.loads((shipped_folder() / f"{name}.toml").read_text()))


def test_every_policy_in_the_documentation_is_valid() -> None:
    """Each block of TOML that begins with a version."""
    texts = [markdown(), *(path.read_text() for path in (ROOT / "docs").glob("*.md"))]
    found = [block for text in texts for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)]
    policies = [tomllib.loads(block) for block in found if "version = 1" in block]
    assert policies
    for policy in policies:
        VALIDATOR.validate(policy)


@pytest.mark.parametrize("path", sorted(BAD.glob("*.toml")), ids=lambda path: path.name)
def test_a_bad_policy_is_refused_unless_its_form_is_right(path: Path) -> None:
    """The list of those that pass is exact, so that it does not grow unseen."""
    try:
        content = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError:
        assert path.name == "not-toml.toml"
        return
    assert VALIDATOR.is_valid(content) == (path.name in NOT_OF_FORM)


@pytest.mark.parametrize("key", [key.name for key in KEYS])
def test_the_default_in_the_schema_is_the_readers(key: str) -> None:
    """As a policy would have it written."""
    table, _, field = key.partition(".")
    default = json.loads(TEXT)["properties"][table]["properties"][field]["default"]
    content = {"version": 1, table: {field: default}}
    VALIDATOR.validate(content)
    document = parse("x", toml_document(content).encode(), Role.POLICY)
    assert document.problems == []
    assert document.settings[key].value == BY_NAME[key].default


def reads(content: dict[str, Any]) -> bool:
    """Whether it is a policy, as far as one file's form and the names of groups go."""
    document = parse("x", toml_document(content).encode(), Role.POLICY)
    groups = document.settings.get("syscalls.groups")
    return not document.problems and (groups is None or set(groups.value) <= set(GROUPS))


@pytest.mark.parametrize("path", [*leaves(json.loads(TEXT)), ("other",), ("files", "other")], ids=".".join)
def test_the_schema_never_refuses_what_the_reader_takes(path: tuple[str, ...]) -> None:
    """And takes what the reader refuses only where amounts, words or paths are concerned, never another type."""
    for value in ODD:
        content: Any = value
        for part in reversed(path):
            content = {part: content}
        content = {"version": 1} | content
        valid, read = VALIDATOR.is_valid(content), reads(content)
        assert valid or not read, f"an editor would mark {path} = {value!r}, which is right"
        if valid and not read:
            assert isinstance(value, str | list | dict), f"an editor would take {path} = {value!r}"
            assert "/" in str(value) or value in ("5m", "64MiB", "0"), f"an editor would take {path} = {value!r}"


def test_a_policy_with_a_comment_that_names_the_schema_loads() -> None:
    """It is a comment."""
    text = "#:schema ./policy.schema.json\nversion = 1\n"
    assert load("./web.toml", reader({"web.toml": text})).name == "web.toml"


def test_groups_are_offered_by_name() -> None:
    """Those that a policy can add, and no other."""
    assert VALIDATOR.is_valid({"version": 1, "syscalls": {"groups": {"add": ["memfd"]}}})
    assert not VALIDATOR.is_valid({"version": 1, "syscalls": {"groups": ["io_uring"]}})
    with pytest.raises(ConfigurationError):
        load("./web.toml", reader({"web.toml": 'version = 1\n[syscalls]\ngroups = ["io_uring"]'}), known_groups=GROUPS)
