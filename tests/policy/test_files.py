"""A policy that somebody else could have written is not used."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from runagentd.errors import ConfigurationError
from runagentd.policy.files import find, untrusted


def policy_file(folder: Path, text: str = "version = 1\n", *, mode: int = 0o644) -> Path:
    """A policy file with exactly this mode, whatever the umask."""
    path = folder / "web.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def refusal(path: Path) -> str:
    """What `find` says of a file, without the path."""
    with pytest.raises(ConfigurationError) as caught:
        find(str(path))
    (problem,) = caught.value.problems
    return problem.what


def status(*, mode: int = stat.S_IFREG | 0o644, uid: int = 0, size: int = 10) -> os.stat_result:
    """The status of a file."""
    return os.stat_result((mode, 1, 1, 1, uid, 0, size, 0, 0, 0))


def test_an_operators_file_is_found_by_its_path(tmp_path: Path) -> None:
    """The policy is called by that path."""
    path = policy_file(tmp_path)
    assert find(str(path)).name == str(path)


def test_a_shipped_policy_is_found_by_its_name() -> None:
    """From whatever folder."""
    assert find("tools").name == "tools"
    assert dict(find("tools").origins)["process.exec"] == "policies/tools.toml"


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    """Also below something that is no folder."""
    assert refusal(tmp_path / "absent.toml") == "no such file"
    assert refusal(policy_file(tmp_path) / "below.toml") == "no such file"


def test_a_name_that_is_not_shipped_is_met_with_those_that_are() -> None:
    """And with the way to write a file of that name."""
    with pytest.raises(ConfigurationError) as caught:
        find("tool")
    assert str(caught.value) == (
        '"tool": no such shipped policy\n'
        "hint: did you mean tools?\n"
        "hint: the shipped policies are base, compute, persistent, tools; write ./tool for a file"
    )


def test_the_table_of_system_calls_is_not_a_policy() -> None:
    """Though it lies beside them."""
    with pytest.raises(ConfigurationError, match="no such shipped policy"):
        find("syscalls")


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    """Its group, or everybody."""
    what = "others than its owner may write it, and so change what a sandbox allows"
    assert refusal(policy_file(tmp_path, mode=mode)) == what


def test_a_file_of_another_user_is_refused() -> None:
    """Root's file and one's own are fine; root does not use a user's."""
    assert untrusted(status(uid=0), caller=1000) is None
    assert untrusted(status(uid=1000), caller=1000) is None
    for caller in (0, 1001):
        refused = untrusted(status(uid=1000), caller=caller)
        assert refused is not None
        assert refused.what == "belongs to uid 1000, who could change what a sandbox allows"
        assert refused.hints == (f"read it, then run chown {caller} on it",)


@pytest.mark.root
def test_root_refuses_a_users_file(tmp_path: Path) -> None:
    """The real thing."""
    path = policy_file(tmp_path)
    os.chown(path, 12345, 12345)
    assert refusal(path) == "belongs to uid 12345, who could change what a sandbox allows"


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    """A FIFO would otherwise keep the supervisor waiting for a writer."""
    os.mkfifo(tmp_path / "fifo.toml")
    assert refusal(tmp_path / "fifo.toml") == "not a regular file"
    assert refusal(tmp_path) == "not a regular file"
    assert refusal(Path("/dev/zero")) == "not a regular file"


def test_a_file_of_64_kib_is_read_and_a_larger_one_is_not(tmp_path: Path) -> None:
    """A bound on what TOML costs."""
    text = "version = 1\n#"
    path = policy_file(tmp_path, text + "x" * (65536 - len(text)))
    assert find(str(path)).name == str(path)
    assert refusal(policy_file(tmp_path, text + "x" * (65537 - len(text)))) == "larger than 64KiB, the most here"


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """Neither by a refusal nor by a success."""
    before = os.listdir("/proc/self/fd")
    find(str(policy_file(tmp_path)))
    refusal(tmp_path)
    refusal(policy_file(tmp_path, mode=0o666))
    assert os.listdir("/proc/self/fd") == before


def test_a_parent_is_checked_like_the_policy_itself(tmp_path: Path) -> None:
    """Otherwise whoever may write the parent decides."""
    parent = tmp_path / "parent.toml"
    parent.write_text("version = 1\n")
    parent.chmod(0o666)
    path = policy_file(tmp_path, 'version = 1\nextends = "parent.toml"\n')
    with pytest.raises(ConfigurationError) as caught:
        find(str(path))
    assert str(caught.value) == (
        f'{path}: extends: "parent.toml": others than its owner may write it, and so change what a sandbox allows\n'
        "hint: read it, then run chmod go-w on it"
    )
