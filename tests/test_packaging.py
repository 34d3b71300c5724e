"""What reaches a machine that installs a wheel, and what the locks hold."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-browser.lock")
PEERS = tuple(sorted(str(path.relative_to(ROOT)) for path in (ROOT / "benchmarks/locks").glob("*.lock")))
FUZZ = "requirements-fuzz.lock"


def pins(lock: str) -> dict[str, str]:
    """Name and version of each line of a lock that starts a requirement."""
    text = (ROOT / lock).read_text()
    return dict(re.findall(r"^([a-z0-9.-]+)==([^\s;]+)", text, re.MULTILINE))


@pytest.mark.slow
def test_a_wheel_works_without_its_checkout(tmp_path: Path) -> None:
    """It holds the package and, as runagentd/_policies, every shipped policy; it finds them there; and nothing else."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, capture_output=True, timeout=60, check=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    assert {name.split("/")[0] for name in names} == {"runagentd", "runagentd-0.1.0.dist-info"}
    policies = {f"runagentd/_policies/{path.name}" for path in (ROOT / "policies").glob("*.toml")}
    assert {"runagentd/_policies/base.toml", "runagentd/_policies/syscalls.toml"} <= policies
    assert policies <= names

    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from runagentd.plan import syscalls\n"
        "from runagentd.policy import files\n"
        "syscalls.shipped_table(); print(files.find('base').name, files.shipped_folder())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(tmp_path / "installed")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == f"base {tmp_path}/installed/runagentd/_policies\n"


@pytest.mark.parametrize("lock", [*LOCKS, *PEERS, FUZZ])
def test_a_lock_holds_versions_and_hashes_only(lock: str) -> None:
    """Every line is a pinned requirement or a SHA-256: no index, no URL, no path, no option."""
    pattern = re.compile(r"([a-z0-9.-]+==\S+( ; [^\\]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?)")
    assert [line for line in (ROOT / lock).read_text().splitlines() if not pattern.fullmatch(line)] == []


def test_the_locks_agree_and_hold_what_pyproject_asks_for() -> None:
    """One version of each package in all of them; the tests' lock holds what runs, the browser's the tests'."""
    running, testing, browsing = (pins(lock) for lock in LOCKS)
    assert running.items() <= testing.items() <= browsing.items()

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[<>=!\[]", requirement)[0] for requirement in requirements}

    assert names(project["project"]["dependencies"]) | names(groups["build"]) <= running.keys()
    assert names(groups["dev"]) <= testing.keys()
    assert names(groups["browser"]) <= browsing.keys()
    # What is measured beside has environments of its own, where nothing has to agree with ours.
    asked = {f"benchmarks/locks/{group.removeprefix('peer-')}.lock" for group in groups if group.startswith("peer-")}
    assert asked == set(PEERS) != set()
    for lock in PEERS:
        assert names(groups[f"peer-{Path(lock).stem}"]) <= pins(lock).keys()
