"""An effective policy as a person reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runagentd.cli.policy_commands import check
from runagentd.policy.files import find
from runagentd.policy.keys import KEYS
from runagentd.policy.render import rows, summary, wider_than_default


def test_a_row_has_the_key_its_value_who_set_it_and_what_it_means() -> None:
    """One per key, in the order of the table."""
    found = rows(find("compute"))
    assert [row.key for row in found] == [key.name for key in KEYS]
    key, value, origin, meaning = found[13]
    assert (key, value, origin) == ("resources.memory_max", '"1GiB"', "policies/compute.toml")
    assert meaning.startswith("How much memory the instance may use")


def test_what_a_policy_grants_beyond_the_default() -> None:
    """What a reviewer wants to see first."""
    assert wider_than_default(find("tools")) == ["files.runtime", "process.exec", "resources.pids_max"]
    assert wider_than_default(find("base")) == []


def test_the_summary_marks_what_is_wider() -> None:
    """One line a key, in columns."""
    lines = summary(find("persistent")).splitlines()
    assert lines[2] == "+ files.persistent            true        policies/persistent.toml"
    assert lines[3] == '  files.app_size              "64MiB"     default'
    assert len(lines) == len(KEYS)


def test_check_says_ok_and_what_the_policy_comes_to(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 0."""
    assert check("tools", json=False) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("ok: tools (+ marks what is wider than the default)\n")
    assert captured.err == ""


def test_check_says_every_problem_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1, and nothing on stdout for a script to take for an answer."""
    path = tmp_path / "web.toml"
    path.write_text('version = 1\n[calls]\nqueue = -1\n[syscalls]\ngroups = ["io_uring"]\n')
    path.chmod(0o600)
    assert check(str(path), json=False) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"{path}: calls.queue: -1 is less than 0, the least here\n"
        f'{path}: syscalls.groups[0]: "io_uring" is not a group that a policy can add\n'
        "hint: write one of inotify, landlock, memfd, mlock, sched, splice\n"
    )


def test_check_as_json_is_one_object_in_both_cases(capsys: pytest.CaptureFixture[str]) -> None:
    """So that a script need not read two forms."""
    assert check("persistent", json=True) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["ok"], answer["policy"]) == (True, "persistent")
    assert answer["keys"][2] == {
        "key": "files.persistent",
        "value": "true",
        "origin": "policies/persistent.toml",
        "wider_than_default": True,
    }
    assert check("absent", json=True) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert answer["problems"][0]["where"] == '"absent"'
    assert answer["problems"][0]["what"] == "no such shipped policy"
