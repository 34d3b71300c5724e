"""Agent files: what one says, what is wrong with it, and which of a folder are read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runagentd.config import agent_file, agent_files
from runagentd.config.agent_file import AgentFile, parse
from runagentd.errors import ConfigurationError
from runagentd.wire.versions import InstanceBounds

PATH = Path("/etc/runagentd/agents/chat.toml")
FULL = b"""
folder = "/srv/chat"
name = "Chat EU"
policy = "policies/chat.toml"
aliases = ["stable", "blue"]
allow_widening = true
[scaling]
instances_min = 1
instances_max = 4
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse(text.encode(), PATH)
    return str(caught.value).splitlines()


def test_a_file_says_which_folder_serves_and_how() -> None:
    """Relative paths start at the file's own folder, wherever the command was started."""
    assert parse(FULL, PATH) == AgentFile(
        path=PATH,
        folder=Path("/srv/chat"),
        name="Chat EU",
        policy="/etc/runagentd/agents/policies/chat.toml",
        instances=InstanceBounds(minimum=1, maximum=4),
        aliases=("stable", "blue"),
        allow_widening=True,
    )


def test_what_it_does_not_say_has_its_default() -> None:
    """Whatever serves at the moment: the strictest policy, its bounds, no alias."""
    assert parse(b'folder = "chat"', PATH) == AgentFile(
        path=PATH,
        folder=Path("/etc/runagentd/agents/chat"),
        name="",
        policy="base",
        instances=None,
        aliases=(),
        allow_widening=False,
    )
    assert parse(b'folder = "x"\n[scaling]\ninstances_max = 2', PATH).instances == InstanceBounds(
        minimum=None, maximum=2
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["folder: missing", 'hint: write the folder with the agent\'s code: folder = "/srv/agents/chat"']),
        ('folder = "x"\nfolders = 1', ["folders: there is no such key", "hint: did you mean 'folder'?"]),
        (
            'folder = "x"\n[scaling]\nmax = 2',
            ["scaling.max: there is no such key", "hint: known here: instances_max, instances_min"],
        ),
        ("folder = 7", ["folder: must be a text"]),
        ('folder = ""', ["folder: must be a path of 1 to 4095 printable characters"]),
        ('folder = "a\\u0000b"', ["folder: must be a path of 1 to 4095 printable characters"]),
        ('folder = "x"\nname = ""', ["name: a name has 1 to 200 printable characters"]),
        ('folder = "x"\nallow_widening = "yes"', ["allow_widening: must be true or false"]),
        (
            'folder = "x"\naliases = ["v2"]',
            [
                "aliases: 'v2' could be taken for the number or the digest of a version",
                'hint: write a word such as "stable" or "canary"',
            ],
        ),
        ('folder = "x"\naliases = ["a", "a"]', ["aliases: one stands twice"]),
        ('folder = "x"\n[scaling]\ninstances_max = 0', ["scaling.instances_max: must be from 1 to 1000, not 0"]),
        (
            'folder = "x"\n[scaling]\ninstances_min = 3\ninstances_max = 2',
            ["scaling.instances_min: is 3, and instances_max is 2"],
        ),
        (
            'folder = "x"\npolicy = ""',
            ["policy: not the name of a policy: write a shipped name such as base, or the path of a file"],
        ),
    ],
)
def test_what_is_wrong_is_told_with_file_and_key(text: str, expected: list[str]) -> None:
    """And with what would be right."""
    assert problems(text) == [line if line.startswith("hint: ") else f"{PATH}: {line}" for line in expected]


def test_all_problems_are_told_at_once() -> None:
    found = problems('name = 1\npolicy = 2\naliases = "x"\nmore = 3')
    keys = [line.split(": ")[1] for line in found if not line.startswith("hint: ")]
    assert keys == ["folder", "name", "policy", "aliases", "more"]


@given(st.binary(max_size=400) | st.text(max_size=200).map(lambda text: f'folder = "{text}"\nname = "{text}"'.encode()))
@example(b"\xff")
@example(b"folder = " + b"9" * 5000)
@example(b"folder = " + b"[" * 5000)
@example(b"a." * 8000)
@example(b"#" * 20_000)
def test_any_bytes_are_a_file_or_a_refusal(data: bytes) -> None:
    """Never another exception, and never one for which the file is not named."""
    try:
        found = parse(data, PATH)
    except ConfigurationError as error:
        assert all(problem.where.startswith(str(PATH)) for problem in error.problems)
    else:
        assert found.folder.is_absolute()


def test_the_files_of_a_folder_are_read_and_nothing_else_in_it(tmp_path: Path) -> None:
    """In the order of their names; a place that is named twice counts once."""
    for name in ("b.toml", "a.toml", ".hidden.toml", "c.toml~", "README.md"):
        (tmp_path / name).write_text('folder = "x"')
    (tmp_path / "broken.toml").write_text("folder")
    found = agent_files.find([tmp_path, tmp_path / "a.toml", tmp_path])
    assert [file.path for file in found.files] == [tmp_path / "a.toml", tmp_path / "b.toml"]
    assert [broken.path for broken in found.broken] == [tmp_path / "broken.toml"]


def test_only_places_that_were_named_are_answered_for(tmp_path: Path) -> None:
    """All files of a folder, also those that are not there any more; of a file only that one."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text('folder = "x"')
    whole, one = agent_files.find([tmp_path]), agent_files.find([tmp_path / "a.toml"])
    assert whole.covers(str(tmp_path / "gone.toml"))
    assert not whole.covers(str(tmp_path / "below" / "gone.toml"))
    assert not whole.covers(f"{tmp_path}2/gone.toml")
    assert one.covers(str(tmp_path / "a.toml"))
    assert not one.covers(str(tmp_path / "b.toml"))


def test_a_place_that_is_not_there_is_told_as_that(tmp_path: Path) -> None:
    """And not as one whose folder others may write: nobody should change the mode of /tmp for a slip of the pen."""
    tmp_path.chmod(0o777)
    [broken] = agent_files.find([tmp_path / "none.toml"]).broken
    assert [str(problem) for problem in broken.problems] == [f"{tmp_path}/none.toml: no such file or folder"]
    (tmp_path / "there.toml").write_text("")
    [broken] = agent_files.find([tmp_path / "there.toml"]).broken
    assert str(broken.problems[0]).startswith(f"{tmp_path}: others than its owner may write it")
    assert "chmod" not in str(broken.problems[0])


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """It could not be written down who manages the agent."""
    (tmp_path / os.fsdecode(b"\xff.toml")).write_text('folder = "x"')
    assert [broken.problems[0].what for broken in agent_files.find([tmp_path]).broken] == ["its name is not UTF-8"]


def test_more_files_than_anybody_has_are_refused(tmp_path: Path) -> None:
    for number in range(agent_files.FILES_MAX + 1):
        (tmp_path / f"{number}.toml").touch()
    with pytest.raises(ConfigurationError, match="1001 files are more than 1000, the most here"):
        agent_files.find([tmp_path])
    assert agent_file.FILE_BYTES_MAX == 16_384
