"""What docs/runagent-clients.md tells a reader to paste works as it is printed there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compat.runagent_client import PYTHON
from tests.system.daemon import ROOT, serve

AGENT = """
def greet(name: str) -> str:
    return f"Hello {name}!"


def count_stream(to: int):
    yield from range(1, to + 1)
"""
CONFIGURATION = {
    "agent_name": "hello",
    "agent_architecture": {
        "entrypoints": [
            {"file": "run.py", "module": "greet", "tag": "greet"},
            {"file": "run.py", "module": "count_stream", "tag": "count_stream"},
        ]
    },
}


@pytest.mark.root
@pytest.mark.kernel
@pytest.mark.slow
def test_the_documented_lines_work_when_pasted(tmp_path: Path) -> None:
    """With the address that this daemon has got, and runagentctl as it is called here."""
    if not PYTHON.exists():
        pytest.skip("needs .venv-compat: make compat")
    text = (ROOT / "docs/runagent-clients.md").read_text()
    [exports] = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    [program] = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    folder = tmp_path / "hello"
    folder.mkdir()
    (folder / "run.py").write_text(AGENT)
    (folder / "runagent.config.json").write_text(json.dumps(CONFIGURATION))
    (tmp_path / "program.py").write_text(program)
    with serve([folder]) as daemon:
        for printed, here in (
            ("http://127.0.0.1:8450", daemon.url),
            # What it installs is in .venv-compat already, with hashes.
            ("python3 -m venv client && client/bin/pip install runagent==0.1.49\n", ""),
            ("$(runagentctl ", f"$({sys.executable} -m runagentd.cli.runagentctl "),
            ("token create", f"token create --state-dir {daemon.state_dir}"),
        ):
            assert exports.count(printed) == 1
            exports = exports.replace(printed, here)
        done = subprocess.run(
            ["sh", "-euc", f"{exports}\ncd {tmp_path}\nexec {PYTHON} program.py"],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8", "GIT_PYTHON_REFRESH": "quiet"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    # The library tells what it does in between.
    assert [line for line in done.stdout.splitlines() if line in ("Hello you!", "1", "2", "3")] == [
        "Hello you!", "1", "2", "3"
    ]  # fmt: skip
