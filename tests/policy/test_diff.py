"""`runagentctl policy diff`: what a person reads, and what a script goes by."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from runagentd.cli.policy_commands import diff
from runagentd.policy.files import shipped_names

GOLDEN = Path(__file__).parent / "diffs.txt"


def written(path: Path, text: str) -> str:
    path.write_text(f"version = 1\n{text}")
    path.chmod(0o600)
    return str(path)


def test_the_shipped_policies_against_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    """Every pair, in tests/policy/diffs.txt; a shipped policy that grants more is a visible change there."""
    shown = []
    for a, b in itertools.permutations(shipped_names(), 2):
        status = diff(a, b, json=False)
        shown.append(f"$ runagentctl policy diff {a} {b}\n{capsys.readouterr().out}exit status {status}\n")
    assert "\n".join(shown) == GOLDEN.read_text()


def test_a_policy_and_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, and exit status 0."""
    assert diff("base", "base", json=False) == 0
    assert capsys.readouterr().out == "base allows nothing that base does not\n"


def test_narrower_is_no_reason_to_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 0, the key is shown with who set it."""
    path = written(tmp_path / "web.toml", "[calls]\nqueue = 8\n")
    assert diff("base", path, json=False) == 0
    assert capsys.readouterr().out == (
        f"narrower  calls.queue  64 (policies/base.toml)  ->  8 ({path})\n{path} allows nothing that base does not\n"
    )


def test_another_folder_counts_as_wider(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Though fewer files may lie in it: nobody can tell from the path."""
    one = written(tmp_path / "one.toml", '[files]\nread = ["/srv"]\n')
    other = written(tmp_path / "other.toml", '[files]\nread = ["/srv/words"]\n')
    assert diff(one, other, json=False) == 1
    assert capsys.readouterr().out == (
        f'other  files.read  ["/srv"] ({one})  ->  ["/srv/words"] ({other})\n'
        f"{other} is wider than {one} in 1 key (1 of them other: neither contains the other)\n"
    )


def test_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object."""
    path = written(tmp_path / "web.toml", '[resources]\nmemory_max = "512MiB"\n')
    assert diff("base", path, json=True) == 1
    assert json.loads(capsys.readouterr().out) == {
        "ok": True,
        "a": "base",
        "b": path,
        "wider": True,
        "keys": [
            {
                "key": "resources.memory_max",
                "relation": "wider",
                "a": {"value": '"256MiB"', "origin": "policies/base.toml"},
                "b": {"value": '"512MiB"', "origin": path},
            }
        ],
    }


@pytest.mark.parametrize("as_json", [False, True])
def test_a_policy_that_cannot_be_used_is_neither_answer(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, as diff(1) has it: a script that lets 0 pass lets nothing through that could not be compared."""
    assert diff("base", "absent", json=as_json) == 2
    captured = capsys.readouterr()
    if as_json:
        assert json.loads(captured.out)["ok"] is False
    else:
        assert captured.out == ""
        assert captured.err.startswith('"absent": no such shipped policy\n')
