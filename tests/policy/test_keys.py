"""The table of keys, the values it describes, the shipped policies and the reference say the same."""

from __future__ import annotations

import dataclasses
import re
import tomllib
import typing
from pathlib import Path

import pytest

from runagentd.policy import files, model
from runagentd.policy.document import Role, parse
from runagentd.policy.files import find, shipped_folder, shipped_names
from runagentd.policy.keys import KEYS, Key, value_of
from runagentd.policy.load import Place, load
from runagentd.policy.reference import markdown

ROOT = Path(__file__).parents[2]


def test_every_field_of_a_policy_has_one_row_and_every_row_a_field() -> None:
    """In the same order."""
    tables = typing.get_type_hints(model.Policy)
    fields = [
        f"{table}.{field.name}"
        for table, kind in tables.items()
        if dataclasses.is_dataclass(kind)
        for field in dataclasses.fields(kind)
    ]
    assert [key.name for key in KEYS] == fields


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_a_default_is_within_its_bounds_and_is_shown_as_it_would_be_written(key: Key[object]) -> None:
    """Reading the shown text gives the default."""
    raw = tomllib.loads(f"value = {key.kind.text(key.default)}")["value"]
    assert key.kind.read(raw) == key.default
    assert key.meaning.endswith(".")
    assert "|" not in key.meaning + key.source + key.kind.range()


def test_the_shipped_policies() -> None:
    """These, and no other; syscalls.toml beside them is not one."""
    assert shipped_names() == ("base", "compute", "persistent", "tools")


def test_base_says_every_key_and_each_as_its_default() -> None:
    """So that the strictest policy can be read in one file."""
    document = parse("base.toml", (shipped_folder() / "base.toml").read_bytes(), Role.POLICY)
    assert list(document.settings) == [key.name for key in KEYS]
    assert {name: setting.value for name, setting in document.settings.items()} == {
        key.name: key.default for key in KEYS
    }


def test_what_the_shipped_policies_change() -> None:
    """All of it: a loosened policy is a visible diff here."""
    base = find("base")
    changed = {
        name: {key.name: value_of(find(name), key) for key in KEYS if value_of(find(name), key) != value_of(base, key)}
        for name in shipped_names()
    }
    assert changed == {
        "base": {},
        "compute": {
            "files.app_size": 134217728,
            "files.tmp_size": 268435456,
            "files.shm_size": 134217728,
            "files.shm_inodes": 1024,
            "process.fsize": 268435456,
            "resources.memory_max": 1073741824,
            "resources.pids_max": 128,
            "resources.cpu_max": 2.0,
            "syscalls.groups": ("sched",),
        },
        "persistent": {"files.persistent": True},
        "tools": {"files.runtime": "system", "process.exec": True, "resources.pids_max": 128},
    }


@pytest.mark.parametrize("name", ["base", "compute", "persistent", "tools"])
def test_every_shipped_policy_can_be_extended(name: str) -> None:
    """None of them extends another, for one level is all there is."""
    policy = load(
        "./web.toml", lambda place: files.read(place) if place.shipped else f'version = 1\nextends = "{name}"'.encode()
    )
    assert policy.resources == find(name).resources


@pytest.mark.parametrize("name", ["base", "compute", "persistent", "tools"])
def test_each_key_of_a_shipped_policy_has_its_reason_above_it(name: str) -> None:
    """In a comment of its own."""
    lines = (shipped_folder() / f"{name}.toml").read_text().splitlines()
    keys = [number for number, line in enumerate(lines) if re.match(r"[a-z_]+ = ", line) and line != "version = 1"]
    assert keys
    assert [lines[number] for number in keys if not lines[number - 1].startswith("# ")] == []


def test_the_reference_is_made_from_the_table() -> None:
    """Run `python -m runagentd.policy.reference > docs/policy.md` after a change."""
    assert (ROOT / "docs" / "policy.md").read_text() == markdown()


def test_the_example_in_the_reference_is_a_policy() -> None:
    """With what it extends and includes."""
    example = re.search(r"```toml\n(.*?)```", markdown(), re.DOTALL)
    assert example is not None

    def read(place: Place) -> bytes:
        texts = {"web.toml": example[1], "network.toml": 'version = 1\n[network]\nmode = "none"'}
        return files.read(place) if place.shipped else texts[place.label].encode()

    policy = load("./web.toml", read)
    assert policy.resources.memory_max == 2147483648
    assert [folder.path for folder in policy.files.read] == ["/srv/words", "/srv/models"]
    assert policy.syscalls.groups == ("sched", "memfd")
