"""Nothing is skipped unseen: what `make test` does with skips and expected failures."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.skips import AllowedSkip, parse

ROOT = Path(__file__).resolve().parent.parent

SAMPLE = """
import pytest

def test_passes():
    pass

@pytest.mark.skip(reason="no such kernel")
def test_skips():
    pass

@pytest.mark.parametrize("tree", ["v1", "v2"])
def test_skips_one(tree):
    if tree == "v2":
        pytest.skip("needs v2")

@pytest.mark.xfail(reason="later", strict=True)
def test_expected_to_fail():
    raise ValueError
"""


def judge(tmp_path: Path, allowed: str, sample: str = SAMPLE) -> tuple[int, list[str]]:
    """Run `sample` under this project's conftest with RUNAGENTD_MUST_RUN=1; status, and the lines about skips."""
    (tmp_path / "test_sample.py").write_text(sample)
    (tmp_path / "skips.toml").write_text(allowed)
    environment = {**os.environ, "RUNAGENTD_MUST_RUN": "1", "RUNAGENTD_SKIPS": str(tmp_path / "skips.toml")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
    ]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), "-c", os.devnull, str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, re.findall(r"^test_sample.*?: .*$", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_an_unlisted_skip_or_xfail_fails_the_session(tmp_path: Path) -> None:
    """Nothing listed: exit status 1, and each skip is named with its reason."""
    assert judge(tmp_path, "") == (
        1,
        [
            "test_sample.py::test_skips: Skipped: no such kernel",
            "test_sample.py::test_skips_one[v2]: Skipped: needs v2",
            "test_sample.py::test_expected_to_fail: expected to fail: later",
        ],
    )


@pytest.mark.slow
def test_a_listed_skip_passes_and_a_stale_entry_is_reported(tmp_path: Path) -> None:
    """All listed: exit status 0; the entry for a test that ran is named."""
    allowed = """
    skip = [
        { test = "test_sample.py::test_skips", reason = "a" },
        { test = "test_sample.py::test_skips_one[v2]", reason = "b" },
        { test = "*::test_expected_to_fail", reason = "c" },
        { test = "test_sample.py::test_passes", reason = "it ran" },
    ]
    """
    assert judge(tmp_path, allowed) == (0, ["test_sample.py::test_passes: it ran"])


@pytest.mark.slow
def test_a_module_that_skips_itself_fails_the_session(tmp_path: Path) -> None:
    """A skip while collecting counts like any other."""
    sample = "import pytest\npytest.skip('not here', allow_module_level=True)\n"
    status, lines = judge(tmp_path, "", sample)
    assert status != 0
    assert lines == ["test_sample.py: Skipped: not here"]


@pytest.mark.parametrize(
    "text",
    [
        '[[skip]]\ntest = "a"',
        '[[skip]]\ntest = "a"\nreason = " "',
        '[[skip]]\ntest = "a"\nreason = "b"\nuntil = "c"',
        '[[skips]]\ntest = "a"\nreason = "b"',
    ],
)
def test_an_entry_without_a_reason_is_refused(text: str) -> None:
    """`test` and `reason` are both needed, and nothing else is known."""
    with pytest.raises(ValueError, match=r"^tests/skips.toml: "):
        parse(text)


def test_brackets_in_an_entry_are_literal() -> None:
    """Ids of parametrised tests have brackets; they match themselves only."""
    entry = AllowedSkip(test="t.py::test_a[v2]", reason="r")
    assert entry.covers("t.py::test_a[v2]")
    assert not entry.covers("t.py::test_av")
