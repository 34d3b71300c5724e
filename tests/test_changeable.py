"""Who but its owner decides what lies at a path, seen with real folders, links and owners."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runagentd import changeable
from runagentd.config import agent_files
from runagentd.errors import ConfigurationError
from runagentd.policy.files import find
from tests import ways
from tests.ways import NOBODYS

pytestmark = pytest.mark.root

ROOT = (0,)


@pytest.fixture
def way(tmp_path: Path) -> Path:
    """A file below two folders, all of them root's alone."""
    return ways.of_roots(tmp_path, "file", "version = 1\n")


def test_a_way_of_roots_own_is_nobody_elses(way: Path) -> None:
    """Up to the root; /tmp, which everybody may write, is sticky."""
    assert changeable.on_the_way(str(way), ROOT) == ("", "")
    assert changeable.on_the_way("/", ROOT) == ("", "")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda folder: os.chown(folder, NOBODYS, -1), "belongs to uid 12345"),
        (lambda folder: folder.chmod(0o775), "can be written by others than its owner"),
        (lambda folder: folder.chmod(0o757), "can be written by others than its owner"),
        (lambda folder: folder.chmod(0o1777), ""),
        (lambda folder: os.chown(folder, -1, NOBODYS), ""),
    ],
    ids=["owner", "group", "others", "sticky", "a group that may not write"],
)
@pytest.mark.parametrize("level", [0, 1])
def test_a_folder_in_which_others_can_exchange_an_entry_is_named(
    way: Path, change: Callable[[Path], None], why: str, level: int
) -> None:
    """Whether the file lies in it or a folder of its way does."""
    folder = way.parents[level]
    change(folder)
    assert changeable.on_the_way(str(way), ROOT) == ((str(folder), why) if why else ("", ""))


def test_who_may_own_the_way_is_the_callers_to_say(way: Path) -> None:
    os.chown(way.parent, NOBODYS, -1)
    assert changeable.on_the_way(str(way), (0, NOBODYS)) == ("", "")


def test_what_a_link_leads_through_is_on_the_way(tmp_path: Path, way: Path) -> None:
    """Both the folder that the link lies in and those that it leads to; also where the path goes back by `..`."""
    others = tmp_path / "others"
    others.mkdir()
    os.chown(others, NOBODYS, -1)
    (others / "link").symlink_to(way.parent)
    expected = (str(others), "belongs to uid 12345")
    assert changeable.on_the_way(f"{others}/link/file", ROOT) == expected
    (tmp_path / "through").symlink_to("others/link")
    assert changeable.on_the_way(f"{tmp_path}/through/file", ROOT) == expected
    assert changeable.on_the_way(f"{others}/../upper/lower/file", ROOT) == expected
    (tmp_path / "direct").symlink_to(way.parent)
    assert changeable.on_the_way(f"{tmp_path}/direct/file", ROOT) == ("", "")
    way.parent.parent.chmod(0o777)
    assert changeable.on_the_way(f"{tmp_path}/direct/file", ROOT)[0] == str(way.parent.parent)


def test_a_link_of_somebody_elses_in_a_sticky_folder_is_named(tmp_path: Path, way: Path) -> None:
    """It can be led elsewhere at any time, whoever owns what it leads to now."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    link = shared / "link"
    link.symlink_to(way.parent)
    assert changeable.on_the_way(str(link / "file"), ROOT) == ("", "")
    os.chown(link, NOBODYS, -1, follow_symlinks=False)
    assert changeable.on_the_way(str(link / "file"), ROOT) == (str(link), "belongs to uid 12345")


def test_a_way_that_leads_nowhere_ends(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="Too many levels") as caught:
        changeable.on_the_way(f"{tmp_path}/loop/file", ROOT)
    assert caught.value.errno == errno.ELOOP
    with pytest.raises(FileNotFoundError):
        changeable.on_the_way(f"{tmp_path}/absent/file", ROOT)


def test_a_policy_below_a_folder_of_others_is_refused(way: Path) -> None:
    """However well its own file is kept: its folder can be exchanged for another."""
    policy = way.rename(way.with_name("web.toml"))
    find(str(policy))
    upper = policy.parents[1]
    upper.chmod(0o777)
    with pytest.raises(ConfigurationError) as caught:
        find(str(policy))
    [problem] = caught.value.problems
    assert problem.what == (
        f"the way to it leads through {upper}, which can be written by others than its owner: "
        "others could change what a sandbox allows"
    )
    assert problem.hints == (f"run chown root and chmod go-w on {upper}, or keep the file elsewhere",)


def test_a_strangers_link_is_not_to_be_owned_by_root_but_to_be_left_out(way: Path, tmp_path: Path) -> None:
    """chown(1) would follow it: what root owned then would be the stranger's choice."""
    sticky = tmp_path / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    link = sticky / "web.toml"
    link.symlink_to(way)
    os.chown(link, NOBODYS, -1, follow_symlinks=False)
    with pytest.raises(ConfigurationError) as caught:
        find(str(link))
    [problem] = caught.value.problems
    assert problem.hints == ("name the file itself, and not by this link",)


def test_agent_files_below_a_folder_of_others_are_refused(way: Path) -> None:
    """The whole folder where it was named, and each single file."""
    file = way.rename(way.with_name("chat.toml"))
    file.write_text('folder = "/srv/chat"\n')
    assert [found.path for found in agent_files.find([file.parent]).files] == [file]
    upper = file.parents[1]
    os.chown(upper, NOBODYS, -1)
    words = (
        f"{upper}: belongs to uid 12345, and the way to {file.parent} leads through it: another agent could be served\n"
        "hint: have root own it and nobody else write it (chown root, chmod go-w), or keep the files elsewhere"
    )
    with pytest.raises(ConfigurationError) as caught:
        agent_files.find([file.parent])
    assert str(caught.value) == words
    [broken] = agent_files.find([file]).broken
    assert "\n".join(map(str, broken.problems)) == words
